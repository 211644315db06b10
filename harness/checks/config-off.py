#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Check that the series costs nothing when it is configured out.

Builds objects with the same configuration, without kernel pkeys, and compares their
code and data, relocations included, function by function: in which order the compiler
writes the functions of a file is not compared.

- some that include the touched headers, of the base and of the assembled tree. The
  base is given the series' list of CPU capabilities: a new name moves the numbers of
  those behind it in every alternative, whether or not it is used;
- all of mm/ and arch/arm64/, before the first and after the last patch that has to do
  with page tables.

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
DIRECTORIES = ["mm/", "arch/arm64/kernel/", "arch/arm64/mm/"]
# The functions that may differ, and why.
ACCEPTED = {
    "arch/arm64/mm/mmu.o": (
        {".init.text", ".noinstr.text", "alternatives", "early_create_pgd_mapping",
         "fill_and_split_range", "split_kernel_leaf_mapping",
         "split_kernel_leaf_mapping_needed", "split_kernel_leaf_mapping_possible",
         "split_kernel_leaf_mapping_reserve", "split_pmd", "split_prepare", "split_pud",
         "split_range", "update_mapping_prot"},
        "the caller of a split brings the pages, which is measured by make bench"),
    "arch/arm64/mm/pageattr.o": (
        {"update_range_prot"}, "set_range_prot() is a function of its own, for the same reason"),
    "arch/arm64/mm/fixmap.o": (
        {".init.text"}, "the same instructions; two blocks of early_fixmap_init() changed places"),
    "mm/huge_memory.o": (
        {"__xchg_case_64.constprop.0", "pmdp_huge_get_and_clear.isra.0", "alternatives",
         "move_huge_pmd", "set_pmd_migration_entry", "zap_huge_pmd"},
        "the same instructions; one local function has the name of another inlined into it"),
    "mm/memory.o": (
        {"__zap_vma_range"}, "the operands of one test for equality changed places"),
}


def run(*cmd):
    res = subprocess.run(cmd, capture_output=True, text=True)
    if res.returncode:
        why = (res.stderr.strip().splitlines() or ["?"])[-1]
        print(f"not ok off.build - {cmd[0]}: {why}")
        sys.exit(1)
    return res.stdout


def build(tree, out, targets):
    os.makedirs(out, exist_ok=True)
    make = ["make", "-s", f"-j{os.cpu_count()}", "-C", tree, f"O={out}",
            "ARCH=arm64", f"CROSS_COMPILE={CROSS}", f"CC=ccache {CROSS}gcc",
            "KCFLAGS=-ffunction-sections"]
    run(*make, "tinyconfig")
    with open(os.path.join(out, ".config"), "a") as f:
        f.write(CONFIG)
    run(*make, "olddefconfig")
    with open(os.path.join(out, ".config")) as f:
        if re.search(r"^CONFIG_KPKEYS=y", f.read(), re.M):
            print("not ok off.config - kernel pkeys are on in this configuration")
            sys.exit(1)
    run(*make, "prepare")
    run(*make, *targets)


def contents(out, obj):
    """What ends up in the image, by section, less what records line numbers."""
    path = os.path.join(out, obj)
    text = run(CROSS + "objdump", "-d", "-r", "--no-show-raw-insn", path)
    functions = (part.split(":", 1) for part in text.split("\nDisassembly of section ")[1:])
    sections = {name.removeprefix(".text."): code for name, code in functions}

    # objdump complains if an object has none of these sections.
    def data(option, *names):
        res = subprocess.run([CROSS + "objdump", option, *(f"-j{n}" for n in names), path],
                             capture_output=True, text=True)
        return [line for line in res.stdout.splitlines() if "file format" not in line]

    sections["data"] = data("-s", ".rodata", ".data") + data("-r", ".rodata", ".data")
    # In the order of the functions that they patch.
    sections["alternatives"] = sorted(line.split(maxsplit=1)[1]
                                      for line in data("-r", ".altinstructions")
                                      if "R_AARCH64" in line)
    return sections


def git(*args):
    return run("git", "-C", KDIR, *args).strip()


def adding(path):
    return git("log", "--diff-filter=A", "--format=%H", "--", path).split()[-1]


def compare(what, before, after, objects):
    """Print a check for each object, or one for all that are equal if they are many."""
    same = 0
    for obj in objects:
        a, b = (contents(os.path.join(BUILD, d), obj) for d in (before, after))
        differ = {name for name in a.keys() | b.keys() if a.get(name) != b.get(name)}
        accepted, reason = ACCEPTED.get(obj, (set(), ""))
        if not differ:
            same += 1
            if len(objects) <= len(OBJECTS):
                print(f"ok {what}.{obj} ({len(a)} functions and tables compared)")
        elif differ <= accepted:
            print(f"ok {what}.{obj} ({', '.join(sorted(differ))} as accepted: {reason})")
        else:
            print(f"not ok {what}.{obj} - differs: {', '.join(sorted(differ - accepted))}")
    if len(objects) > len(OBJECTS):
        print(f"ok {what}.{same}-of-{len(objects)}-objects-equal")


base = git("rev-list", "--max-parents=0", "HEAD")
tree = os.path.join(BUILD, "tree")
if not os.path.isdir(tree):
    git("worktree", "prune")
    git("worktree", "add", "-f", "--detach", tree, base)


def checkout(commit):
    run("git", "-C", tree, "checkout", "-q", "--force", "--detach", commit)


CPUCAPS = "arch/arm64/tools/cpucaps"
checkout(base)
with open(os.path.join(KDIR, CPUCAPS)) as f:
    cpucaps = f.read()
with open(os.path.join(tree, CPUCAPS), "w") as f:
    f.write(cpucaps)
build(tree, os.path.join(BUILD, "base"), OBJECTS)
build(KDIR, os.path.join(BUILD, "series"), OBJECTS)
compare("off", "base", "series", OBJECTS)

checkout(adding("lib/tests/kpkeys_kunit.c"))
build(tree, os.path.join(BUILD, "before"), DIRECTORIES)
checkout(adding("arch/arm64/mm/kpkeys-emulation.c") + "~")
build(tree, os.path.join(BUILD, "after"), DIRECTORIES)
objects = []
for top in DIRECTORIES:
    for path, _, names in os.walk(os.path.join(BUILD, "after", top)):
        objects += [os.path.relpath(os.path.join(path, n), os.path.join(BUILD, "after"))
                    for n in names if n.endswith(".o") and not n.startswith((".", "built-in", "vmlinux", "vdso"))]
compare("tables-off", "before", "after",
        sorted(o for o in objects if "/vdso" not in o and "/nvhe/" not in o))
