# SPDX-License-Identifier: GPL-2.0-only
"""Scarce memory, with the feature on and off: who is killed, what fails, what is kept, where tables are.

One kernel, with real enforcement by the emulation, boots once for each scenario
of harness/bench/pressure.c and each of the two. One CPU and a virtual clock make
the figures repeatable; a nanosecond of that clock is an instruction. Contention
is not seen that way, and the nodes need more CPUs, so they run in real time.
"""
import os
import re

import bench
import kernel
import tree
from common import CROSS, Fail, run, save_result, step, table, two_at_once

MODES = {"on": "", "off": "kpkeys_hardened_pgtables=off"}
EXACT = ["-icount", "shift=0,sleep=off", "-rtc", "base=2026-01-01,clock=vm", "-seed", "1"]
# Two nodes with memory, and one with a CPU only.
NODES = ["-object", "memory-backend-ram,id=m0,size=512M", "-object", "memory-backend-ram,id=m1,size=512M",
         "-numa", "node,nodeid=0,memdev=m0,cpus=0-1", "-numa", "node,nodeid=1,memdev=m1,cpus=2",
         "-numa", "node,nodeid=2,cpus=3"]
BLOCK = 512             # pages


class Goal:
    """What @value(figures, figures with the feature off) is to be at @most or at @least, which may depend on both."""

    def __init__(self, what, value, most=None, least=None):
        self.what, self.value, self.least = what, value, least
        self.limit = most if least is None else least

    def row(self, on, off):
        value = self.value(on, off)
        limit = self.limit(on, off) if callable(self.limit) else self.limit
        met = value <= limit if self.least is None else value >= limit
        try:
            without = self.value(off, off)
        except KeyError:
            without = "-"
        return [self.what, value, without, f"{'<=' if self.least is None else '>='} {limit}", "yes" if met else "NO"]


def key(name):
    return lambda figures, off: figures[name]


def elsewhere(task):
    """Tables that are on another node than without the feature."""
    return lambda figures, off: sum(max(0, o - n) for n, o in zip(figures[task], off[task]))


SCENARIOS = {
    "boot 1024 MB": [Goal("kB held right after boot", lambda f, off: 4 * f["boot-taken"], 2048)],
    "boot 128 MB": [Goal("kB held right after boot", lambda f, off: 4 * f["boot-taken"], 512)],
    # All of memory in single pages, of which every fourth is free.
    "fragmented 512 MB": [
        Goal("allocations of 8,000 tables that failed", key("failed"), 0),
        Goal("tasks that were killed", key("killed"), 0),
        Goal("instructions of the slowest table", key("slowest"), lambda on, off: 2 * off["slowest"]),
    ],
    # 1,500 processes come and go.
    "processes 1024 MB": [
        Goal("pages taken, when they are gone", key("dropped-taken"), 619),
        Goal("splits of the direct map", key("splits"), 36),
        Goal("tasks that were killed", key("killed"), 0),
    ],
    # 51,200 tables, of which 1 % stays, at random.
    "kept 1024 MB": [
        Goal("permille of the direct map in blocks, without pressure", key("before-blocks-permille"),
             # The tables from early boot, which are in one block, split that: one of 512.
             least=lambda on, off: max(0, off["before-blocks-permille"] - 2)),
        Goal("pages cached, under pressure", key("dropped-cached"), lambda on, off: 4 * on["kept"] + BLOCK),
        Goal("instructions of one call of the shrinker, for a block", key("took"), 1000000),
    ],
    # 40,000 tables were freed before a process takes all there is.
    "used-up 512 MB": [
        Goal("pages that a process gets until it is killed", key("touched"),
             least=lambda on, off: off["touched"] * 98 // 100),
        Goal("kB of MemAvailable", key("available-kb"), least=lambda on, off: off["available-kb"] * 98 // 100),
    ],
    # 400 tables of a task, by its CPU, its policy, its cpuset.
    "nodes 1024 MB": [Goal(f"tables on another node than when off, {task}", elsewhere(f"nodes-{task}"), 16)
                      for task in ("cpu-of-0", "cpu-of-1", "cpu-without-memory", "bind-1", "prefer-1", "interleave",
                                   "cpuset-1")],
}


def build(last="HEAD", change=None, config=""):
    """The kernel of the stack that ends with commit @last, with enforcement; @change: as of bench.Variant."""
    feature = "CONFIG_KPKEYS_HARDENED_PGTABLES=y\nCONFIG_ARM64_KPKEYS_PIE_EMULATION=y\n"
    commit = bench.adding("arch/arm64/mm/kpkeys-emulation.c", last)
    return bench.build(bench.Variant("pressure", "nodes and cpusets", commit, change=change,
                                     config=feature + "CONFIG_NUMA=y\nCONFIG_CPUSETS=y\n" + config))


def userland():
    root = os.path.join(bench.WORK, "pressure")
    os.makedirs(root, exist_ok=True)
    run([CROSS + "gcc", "-O2", "-Wall", "-Wextra", "-static", "-o", root + "/init",
         os.path.join(bench.SOURCE, "pressure.c")], log="pressure")
    run(["sh", "-c", f"cd '{root}' && echo init | cpio --quiet -o -H newc -R 0:0 >'{root}.cpio'"])
    return root + ".cpio"


def start(k, initrd, scenario, map_, mode, what="", timeout=600):
    """The console of one scenario, and the name of its log; @what: for that name."""
    name, memory = scenario.split()[:2]
    cmd = k.command("enforce", map_, f"norandmaps pressure={name} {MODES[mode]}", initrd, int(memory))
    if name == "nodes":
        cmd += NODES
    else:
        cmd[cmd.index("-smp") + 1] = "1"
        cmd[cmd.index("-machine") + 1] += ",dtb-randomness=off"
        cmd += EXACT
    log = f"pressure {what} {name} {memory} {map_} {mode}"
    return run(cmd, check=False, log=log, timeout=timeout), log


def ended(console):
    return "pressure: end" in console and "pressure: error" not in console


def figures_in(console):
    """What one scenario came to: {figure: number, or a list of one a node}."""
    figures = {}
    for key_, value in re.findall(r"pressure: (\S+) ([-\d,]+)\r?$", console, re.M):
        figures[key_] = [int(n) for n in value.split(",")] if "," in value else int(value)
    return figures


def _boot(k, initrd, scenario, map_, mode):
    console, log = start(k, initrd, scenario, map_, mode)
    if not ended(console):
        raise Fail(f"'{scenario}', MAP={map_}, the feature {mode}, did not get to its end; "
                   f"log: {kernel.log_path(log)}\n" + kernel.tail(console))
    return figures_in(console)


def pressure(stack):
    """`make pressure`"""
    tree.make(stack)
    with step("build the kernel"):
        k, initrd = build(), userland()
    outcomes, everything = [], {}
    for map_ in kernel.MAPS:
        runs = [(s, mode) for s in SCENARIOS for mode in MODES]
        with step(f"scenarios, MAP={map_}"):
            results = dict(zip(runs, two_at_once(lambda r, m=map_: _boot(k, initrd, r[0], m, r[1]), runs)))
        rows = []
        for scenario, goals in SCENARIOS.items():
            o = kernel.Outcome(f"pressure {scenario} {map_}")
            for goal in goals:
                rows.append([scenario, *goal.row(results[scenario, "on"], results[scenario, "off"])])
                o.check(goal.what, None if rows[-1][-1] == "yes" else "{} instead of {}".format(*rows[-1][2::2]))
            outcomes.append(o)
        print(f"\nMAP={map_}")
        table(["memory", "figure", "on", "off", "goal", "met"], rows)
        everything[map_] = {f"{s}, {mode}": figures for (s, mode), figures in results.items()}
    save_result("pressure-figures", everything)
    return outcomes
