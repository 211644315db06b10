# SPDX-License-Identifier: GPL-2.0-only
"""Boot a kernel with a busybox userland: checks, or a shell."""
import glob
import importlib
import os
import re
import shutil
import subprocess
import time

import kernel
import qemu_arm64
from common import CROSS, Fail, HARNESS, run

FOREIGN = "/opt/arm64"                      # from harness/packages
BUSYBOX = FOREIGN + "/usr/bin/busybox"
STRESS = FOREIGN + "/usr/bin/stress-ng"
LOADER = "ld-linux-aarch64.so.1"


def _libraries(program):
    """The shared libraries that a program of FOREIGN needs, by their paths there."""
    have = {os.path.basename(p): p for p in glob.glob(FOREIGN + "/usr/lib/**/*.so*", recursive=True)}
    todo, found = [program], {}
    while todo:
        for name in re.findall(r"NEEDED.*\[(.*)\]", run([CROSS + "readelf", "-d", todo.pop()])):
            if name in found:
                continue
            if name not in have:
                raise Fail(f"{name}, which {os.path.basename(program)} needs, is missing: "
                           "see 'foreign' in harness/packages")
            found[name] = have[name]
            todo.append(have[name])
    return found.values()


def selftests(k):
    """The kernel's own mm selftests, those that build statically; returns their folder."""
    headers, out = os.path.join(k.out, "headers"), os.path.join(k.out, "selftests")
    os.makedirs(out, exist_ok=True)
    log = f"selftests {k.name}"
    run(["make", "-s", "-C", k.tree, f"O={headers}", "ARCH=arm64", "headers"], log=log)
    # What needs libraries that are not there does not build; init says so.
    run(["make", "-s", "-k", f"-j{os.cpu_count()}", "-C", os.path.join(k.tree, "tools/testing/selftests/mm"),
         "ARCH=arm64", f"CROSS_COMPILE={CROSS}", "LDFLAGS=-static", f"OUTPUT={out}",
         f"KHDR_INCLUDES=-isystem {headers}/usr/include"], log=log, check=False)
    return out


def _add_workload(k, root):
    """What harness/userland/workload and soak run."""
    for d in ("/usr/bin", "/usr/lib", "/lib"):
        os.makedirs(root + d, exist_ok=True)
    for name in ("stress", "workload", "soak"):
        shutil.copy(os.path.join(HARNESS, "userland", name), root)
    shutil.copy(STRESS, root + "/usr/bin")
    for path in _libraries(STRESS):
        shutil.copy(path, root + ("/lib" if os.path.basename(path) == LOADER else "/usr/lib"))
    shutil.copytree(selftests(k), root + "/selftests")
    shutil.copy(os.path.join(k.out, "lib/test_vmalloc.ko"), root)


def initramfs(k, workload=False):
    """A cpio archive with busybox and harness/userland; returns its path."""
    root = os.path.join(k.out, "workload" if workload else "userland")
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(root + "/bin")
    if not os.path.exists(BUSYBOX):
        raise Fail(f"{BUSYBOX} is missing in the toolchain root: see 'foreign' in harness/packages")
    shutil.copy(BUSYBOX, root + "/bin/busybox")
    shutil.copy(os.path.join(HARNESS, "userland/init"), root + "/init")
    os.mkdir(root + "/dev")
    if workload:
        _add_workload(k, root)
    path = root + ".cpio"
    run(["sh", "-c", f"cd '{root}' && find . | cpio --quiet -o -H newc -R 0:0 >'{path}'"])
    return path


def command(k, mode, map_, append="", initrd=None):
    os.environ["MAP"] = map_
    q = importlib.reload(qemu_arm64).QEMU_ARCH
    args = q.kernel_command_line + (f" kpkeys={mode}" if mode != "enforce" else "")
    # The suites are kunit.py's; here the kernel is to reach its userland, which
    # runs one of them once more. An oops may leave it unable to.
    return ["qemu-system-" + q.qemu_arch, "-nodefaults", "-m", "1024", "-no-reboot", "-nographic",
            "-serial", "mon:stdio", *q.extra_qemu_params,
            "-kernel", os.path.join(k.out, q.kernel_path), "-initrd", initrd or initramfs(k),
            "-append", f"{args} kunit.autorun=0 oops=panic {k.args} {append}".strip()]


def emulate(cmd, log, timeout):
    """What the machine wrote to its console."""
    return run(cmd, check=False, log=log, timeout=timeout, stdin="")


def boot(k, mode, map_, program=None, seconds=0):
    """Boot to userland, and check it; @program: what of harness/userland runs there, "workload" with
    @seconds for each stressor, or "soak" with @seconds for all."""
    what = f"{program or 'boot'} {k.arch} {k.pages} {map_} {mode}"
    what += f" {k.args}" if k.args else ""
    log = f"{k.stack} {what}"
    # The selftests take minutes if the machine has other things to do; so may the last round of a soak.
    timeout = {None: kernel.TIMEOUT, "workload": 4 * kernel.TIMEOUT + 60 * seconds,
               "soak": 2 * kernel.TIMEOUT + seconds}[program]
    cmd = command(k, mode, map_, f"{program}={seconds}" if program else "",
                  initrd=initramfs(k, workload=True) if program else None)
    start = time.monotonic()
    console = emulate(cmd, log, timeout)
    o = kernel.Outcome(what)
    kernel.health(o, mode, console, time.monotonic() - start >= timeout, log)
    k.expect(o, console, log)
    for result, name, why in re.findall(r"userland: (ok|not ok|skip) (\S+)(?: - (.*))?", console):
        if result == "skip":
            o.skipped.append((name, why.strip()))
        else:
            o.check(name, None if result == "ok" else why.strip() or "failed")
    o.note = "; ".join(filter(None, [o.note, *(s.strip() for s in re.findall(r"userland: says (.*)", console))]))
    o.check("userland reached its end", None if "userland: end" in console else f"see {kernel.log_path(log)}")
    return o


def shell(k, mode, map_):
    return subprocess.call(command(k, mode, map_, "userland=shell"))
