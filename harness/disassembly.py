# SPDX-License-Identifier: GPL-2.0-only
"""The POE backend by its disassembly, as no emulator that Debian packages can execute it.

Builds the objects concerned without the emulation patch's option and looks for
the register accesses that must be there, in the order in which they must be.
"""
import os
import re

import configoff
import kernel
from common import BUILD, CROSS, LINUX, run

CONFIG = configoff.CONFIG + """
CONFIG_KUNIT=y
CONFIG_ARM_SDE_INTERFACE=y
CONFIG_RUNTIME_TESTING_MENU=y
CONFIG_KPKEYS_KUNIT_TEST=y
CONFIG_KPKEYS_HARDENED_PGTABLES=y
CONFIG_HUGETLBFS=y
# CONFIG_ARM64_KPKEYS_PIE_EMULATION is not set
"""
OBJECTS = ["arch/arm64/kernel/process.o", "arch/arm64/kernel/entry.o",
           "arch/arm64/kernel/hyp-stub.o", "arch/arm64/kernel/head.o", "arch/arm64/kernel/cpufeature.o",
           "arch/arm64/mm/proc.o", "arch/arm64/mm/mmu.o", "arch/arm64/mm/pageattr.o", "arch/arm64/kernel/entry-common.o",
           "kernel/sched/core.o", "kernel/softirq.o", "lib/tests/kpkeys_kunit.o"]
# Of a kernel with KVM: this is what runs at EL2 if that is not the kernel itself.
NVHE = "arch/arm64/kvm/hyp/nvhe/sysreg-sr.nvhe.o"
# Who writes page tables. No function of these leaves a window open for its caller.
WRITERS = ["arch/arm64/mm/", "kernel/sched/core.o", "kernel/softirq.o", "mm/"]
# What opens a window, and is part of the function that closes it.
INLINED = re.compile(r"(kpkeys_enter|arch_enter_lazy|lazy_mmu_mode_(enable|resume)|arch_kpkeys_write|"
                     r"__task_lazy_mmu_mode_resume|class_kpkeys_\w+_(con|de)structor)")

INIT = 0x17             # pkey 0: RWX, pkey 1: R
W_PKEY1 = 0x40          # W for pkey 1
OPEN = INIT | W_PKEY1
POE, PIE = 1 << 3, 1 << 1       # in TCR2_EL1
NPOR_EL1 = 1 << 60      # in HFGRTR_EL2
PIR_OVERLAID = {0x8: 0x3, 0xa: 0x7, 0xc: 0x1, 0xe: 0x5}
PIR_PLAIN = {0x5: 0x8, 0x7: 0xc, 0xd: 0x8, 0xf: 0xc}

REG = r"([xw]\d+|xzr)"
READ = rf"mrs {REG}, por_el1"
WRITE = rf"msr por_el1, {REG}"


def _functions(path):
    """name -> its instructions as text, one a line, operands separated by ', '"""
    # .idmap.text is not marked as code, so that -d passes over it.
    text = "".join(run([CROSS + "objdump", "--no-show-raw-insn", "-r", *how, path], check=False)
                   for how in (["-d"], ["-D", "-j", ".idmap.text"]))
    funcs, cur = {}, None
    # Local functions of another section are called by their offset.
    at, section = {}, ""
    for line in text.splitlines():
        section = (re.match(r"Disassembly of section (\S+):", line) or [0, section])[1]
        m = re.match(r"([0-9a-f]+) <(.+)>:$", line)
        if m:
            at[f"{section}+{int(m[1], 16):#x}"] = m[2]
    for line in text.splitlines():
        m = re.match(r"[0-9a-f]+ <(.+)>:$", line)
        if m:
            cur = funcs.setdefault(m[1], [])
            continue
        m = re.match(r"\s+[0-9a-f]+:\s+(\S+)\s*([^/<;]*)", line)
        if m and cur is not None:
            insn = m[1] + " " + re.sub(r",\s*", ", ", m[2].strip())
            sym = re.search(r"R_AARCH64_\w+\s+(\S+)", line)
            if sym:                     # relocation of the insn before it
                if cur:
                    cur[-1] += " <" + at.get(sym[1], sym[1]) + ">"
                continue
            # A call within a section has no relocation.
            sym = re.search(r"\sbl\s+[0-9a-f]+ <([^+>]+)>", line)
            cur.append(insn.strip() + (f" <{sym[1]}>" if sym else ""))
    return {k: "\n".join(v) + "\n" for k, v in funcs.items()}


def _constant(text, before):
    """The constant that mov/movk put together last before the line @before."""
    val = None
    for line in text[:text.index(before)].splitlines():
        m = re.match(r"mov[zk]? (\w+), #(0x[0-9a-f]+|\d+)(?:, lsl #(\d+))?", line)
        if not m:
            continue
        imm = int(m[2], 0) << int(m[3] or 0)
        if line.startswith("movk"):
            shift = int(m[3] or 0)
            val = (val & ~(0xffff << shift)) | imm
        else:
            val = imm
    return val


def _windows(paths, check):
    """Who opens a window closes it."""
    opening, bad, standing = 0, [], []
    for name, text in (item for path in paths for item in _functions(path).items()):
        if INLINED.match(name):
            standing.append(name)
        if not re.search(WRITE, text):
            continue
        opening += 1
        if re.search(rf"orr {REG}, {REG}, #{W_PKEY1:#x}", text) and \
           not re.search(rf"mov {REG}, #{INIT:#x}|bl .*<lazy_mmu_mode_(disable|pause)>", text):
            bad.append(name)
    check("inlined", not standing, f"functions of their own: {' '.join(standing)}")
    check("found-those-that-open", opening > 50, f"only {opening}")
    check("open-and-close", not bad, f"return with an open window: {' '.join(bad)}")


def check(tree=LINUX, work=os.path.join(BUILD, "checks"), windows=True):
    """Returns an Outcome; with @windows also of all that writes page tables."""
    o = kernel.Outcome("poe-disassembly")

    def check(name, ok, why=""):
        o.check("poe." + name, None if ok else why)

    def order(name, text, *pats):
        """The patterns occur in @text in this order."""
        pos = 0
        for pat in pats:
            m = re.compile(pat, re.M).search(text, pos)
            if not m:
                return check(name, False, f"no '{pat}' at its place")
            pos = m.end()
        check(name, True)

    k = kernel.Kernel("poe-disassembly", work=work, pages="objects", config=CONFIG)
    k.tree = tree
    k.compile(*OBJECTS, log="poe-disassembly")
    check("config", k.has("CONFIG_KPKEYS=y"), "kernel pkeys are not in the configuration")
    fn = {}
    for obj in OBJECTS:
        fn.update(_functions(os.path.join(k.out, obj)))

    # Enter and leave, as inlined into a test that does both.
    text = fn["kpkeys_test_open_inside"]
    # Nothing stands before the branch that who is in the context already would not need.
    enter = (rf"mrs x(\d+), por_el1\ntbnz w\1, #{W_PKEY1.bit_length() - 1}, .*\n"
             rf"orr (x\d+), x\1, #{W_PKEY1:#x}\nmsr por_el1, \2\nisb")
    order("enter", text, enter)
    closed = rf"mov {REG}, #{INIT:#x}(?:\n.*)?\n" + WRITE + r"\nisb"
    order("leave", text, enter, closed)
    check("isb-after-each-write", len(re.findall(WRITE, text)) ==
          len(re.findall(WRITE + r"\nisb", text)), "a write of POR_EL1 without ISB")

    # The scheduler runs in the default context, so that there is nothing to switch.
    order("scheduler", fn["__schedule"], READ, rf"cmp {REG}, #{INIT:#x}", r"bl .*kpkeys_note_interrupted",
          WRITE + r"\nisb", r"bl .*__switch_to")
    order("sleep", fn["schedule"], READ, rf"cmp {REG}, #{INIT:#x}", r"bl .*__schedule")
    for name in ("__switch_to", "copy_thread"):
        check(f"not-in-{name}", "por_el1" not in fn[name], "POR_EL1 is accessed")

    # Exceptions from EL1: closed before any C code, opened again just before ERET.
    for vec in ("irq", "sync", "fiq", "error"):
        order(f"entry-el1-{vec}", fn[f"el1h_64_{vec}"], READ,
              rf"sub x0, x0, #{INIT:#x}", r"cbz x0", r"bl .*kpkeys_note_interrupted",
              rf"mov {REG}, #{INIT:#x}", WRITE + r"\nisb", r"str {}, \[sp".format(REG),
              rf"bl .*el1h_64_{vec}_handler")
        check(f"entry-el0-{vec}", "por_el1" not in fn[f"el0t_64_{vec}"],
              "POR_EL1 is accessed on an exception from EL0")
    # No value comes from memory, and none is written before the table was asked.
    order("exit-el1", fn["ret_to_kernel"], r"cbz x0", r"mov x0, sp", r"bl .*kpkeys_find_interrupted",
          r"cbz x0", rf"mov {REG}, #{OPEN:#x}", WRITE + r"\nisb", r"str xzr, \[x0\]", r"eret")
    order("sdei", fn["__sdei_asm_handler"], READ, r"bl .*kpkeys_note_interrupted", WRITE + r"\nisb",
          r"bl .*__sdei_handler", r"bl .*kpkeys_find_interrupted", rf"mov {REG}, #{OPEN:#x}",
          WRITE + r"\nisb", r"ldr x27, ")
    # Nothing is open in user space, or on the next entry from there.
    leaving = {n: t for n, t in _functions(os.path.join(k.out, "arch/arm64/kernel/entry-common.o")).items()
               if "<exit_to_user_mode_loop>" in t}
    check("exit-el0", len(leaving) > 5, f"found only {' '.join(leaving)}")
    for name, text in leaving.items():
        order(f"exit-el0-{name}", text, READ, rf"cmp {REG}, #{INIT:#x}", closed)

    # Reset and resume: POR_EL1 is valid before TCR2_EL1.POE makes it matter.
    text = fn["__cpu_setup"]
    order("reset", text, rf"mov x0, #{INIT:#x}", r"msr por_el1, x0",
          rf"orr {REG}, {REG}, #{POE:#x}", r"msr tcr2_el1,")
    order("resume", fn["cpu_do_resume"], rf"mov {REG}, #{INIT:#x}", WRITE, r"msr tcr2_el1,")
    order("vhe", fn["__finalise_el2"], r"mrs x0, (por_el12|s3_5_c10_c2_4)", r"msr por_el1, x0")
    # The same bit means something else in the registers that are set before.
    order("el2-no-trap", fn["init_el2"],
          rf"mrs {REG}, (id_aa64mmfr3_el1|s3_0_c0_c7_3)\nubfx \1, \1, #16, #4\n"
          rf"cbz \1, .*\n(orr x0, x0, .*\n)?orr x0, x0, #{NPOR_EL1:#x}\n(?:(?!msr).*\n)*msr (hfgrtr_el2|s3_4_c1_c1_4), x0")

    # After a guest, the host's register is not loaded from memory.
    kvm = kernel.Kernel("poe-kvm", work=work, pages="objects", config=CONFIG + "CONFIG_VIRTUALIZATION=y\nCONFIG_KVM=y\n")
    kvm.tree = tree
    kvm.compile(NVHE, log="poe-disassembly")
    nvhe = _functions(os.path.join(kvm.out, NVHE))["__sysreg_restore_state_nvhe"]
    # The context of a guest has the value; that of the host, which is compared with once, branches to the constant.
    check("host-after-guest", re.search(rf"^bl .*<ctxt_has_s1poe>\ntbz w0, #0, .*\n(?:(?!cmp|msr).*\n)*"
                                        rf"cmp {REG}, {REG}\nb\.eq .*\nldr {REG}, .*\n{WRITE}$", nvhe, re.M) and
          len(re.findall(WRITE, nvhe)) == 1 and re.search(rf"^mov {REG}, #{INIT:#x}\nb ", nvhe, re.M),
          "POR_EL1 is not written with a constant for the host, and for the host only")

    # What only a weaker machine than the emulator, or luck, would show: a table is complete before it is used, the last
    # entry of a group changes last, and who changes a pkey waits until all CPUs see it.
    for name, above in ("split_pmd", "set_pmd"), ("split_pud", "set_pud"):
        order(name.replace("_", "-"), fn[name], r"str x\d+, \[x\d+\], #8\n", r"dsb ishst\n", rf"bl .*<{above}>")
    for name in "split_contpte", "split_contpmd":
        check(name.replace("_", "-"), re.search(rf"cmp {REG}, #0xf\nb\.ne .*\ndmb ishst\n", fn[name]),
              "no barrier before the last entry")
    order("pkey-change-is-seen", fn["set_memory_pkey_reserve"], r"bl .*<walk_kernel_page_table_range_lockless>",
          r"bl .*<queue_pte_barriers>", r"bl .*<lazy_mmu_mode_disable>", r"bl .*<flush_tlb_kernel_range>")

    # With an overlay, but without indirection, it would apply to memory of user space, too.
    for name in "cpu_supports_kpkeys", "has_kpkeys":
        code = fn[name] + fn.get("mmfr3_has_kpkeys", "")
        for field, shift in ("s1poe", 16), ("s1pie", 8):
            check(f"{name}-needs-{field}", re.search(rf"#{0xf << shift:#x}\b|#{shift}, #4\b", code) is not None,
                  "the field of ID_AA64MMFR3_EL1 is not looked at")

    # Permission indirection: the overlay applies to the kernel's entries, and to no
    # user entry.
    pir = _constant(text, "msr pir_el1,")
    for want, what in ((PIR_OVERLAID, "kernel"), (PIR_PLAIN, "user")):
        bad = {f"{i:x}": f"{pir >> 4 * i & 15:x}" for i, v in want.items()
               if pir >> 4 * i & 15 != v}
        check(f"pie-{what}-entries", not bad, f"PIR_EL1 is {pir:#x}, wrong: {bad}")

    if not windows:
        return o
    k.compile(*WRITERS, log="poe-disassembly")
    _windows([path for top in WRITERS for path in
              ([os.path.join(k.out, top)] if top.endswith(".o") else
               [os.path.join(d, n) for d, _, names in os.walk(os.path.join(k.out, top)) for n in names
                if n.endswith(".o") and not n.startswith((".", "built-in"))])], check)
    return o
