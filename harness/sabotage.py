# SPDX-License-Identifier: GPL-2.0-only
"""Break the kernel on purpose: each patch in harness/sabotage/ must be noticed.

Their headers say what is broken ("What:"), which test or message must turn red
("Red:", regular expressions) and by which run ("Run:", values of MAP and MODE).
All is done on a copy of the tree below build/sabotage.
"""
import glob
import os
import re
import shutil

import kernel
import tree
from common import BUILD, Fail, HARNESS, LINUX, git, step

WORK = os.path.join(BUILD, "sabotage")


class Sabotage:
    def __init__(self, path):
        self.path = path
        self.name = os.path.basename(path).removesuffix(".patch")
        with open(path) as f:
            text = f.read()
        head = dict(re.findall(r"^(What|Red|Run): (.+)$", text.partition("\ndiff ")[0], re.M))
        if set(head) != {"What", "Red", "Run"}:
            raise Fail(f"{path}: the header needs the lines What, Red and Run")
        self.what, self.red = head["What"], head["Red"].split()
        self.run = dict(pair.split("=") for pair in head["Run"].split())


def find(name=None):
    paths = sorted(glob.glob(os.path.join(HARNESS, "sabotage", "*.patch")))
    found = [s for s in map(Sabotage, paths) if not name or s.name == name]
    if not found:
        raise Fail(f"SABOTAGE={name} is unknown; it is one of: " +
                   " ".join(os.path.basename(p).removesuffix(".patch") for p in paths))
    return found


def _copy(stack):
    """A work tree of its own, without sabotage; files that are right stay as they are."""
    commit = tree.make(stack)
    copy = os.path.join(WORK, "linux")
    if not os.path.exists(os.path.join(copy, ".git")):
        shutil.rmtree(copy, ignore_errors=True)
        git("worktree", "prune")
        git("worktree", "add", "-q", "--detach", copy, commit)
    git("reset", "-q", "--hard", commit, cwd=copy)
    return copy


def _one(s, k, copy):
    """None if the sabotage was noticed as it says, else what happened instead."""
    git("reset", "-q", "--hard", cwd=copy)
    out = git("apply", s.path, cwd=copy, check=False)
    if out.strip():
        return f"the patch does not apply: {out.strip().splitlines()[0]}"
    k.build()
    o = k.kunit(s.run.get("MODE", "enforce"), s.run.get("MAP", "pte"), s.run.get("SUITE"),
                timeout=int(s.run.get("TIMEOUT", 60)))
    red = [f"{name}: {why}" for name, why in o.failed]
    for want in s.red:
        if not any(re.search(want, r) for r in red):
            return f"{want} is not red; red: {'; '.join(r[:80] for r in red) or 'nothing'}"
    return None


def run_all(stack, name=None):
    o = kernel.Outcome("test-the-tests")
    chosen = find(name)
    copy = _copy(stack)
    k = kernel.Kernel(stack, work=WORK)
    for s in chosen:
        with step(f"sabotage {s.name}: {s.what}"):
            o.check(s.name, _one(s, k, copy))
    git("reset", "-q", "--hard", cwd=copy)
    return [o]
