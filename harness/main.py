# SPDX-License-Identifier: GPL-2.0-only
"""What the targets of the Makefile do. Runs inside the toolchain root."""
import errno
import os
import re
import shutil
import signal
import sys
import time
from functools import partial


def _early(*_):
    """On a signal, while the rest is imported."""
    print("error: interrupted", file=sys.stderr, flush=True)
    os._exit(130)


for _signal in signal.SIGINT, signal.SIGTERM:
    signal.signal(_signal, _early)

import base
import bench
import boot
import checks
import compare
import comparereport
import coverage
import faults
import field
import kernel
import matrix
import mutants
import perpatch
import pressure
import proofs
import rebase
import report
import sabotage
import series
import tip
import tree
from common import (BUILD, CACHE, Fail, LINUX, LOGS, TOP, interrupted, limit, locked, number, spent, step, steps_at_once,
                    two_at_once)

RUNS = [(map_, mode) for map_ in kernel.MAPS for mode in ("enforce", "check")]
BOOTS = [(map_, "enforce") for map_ in kernel.MAPS]
# Ranges that the hammer of splits takes, once for each map and mode.
MANY = 4000


def built(stack, bring=tree.make, **config):
    """The kernel of a stack, built; @bring: how build/linux is brought to it."""
    bring(stack)
    k = kernel.Kernel(stack, **config)
    with step(f"build {k.name}"):
        k.build()
    return k


def _names(what, k, modes):
    if k.arch == "um":
        return [f"{what}, ARCH=um"]
    return [f"{what}, MAP={map_} MODE={mode} {k.args}".strip() for map_, mode in modes]


def suites(k, modes=RUNS, suite=None, ranges=None):
    """The work of running the suites, for steps_at_once()."""
    work = [partial(k.kunit, mode, map_, suite, ranges=ranges) for map_, mode in modes]
    return list(zip(_names("KUnit", k, modes), work))


def boots(k, modes=BOOTS, *program):
    """As suites(), of boots to userland."""
    work = [partial(boot.boot, k, mode, map_, *program) for map_, mode in modes]
    return list(zip(_names(*program[:1] or ["boot to userland"], k, modes), work))


def unprotected(k):
    """The work of showing that a kernel without protection is whole, for steps_at_once()."""
    return suites(k, [(map_, "off") for map_ in kernel.MAPS]) + boots(k, [("block", "off")])


def do_demo(stack, modes=BOOTS, ranges=None, args="userland=brief"):
    k = built(stack)
    if stack == "reserve":      # which protects nothing
        return steps_at_once(unprotected(k))
    # What takes longest comes first.
    outcomes = steps_at_once(boots(kernel.Kernel(stack, args=args)) + suites(k, modes, ranges=ranges) +
                             [(f"a forged write, MODE={mode}", partial(boot.forged_write, k, mode)) for mode in boot.FORGED])
    print("\nOne module, which writes to a page table, loaded into the same kernel:")
    for o in outcomes[-len(boot.FORGED):]:
        print(f"  {o.what.partition(', ')[2] + ':':20} {o.note}")
    return outcomes


def variations(stack):
    """The kernel that is built, on machines and with command lines that are special."""
    def k(args, says="", qemu=""):
        return kernel.Kernel(stack, args=args, says=says, qemu=qemu)

    block = [("block", "enforce"), ("block", "check")]
    work = suites(k(""), [(map_, "off") for map_ in kernel.MAPS], ranges=MANY)
    work += suites(k(*kernel.OLD), [("pte", "off")]) + boots(k(*kernel.OLD), [("pte", "off")])
    # The direct map is converted from blocks to pages after the feature is on.
    work += suites(k("kpkeys_test_bbml3=boot-cpu"), block)
    # With so much memory, some of these blocks are mapped by one entry of a PUD.
    work += suites(k("kpkeys_test_bbml3=boot-cpu", qemu=kernel.memory(4096)), block[:1])
    # A page leaves the direct map, and a table is allocated, in each phase of boot.
    for map_, while_cpus_come_up in ("block", "impossible"), ("pte", "possible"):
        phases = [f"test: {phase}: direct map {ret}, split {split}, table protected" for phase, ret, split in [
            *((phase, 0, "possible") for phase in ("console", "early")), ("secondary", -11, while_cpus_come_up),
            *((phase, 0, "possible") for phase in ("pure", "core", "late"))]]
        work += suites(k("kpkeys_test_phases", "(?s)" + ".*".join(phases)), [(map_, "enforce")], "kpkeys_direct_map_split")
    # The table of interrupted sections is so large here that a block is split for it.
    work += suites(k("", qemu=kernel.memory(12288)), block[:1])
    # A CPU without kpkeys must not run.
    work += suites(k("kpkeys_test_kpkeys=boot-cpu", "CPU1: Detected conflict for capability .*kpkeys"), block[:1])
    work.append(("a forged root, and a panic", partial(boot.panics, k(boot.PANIC), *boot.FORGED_ROOT)))
    work += boot.early_panics(k)
    work += boots(k(""), [(map_, "check") for map_ in kernel.MAPS])
    # Whatever else the command line says about read-only memory.
    work += boots(k("rodata=off", "kpkeys: rodata=off: the root page tables"), block[:1])
    work += boots(k("rodata=noalias"))
    # The first chunk of the cache is a part of a block, which is split for it.
    work += boots(k("mem=256M page_owner=on"), block[:1])
    return steps_at_once(work)


def workloads(stack):
    # With 1 s, as in the matrix, uffd-unit-tests would be left out.
    return steps_at_once(boots(kernel.Kernel(stack), BOOTS, "workload", 2))


def user_mode(stack):
    return steps_at_once(suites(built(stack, arch="um"), RUNS[:1]))


def reserve_alone(stack):
    """The beginning of the series, which can be merged by itself; in a tree of its own, or all else would be built again."""
    work = os.path.join(BUILD, "alone")
    tree.worktree(os.path.join(work, "linux"), tree.assemble("reserve"))
    k = kernel.Kernel("reserve", work=work)
    with step(f"build {k.name}"):
        k.build()
    return steps_at_once(unprotected(k))


# What CI runs, in this order.
PARTS = {
    "demo, in both modes": lambda stack: do_demo(stack, RUNS, MANY, ""),
    "the text of the series, and the front door":
        lambda stack: two_at_once(lambda check: check(), [partial(checks.repository, stack), checks.behaviour, checks.lint]),
    "special machines and command lines": variations,
    "workload": workloads,
    "User Mode Linux": user_mode,
    "the reserve by itself": reserve_alone,
    "proofs, object code, and each patch":
        lambda stack: sum(two_at_once(lambda part: part(), [
            proofs.run_all, lambda: [*checks.object_code(), perpatch.each(stack).o]]), []),
    "sabotage": sabotage.run_all,
    "the GFP-flag design": lambda stack: [compare.suites()],
}
# In minutes, on a slow machine: how long it takes until a part looks at the time again.
LONG = {"sabotage": 10, "the GFP-flag design": 20}


def do_test(stack):
    if os.environ.get("MINUTES"):
        limit.start(number("MINUTES", 0, "number of minutes"))
    outcomes, parts = [], []
    for what, part in PARTS.items():
        o, start = kernel.Outcome(what), time.monotonic()
        if limit.skips(o, "all of it", LONG.get(what, 0)):
            outcomes.append(o)
        else:
            outcomes += part(stack)
            parts.append((time.monotonic() - start, what))
    report.times("part", parts)
    return outcomes


def do_kunit(stack):
    config, run = kernel.selected()
    return steps_at_once(suites(built(stack, tree.as_it_is, **config), [(run["map_"], run["mode"])], run["suite"]))


def do_boot(stack):
    config, run = kernel.selected()
    if config["arch"] != "arm64":
        raise Fail("make boot is for ARCH=arm64; User Mode Linux has no direct map to protect")
    return steps_at_once(boots(built(stack, tree.as_it_is, **config), [(run["map_"], run["mode"])]))


def do_workload(stack):
    config, run = kernel.selected()
    seconds = number("SECONDS_EACH", 3, "number of seconds")
    k = built(stack, tree.as_it_is, **config)
    return steps_at_once(boots(k, [(run["map_"], run["mode"])], "workload", seconds))


def do_soak(stack):
    config, run = kernel.selected()
    hours = os.environ.get("HOURS") or "1"
    if not re.fullmatch(r"\d*\.?\d+", hours) or not float(hours):
        raise Fail(f"HOURS={hours} is not a number of hours")
    k = built(stack, tree.as_it_is, **config)
    with step(f"soak for {hours} h, MAP={run['map_']} MODE={run['mode']}"):
        return [boot.boot(k, run["mode"], run["map_"], "soak", int(float(hours) * 3600))]


def do_check(stack):
    chosen, at_tip = perpatch.numbers(os.environ.get("PATCH", ""), stack)
    tree.make(stack)
    patches = perpatch.each(stack, True, chosen)
    if not at_tip:
        return [patches.o]
    start = time.monotonic()
    found = [checks.repository(stack), tip.check(patches), *checks.object_code()]
    patches.write([perpatch.TIP, "all patches applied", patches.commits[-1][:12],
                   *(sum(len(getattr(o, what)) for o in found) for what in ("passed", "failed")),
                   round((time.monotonic() - start) / 60)])
    return [patches.o, *found]


def do_rebase_check(stack):
    tree.make(stack)
    return rebase.check(stack)


def do_faults(stack):
    outcomes = list(faults.run_all(built(stack)))
    report.keep("faults", outcomes)
    return outcomes


def do_proofs(stack):
    tree.make(stack)
    outcomes = proofs.run_all()
    report.keep("proofs", outcomes)
    return outcomes


def do_fuzz(stack):
    seconds = number("FUZZ_SECONDS", 3600, "number of seconds")
    tree.make(stack)
    return proofs.long_fuzz(seconds)


def do_field(stack):
    if os.environ.get("SABOTAGE"):
        return sabotage.run_field(stack, os.environ["SABOTAGE"])
    return field.run(stack, os.environ.get("CASE"))


def do_matrix(stack):
    return matrix.run(stack, os.environ.get("CELL"))


def do_shell(stack):
    config, run = kernel.selected()
    return boot.shell(built(stack, tree.as_it_is, **config), run["mode"], run["map_"])


def do_tree(stack):
    tree.make(stack)
    print(f"build/linux is stack {stack}")


def do_refresh(stack):
    if not os.path.exists(os.path.join(LINUX, ".git")):
        raise Fail("there is no build/linux yet: run 'make tree' first")
    print(f"{tree.refresh(stack, LINUX)} patches written")


def do_series(stack):
    asked = series.asked(stack)
    tree.make(stack)
    with step("series"):
        mbox = series.make(stack, **asked)
    if not base.OWN:
        print("note: no base-commit in the mails, as nobody else has the commit of the base: "
              "LINUX=/path/to/linux BASE=v7.3.4 gives one")
    for line in series.changes(stack, mbox, **asked):
        print(line)
    print(f"{os.path.relpath(mbox, TOP)} and the folder beside it")


def do_release(stack):
    asked = series.asked(stack, rfc="1")
    if base.OWN:
        raise Fail("a release is made on the base of the repository: 'make release' without LINUX")
    for name in series.RELEASED:
        tree.make(name)
        with step(f"release of {name}"):
            paths = series.release(name, asked["version"], asked["rfc"])
        print("\n".join(os.path.relpath(path, TOP) for path in paths))
    tree.make(stack)


def do_test_the_tests(stack):
    return sabotage.run_all(stack, os.environ.get("SABOTAGE"))


def do_mutants(stack):
    if os.environ.get("MINUTES"):
        limit.start(number("MINUTES", 0, "number of minutes"))
    return mutants.run_all(stack)


def do_coverage(stack):
    return coverage.run_all(stack)


def do_bench(stack):
    return bench.bench(stack)


def do_pressure(stack):
    return pressure.pressure(stack)


def do_compare(stack):
    data, outcomes = compare.measure()
    comparereport.make(data)
    return outcomes


def do_clean(stack):
    if os.path.isdir(LINUX):
        tree.make(stack)        # refuses if there are edits
        if tree.kept():
            raise Fail(f"build/ has what FORCE=1 put aside ({' '.join(tree.kept())}): take it, and drop it there")
    shutil.rmtree(BUILD)


def main():
    target = sys.argv[1] if len(sys.argv) > 1 else ""
    do = globals().get("do_" + target.replace("-", "_"))
    if not do:
        raise Fail(f"no such target: '{target}'; see 'make help'")
    kernel.selected()           # unknown values, before any work
    stack = tree.stack_name()
    start = time.monotonic()
    with locked(os.path.join(BUILD, "lock"), "build/"):
        result = do(stack)
    if callable(result):        # what needs nothing of build/ any more
        return result()
    if isinstance(result, list):
        report.times("step", spent)
        seconds = time.monotonic() - start
        print(f"\n{target}: {seconds:.0f} s; logs: {os.path.relpath(LOGS, TOP)}", end="")
        return 0 if report.verdict(target, result, seconds) else 1
    return result or 0


if __name__ == "__main__":
    for number_ in signal.SIGINT, signal.SIGTERM:
        signal.signal(number_, interrupted)
    try:
        sys.exit(main())
    except Fail as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as e:
        print(f"error: disk full: make room below {BUILD} and {CACHE}" if e.errno == errno.ENOSPC else
              f"error: {e.filename or ''}: {e.strerror or e}", file=sys.stderr)
        sys.exit(1)
