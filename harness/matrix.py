# SPDX-License-Identifier: GPL-2.0-only
"""The suites and a boot on many configurations: harness/matrix, one file a cell.

A cell is a fragment for the configuration. Comments in it say what it is for
("what:"), which files of harness/config it is added to ("base:"), what the
command line ("args:") and the emulator ("qemu:") get, which compiler builds it
("compiler:", if not gcc), how many times the usual limit a boot may take ("times:"),
and which programs of harness/userland run in boots of their own ("boots:").

A run that passed is not repeated for the same tree and configuration, so that a
matrix that was interrupted goes on where it was. Two cells are at work at a time.
"""
import glob
import os
import re
import threading
import time

import boot
import kernel
import matrixreport
import tree
from common import (BUILD, Fail, HARNESS, LINUX, Record, key_of, read, run as run_command, save_result, step, table,
                    two_at_once)

FOLDER = os.path.join(HARNESS, "matrix")
DONE = os.path.join(BUILD, "matrix-runs.json")
KUNIT = "kunit"
STRESS_SECONDS = 1      # for each stressor of the workload, which leaves out what takes minutes
# Map, mode, and what runs there: the suites, or a userland, by itself or with a program.
RUNS = [*((map_, mode, KUNIT) for map_ in kernel.MAPS for mode in ("enforce", "check")),
        *((map_, "enforce", None) for map_ in kernel.MAPS), ("block", "enforce", "workload")]


class Cell:
    def __init__(self, path):
        self.name = os.path.basename(path).removesuffix(".config")
        text = read(path)
        head = dict(re.findall(r"^# (what|base|args|qemu|compiler|times|boots): (.*)$", text, re.M))
        if not {"what", "base"} <= set(head):
            raise Fail(f"{path}: the comments 'what:' and 'base:' are needed")
        self.what, self.args = head["what"], head.get("args", "")
        self.qemu, self.compiler = head.get("qemu", ""), head.get("compiler", "gcc")
        self.times = int(head.get("times", 1))
        self.config = kernel.fragments(*head["base"].split(), "kunit") + text
        self.runs = RUNS + [(map_, "enforce", program) for map_ in kernel.MAPS
                            for program in head.get("boots", "").split()]

    def kernel(self, stack, work=BUILD):
        # Another cell is at work beside it.
        return kernel.Kernel(stack, pages=self.name, work=work, config=self.config, args=self.args,
                             compiler=self.compiler, qemu=self.qemu, times=2 * self.times)


def cells(names=None):
    """All, or those that @names has, in its order."""
    found = {c.name: c for c in map(Cell, sorted(glob.glob(FOLDER + "/*.config")))}
    names = list(dict.fromkeys((names or "").split())) or found
    for name in names:
        if name not in found:
            raise Fail(f"CELL={name} is unknown; it is one of: {' '.join(found)}")
    return [found[name] for name in names]


def _name(cell, what):
    return " ".join([cell.name, *(w or "userland" for w in what)])


class Done:
    """The outcomes that need not be had again, of the kernel @sources."""

    def __init__(self, sources):
        self.sources, self.record = sources, Record(DONE)

    def _key(self, cell, program):
        """The kernel, and what runs there and is expected of it."""
        files = ["expected-warnings"]
        if program != KUNIT:
            files.append("userland/init")
            files += ["machines.py", "userland/*", "hotplug/*"] if program else []
        return key_of(self.sources + cell.config + " ".join(cell.kernel("").command("enforce", "pte")), *files)

    def _value(self, cell, what):
        return self.record.get(_name(cell, what), self._key(cell, what[-1]))

    def get(self, cell, what):
        """The outcome of a run, or None."""
        value = self._value(cell, what)
        return value and kernel.Outcome.of(value["outcome"])

    def put(self, cell, what, outcome, seconds):
        self.record.put(_name(cell, what), self._key(cell, what[-1]),
                        {"outcome": vars(outcome), "seconds": round(seconds)})

    def minutes(self, cell):
        """What the runs took that get() knows."""
        return sum(v["seconds"] for v in (self._value(cell, what) for what in cell.runs) if v) / 60


def _run(cell, stack, done):
    """Do what is left of a cell; returns the outcomes of that."""
    left = [what for what in cell.runs if not done.get(cell, what)]
    outcomes, start = [], time.monotonic()
    try:
        k = cell.kernel(stack)
        k.build()
        for map_, mode, program in left:
            outcomes.append(k.kunit(mode, map_) if program == KUNIT else
                            boot.boot(k, mode, map_, program, STRESS_SECONDS))
            if not outcomes[-1].failed:
                done.put(cell, (map_, mode, program), outcomes[-1], time.monotonic() - start)
            start = time.monotonic()        # the first one of a cell pays for the build
    except Fail as e:
        # The other cells are as good as they were.
        o = kernel.Outcome(f"matrix {cell.name}")
        o.check("builds and starts", str(e))
        outcomes.append(o)
    return outcomes


def _remains(chosen, done):
    """Say what is to be done, and how long it took the last time."""
    took, hours, unknown = matrixreport.minutes(), 0, []
    for c in chosen:
        n = sum(1 for what in c.runs if done.get(c, what))
        print(f"   {c.name}: {n} of {len(c.runs)} runs are done already")
        if n < len(c.runs) and c.name not in took:
            unknown.append(c.name)
        hours += took.get(c.name, 0) * (len(c.runs) - n) / len(c.runs) / 60
    print(f"   what remains took {hours:.1f} hours the last time" +
          (f", without {' '.join(unknown)}: not in harness/matrix/REPORT.md yet" if unknown else ""))


def _sources():
    """What names all that is compiled into a kernel: a change of a text, or of a tool, costs no hours."""
    return run_command(["sh", "-c", matrixreport.SOURCES], cwd=LINUX).split()[0]


def run(stack, names=None):
    """Outcomes of the cells; what passed earlier is counted, not repeated."""
    chosen = cells(names)
    tree.make(stack)
    done = Done(_sources())
    _remains(chosen, done)
    lock = threading.Lock()

    def cell(c):
        found = [o for o in (done.get(c, what) for what in c.runs) if o]
        if len(found) < len(c.runs):
            with step(f"matrix {c.name}: {c.what}"):
                found += _run(c, stack, done)
        row = [c.name, c.what, f"{sum(not o.failed for o in found)}/{len(c.runs)}",
               *(sum(len(getattr(o, w)) for o in found) for w in ("passed", "failed", "skipped")),
               f"{done.minutes(c):.0f}"]
        if len(found) == len(c.runs):
            # Now, as the other cells may take hours.
            with lock:
                matrixreport.write([c.name for c in cells()], {c.name: (row, found)}, done.sources)
        return row, found

    outcomes, rows = [], []
    for row, found in two_at_once(cell, chosen):
        outcomes += found
        rows.append(row)
    head = matrixreport.HEAD[:-1]
    save_result("matrix", {r[0]: dict(zip(head[1:], r[1:])) for r in rows})
    print()
    table(head, rows)
    return outcomes
