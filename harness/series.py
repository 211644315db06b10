# SPDX-License-Identifier: GPL-2.0-only
"""The mail-ready series: git format-patch, and b4 to see that it applies."""
import glob
import os
import re
import shutil

import comparereport
import tree
from common import BUILD, Fail, LINUX, TOP, export, git, run

OUT = os.path.join(BUILD, "series")


def identity():
    name, email = os.environ.get("GIT_IDENT_NAME"), os.environ.get("GIT_IDENT_EMAIL")
    if not name or not email:
        raise Fail("the series is signed by you, and git knows no identity: "
                   "git config --global user.name '...', user.email '...'")
    return name, email


ASKED = {}


def _people(paths):
    """The headers To and Cc for these patches, as MAINTAINERS of the series' own tree says."""
    changes = ""
    for path in paths:
        with open(path) as f:
            changes += f.read().partition("\ndiff --git ")[2]
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
    return "".join(f"{name}: " + ",\n ".join(who) + "\n" for name, who in (("To", people), ("Cc", lists)) if who)


def _address(path, mails):
    """A mail about files that nobody maintains goes to all whom the others go to."""
    people = _people([path] if path in mails else mails)
    if "To: " not in people:
        people = _people(mails)
    with open(path) as f:
        head, blank, body = f.read().partition("\n\n")
    with open(path, "w") as f:
        f.write(head + "\n" + people.rstrip("\n") + blank + body)


def make(stack, version="1", who=None, top=TOP):
    """Write the series as files and as an mbox; returns the path of the mbox.

    @top is this repository, or another version of it.
    """
    name, email = who or identity()
    if not re.fullmatch(r"[1-9]\d*", version):
        raise Fail(f"VERSION={version} is not a number")
    patches = tree.stack(stack, top)
    out = os.path.join(OUT, f"{stack}-v{version}")
    ident = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER")
             for what, value in (("NAME", name), ("EMAIL", email))}

    # The commits once more, with the user as the author.
    base = git("rev-parse", "origin/base").strip()
    commit, signed = base, f"Signed-off-by: {name} <{email}>"
    for p, old in zip(patches, git("rev-list", "--reverse", f"{base}..{tree.assemble(stack, top=top)}").split()):
        commit = git("commit-tree", old + "^{tree}", "-p", commit, env=ident,
                     stdin=f"{p.message()}\n{signed}\n").strip()
    shutil.rmtree(out, ignore_errors=True)
    with open(os.path.join(top, "series/cover-letter")) as f:
        subject, _, body = f.read().partition("\n")
    body, _, change_id = body.rpartition("\nchange-id: ")
    git("format-patch", "-q", "--cover-letter", "--thread=shallow", f"--base={base}", f"-v{version}",
        "-o", out, f"{base}..{commit}", env=ident)
    cover, = [os.path.join(out, n) for n in os.listdir(out) if "-0000-cover-letter" in n]
    with open(cover) as f:
        text = f.read()
    text = text.replace("*** SUBJECT HERE ***", subject.removeprefix("Subject: "))
    if "@COST@" in body:
        body = body.replace("@COST@", comparereport.cost(top))
    text = text.replace("*** BLURB HERE ***", f"{body.strip()}\n\nBased on {git('log', '-1', '--format=%s', base).strip()}.")
    text = re.sub(r"^(base-commit: .*)$", rf"\1\nchange-id: {change_id.strip()}", text, flags=re.M)
    with open(cover, "w") as f:
        f.write(text)
    mails = sorted(glob.glob(out + "/*.patch"))
    for mail in mails:
        _address(mail, mails[1:])
    mbox = out + ".mbox"
    with open(mbox, "w") as m:
        for mail in mails:
            with open(mail) as f:
                m.write(f.read() + "\n")
    return mbox


def _msgid(mbox):
    with open(mbox) as f:
        return re.search(r"^Message-ID: <(.+)>$", f.read(), re.M | re.I)[1]


def _b4(cwd, *args):
    """b4 without a network, and without the user's configuration."""
    home = os.path.join(BUILD, "b4")
    os.makedirs(home, exist_ok=True)
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER")
           for what, value in (("NAME", "b4"), ("EMAIL", "b4@localhost"))}
    return run(["b4", "--offline-mode", *args], cwd=cwd, env=dict(who, HOME=home, GIT_CONFIG_COUNT="0"),
               log="b4", check=False, stdin="")


def applies(stack, mbox, how):
    """None if b4 @how ("am" or "shazam") makes of the mbox, on the base, what our tree is."""
    home = os.path.join(BUILD, "b4")
    shutil.rmtree(home, ignore_errors=True)
    copy = os.path.join(home, "linux")
    # Of the files only those that the series touches, or all that git would do is to write the others.
    git("clone", "-q", "--shared", "--no-checkout", LINUX, copy, cwd=BUILD)
    git("sparse-checkout", "set", "--no-cone", "--stdin", cwd=copy,
        stdin=git("diff", "--name-only", "--no-renames", "origin/base", tree.assemble(stack)))
    git("checkout", "-q", "--detach", git("rev-parse", "origin/base").strip(), cwd=copy)
    try:
        if how == "shazam":
            out = _b4(copy, "shazam", "-m", mbox, _msgid(mbox))
        else:
            out = _b4(copy, "am", "-m", mbox, "-o", home, _msgid(mbox))
            mbx = glob.glob(home + "/*.mbx")
            if not mbx:
                return f"b4 am: {out.strip().splitlines()[-1]}"
            git("am", "-q", mbx[0], cwd=copy, log="b4", env={"GIT_COMMITTER_NAME": "b4",
                                                            "GIT_COMMITTER_EMAIL": "b4@localhost"})
        same = git("rev-parse", "HEAD^{tree}", cwd=copy) == git("rev-parse", tree.assemble(stack) + "^{tree}")
        return None if same else f"b4 {how} gives another tree: {out.strip().splitlines()[-1]}"
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


def changes(stack, version, mbox):
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
    old = make(stack, before, top=at_revision(since))
    marks = compare(old, mbox)
    told = {"=": "the same", "!": "changed", "<": f"only in v{before}", ">": f"only in v{version}"}
    said.append(f"v{before} ({since}) to v{version}: " +
                ", ".join(f"{marks.count(m)} {what}" for m, what in told.items() if m in marks))
    return said + [f"in build/linux: b4 --offline-mode diff -m {old} {mbox}"]
