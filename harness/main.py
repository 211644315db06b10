# SPDX-License-Identifier: GPL-2.0-only
"""What the targets of the Makefile do. Runs inside the toolchain root."""
import os
import re
import shutil
import sys
import time

import base
import bench
import boot
import checks
import compare
import comparereport
import faults
import kernel
import matrix
import perpatch
import proofs
import rebase
import report
import sabotage
import series
import tip
import tree
from common import BUILD, Fail, LINUX, TOP, limit, locked, step

RUNS = [(map_, mode) for map_ in kernel.MAPS for mode in ("enforce", "check")]


def built(stack, **config):
    """The kernel of a stack, built."""
    tree.make(stack)
    k = kernel.Kernel(stack, **config)
    with step(f"build {k.name}"):
        k.build()
    return k


def tests_of(k, modes=RUNS, suite=None):
    for map_, mode in modes:
        with step(f"KUnit, MAP={map_} MODE={mode}"):
            yield k.kunit(mode, map_, suite)


def do_demo(stack):
    k = built(stack)
    outcomes = list(tests_of(k))
    for map_ in kernel.MAPS:
        with step(f"boot to userland, MAP={map_}"):
            outcomes.append(boot.boot(k, "enforce", map_))
    return outcomes


def variations(stack):
    """The kernel that is built, on machines and with command lines that are special."""
    yield from tests_of(kernel.Kernel(stack), [(map_, "off") for map_ in kernel.MAPS])
    # The direct map is converted from blocks to pages after the feature is on.
    converted = kernel.Kernel(stack, args="kpkeys_test_bbml3=boot-cpu")
    yield from tests_of(converted, [("block", "enforce"), ("block", "check")])
    # A CPU without kpkeys must not run.
    refused = kernel.Kernel(stack, args="kpkeys_test_kpkeys=boot-cpu",
                            says="CPU1: Detected conflict for capability .*kpkeys")
    yield from tests_of(refused, [("block", "enforce")])
    for map_ in kernel.MAPS:
        with step(f"boot to userland, MAP={map_} MODE=check"):
            yield boot.boot(kernel.Kernel(stack), "check", map_)
    # Whatever else the command line says about read-only memory.
    for args, map_, says in (("rodata=off", "block", "kpkeys: rodata=off: the root page tables"),
                             ("rodata=noalias", "block", ""), ("rodata=noalias", "pte", "")):
        with step(f"boot to userland, MAP={map_} {args}"):
            yield boot.boot(kernel.Kernel(stack, args=args, says=says), "enforce", map_)


def workloads(stack):
    for map_ in kernel.MAPS:
        with step(f"workload, MAP={map_}"):
            # With 1 s, as in the matrix, uffd-unit-tests would be left out.
            yield boot.boot(kernel.Kernel(stack), "enforce", map_, "workload", 2)


def user_mode(stack):
    k = built(stack, arch="um")
    with step("KUnit, ARCH=um"):
        yield k.kunit()


def reserve_alone(stack):
    """The beginning of the series, which can be merged by itself."""
    k = built("reserve")
    yield from tests_of(k, [(map_, "off") for map_ in kernel.MAPS])
    with step("boot to userland, STACK=reserve"):
        yield boot.boot(k, "off", "block")
    tree.make(stack)


# What CI runs, in this order.
PARTS = {
    "demo": do_demo,
    "the text of the series": lambda stack: [checks.repository(stack)],
    "front door": lambda stack: [checks.behaviour()],
    "special machines and command lines": variations,
    "workload": workloads,
    "User Mode Linux": user_mode,
    "the reserve by itself": reserve_alone,
    "proofs": lambda stack: proofs.run_all(),
    "object code": lambda stack: checks.object_code(),
    "each patch": lambda stack: [perpatch.each(stack).o],
    "sabotage": sabotage.run_all,
    "the GFP-flag design": lambda stack: [compare.suites()],
}
# In minutes, on a slow machine: how long it takes until a part looks at the time again.
LONG = {"sabotage": 15, "the GFP-flag design": 20}


def do_test(stack):
    minutes = os.environ.get("MINUTES") or "60"
    if not minutes.isdigit():
        raise Fail(f"MINUTES={minutes} is not a number of minutes")
    limit.start(int(minutes))
    outcomes = []
    for what, part in PARTS.items():
        o = kernel.Outcome(what)
        if limit.skips(o, "all of it", LONG.get(what, 0)):
            outcomes.append(o)
        else:
            outcomes += part(stack)
    return outcomes


def do_kunit(stack):
    config, run = kernel.selected()
    k = built(stack, **config)
    return list(tests_of(k, [(run["map_"], run["mode"])], run["suite"]))


def do_boot(stack):
    config, run = kernel.selected()
    if config["arch"] != "arm64":
        raise Fail("make boot is for ARCH=arm64; User Mode Linux has no direct map to protect")
    return [boot.boot(built(stack, **config), run["mode"], run["map_"])]


def do_workload(stack):
    config, run = kernel.selected()
    seconds = os.environ.get("SECONDS_EACH") or "3"
    if not seconds.isdigit() or not int(seconds):
        raise Fail(f"SECONDS_EACH={seconds} is not a number of seconds")
    k = built(stack, **config)
    with step(f"workload, MAP={run['map_']} MODE={run['mode']}"):
        return [boot.boot(k, run["mode"], run["map_"], "workload", int(seconds))]


def do_soak(stack):
    config, run = kernel.selected()
    hours = os.environ.get("HOURS") or "1"
    if not re.fullmatch(r"\d*\.?\d+", hours) or not float(hours):
        raise Fail(f"HOURS={hours} is not a number of hours")
    k = built(stack, **config)
    with step(f"soak for {hours} h, MAP={run['map_']} MODE={run['mode']}"):
        return [boot.boot(k, run["mode"], run["map_"], "soak", int(float(hours) * 3600))]


def do_check(stack):
    tree.make(stack)
    outcomes = [checks.repository(stack)]
    patches = perpatch.each(stack, full=True)
    return outcomes + [patches.o, tip.check(patches), *checks.object_code()]


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
    seconds = os.environ.get("FUZZ_SECONDS") or "3600"
    if not seconds.isdigit() or not int(seconds):
        raise Fail(f"SECONDS={seconds} is not a number of seconds")
    tree.make(stack)
    return proofs.long_fuzz(int(seconds))


def do_matrix(stack):
    return matrix.run(stack, os.environ.get("CELL"))


def do_shell(stack):
    config, run = kernel.selected()
    return boot.shell(built(stack, **config), run["mode"], run["map_"])


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
        for path in series.release(name, asked["version"], asked["rfc"]):
            print(os.path.relpath(path, TOP))
    tree.make(stack)


def do_test_the_tests(stack):
    return sabotage.run_all(stack, os.environ.get("SABOTAGE"))


def do_bench(stack):
    return bench.bench(stack)


def do_compare(stack):
    data, outcomes = compare.measure()
    comparereport.write(data)
    return outcomes


def do_clean(stack):
    if os.path.isdir(LINUX):
        tree.make(stack)        # refuses if there are edits
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
    if isinstance(result, list):
        print(f"\n{target}: {time.monotonic() - start:.0f} s", end="")
        return 0 if report.verdict(target, result) else 1
    return result or 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Fail as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as e:
        print(f"error: {e.filename or ''}: {e.strerror or e}", file=sys.stderr)
        sys.exit(1)
