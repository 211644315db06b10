# SPDX-License-Identifier: GPL-2.0-only
"""Let the n-th change of a pkey, or the n-th allocation of a table, fail at boot.

One boot for each n, up to the first that fails in user space. The kernel must go
on with all tables protected, as the walk of all tables then says, or stop and say
why. A table that is left writable, a hang and an oops are failures.
"""
import re
import time

import boot
import kernel
from common import Fail, save_result, step

POINTS = ["fail_set_memory_pkey", "fail_pgtable_alloc"]
MAX = 2000
TIMEOUT = 20
# Without what it could not map the base does not come up either, and says so.
LOST_DEVICE = re.compile(r"couldn't map region|unable to map|Unable to map")


def _stack(console):
    """The functions on the way to the injected failure."""
    m = re.search(r"FAULT_INJECTION: forcing a failure.*?Call trace:(.*?)(?:\n\[[^\]]*\] (?!  ?\S+\+0x)|\Z)",
                  console, re.S)
    names = re.findall(r"\]\s+([\w.]+)\+0x", m[1]) if m else []
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
    if panic:
        return "stops: " + re.sub(r"0x\w+|-?\d+", "N", panic[1].strip()), \
            None if not re.search(r"Oops|exception|Attempted to kill", panic[1]) else panic[1]
    if "userland: ok page-tables-after-boot" in console:
        return "goes on, all tables protected", None
    return "lost", "neither a panic nor the end of the boot\n" + kernel.tail(console)


def _one(k, map_, point, n, memory):
    cmd = boot.command(k, "enforce", map_, f"userland=tables loglevel=8 {point}={n},100,0,1")
    cmd[cmd.index("-m") + 1] = str(memory)
    start = time.monotonic()
    console = boot.emulate(cmd, f"faults {point} {map_}", TIMEOUT)
    return console, time.monotonic() - start >= TIMEOUT


def faults(k, map_, point, memory=128, stride=1):
    """All n up to user space, or every @stride-th."""
    o = kernel.Outcome(f"faults {map_} {point}")
    stacks, became = set(), {}
    n, found = 1, 0
    while n < MAX:
        console, hung = _one(k, map_, point, n, memory)
        before, injected, _ = console.partition("FAULT_INJECTION: forcing a failure")
        if not injected or "Run /init as init process" in before:
            break
        found += 1
        what, why = _verdict(console, hung)
        became[what] = became.get(what, 0) + 1
        stacks.add(_stack(console))
        if why:
            o.check(f"{point} at {n}", f"{what}: {why}")
        n += stride
    else:
        raise Fail(f"{point}: more than {MAX} before user space")
    o.check(f"{point}: {found} failures, {len(stacks)} call stacks",
            None if found else "no failure was injected: is CONFIG_FAIL_PGTABLE on?")
    o.note = ", ".join(f"{count} {what}" for what, count in sorted(became.items()))
    save_result(f"faults-{map_}-{point}", {"n": found, "stride": stride, "became": became,
                                           "stacks": sorted(" < ".join(s) for s in stacks)})
    return o


def run_all(k, stride=1):
    for map_ in kernel.MAPS:
        for point in POINTS:
            with step(f"{point}, MAP={map_}" + (f", each {stride}th" if stride > 1 else "")):
                yield faults(k, map_, point, stride=stride)
