# SPDX-License-Identifier: GPL-2.0-only
"""The suites and a boot on many configurations: harness/matrix, one file a cell.

A cell is a fragment for the configuration. Comments in it say what it is for
("what:"), which files of harness/config it is added to ("base:"), what the
command line ("args:") and the emulator ("qemu:") get, which compiler builds it
("compiler:", if not gcc), and which programs of harness/userland run in boots of
their own ("boots:").

What is done for a tree is not done again: results are kept by cell, tree and
configuration, so that a run that was interrupted goes on where it was.
"""
import glob
import hashlib
import json
import os
import re

import boot
import kernel
import tree
from common import BUILD, Fail, HARNESS, LINUX, git, save_result, step, table

FOLDER = os.path.join(HARNESS, "matrix")
DONE = os.path.join(BUILD, "matrix.json")
RUNS = [(map_, mode) for map_ in kernel.MAPS for mode in ("enforce", "check")]


class Cell:
    def __init__(self, path):
        self.name = os.path.basename(path).removesuffix(".config")
        with open(path) as f:
            text = f.read()
        head = dict(re.findall(r"^# (what|base|args|qemu|compiler|boots): (.*)$", text, re.M))
        if not {"what", "base"} <= set(head):
            raise Fail(f"{path}: the comments 'what:' and 'base:' are needed")
        self.what, self.args = head["what"], head.get("args", "")
        self.qemu, self.compiler = head.get("qemu", ""), head.get("compiler", "gcc")
        self.boots = head.get("boots", "").split()
        self.config = kernel.fragments(*head["base"].split(), "kunit") + text

    def kernel(self, stack):
        return kernel.Kernel(stack, pages=self.name, config=self.config, args=self.args,
                             compiler=self.compiler, qemu=self.qemu)


def cells(name=None):
    found = [Cell(p) for p in sorted(glob.glob(FOLDER + "/*.config"))]
    chosen = [c for c in found if not name or c.name == name]
    if not chosen:
        raise Fail(f"CELL={name} is unknown; it is one of: {' '.join(c.name for c in found)}")
    return chosen


def _load():
    if not os.path.exists(DONE):
        return {}
    with open(DONE) as f:
        return json.load(f)


def _key(cell, commit):
    text = commit + cell.config + cell.args
    # What the boots check is as much a part of it as the kernel.
    paths = ["userland/init"] + (["machines.py", "userland/*", "hotplug/*"] if cell.boots else [])
    for path in sorted(p for pattern in paths for p in glob.glob(os.path.join(HARNESS, pattern))):
        with open(path) as f:
            text += f.read()
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _run(cell, stack):
    """All outcomes of a cell."""
    k = cell.kernel(stack)
    k.build()
    for map_, mode in RUNS:
        yield k.kunit(mode, map_)
    for map_ in kernel.MAPS:
        for program in (None, *cell.boots):
            yield boot.boot(k, "enforce", map_, program)


def run(stack, name=None):
    """Outcomes of the cells; what is left of an earlier run is not run again."""
    chosen = cells(name)
    tree.make(stack)
    commit = git("rev-parse", "HEAD^{tree}", cwd=LINUX).strip()
    done, outcomes, rows = _load(), [], []
    left = [c for c in chosen if done.get(c.name, {}).get("key") != _key(c, commit)]
    if len(left) < len(chosen):
        print(f"   {len(chosen) - len(left)} of {len(chosen)} cells are done already (build/matrix.json)")
    for c in chosen:
        if c in left:
            with step(f"matrix {c.name}: {c.what}"):
                found = [vars(o) for o in _run(c, stack)]
            if not any(o["failed"] for o in found):
                done[c.name] = {"key": _key(c, commit), "outcomes": found}
                with open(DONE, "w") as f:
                    json.dump(done, f)
        else:
            found = done[c.name]["outcomes"]
        for o in found:
            outcome = kernel.Outcome("")
            vars(outcome).update(o)
            outcomes.append(outcome)
        rows.append([c.name, c.what, *(sum(len(o[w]) for o in found) for w in ("passed", "failed", "skipped"))])
    save_result("matrix", {r[0]: dict(zip(("what", "passed", "failed", "skipped"), r[1:])) for r in rows})
    print()
    table(["cell", "what", "passed", "failed", "skipped"], rows)
    return outcomes
