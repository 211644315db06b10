#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Check that the series costs nothing when it is configured out.

Builds objects that include the touched headers from the base and from the
assembled tree, with the same configuration without kernel pkeys, and compares
their code and data, relocations included. The base is given the series' list of CPU
capabilities: a new name moves the numbers of those behind it in every
alternative, whether or not it is used.

Environment: KDIR, the assembled tree (whose first commit is the base);
BUILD, where to build. Prints one "ok NAME" or "not ok NAME - reason" a check.
"""
import os
import re
import subprocess
import sys

KDIR = os.environ["KDIR"]
BUILD = os.path.join(os.environ["BUILD"], "config-off")
CROSS = "aarch64-linux-gnu-"
CONFIG = """
CONFIG_SMP=y
CONFIG_PRINTK=y
CONFIG_BUG=y
CONFIG_PREEMPT=y
CONFIG_HOTPLUG_CPU=y
CONFIG_PM=y
CONFIG_SUSPEND=y
CONFIG_ARM64_POE=y
CONFIG_TRANSPARENT_HUGEPAGE=y
"""
OBJECTS = ["arch/arm64/kernel/process.o", "arch/arm64/kernel/entry.o",
           "arch/arm64/kernel/entry-common.o", "arch/arm64/kernel/ptrace.o",
           "arch/arm64/kernel/signal.o", "arch/arm64/kernel/cpufeature.o",
           "arch/arm64/kernel/hyp-stub.o", "arch/arm64/mm/proc.o",
           "arch/arm64/mm/fault.o", "arch/arm64/mm/contpte.o",
           "kernel/softirq.o", "kernel/fork.o", "mm/maccess.o", "mm/memory.o",
           "mm/mprotect.o", "mm/vmalloc.o"]


def run(*cmd):
    res = subprocess.run(cmd, capture_output=True, text=True)
    if res.returncode:
        why = (res.stderr.strip().splitlines() or ["?"])[-1]
        print(f"not ok off.build - {cmd[0]}: {why}")
        sys.exit(1)
    return res.stdout


def build(tree, out):
    os.makedirs(out, exist_ok=True)
    make = ["make", "-s", f"-j{os.cpu_count()}", "-C", tree, f"O={out}",
            "ARCH=arm64", f"CROSS_COMPILE={CROSS}", f"CC=ccache {CROSS}gcc"]
    run(*make, "tinyconfig")
    with open(os.path.join(out, ".config"), "a") as f:
        f.write(CONFIG)
    run(*make, "olddefconfig")
    with open(os.path.join(out, ".config")) as f:
        if re.search(r"^CONFIG_KPKEYS=y", f.read(), re.M):
            print("not ok off.config - kernel pkeys are on in this configuration")
            sys.exit(1)
    run(*make, *OBJECTS)


def contents(out, obj):
    """Sections that end up in the image, less those that record line numbers."""
    path = os.path.join(out, obj)
    text = run(CROSS + "objdump", "-d", "-r", "--no-show-raw-insn", path)
    data = run(CROSS + "objdump", "-s", "-r", "-j", ".rodata", "-j", ".data",
               "-j", ".altinstructions", "-j", ".altinstr_replacement", path)
    return [line for line in (text + data).splitlines()
            if "file format" not in line]


base = run("git", "-C", KDIR, "rev-list", "--max-parents=0", "HEAD").strip()
tree = os.path.join(BUILD, "base-tree")
if not os.path.isdir(tree):
    run("git", "-C", KDIR, "worktree", "prune")
    run("git", "-C", KDIR, "worktree", "add", "-f", "--detach", tree, base)
CPUCAPS = "arch/arm64/tools/cpucaps"
with open(os.path.join(KDIR, CPUCAPS)) as f:
    cpucaps = f.read()
with open(os.path.join(tree, CPUCAPS), "w") as f:
    f.write(cpucaps)
build(tree, os.path.join(BUILD, "base"))
build(KDIR, os.path.join(BUILD, "series"))

failed = False
for obj in OBJECTS:
    a, b = (contents(os.path.join(BUILD, d), obj) for d in ("base", "series"))
    if a == b:
        print(f"ok off.{obj} ({sum(1 for line in a if ':' in line)} lines compared)")
        continue
    failed = True
    diff = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y),
                min(len(a), len(b)))
    print(f"not ok off.{obj} - differs from the base at: {(b + ['end'])[diff].strip()}")

sys.exit(failed)
