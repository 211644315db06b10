# SPDX-License-Identifier: GPL-2.0-only
"""Boot a kernel with a busybox userland: checks, or a shell."""
import os
import re
import shutil
import subprocess
import time
from functools import partial

import kernel
import machines
import qemu_arm64
from common import Fail, HARNESS, run

BUSYBOX = machines.FOREIGN + "/usr/bin/busybox"


def initramfs(k, machine=None, name="plain"):
    """A cpio archive with busybox, harness/userland/init and what @machine needs; returns its path."""
    machine = machine or machines.of(None, k)
    root = os.path.join(k.out, "userland-" + name)
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
    return path


def command(k, mode, map_, append="", initrd=None, memory=1024):
    q = qemu_arm64.machine(map_)
    args = q.kernel_command_line + (f" kpkeys={mode}" if mode != "enforce" else "")
    # The suites are kunit.py's; here the kernel is to reach its userland, which
    # runs one of them once more. An oops may leave it unable to.
    return ["qemu-system-" + q.qemu_arch, "-nodefaults", "-m", str(memory), "-no-reboot", "-nographic",
            "-serial", "mon:stdio", *q.extra_qemu_params, *k.qemu.split(),
            "-kernel", k.image, "-initrd", initrd or initramfs(k),
            "-append", f"{args} kunit.autorun=0 oops=panic {k.args} {append}".strip()]


def emulate(cmd, log, timeout):
    """What the machine wrote to its console."""
    return run(cmd, check=False, log=log, timeout=timeout, stdin="")


def boot(k, mode, map_, program=None, seconds=0):
    """Boot to userland, and check it; @program: what of harness/userland runs there, see machines.py, "workload"
    with @seconds for each stressor, or "soak" with @seconds for all."""
    what = f"{program or 'boot'} {k.arch} {k.pages} {map_} {mode}"
    what += f" {k.args}" if k.args else ""
    log = f"{k.stack} {what}"
    machine = machines.of(program, k, seconds)
    timeout = k.timeout * machine.times + machine.more_seconds
    # Another may boot meanwhile.
    initrd = initramfs(k, machine, os.path.basename(kernel.log_path(log)).removesuffix(".log"))
    cmd = command(k, mode, map_, machine.append, initrd, machine.memory) + machine.arguments()
    start = time.monotonic()
    console = "".join(emulate(cmd, log + (f" {n}" if n else ""), timeout) for n in range(machine.starts))
    took = time.monotonic() - start
    o = kernel.Outcome(what)
    o.seconds, o.log = round(took), kernel.log_path(log)
    kernel.health(o, mode, k.races_of_ours(console), took >= timeout, log)
    k.expect(o, console, log)
    for result, name, why in re.findall(r"userland: (ok|not ok|skip) (\S+)(?: - (.*))?", console):
        if result == "skip":
            o.skipped.append((name, why.strip()))
        else:
            o.check(name, None if result == "ok" else why.strip() or "failed")
    o.note = "; ".join(filter(None, [o.note, *(s.strip() for s in re.findall(r"userland: says (.*)", console))]))
    o.check("userland reached its end", None if "userland: end" in console else f"see {kernel.log_path(log)}")
    return o


FORGED = {"off": ("without protection", r"forge: (?P<said>it worked: .*)"),
          # At the address that the module has said.
          "enforce": ("with protection",
                      r"page table at (\w+)\s(?s:.)*?(?P<said>Unable to handle kernel write .* \1)\b")}


def forged_write(k, mode, map_="block"):
    """A module writes to a page table: what the kernel says, and an Outcome."""
    machine = machines.of("forge", k)
    log = f"{k.stack} forged write {mode}"
    initrd = initramfs(k, machine, "forge-" + mode)
    console = emulate(command(k, mode, map_, machine.append, initrd), log, k.timeout)
    said = re.search(FORGED[mode][1], console)
    o = kernel.Outcome(f"forged write, {FORGED[mode][0]}")
    o.check("the write succeeds" if mode == "off" else "the write is refused",
            None if said else f"the kernel does not say so; log: {kernel.log_path(log)}")
    o.note = said["said"].strip() if said else ""
    return o


def shell(k, mode, map_):
    """What starts a shell on the console: the kernel is loaded at once, so that another may be built meanwhile."""
    return partial(subprocess.call, command(k, mode, map_, "userland=shell"))
