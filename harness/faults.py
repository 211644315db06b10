# SPDX-License-Identifier: GPL-2.0-only
"""Let the n-th change of a pkey, or the n-th allocation of a table, fail at boot.

One boot for each n, up to the first that fails in user space; in a larger guest, from
the 32nd on for each 16th, as what there is more of is all alike. The kernel must go
on with all tables protected, as the walk of all tables then says, or stop and say
why. A table that is left writable, a hang and an oops are failures, but for those
in which the base ends without our help.
"""
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor

import boot
import kernel
from common import Fail, run, save_result, step

POINTS = ["fail_set_memory_pkey", "fail_pgtable_alloc"]
MAX = 2000
# MB of the guest, and which n.
MEMORY = {128: [*range(1, MAX)], 2048: [*range(1, 32), *range(32, MAX, 16)]}
TIMEOUT = 40
# Without what it could not map the base does not come up either, and says so.
LOST_DEVICE = re.compile(r"couldn't map region|unable to map|Unable to map")
# Before the first cgroup is there, the base cannot warn that a vmalloc() has failed;
# and without a stack for kswapd it does not go on, which is a BUG_ON() of its own.
BASE_OOPS = re.compile(r"pc : (mem_cgroup_show_protected_memory|kswapd_run)\+")

# A console whose thread cannot start is off; the one of early boot stays, and has what the kernel says.
LOST_CONSOLE = "failed to start printing thread"


def _stack(console):
    """The functions on the way to the injected failure."""
    m = re.search(r"FAULT_INJECTION: forcing a failure.*?Call trace:(.*?)(?:\n\[[^\]]*\] (?!  ?\S+\+0x)|\Z)",
                  console, re.S)
    names = re.findall(r"\]\s+([\w.]+)\+0x", m[1]) if m else []
    names = [n for n, before in zip(names, ["", *names]) if n != before]    # there are two consoles
    return tuple(n for n in names if not re.match(r"show_stack|dump_stack|should_fail|fail_dump", n))


def _verdict(console, hung):
    """(what became of it, None) or (.., why that is wrong)."""
    panic = re.search(r"Kernel panic - not syncing: (.*)", console)
    if hung and LOST_DEVICE.search(console):
        return "stops: " + LOST_DEVICE.search(console)[0], None
    if hung:
        return "hang", "no end in time\n" + kernel.tail(console)
    if "writable" in console and "EXPECTATION FAILED" in console:
        return "writable", "the walk found a writable table"
    if panic and BASE_OOPS.search(console):
        return f"stops: {panic[1]} in {BASE_OOPS.search(console)[1]}()", None
    if panic:
        return "stops: " + re.sub(r"0x\w+|-?\d+", "N", panic[1].strip()), \
            None if not re.search(r"Oops|exception|Attempted to kill", panic[1]) else panic[1]
    if "] ok 1 kpkeys_hardened_pgtables" in console:
        return f"goes on{' without a console' if LOST_CONSOLE in console else ''}, all tables protected", None
    return "lost", "neither a panic nor the end of the boot\n" + kernel.tail(console)


def _boots(k, map_, point, memory):
    """(n, console, hung) up to user space, as many at once as there are CPUs."""
    workers = os.cpu_count()

    cmd = k.command("enforce", map_, "userland=tables loglevel=8 keep_bootcon", boot.initramfs(k), memory)

    def one(n):
        start = time.monotonic()
        console = run([*cmd[:-1], f"{cmd[-1]} {point}={n},100,0,1"], check=False,
                      log=f"faults {point} {map_} {n}", timeout=TIMEOUT)
        return console, time.monotonic() - start >= TIMEOUT

    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(MEMORY[memory]), workers):
            batch = MEMORY[memory][first:first + workers]
            for n, (console, hung) in zip(batch, pool.map(one, batch)):
                before, injected, _ = console.partition("FAULT_INJECTION: forcing a failure")
                if not injected or "Run /init as init process" in before:
                    return
                yield n, console, hung
    raise Fail(f"{point}: more than {MAX} before user space")


def faults(k, map_, point, memory):
    """All n up to user space, in a guest with so many MB, or as many as MEMORY says."""
    o = kernel.Outcome(f"faults {map_} {point}, {memory} MB")
    stacks, became, found = set(), {}, 0
    for n, console, hung in _boots(k, map_, point, memory):
        found += 1
        what, why = _verdict(console, hung)
        became[what] = became.get(what, 0) + 1
        stacks.add(_stack(console))
        if why:
            o.check(f"{point} at {n}", f"{what}: {why}")
    o.check(f"{point}: {found} failures, {len(stacks)} call stacks",
            None if found else "no failure was injected: is CONFIG_FAIL_PGTABLE on?")
    o.note = ", ".join(f"{count} {what}" for what, count in sorted(became.items()))
    save_result(f"faults-{map_}-{point}-{memory}", {"n": found, "became": became,
                                                    "stacks": sorted(" < ".join(s) for s in stacks)})
    return o


def run_all(k):
    for memory in MEMORY:
        for map_ in kernel.MAPS:
            for point in POINTS:
                with step(f"{point}, MAP={map_}, {memory} MB"):
                    yield faults(k, map_, point, memory)
