# SPDX-License-Identifier: GPL-2.0-only
"""The series costs nothing when it is configured out.

Objects are built with the same configuration, without kernel pkeys, and their code
and data, relocations included, are compared function by function: in which order the
compiler writes the functions of a file is not compared.

- some that include the touched headers, of the base and of the assembled tree. The
  base is given the series' list of CPU capabilities: a new name moves the numbers of
  those behind it in every alternative, whether or not it is used;
- all of mm/ and arch/arm64/, before the first and after the last patch that has to do
  with page tables.
"""
import os
import shutil

import kernel
import tree
from bench import adding
from common import BUILD, CROSS, LINUX, run, two_at_once

WORK = os.path.join(BUILD, "checks", "config-off")
TREE = os.path.join(WORK, "linux")
CPUCAPS = "arch/arm64/tools/cpucaps"
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
SOME = ["arch/arm64/kernel/process.o", "arch/arm64/kernel/entry.o",
           "arch/arm64/kernel/entry-common.o", "arch/arm64/kernel/ptrace.o",
           "arch/arm64/kernel/signal.o", "arch/arm64/kernel/cpufeature.o",
           "arch/arm64/kernel/hyp-stub.o", "arch/arm64/mm/proc.o",
           "arch/arm64/mm/fault.o", "arch/arm64/mm/contpte.o",
           "kernel/softirq.o", "kernel/fork.o", "mm/maccess.o", "mm/memory.o",
           "mm/mprotect.o", "mm/vmalloc.o"]
FOLDERS = ["mm/", "arch/arm64/kernel/", "arch/arm64/mm/"]
# set_ptes() and what is a function of its own there.
SET_PTES = {"__set_ptes.constprop.0.isra.0", "__set_ptes_anysz.constprop.0", "__sync_cache_and_tags.isra.0"}
SET_PTES_WHY = "set_ptes() is in two parts, which the compiler inlines differently"
# The functions that may differ, and why.
ACCEPTED = {
    "arch/arm64/mm/mmu.o": (
        {".init.text", ".noinstr.text", "alternatives", "early_create_pgd_mapping",
         "fill_and_split_range", "split_kernel_leaf_mapping",
         "split_kernel_leaf_mapping_needed", "split_kernel_leaf_mapping_possible",
         "split_kernel_leaf_mapping_reserve", "split_pmd", "split_prepare", "split_pud",
         "split_range", "update_mapping_prot"},
        "the caller of a split brings the pages, which is measured by make bench"),
    "arch/arm64/mm/fault.o": (
        {"do_page_fault"}, "the operands of one comparison changed places"),
    "arch/arm64/mm/pageattr.o": (
        {"update_range_prot"}, "set_range_prot() is a function of its own, for the same reason"),
    "arch/arm64/mm/fixmap.o": (
        {".init.text"}, "the same instructions; two blocks of early_fixmap_init() changed places"),
    "mm/huge_memory.o": (
        {"__xchg_case_64.constprop.0", "pmdp_huge_get_and_clear.isra.0", "alternatives",
         "move_huge_pmd", "set_pmd_migration_entry", "zap_huge_pmd"},
        "the same instructions; one local function has the name of another inlined into it"),
    "mm/memory.o": (
        {"__zap_vma_range", "do_set_pmd"} | SET_PTES,
        "the operands of one test for equality changed places; " + SET_PTES_WHY),
    "mm/mremap.o": ({"move_page_tables"}, SET_PTES_WHY),
    "mm/rmap.o": (
        {"page_vma_mkclean_one.constprop.0", "try_to_migrate_one", "try_to_unmap_one", "queue_pte_barriers",
         "alternatives"} | SET_PTES, SET_PTES_WHY),
    "mm/vmalloc.o": (
        {"__vunmap_range_noflush", "__xchg_case_64.constprop.0", "alternatives"},
        "vunmap_pte_range() clears by get_and_clear_ptes(), which is inlined differently"),
    "arch/arm64/mm/contpte.o": ({"__set_ptes.isra.0"}, SET_PTES_WHY),
}


def _build(o, name, targets, source=TREE):
    """Build these of a tree; returns the folder of the objects."""
    k = kernel.Kernel(name, work=WORK, pages="objects", config=CONFIG)
    k.tree = source
    k.compile(*targets, "KCFLAGS=-ffunction-sections", log=f"config-off {name}")
    o.check(f"{name}: kernel pkeys are off", "CONFIG_KPKEYS is on" if k.has("CONFIG_KPKEYS=y") else None)
    return k.out


def _contents(path):
    """What ends up in the image, by section, less what records line numbers."""
    text = run([CROSS + "objdump", "-d", "-r", "--no-show-raw-insn", path])
    functions = (part.split(":", 1) for part in text.split("\nDisassembly of section ")[1:])
    sections = {name.removeprefix(".text."): code for name, code in functions}

    # objdump complains if an object has none of these sections.
    def data(option, *names):
        out = run([CROSS + "objdump", option, *(f"-j{n}" for n in names), path], check=False)
        return [line for line in out.splitlines() if "file format" not in line and "not found in any" not in line]

    sections["data"] = data("-s", ".rodata", ".data") + data("-r", ".rodata", ".data")
    # In the order of the functions that they patch.
    sections["alternatives"] = sorted(line.split(maxsplit=1)[1] for line in data("-r", ".altinstructions")
                                      if "R_AARCH64" in line)
    return sections


def _compare(o, what, before, after, objects):
    """A check for each object, or one for all that are equal if they are many."""
    same, many = 0, len(objects) > len(SOME)
    for obj, (a, b) in zip(objects, two_at_once(lambda obj: [_contents(os.path.join(d, obj)) for d in (before, after)],
                                                objects)):
        differ = {name for name in a.keys() | b.keys() if a.get(name) != b.get(name)}
        accepted, reason = ACCEPTED.get(obj, (set(), ""))
        if not differ:
            same += 1
            if many:
                continue
        o.check(f"{what}: {obj}" + (f", but {', '.join(sorted(differ))}: {reason}" if differ and differ <= accepted else ""),
                f"differs: {', '.join(sorted(differ - accepted))}" if differ - accepted else None)
    if many:
        o.check(f"{what}: {same} of {len(objects)} objects are equal")


def check():
    """Returns an Outcome."""
    o = kernel.Outcome("config-off")
    tree.worktree(TREE, "origin/base")
    shutil.copy(os.path.join(LINUX, CPUCAPS), os.path.join(TREE, CPUCAPS))
    _compare(o, "some", _build(o, "base", SOME), _build(o, "series", SOME, LINUX), SOME)
    tree.worktree(TREE, adding("lib/tests/kpkeys_kunit.c"))
    before = _build(o, "before", FOLDERS)
    tree.worktree(TREE, adding("arch/arm64/mm/kpkeys-emulation.c") + "~")
    after = _build(o, "after", FOLDERS)
    objects = sorted(os.path.relpath(os.path.join(path, n), after) for top in FOLDERS
                     for path, _, names in os.walk(os.path.join(after, top)) for n in names
                     if n.endswith(".o") and not n.startswith((".", "built-in", "vmlinux", "vdso")))
    _compare(o, "tables", before, after, [p for p in objects if "/vdso" not in p and "/nvhe/" not in p])
    return o
