# SPDX-License-Identifier: GPL-2.0-only
"""The mail-ready series: git format-patch, and b4 to see that it applies."""
import email.utils
import glob
import mailbox
import os
import re
import shutil
import time

import base as kernel_base
import bench
import tree
from common import BUILD, Fail, LINUX, TOP, export, git, read, run, two_at_once, write

OUT = os.path.join(BUILD, "series")
RELEASE = os.path.join(TOP, "release")
RELEASED = ["split-reserve", "reserve"]
# Besides those whom get_maintainer.pl names.
RECIPIENTS = "series/recipients"
SECTIONS = ["\nKERNEL PROTECTION KEYS (KPKEYS)\n", "\nPAGE TABLE SPLIT RESERVE\n"]


def identity():
    name, email = os.environ.get("GIT_IDENT_NAME"), os.environ.get("GIT_IDENT_EMAIL")
    if not name or not email:
        raise Fail("the series is signed by you, and git knows no identity: "
                   "git config --global user.name '...', user.email '...'")
    return name, email


def _number(name, default, valid):
    value = os.environ.get(name) or default
    if not re.fullmatch(r"[1-9]\d*", value):
        raise Fail(f"{name}={value} is not a number")
    if int(value) not in valid:
        raise Fail(f"{name}={value} is not one of {valid.start} to {valid.stop - 1}")
    return int(value)


def asked(stack, rfc="0"):
    """What the variables of make ask for, as arguments of make(); @rfc: if RFC is not set."""
    n = len(tree.stack(stack))
    first = _number("FIRST", "1", range(1, n + 1))
    last = _number("LAST", str(n), range(first, n + 1))
    version = str(_number("VERSION", "1", range(1, 1000)))
    rfc = os.environ.get("RFC") or rfc
    if rfc not in ("0", "1"):
        raise Fail(f"RFC={rfc} is unknown; RFC=1 marks the mails as RFC")
    recipients()
    return {"who": identity(), "version": version, "rfc": rfc == "1", "first": first, "last": last}


def recipients(top=TOP):
    """[("To" or "Cc", "Name <address>")] of the file of recipients."""
    found = []
    if os.path.exists(os.path.join(top, RECIPIENTS)):
        with open(os.path.join(top, RECIPIENTS)) as f:
            for n, line in enumerate(f, 1):
                m = re.fullmatch(r"(To|Cc): ([^<>@,]* <[^<>@\s,]+@[^<>@\s,]+\.[^<>@\s,]+>)\n?", line)
                if m:
                    found.append(m.groups())
                elif line.strip() and not line.startswith("#"):
                    raise Fail(f"{RECIPIENTS}:{n}: '{line.strip()}' is neither 'To: Name <address>' nor "
                               "'Cc: Name <address>': mend or remove the line")
    return found


ASKED = {}


def _people(paths):
    """The headers To and Cc for these patches, as MAINTAINERS of the series' own tree says."""
    changes = ""
    for path in paths:
        # Nothing that names commits, the sender or the tool, for whom the answer is the same.
        diff = read(path).partition("\ndiff --git ")[2].partition("\n-- \n")[0].rstrip()
        changes += re.sub(r"^(?:index |.M:\t).*\n", "", diff, flags=re.M)
    if changes not in ASKED:
        ASKED[changes] = _ask_people(paths)
    return ASKED[changes]


def _ask_people(paths):
    out = run(["scripts/get_maintainer.pl", "--nogit", "--nogit-fallback", "--roles", "--norolestats", *paths],
              cwd=LINUX, log="series")
    # Somebody (maintainer:THIS), list@example.org (open list:THAT)
    found = re.findall(r"^(.*@.*?) \((.*)\)$", out, re.M)
    lists = [who for who, role in found if re.match(r"(\w+ )?list\b", role)]
    people = [who for who, _ in found if who not in lists]
    return {"To": people, "Cc": lists}


def _address(path, mails, more):
    """A mail about files that nobody maintains goes to all whom the others go to."""
    people = _people([path] if path in mails else mails)
    if not people["To"]:
        people = _people(mails)
    to = {name: list(who) for name, who in people.items()}
    for name, who in more:
        if not any(re.search(r"\S+@\S+", who)[0].strip("<>") in known for known in to["To"] + to["Cc"]):
            to[name].append(who)
    people = "".join(f"{name}: " + ",\n ".join(who) + "\n" for name, who in to.items() if who)
    head, blank, body = read(path).partition("\n\n")
    write(path, head + "\n" + people.rstrip("\n") + blank + body)


BLOBS = {}


def with_maintainer(commit, who):
    """The tree of @commit, in which who sends the series maintains what it adds."""
    listing = git("ls-tree", commit)
    old = re.search(r"^100644 blob (\w+)\tMAINTAINERS$", listing, re.M)[1]
    if (old, who) not in BLOBS:
        text = git("cat-file", "blob", old)
        for section in SECTIONS:
            text = text.replace(section, section + f"M:\t{who[0]} <{who[1]}>\n")
        BLOBS[old, who] = git("hash-object", "-w", "--stdin", stdin=text).strip()
    return git("mktree", stdin=listing.replace(old, BLOBS[old, who])).strip()


def _cover(stack, top, first, last, n):
    """Subject, body and change-id of the cover letter."""
    own = os.path.join(top, f"series/cover-letter-{stack}")
    subject, _, body = read(own if os.path.exists(own) else os.path.join(top, "series/cover-letter")).partition("\n")
    subject = subject.removeprefix("Subject: ")
    body, _, change_id = body.rpartition("\nchange-id: ")
    for mark, table in (("@COST@", bench.cost), ("@COST-RESERVE@", bench.cost_of_reserve)):
        if mark in body:
            body = body.replace(mark, table(top))
    if (first, last) != (1, n):
        subject += f", patches {first}-{last}"
        body = (f"These are patches {first}-{last} of a series of {n}, which this letter describes as a whole. "
                + (f"They\napply on top of patches 1-{first - 1}." if first > 1 else "") + "\n\n" + body.strip())
    if re.search(r"^From ", body, re.M):
        raise Fail("a line of the cover letter begins with 'From ', which ends a mail in an mbox: write it another way")
    return subject, body.strip(), change_id.strip()


def make(stack, version="1", who=None, top=TOP, rfc=False, first=1, last=None, date=None):
    """Write the series as files and as an mbox; returns the path of the mbox.

    @top is this repository, or another version of it. With @date, in seconds, it is the release of a version: not
    signed off, and the same whenever and wherever it is made.
    """
    name, email_ = who = who or identity()
    patches, more = tree.stack(stack, top), recipients(top)
    last = last or len(patches)
    out = os.path.join(OUT, f"{stack}-v{version}" + (f"-{first}-{last}" if (first, last) != (1, len(patches)) else "") +
                       ("-release" if date else ""))
    ident = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER")
             for what, value in (("NAME", name), ("EMAIL", email_), *([("DATE", f"@{date} +0000")] if date else []))}

    # The commits once more, with the user as the author.
    base = git("rev-parse", "origin/base").strip()
    commits, signed = [base], [] if date else ["--trailer", f"Signed-off-by: {name} <{email_}>"]
    for p, old in zip(patches, git("rev-list", "--reverse", f"{base}..{tree.assemble(stack, top=top)}").split()):
        message = git("interpret-trailers", "--no-divider", *signed, stdin=p.message())
        commits.append(git("commit-tree", with_maintainer(old, who), "-p", commits[-1], env=ident,
                           stdin=message).strip())
    shutil.rmtree(out, ignore_errors=True)
    subject, body, change_id = _cover(stack, top, first, last, len(patches))
    git("format-patch", "-q", "--abbrev=12", "--diff-algorithm=histogram", "--cover-letter", "--thread=shallow", f"-v{version}",
        f"--subject-prefix={'RFC ' if rfc else ''}PATCH", *(["--no-signature"] if date else []),
        *([f"--base={base}"] if kernel_base.OWN and not date else []),
        "-o", out, f"{commits[first - 1]}..{commits[last]}", env=ident)
    cover, = [os.path.join(out, n) for n in os.listdir(out) if "-0000-cover-letter" in n]
    text = read(cover)
    text = text.replace("*** SUBJECT HERE ***", subject)
    text = text.replace("*** BLURB HERE ***", f"{body}\n\nBased on {git('log', '-1', '--format=%s', base).strip()}.")
    # Only the base of a user's own tree is a commit that others can have.
    sign = "" if date else "\n-- \n" + text.rpartition("\n-- \n")[2]
    text = text.removesuffix(sign).rstrip() + f"\n\nchange-id: {change_id}\n" + sign
    write(cover, text)
    mails = sorted(glob.glob(out + "/*.patch"))
    two_at_once(lambda mail: _people([mail]), mails[1:])    # they are known then
    for mail in mails:
        _address(mail, mails[1:], more)
        if date:
            text = read(mail)
            write(mail, re.sub(r"(?<=\.)\d+(?=\.git\.)", str(date), text))
    return _join(out + ".mbox", mails)


def _join(path, mails):
    with open(path, "w") as m:
        for mail in mails:
            m.write(read(mail) + "\n")
    return path


def _release(stack, version, rfc, who, date):
    """Cover letter and patches of a release, as texts: without the former in front, "git am" takes the latter."""
    folder = os.path.splitext(make(stack, version, who, rfc=rfc, date=date))[0]
    cover, *mails = sorted(glob.glob(folder + "/*.patch"))
    texts = []
    for path in _join(folder + ".cover", [cover]), _join(folder + ".mbx", mails):
        texts.append(read(path))
    return texts


def _paths(stack, version):
    return [os.path.join(RELEASE, f"{stack}-v{version}.{kind}") for kind in ("cover", "mbx")]


def released(stack):
    """The newest version in release/: its number, whether it is an RFC, who made it, when; or None."""
    found = [int(m[1]) for m in (re.fullmatch(rf"{stack}-v(\d+)\.mbx", n) for n in
                                 (os.listdir(RELEASE) if os.path.isdir(RELEASE) else [])) if m]
    if not found:
        return None
    mail = mailbox.mbox(_paths(stack, max(found))[1])[0]
    return {"version": str(max(found)), "rfc": mail["Subject"].startswith("[RFC "),
            "who": email.utils.parseaddr(mail["From"]),
            "date": int(email.utils.parsedate_to_datetime(mail["Date"]).timestamp())}


def _differs(stack, asked_):
    """Is the release in the repository another than this?"""
    for path, text in zip(_paths(stack, asked_["version"]), _release(stack, **asked_)):
        if not os.path.exists(path):
            return True
        with open(path) as f:
            if f.read() != text:
                return True
    return False


def release(stack, version, rfc):
    """Write a version to release/, if what is there is another; returns the paths."""
    new, old = {"version": version, "rfc": rfc, "who": identity()}, released(stack)
    if not old or old["version"] != version or _differs(stack, {**new, "date": old["date"]}):
        os.makedirs(RELEASE, exist_ok=True)
        for path, text in zip(_paths(stack, version), _release(stack, **new, date=int(time.time()))):
            write(path, text)
    return _paths(stack, version)


def stale(stack):
    """None, or what is wrong with the newest version in release/."""
    old = released(stack)
    if not old:
        return f"release/ has no version of {stack}: make release"
    if _differs(stack, old):
        version = int(old["version"])
        return f"release/{stack}-v{version}.mbx is not what series/ gives: 'make release V={version}', or " \
               f"V={version + 1} if version {version} has been sent"
    return applies(stack, _paths(stack, old["version"])[1], "git", old["who"])


def _msgid(mbox):
    return re.search(r"^Message-ID: <(.+)>$", read(mbox), re.M | re.I)[1]


def _b4(cwd, *args):
    """b4 without a network, and without the user's configuration."""
    home = os.path.join(BUILD, "b4")
    os.makedirs(home, exist_ok=True)
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER")
           for what, value in (("NAME", "b4"), ("EMAIL", "b4@localhost"))}
    return run(["b4", "--offline-mode", *args], cwd=cwd, env=dict(who, HOME=home, GIT_CONFIG_COUNT="0"),
               log="b4", check=False, stdin="")


def applies(stack, mbox, how, who):
    """None if @how (b4's "am" or "shazam", or "git" am) makes of the mbox, on the base, what our tree is.

    Byte for byte, with the line in MAINTAINERS that names who sends it.
    """
    home = os.path.join(BUILD, "b4")
    shutil.rmtree(home, ignore_errors=True)
    copy = os.path.join(home, "linux")
    # Of the files only those that the series touches, or all that git would do is to write the others.
    git("clone", "-q", "--shared", "--no-checkout", LINUX, copy, cwd=BUILD)
    git("sparse-checkout", "set", "--no-cone", "--stdin", cwd=copy,
        stdin=git("diff", "--name-only", "--no-renames", "origin/base", tree.assemble(stack)))
    git("checkout", "-q", "--detach", git("rev-parse", "origin/base").strip(), cwd=copy)
    us = {"GIT_COMMITTER_NAME": "b4", "GIT_COMMITTER_EMAIL": "b4@localhost"}
    try:
        if how == "git":
            out = git("am", mbox, cwd=copy, log="b4", env=us)
        elif how == "shazam":
            out = _b4(copy, "shazam", "-m", mbox, _msgid(mbox))
        else:
            out = _b4(copy, "am", "-m", mbox, "-o", home, _msgid(mbox))
            mbx = glob.glob(home + "/*.mbx")
            if not mbx:
                return f"b4 am: {out.strip().splitlines()[-1]}"
            git("am", "-q", mbx[0], cwd=copy, log="b4", env=us)
        same = git("rev-parse", "HEAD^{tree}", cwd=copy).strip() == with_maintainer(tree.assemble(stack), who)
        return None if same else f"{how} gives another tree: {out.strip().splitlines()[-1]}"
    except Fail as e:
        return str(e)
    finally:
        shutil.rmtree(copy)


def compare(mbox, other):
    """How b4 diff finds the patches of one mbox in the other: a mark of range-diff each, "=" for the same."""
    out = _b4(LINUX, "diff", "-m", mbox, other)
    marks = re.findall(r"^(?:\x1b\[[\d;]*m)?\s*(?:\d+|-+):\s+\S+ (?:\x1b\[[\d;]*m)*([=!<>])", out, re.M)
    if not marks:
        raise Fail(f"b4 diff: {out.strip().splitlines()[-1]}")
    return marks


def at_revision(revision):
    """This repository as it was at a revision, to make an old version of the series from."""
    return export(TOP, revision, os.path.join(BUILD, "series-since"))


def known(revision):
    out = run(["git", "-c", "safe.directory=*", "-C", TOP, "rev-parse", "-q", "--verify", revision + "^{commit}"],
              check=False)
    return re.fullmatch(r"[0-9a-f]{40,}", out.strip()) is not None


def changes(stack, mbox, version, **how):
    """Compare with the version before, which is a tag (v1, v2, ...) or SINCE; returns the lines to print."""
    before, since = str(int(version) - 1), os.environ.get("SINCE")
    if since and not known(since):
        raise Fail(f"SINCE={since} is no revision of this repository")
    since = since or f"v{before}"
    if before == "0":
        return []
    said = []
    with open(os.path.join(TOP, "series/cover-letter")) as f:
        if not re.search(rf"^Changes in v{version}:", f.read(), re.M):
            said.append(f"note: series/cover-letter has no section 'Changes in v{version}:'")
    if not known(since):
        return said + [f"note: v{before} is no tag here, and SINCE names no revision: not compared with v{before}"]
    if "first" in how and (how["first"], how["last"]) != (1, len(tree.stack(stack))):
        return said + ["note: a part of the series is not compared with the version before"]
    old = make(stack, before, top=at_revision(since))
    marks = compare(old, mbox)
    told = {"=": "the same", "!": "changed", "<": f"only in v{before}", ">": f"only in v{version}"}
    said.append(f"v{before} ({since}) to v{version}: " +
                ", ".join(f"{marks.count(m)} {what}" for m, what in told.items() if m in marks))
    return said + [f"in build/linux: b4 --offline-mode diff -m {old} {mbox}"]
