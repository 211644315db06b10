# SPDX-License-Identifier: GPL-2.0-only
"""Boot a kernel with a busybox userland: checks, or a shell."""
import os
import re
import shutil
import subprocess
from functools import partial

import kernel
import machines
from common import Fail, HARNESS, log_path, new_log, removed, run

BUSYBOX = machines.FOREIGN + "/usr/bin/busybox"


def initramfs(k, machine=None, name="plain"):
    """A cpio archive with busybox, harness/userland/init and what @machine needs; returns its path. @name: of the log of
    the boot, as another may boot meanwhile."""
    machine = machine or machines.of(None, k)
    root = os.path.join(k.out, "userland-" + os.path.basename(log_path(name)).removesuffix(".log"))
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(root + "/bin")
    if not os.path.exists(BUSYBOX):
        raise Fail(f"{BUSYBOX} is missing in the toolchain root: see 'foreign' in harness/packages")
    shutil.copy(BUSYBOX, root + "/bin/busybox")
    shutil.copy(os.path.join(HARNESS, "userland/init"), root + "/init")
    os.mkdir(root + "/dev")
    machine.files(root, lambda: initramfs(k, name=name + "-inside"))
    path = root + ".cpio"
    run(["sh", "-c", f"cd '{root}' && find . | cpio --quiet -o -H newc -R 0:0 >'{path}'"])
    shutil.rmtree(root)
    return path


def boot(k, mode, map_, program=None, seconds=0):
    """Boot to userland, and check it; @program: what of harness/userland runs there, see machines.py, "workload"
    with @seconds for each stressor, or "soak" with @seconds for all."""
    what = " ".join([program or "boot", k.arch, k.pages, map_, mode, *k.args.split()])
    log = new_log(f"{k.stack} {what}")
    machine = machines.of(program, k, seconds)
    initrd = initramfs(k, machine, log)
    cmd = k.command(mode, map_, machine.append, initrd, machine.memory) + machine.arguments()
    with removed(initrd):
        o, console = k.outcome(what, mode, cmd, log, k.timeout * machine.times + machine.more_seconds, machine.starts)
    o.note = "; ".join(filter(None, [o.note, *(s.strip() for s in re.findall(r"userland: says (.*)", console))]))
    o.check("userland reached its end", None if "userland: end" in console else f"see {o.log}")
    return o


# The last one counts.
PANIC = "kpkeys_hardened_pgtables=off kpkeys_hardened_pgtables=panic"
FORGED_ROOT = "kpkeys_attacker.attacker_test_root_data", "kpkeys: forged root of page tables"
FORGED = {"off": ("without protection", r"forge: (?P<said>it worked: .*)"),
          # At the address that the module has said.
          "enforce": ("with protection",
                      r"page table at (\w+)\s(?s:.)*?(?P<said>Unable to handle kernel write .* \1)\b"
                      r"(?s:.)*kpkeys: window closed"),
          "panic": ("with protection, and a panic",
                    r"page table at (\w+)\s(?s:.)*(?P<said>Kernel panic - not syncing: kpkeys: write to a page table"
                    r" outside of a context, at 0x\1)\b")}


def forged_write(k, mode, map_="block"):
    """A module writes to a page table: what the kernel says, and an Outcome."""
    machine = machines.of("forge", k)
    log = new_log(" ".join([k.stack, "forged write", mode, *k.args.split()]))
    initrd = initramfs(k, machine, log)
    append = f"{machine.append} {PANIC if mode == 'panic' else ''}"
    with removed(initrd):
        console = run(k.command("enforce" if mode == "panic" else mode, map_, append, initrd), check=False, log=log,
                      timeout=k.timeout)
    said = re.search(FORGED[mode][1], console)
    o = kernel.Outcome(f"forged write, {FORGED[mode][0]}")
    o.check("the write succeeds" if mode == "off" else "the write is refused",
            None if said else f"the kernel does not say so; log: {log_path(log)}")
    o.note = said["said"].strip() if said else ""
    return o


# When the n-th change of a pkey fails at boot, in so many MB: with 12 GB, the second is that of the table of interrupted
# sections.
EARLY = [(n, memory, f"kpkeys: Failed to {what}: -12") for n, memory, what in [
    (1, 1024, "stock the cache of page-table pages"), (2, 1024, "protect early page tables"),
    (5, 1024, "protect early page tables"), (2, 12288, "stock the cache of page-table pages")]]


def early_panics(k):
    """The work of booting with the failures of EARLY; @k(args, qemu) is the kernel."""
    for n, memory, why in EARLY:
        args = f"fail_set_memory_pkey={n},100,0,1"
        yield f"{args} with {memory} MB", partial(panics, k(args, qemu=kernel.memory(memory)), None, why)


def panics(k, test, why, map_="block"):
    """The kernel must panic for this reason: for what a KUnit test does, or else at boot."""
    log = new_log(" ".join([k.stack, "panic", *k.args.split()]))
    append = f"kunit.enable=1 kunit_shutdown=reboot kunit.filter_glob={test}" if test else "kunit.enable=0"
    console = run(k.command("enforce", map_, append), check=False, log=log, timeout=k.timeout)
    o = kernel.Outcome(" ".join([test or "boot", k.args, *re.findall(r"^-m (\d+)", k.qemu)]))
    o.check(f"a panic: {why}", None if f"Kernel panic - not syncing: {why}" in console else
            f"the kernel does not say so; log: {log_path(log)}")
    return o


def shell(k, mode, map_):
    """What starts a shell on the console: the kernel is loaded at once, so that another may be built meanwhile."""
    return partial(subprocess.call, k.command(mode, map_, "userland=shell", initramfs(k)))
