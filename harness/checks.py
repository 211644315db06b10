# SPDX-License-Identifier: GPL-2.0-only
"""Checks that boot nothing."""
import glob
import os
import re

import kernel
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
            mbox = series.make(stack, who=("A Submitter", "submitter@example.org"))
            o.check("make series")
            o.check("b4 am and git am give the same tree", series.applies(stack, mbox))
            _checkpatch(o, os.path.splitext(mbox)[0])
        except Fail as e:
            o.check("make series", str(e))
        _kernel_doc(o, stack)
    return o


def _checkpatch(o, folder):
    with open(os.path.join(HARNESS, "checkpatch-ignore")) as f:
        ignore = [line.split()[0] for line in f if line.strip() and not line.startswith("#")]
    in_file = [i.split("@") for i in ignore if "@" in i]
    ignore = [i for i in ignore if "@" not in i]
    for path in sorted(glob.glob(folder + "/*.patch"))[1:]:
        with open(path) as f:
            if "NOT FOR MERGING" in f.read(2000):
                continue
        out = run(["scripts/checkpatch.pl", "--strict", "--show-types", "--terse", "--showfile", "--no-summary",
                   "--ignore", ",".join(ignore), path], cwd=LINUX, check=False, log="checkpatch")
        lines = [line for line in out.splitlines() if re.search(r"(ERROR|WARNING|CHECK):", line) and
                 not any(f":{kind}: " in line and line.startswith(folder) for kind, folder in in_file)]
        o.check(f"checkpatch {os.path.basename(path)[:40]}", "; ".join(lines[:3]) if lines else None)


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
