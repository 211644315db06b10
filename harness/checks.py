# SPDX-License-Identifier: GPL-2.0-only
"""Checks that boot nothing."""
import glob
import os
import re

import kernel
import perpatch
import series
import tree
from common import BUILD, HARNESS, LINUX, Fail, git, run, step


def _script(path, what):
    """Run a script that prints "ok NAME" and "not ok NAME - reason"."""
    o = kernel.Outcome(what)
    out = run([path], check=False, log=what, env={"KDIR": LINUX, "BUILD": os.path.join(BUILD, "checks")})
    for bad, name, why in re.findall(r"^(not )?ok (\S+)(?: - (.*)| .*)?$", out, re.M):
        o.check(name, why or "failed" if bad else None)
    if not o.passed and not o.failed:
        o.check("ran", f"no check ran: {out.strip()[-200:]}")
    return o


def object_code():
    """harness/checks/: what cannot be run is looked up in the disassembly."""
    for path in sorted(glob.glob(os.path.join(HARNESS, "checks", "*.py"))):
        name = os.path.basename(path)[:-3]
        with step(name):
            yield _script(path, name)


def repository(stack):
    """The series as text: round trip, mail, style."""
    o = kernel.Outcome("series")
    with step("round trip, mail, checkpatch, kernel-doc"):
        o.check("make refresh gives back what make tree was made from", tree.round_trip(stack))
        try:
            who = ("A Submitter", "submitter@example.org")
            mbox, other = (series.make(stack, version, who) for version in ("1", "2"))
            o.check("make series")
            for how in "am", "shazam":
                o.check(f"b4 {how} gives the same tree", series.applies(stack, mbox, how))
            o.check("b4 diff compares two versions", series.differs(mbox, other, len(tree.stack(stack))))
            _addressed(o, os.path.splitext(mbox)[0], stack)
            _checkpatch(o, os.path.splitext(mbox)[0])
        except Fail as e:
            o.check("make series", str(e))
        _kernel_doc(o, stack)
    return o


def _addressed(o, folder, stack):
    """Each mail goes to somebody, and each new file is somebody's."""
    for path in sorted(glob.glob(folder + "/*.patch")):
        with open(path) as f:
            head = f.read().partition("\n\n")[0]
        o.check(f"addressed {os.path.basename(path)[:40]}",
                None if re.search(r"^To: .*@", head, re.M) and "linux-kernel@" in head else "no To, or not to the list")
    for path in sorted(p for patch in tree.stack(stack) for p in patch.new):
        out = run(["scripts/get_maintainer.pl", "--sections", "--nogit", "--nogit-fallback", "-f", path], cwd=LINUX,
                  check=False, log="get_maintainer")
        o.check(f"MAINTAINERS {path}", None if "KERNEL PROTECTION KEYS" in out else "no entry of ours covers it")


def _checkpatch(o, folder):
    for path in sorted(glob.glob(folder + "/*.patch"))[1:]:
        with open(path) as f:
            if "NOT FOR MERGING" in f.read(2000):
                continue
        o.check(f"checkpatch {os.path.basename(path)[:40]}", perpatch.style(path))


def _kernel_doc(o, stack):
    for path in sorted(p for patch in tree.stack(stack) for p in patch.new):
        if path.endswith((".h", ".c")):
            out = run(["scripts/kernel-doc", "-none", "-Wall", path], cwd=LINUX, check=False, log="kernel-doc")
            bad = [line for line in out.splitlines() if re.search(r"[Ww]arning|[Ee]rror", line)]
            o.check(f"kernel-doc {path}", bad[0] if bad else None)


def behaviour():
    """harness/tests: what the front door says to a user in trouble."""
    with step("front-door"):
        return _script(os.path.join(HARNESS, "tests", "front-door"), "front-door")
