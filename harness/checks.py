# SPDX-License-Identifier: GPL-2.0-only
"""Checks that boot nothing."""
import glob
import mailbox
import os
import re
import shutil

import bench
import configoff
import disassembly
import kernel
import perpatch
import series
import tree
from common import BUILD, Fail, HARNESS, LINUX, TOP, git, listed, read, run, step, two_at_once


def object_code():
    """What cannot be run is looked up in the disassembly."""
    for name, check in ("config-off", configoff.check), ("poe-disassembly", disassembly.check):
        with step(name):
            yield check()


def repository(stack):
    """The series as text: round trip, mail, style."""
    o = kernel.Outcome("series")
    with step("round trip, mail, checkpatch, kernel-doc"):
        o.check("make refresh gives back what make tree was made from", tree.round_trip(stack))
        o.check("all that is put on top of the series applies", _applies())
        try:
            who = ("A Submitter", "submitter@example.org")
            mbox, other = (series.make(stack, version, who) for version in ("1", "2"))
            o.check("make series")
            _thread(o, mbox, tree.stack(stack), who)
            for how in "am", "shazam":
                o.check(f"b4 {how} gives the same tree", series.applies(stack, mbox, how, who))
            _compared(o, stack, mbox, other, who)
            _addressed(o, os.path.splitext(mbox)[0], stack)
            _checkpatch(o, os.path.splitext(mbox)[0])
            for name in series.RELEASED:
                o.check(f"release/ has {name} as it is, and git am gives the same tree", series.stale(name))
        except Fail as e:
            o.check("make series", str(e))
        _kernel_doc(o, stack)
        for path in LINEAGE:
            o.check(f"{path} says whose kpkeys is", _lineage(path))
        o.check("plain English", _plain())
        o.check("codespell", _codespell())
    return o


# What must link to the public work that the series builds on: v6, v7 and v9 of kpkeys.
LINEAGE = {"series/cover-letter": "v6 v7 v9", "series/cover-letter-reserve": "v6 v9", "README.md": "v6 v7 v9",
           "compare/REPORT.in": "v6 v7 v9", "compare/REPORT.md": "v6 v7 v9", "Documentation/core-api/kpkeys.rst": "v9"}
KPKEYS = {"v6": "20260227175518.3728055-1-kevin.brodsky@arm.com", "v7": "20260505-kpkeys-v7-0-20c0bdd97197@arm.com",
          "v9": "20260818-kpkeys-v9-0-743ad31b2c8f@arm.com"}


def _lineage(path):
    text = read(os.path.join(TOP, path))
    missing = [v for v in LINEAGE[path].split() if "https://lore.kernel.org/r/" + KPKEYS[v] not in text]
    missing += [] if "Kevin Brodsky" in text else ["the name of its author"]
    return "not found: " + ", ".join(missing) if missing else None


def _plain():
    """None, or a turn of harness/banned-turns in a message, a cover letter or the code, by file and line."""
    banned = re.compile("|".join(map(str.strip, listed(os.path.join(HARNESS, "banned-turns")))), re.I)
    for path in sorted(glob.glob(tree.SERIES + "/*.patch") + glob.glob(tree.SERIES + "/cover-letter*") +
                       [os.path.join(TOP, p) for p in tree.product_files()]):
        message, line, hunks = read(path).partition("\n---\n" if path.endswith(".patch") else "\0")
        # Of hunks, what they add.
        text = message + line + re.sub(r"^(?!\+).+", "", hunks, flags=re.M)
        m = banned.search(text)
        if m:
            return f"{os.path.relpath(path, TOP)}:{text.count(chr(10), 0, m.start()) + 1}: '{m[0]}' (harness/banned-turns)"
    return None


def _codespell():
    """None, or the first misspelt word, by file and line; but for one that a hunk header of the base was cut in, for
    the plural of "VA" in a log, and for what a recording has as it came."""
    paths = git("ls-files", "--", ":!*.mbx", ":!*.svg", ":!harness/tests/newcomer.txt", cwd=TOP).split()
    return run(["codespell", "-L", "siz,vas", *paths], check=False, cwd=TOP).partition("\n")[0] or None


def _applies():
    """Runs that are left out for want of time would not tell."""
    try:
        for other in tree.STACKS:
            tree.assemble(other)
        # It names patches by their subjects.
        bench.variants()
    except Fail as e:
        return str(e)
    # The mock register takes the place of the emulation, which is the last patch.
    one_page = os.path.join(HARNESS, "bench", "one-page.patch")
    sabotage = [p for folder in ("", "field/") for p in sorted(glob.glob(f"{HARNESS}/{folder}sabotage/*.patch"))]
    bad = [p for p in [*sabotage, one_page]
           if git("apply", "--check", p, check=False).strip()]
    return "does not apply: " + " ".join(map(os.path.basename, bad)) if bad else None


def _thread(o, mbox, patches, who):
    """One thread, as lore and mail readers see it."""
    mails = list(mailbox.mbox(mbox))
    cover, bodies = mails[0], [m.get_payload() for m in mails]
    heads = [{k.lower(): re.sub(r"\s+", " ", v) for k, v in m.items()} for m in mails]
    n = len(patches)
    bad = [i for i, (h, p) in enumerate(zip(heads[1:], patches), 1)
           if h["subject"] != f"[PATCH v1 {i:02d}/{n:02d}] {p.subject}"]
    o.check("thread: one cover letter, and the patches in order by [PATCH vN n/m]",
            None if len(mails) == n + 1 and not bad and heads[0]["subject"].startswith(f"[PATCH v1 00/{n:02d}] ")
            else f"{len(mails)} mails for {n} patches; subjects wrong: {bad}")
    top = cover["Message-ID"]
    bad = [i for i, h in enumerate(heads[1:], 1) if not h.get("in-reply-to") == h.get("references") == top]
    o.check("thread: all are replies to the cover letter",
            None if top and not bad and not cover["In-Reply-To"] else f"not: {bad}")
    o.check("thread: no Message-ID twice", None if len({h["message-id"] for h in heads}) == n + 1 else "one is")
    bad = [i for i, h in enumerate(heads) if "@" not in h.get("to", "") or "@" not in h.get("cc", "") or
           h["from"] != f"{who[0]} <{who[1]}>"]
    o.check("thread: From, To and Cc in each mail", f"not in {bad}" if bad else None)
    bad = [i for i, b in enumerate(bodies[1:], 1)
           if b.partition("\n---\n")[0].rstrip().splitlines()[-1] != f"Signed-off-by: {who[0]} <{who[1]}>"]
    o.check("thread: each patch is signed off", f"not {bad}" if bad else None)
    o.check("thread: no base-commit that nobody has", "there is" if "\nbase-commit: " in bodies[0] else None)
    for what in "change-id: [0-9]{8}-[a-z0-9-]+-[0-9a-f]{12}", r"Based on Linux \d+\.":
        o.check(f"thread: the cover letter has a {what.partition(': ')[0]}",
                None if len(re.findall(rf"^{what}", bodies[0], re.M)) == 1 else "not once")
    o.check("thread: what is not for merging is last, and says so",
            None if [p.not_for_merging for p in patches] == ["NOT FOR MERGING" in h["subject"] for h in heads[1:]] ==
            sorted(p.not_for_merging for p in patches) else "not so")


def _compared(o, stack, mbox, other, who):
    """b4 diff: of the same twice, and of a series in which one patch has changed."""
    marks = series.compare(mbox, other)
    o.check("b4 diff finds nothing where nothing has changed", None if set(marks) == {"="} else "".join(marks))
    top = os.path.join(BUILD, "series-changed")
    shutil.rmtree(top, ignore_errors=True)
    for path in ["series", "compare", "harness/bench", *tree.PRODUCT]:
        if os.path.isdir(os.path.join(TOP, path)):
            shutil.copytree(os.path.join(TOP, path), os.path.join(top, path))
    patches = tree.stack(stack)
    nr, path = next((i, path) for i, p in enumerate(patches) for path in p.new if path.endswith(".c"))
    with open(os.path.join(top, path), "a") as f:
        f.write("\n/* Changed for the test of b4 diff. */\n")
    marks = series.compare(mbox, series.make(stack, "3", who, top))
    o.check("b4 diff says which patch has changed",
            None if "".join(marks) == "=" * nr + "!" + "=" * (len(patches) - nr - 1) else "".join(marks))


def _addressed(o, folder, stack):
    """Each mail goes to somebody, and each new file is somebody's."""
    for path in sorted(glob.glob(folder + "/*.patch")):
        head = read(path).partition("\n\n")[0]
        o.check(f"addressed {os.path.basename(path)[:40]}",
                None if re.search(r"^To: .*@", head, re.M) and "linux-kernel@" in head else "no To, or not to the list")
    new = sorted(p for patch in tree.stack(stack) for p in patch.new)
    out = run(["scripts/get_maintainer.pl", "--sections", "--nogit", "--nogit-fallback", "-f", *new], cwd=LINUX,
              check=False, log="get_maintainer")
    # The last section of each file is one that every file is in.
    sections = out.split("\nTHE REST\n")[:-1]
    o.check("get_maintainer.pl knows each new file", None if len(sections) == len(new) else out[-200:])
    for path, text in zip(new, sections):
        o.check(f"MAINTAINERS {path}", None if any(section.strip() in text for section in series.SECTIONS) else
                "no entry of ours covers it")


def _checkpatch(o, folder):
    mails = [p for p in sorted(glob.glob(folder + "/*.patch"))[1:] if "NOT FOR MERGING" not in read(p)[:2000]]
    for path, why in zip(mails, two_at_once(perpatch.style, mails)):
        o.check(f"checkpatch {os.path.basename(path)[:40]}", why)


def _kernel_doc(o, stack):
    paths = sorted(p for patch in tree.stack(stack) for p in patch.new if p.endswith((".h", ".c")))
    for path, why in zip(paths, two_at_once(lambda path: perpatch.kernel_doc([path], LINUX), paths)):
        o.check(f"kernel-doc {path}", why)


def behaviour():
    """harness/tests: what the front door says to a user in trouble."""
    o = kernel.Outcome("front-door")
    with step("front-door"):
        out = run([os.path.join(HARNESS, "tests", "front-door")], check=False, log="front-door")
    if not kernel.ktap(o, out):
        o.check("ran", f"no check ran: {out.strip()[-200:]}")
    return o


# Scripts by shell, with the least that counts; those of the userland are parts of one program.
SCRIPTS = {("bash", "warning"): ["harness/enter", "harness/tests/front-door", "harness/tests/newcomer", ".ci/run"],
           ("dash", "error"): [p for folder in ("userland", "field")
                               for p in sorted(glob.glob(f"{HARNESS}/{folder}/*"))
                               if "." not in os.path.basename(p) and os.path.isfile(p)]}


def lint():
    """What pyflakes and shellcheck say about the harness."""
    o = kernel.Outcome("harness")
    with step("lint"):
        sources = sorted(glob.glob(HARNESS + "/*.py"))
        o.check("pyflakes", run(["pyflakes3", *sources], check=False, log="lint").strip() or None)
        for (shell, least), paths in SCRIPTS.items():
            o.check(f"shellcheck, {shell}", run(["shellcheck", "-f", "gcc", "-s", shell, "-S", least, *paths], cwd=TOP,
                                                check=False, log="lint").strip() or None)
    return o
