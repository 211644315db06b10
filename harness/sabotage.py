# SPDX-License-Identifier: GPL-2.0-only
"""Break the kernel on purpose: each patch in harness/sabotage/ must be noticed.

Their headers say what is broken ("What:"), which test or message must turn red
("Red:", regular expressions) and by which run ("Run:", values of MAP and MODE, of
SUITE and TIMEOUT; ARGS for the command line; BOOT=1 for a boot to userland instead of KUnit). A patch of a
header that everything includes names the files that are to see it ("Only:");
the others are not compiled again. All is done on a copy of the tree below
build/sabotage.
"""
import contextlib
import glob
import os
import re
import shutil
from functools import partial

import boot
import kernel
import tree
from common import BUILD, Fail, HARNESS, git, limit, step, steps_at_once

WORK = os.path.join(BUILD, "sabotage")


class Sabotage:
    def __init__(self, path):
        self.path = path
        self.name = os.path.basename(path).removesuffix(".patch")
        with open(path) as f:
            text = f.read()
        head = dict(re.findall(r"^(What|Red|Run|Only): (.+)$", text.partition("\ndiff ")[0], re.M))
        if not {"What", "Red", "Run"} <= set(head):
            raise Fail(f"{path}: the header needs the lines What, Red and Run")
        self.files = re.findall(r"^\+\+\+ b/(\S+)", text, re.M)
        self.only = head.get("Only", "").split()
        self.what, self.red = head["What"], head["Red"].split()
        self.run = dict(pair.split("=", 1) for pair in head["Run"].split())


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


@contextlib.contextmanager
def _applied(s, copy):
    """The tree with the patch in it. make sees the time stamps that it should."""
    paths = [os.path.join(copy, f) for f in s.files]
    old = {p: os.stat(p).st_mtime_ns for p in paths if os.path.exists(p)}

    def patch(*how):
        out = git("apply", *how, s.path, cwd=copy, check=False)
        if out.strip():
            raise Fail(f"harness/sabotage/{s.name}.patch does not apply: {out.strip().splitlines()[0]}")
        if s.only:
            for p, when in old.items():
                os.utime(p, ns=(when, when))
            for f in s.only:
                os.utime(os.path.join(copy, f))

    patch()
    try:
        yield
    finally:
        patch("-R")


def _one(s, k, copy):
    """None if the sabotage was noticed as it says, else what happened instead."""
    mode, map_ = s.run.get("MODE", "enforce"), s.run.get("MAP", "pte")
    with _applied(s, copy):
        k.build()
        k.args = s.run.get("ARGS", "")
        if s.run.get("BOOT"):
            o = boot.boot(k, mode, map_)
        else:
            o = k.kunit(mode, map_, s.run.get("SUITE"), timeout=int(s.run.get("TIMEOUT", 150)))
    red = [f"{name}: {why}" for name, why in o.failed]
    for want in s.red:
        if not any(re.search(want, r) for r in red):
            return f"{want} is not red; red: {'; '.join(r[:80] for r in red) or 'nothing'}"
    return None


def run_all(stack, name=None):
    o = kernel.Outcome("test-the-tests")
    chosen = find(name)
    copy = _copy(stack)
    k = kernel.Kernel(stack, work=WORK, config=kernel.fragments("arm64", "4k", "kunit", "lockdep"))
    # Whole, so that no file but those a patch is meant for is compiled with it.
    with step("build without sabotage, with lockdep"):
        k.build()
    # What is red without sabotage would prove nothing.
    unbroken = steps_at_once([(f"KUnit without sabotage, MAP={map_}", partial(k.kunit, "enforce", map_))
                              for map_ in ([] if name else kernel.MAPS)])
    for u in unbroken:
        u.what += " lockdep"
    for s in chosen:
        if limit.skips(o, s.name):
            continue
        with step(f"sabotage {s.name}: {s.what}"):
            try:
                o.check(s.name, _one(s, k, copy))
            except Fail as e:
                o.check(s.name, str(e))
    return [*unbroken, o]
