# SPDX-License-Identifier: GPL-2.0-only
"""Boot a kernel with a busybox userland: checks, or a shell."""
import importlib
import os
import re
import shutil
import subprocess
import time

import kernel
import qemu_arm64
from common import Fail, HARNESS, run

BUSYBOX = "/opt/arm64/usr/bin/busybox"      # from harness/packages


def initramfs(out):
    """A cpio archive with busybox and harness/userland; returns its path."""
    root = os.path.join(out, "userland")
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(root + "/bin")
    if not os.path.exists(BUSYBOX):
        raise Fail(f"{BUSYBOX} is missing in the toolchain root: see 'foreign' in harness/packages")
    shutil.copy(BUSYBOX, root + "/bin/busybox")
    shutil.copy(os.path.join(HARNESS, "userland/init"), root + "/init")
    os.mkdir(root + "/dev")
    path = root + ".cpio"
    run(["sh", "-c", f"cd '{root}' && find . | cpio --quiet -o -H newc -R 0:0 >'{path}'"])
    return path


def command(k, mode, map_, append=""):
    os.environ["MAP"] = map_
    q = importlib.reload(qemu_arm64).QEMU_ARCH
    args = q.kernel_command_line + (f" kpkeys={mode}" if mode != "enforce" else "")
    # The suites are kunit.py's; here the kernel is to reach its userland, which
    # runs one of them once more.
    return ["qemu-system-" + q.qemu_arch, "-nodefaults", "-m", "1024", "-no-reboot", "-nographic",
            "-serial", "mon:stdio", *q.extra_qemu_params,
            "-kernel", os.path.join(k.out, q.kernel_path), "-initrd", initramfs(k.out),
            "-append", f"{args} kunit.autorun=0 {append}".strip()]


def boot(k, mode, map_):
    what = f"boot {k.arch} {k.pages} {map_} {mode}"
    log = f"{k.stack} {what}"
    start = time.monotonic()
    console = run(command(k, mode, map_), check=False, log=log, timeout=kernel.TIMEOUT, stdin="")
    o = kernel.Outcome(what)
    kernel.health(o, mode, console, time.monotonic() - start >= kernel.TIMEOUT, log)
    for result, name, why in re.findall(r"userland: (ok|not ok|skip) (\S+)(?: - (.*))?", console):
        if result == "skip":
            o.skipped.append((name, why.strip()))
        else:
            o.check(name, None if result == "ok" else why.strip() or "failed")
    o.check("userland reached its end", None if "userland: end" in console else f"see {kernel.log_path(log)}")
    return o


def shell(k, mode, map_):
    return subprocess.call(command(k, mode, map_, "userland=shell"))
