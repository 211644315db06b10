# SPDX-License-Identifier: GPL-2.0-only
"""The series costs nothing when it is configured out.

Objects are built with the same configuration, without kernel pkeys, and their code
and data, relocations included, are compared function by function: in which order the
compiler writes the functions of a file is not compared.

All of mm/ and arch/arm64/, and what else includes the touched headers, before the
first and after the last patch that has to do with kernel pkeys. The former is given
the list of CPU capabilities of the latter: a new name moves the numbers of those
behind it in every alternative, whether or not it is used.
"""
import os

import kernel
import tree
from bench import adding
from common import BUILD, CROSS, git, run, two_at_once, write

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
FILES = ["kernel/softirq.o", "kernel/fork.o"]
FOLDERS = ["mm/", "arch/arm64/kernel/", "arch/arm64/mm/"]
# The functions that may differ, and why.
ACCEPTED = {
    "arch/arm64/mm/mmu.o": (
        {".init.text", ".noinstr.text", "alternatives", "early_create_pgd_mapping",
         "fill_and_split_range", "split_kernel_leaf_mapping",
         "split_kernel_leaf_mapping_needed", "split_kernel_leaf_mapping_possible",
         "split_kernel_leaf_mapping_reserve", "split_range", "update_mapping_prot"},
        "the caller of a split brings the pages, which is measured by make bench"),
    "arch/arm64/mm/fault.o": (
        {"do_page_fault"}, "the operands of one comparison changed places"),
    "arch/arm64/mm/pageattr.o": (
        {"update_range_prot"}, "set_range_prot() is a function of its own, for the same reason"),
    "mm/huge_memory.o": (
        {"__xchg_case_64.constprop.0", "pmdp_huge_get_and_clear.isra.0", "alternatives",
         "move_huge_pmd", "set_pmd_migration_entry", "zap_huge_pmd"},
        "the same instructions; one local function has the name of another inlined into it"),
    "mm/memory.o": ({"__zap_vma_range"}, "the operands of one test for equality changed places"),
    "mm/vmalloc.o": (
        {"__vunmap_range_noflush", "__xchg_case_64.constprop.0", "alternatives"},
        "vunmap_pte_range() clears by get_and_clear_ptes(), which is inlined differently"),
    "arch/arm64/kernel/head.o": (
        {".idmap.text", "alternatives"}, "the firmware's or EL2's trap of POR_EL1 is off, with CONFIG_ARM64_POE"),
    "arch/arm64/mm/contpte.o": (
        {"contpte_convert", "contpte_set_ptes", "alternatives"},
        "set_ptes() is in two parts, which leads to other registers and another order"),
}


def _build(o, name, targets):
    """Build these of the tree; returns the folder of the objects."""
    k = kernel.Kernel(name, work=WORK, pages="objects", config=CONFIG)
    k.tree = TREE
    k.compile(*targets, "KCFLAGS=-ffunction-sections", log=f"config-off {name}")
    o.check(f"{name}: kernel pkeys are off", "CONFIG_KPKEYS is on" if k.has("CONFIG_KPKEYS=y") else None)
    return k.out


def _contents(path):
    """What ends up in the image, by section, less what records line numbers."""
    def code(*options, check=True):
        text = run([CROSS + "objdump", *options, "-r", "--no-show-raw-insn", path], check=check)
        return (part.split(":", 1) for part in text.split("\nDisassembly of section ")[1:])

    # That section is not marked as code. Most objects have none, of which objdump complains.
    functions = [*code("-d"), *code("-D", "-j.idmap.text", check=False)]
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


def _compare(o, before, after, objects):
    """A check for each object that is not equal, and one for all that are."""
    differs = {}
    for obj, (a, b) in zip(objects, two_at_once(lambda obj: [_contents(os.path.join(d, obj)) for d in (before, after)],
                                                objects)):
        differs[obj] = {name for name in a.keys() | b.keys() if a.get(name) != b.get(name)}
    for obj, differ in differs.items():
        accepted, reason = ACCEPTED.get(obj, (set(), ""))
        if differ - accepted:
            o.check(obj, f"differs: {', '.join(sorted(differ - accepted))}")
        elif differ:
            o.check(f"{obj}, but {', '.join(sorted(differ))}: {reason}")
    o.check(f"{sum(not differ for differ in differs.values())} of {len(objects)} objects are equal")
    # What is accepted and need not be hides the next difference.
    equal = [f"{obj}: {name}" for obj, (names, _) in ACCEPTED.items() for name in sorted(names - differs.get(obj, set()))]
    o.check("what is accepted differs", f"ACCEPTED names {', '.join(equal)}, which does not differ: take it out"
            if equal else None)


def check():
    """Returns an Outcome."""
    o = kernel.Outcome("config-off")
    last = adding("arch/arm64/mm/kpkeys-emulation.c") + "~"
    tree.worktree(TREE, adding("include/linux/kpkeys.h") + "~")
    write(os.path.join(TREE, CPUCAPS), git("show", f"{last}:{CPUCAPS}"))
    before = _build(o, "before", FOLDERS + FILES)
    tree.worktree(TREE, last)
    after = _build(o, "after", FOLDERS + FILES)
    objects = sorted(os.path.relpath(os.path.join(path, n), after) for top in FOLDERS
                     for path, _, names in os.walk(os.path.join(after, top)) for n in names
                     if n.endswith(".o") and not n.startswith((".", "built-in", "vmlinux", "vdso")))
    _compare(o, before, after, FILES + [p for p in objects if "/vdso" not in p and "/nvhe/" not in p])
    return o
