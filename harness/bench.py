# SPDX-License-Identifier: GPL-2.0-only
"""Instruction-exact benchmarks: kernels with and without the series, side by side.

A kernel is booted with one CPU and a virtual clock (-icount), so that two runs
execute the same instructions; a plugin of the emulator counts them between marks
that the benchmarks make. Instructions are not time: an ISB, a TLB invalidation
and a cache miss count as 1, and nobody contends for a lock. So what costs more on
hardware is counted apart.
"""
import os
import re
import shutil

import kernel
import report
import tree
from common import BUILD, CROSS, Fail, HARNESS, TOP, git, read, run, save_result, step, table, write

WORK = os.path.join(BUILD, "bench")
SOURCE = os.path.join(HARNESS, "bench")

# Functions that take a lock, by what the table calls them.
LOCKS = {
    "mutex": ["mutex_lock", "mutex_lock_interruptible", "mutex_lock_killable", "mutex_trylock"],
    "spinlock": ["_raw_spin_lock", "_raw_spin_lock_irq", "_raw_spin_lock_irqsave", "_raw_spin_lock_bh",
                 "_raw_spin_trylock"],
    "waits": ["queued_spin_lock_slowpath"],
}
COUNTS = ["switches", "isb", "dsb", "tlbi_bcast", "mutex", "spinlock", "under_lock"]

# What the report calls them.
OPERATIONS = {
    "table-alloc-free": "allocate and free a table",
    "tables-2048": "a table, with refills (2048 at once)",
    "set-memory-block": "change of the linear map that splits a block",
    "set-memory-split": "change of the linear map, split already",
    "vmalloc-1": "vmalloc and vfree, 1 page",
    "vmalloc-16": "vmalloc and vfree, 16 pages",
    "vmalloc-256": "vmalloc and vfree, 256 pages",
    "vm-map-ram-1": "vm_map_ram and vm_unmap_ram, 1 page",
    "fork-64MB": "fork and exit, 64 MB",
    "fork-64MB-huge": "fork and exit, 64 MB, huge pages",
    "munmap-64MB": "munmap, 64 MB",
    "mprotect-64MB": "mprotect, 64 MB",
    "page-fault": "page fault",
    "exec": "fork, exec and exit, a small program",
    "switch": "switch to another process",
    "mremap-64MB": "mremap, 64 MB",
    "dontneed-64MB": "madvise(MADV_DONTNEED), 64 MB",
    "exit-1000-vmas": "exit of a process with 1,000 VMAs",
    "collapse": "collapse of 2 MB, MADV_COLLAPSE",
}
REPORT = "harness/bench/REPORT.md"
# The columns of the report, which the cover letters show as well: (map, variant).
COLUMNS = {"reserve": ("block", "reserve"), "off": ("block", "inactive"), "blocks": ("block", "hardened"),
           "pages": ("pte", "hardened")}

# Where the instructions of these go is shown by function.
BREAKDOWN = ["table-alloc-free", "tables-2048", "fork-64MB", "mprotect-64MB", "exec", "switch"]

# What an operation may cost with the series on, and switched off: instructions as a ratio to those of the fair base, all
# else per operation. In tables-2048 the cache is refilled.
GOALS = [("hardened", "table-alloc-free", "instructions", {"block": 0.60, "pte": 0.60}),
         ("hardened", "tables-2048", "instructions", {"block": 0.70, "pte": 0.75}),
         ("hardened", "switch", "instructions", {"block": 1.05, "pte": 1.05}),
         ("hardened", "table-alloc-free", "spinlock", {"block": 0.2, "pte": 0.2}),
         ("hardened", "tables-2048", "tlbi_bcast", {"block": 0.01, "pte": 0.01})]
# The same on both maps: operation, switched off, and on. What the page allocator splits and merges makes too much of the
# other rows.
GOALS += [(variant, operation, "instructions", dict.fromkeys(kernel.MAPS, limit)) for operation, *limits in [
    ("fork-64MB", 1.006, 1.010), ("fork-64MB-huge", 1.010, 1.015), ("munmap-64MB", 1.002, 1.004),
    ("munmap-64MB-huge", 1.002, 1.004), ("mprotect-64MB", 1.012, 1.030), ("page-fault", 1.0025, 1.030),
    ("exec", 1.010, 1.050), ("mremap-64MB", 1.010, 1.050), ("dontneed-64MB", 1.010, 1.050), ("exit-1000-vmas", 1.010, 1.050),
    ("collapse", 1.010, 1.050), ("vmalloc-256", 1.005, 1.020), ("vmalloc-1", 1.010, 1.025), ("vm-map-ram-1", 1.050, 1.250),
    ("set-memory-block", 1.090, 1.120), ("set-memory-split", 1.050, 1.120)]
    for variant, limit in zip(("inactive", "hardened"), limits)]

# What was wanted, as ratios to the fair base: operation, switched off, and on. A report says by how much this was missed,
# in which functions, and why (WHY has a section for each such operation; make bench is red if one is missing).
WANTED = {
    "set-memory-block": (1.02, 1.04), "set-memory-split": (0.95, 0.95), "vmalloc-1": (1.005, 1.01),
    "vmalloc-16": (1.005, 1.02), "vmalloc-256": (1.005, 1.02), "vm-map-ram-1": (1.01, 1.05), "fork-64MB": (1.003, 1.01),
    "fork-64MB-huge": (1.003, 1.015), "munmap-64MB": (1.002, 1.004), "mprotect-64MB": (1.005, 1.03),
    "page-fault": (1.002, 1.004), "switch": (1.01, 1.05), "exec": (1.01, 1.05), "mremap-64MB": (1.01, 1.05),
    "dontneed-64MB": (1.01, 1.05), "exit-1000-vmas": (1.01, 1.05), "collapse": (1.01, 1.05)}
WHY = os.path.join(SOURCE, "why.md")

# The patches that are an improvement without the rest, by their subjects.
FASTER = ["arm64: mm: Avoid redundant barriers when kernel mappings change",
          "arm64: mm: Always inline the functions that set PTEs"]
FAIR = "patches 6 and 7"


class Variant:
    """One kernel to measure: a commit, what is put on top, how it is booted."""

    def __init__(self, name, what, commit, patches=(), config="", append="", maps=kernel.MAPS, out=None, picks=(),
                 contended=False, change=None):
        """@out: the object directory, if not that of the patches, for another commit or configuration.
        @picks: commits whose change is applied, too.
        @contended: eight CPUs take and free tables at once, too. Compare such figures only with each other: the spinlocks
        are also those of timer interrupts, and a lock is held for long if the host stops the CPU that has it.
        @change: a function that changes the work tree, given its path."""
        self.name, self.what, self.commit, self.append, self.picks = name, what, commit, append, picks
        self.patches, self.config, self.maps, self.contended, self.change = patches, config, maps, contended, change
        self.out = out or "+".join(patches) or name


def adding(path, last="HEAD"):
    """The commit that adds @path."""
    out = git("log", "--diff-filter=A", "--format=%H", last, "--", path).split()
    if not out:
        raise Fail(f"no commit of build/linux adds {path}")
    return out[-1]


def fair(name="fair", **kw):
    """What the series is compared with: the base, with the patches of the series that make it faster by themselves."""
    picks = []
    for subject in FASTER:
        picks += git("log", "-1", "--format=%H", f"--grep={subject}").split()
    if len(picks) < len(FASTER):
        raise Fail(f"build/linux has not all of the commits {FASTER}: see harness/bench.py")
    return Variant(name, f"the base, with {FAIR}", "origin/base", out="base", picks=picks, **kw)


def variants():
    core = adding("include/linux/kpkeys.h")
    emulation = adding("arch/arm64/mm/kpkeys-emulation.c")
    feature = "CONFIG_KPKEYS_HARDENED_PGTABLES=y\n"
    return [
        Variant("base", "the base", "origin/base", contended=True),
        fair(),
        Variant("reserve", "with the split reserve", core + "~"),
        Variant("inactive", "with the series, switched off", emulation + "~", ["mock-register"], feature,
                "kpkeys_hardened_pgtables=0"),
        Variant("hardened", "with the series, on, and another register in the place of POR_EL1",
                emulation + "~", ["mock-register"], feature, contended=True),
        Variant("one-page", "with the series, on, and one page at a time instead of the cache",
                emulation + "~", ["mock-register", "one-page"], feature, maps=["block"]),
        Variant("emulated", "with the series, on, and FEAT_S1POE emulated by FEAT_S1PIE", emulation, [],
                feature + "CONFIG_ARM64_KPKEYS_PIE_EMULATION=y\n"),
    ]


def _config(variant):
    """That of the tests, without what is for debugging, and optimised as kernels are; as for a CPU whose walker
    writes no entries, so that each access that must be seen is a fault, and without what only tests call (KEXEC)."""
    text = kernel.fragments("arm64", "4k")
    return re.sub(r"^CONFIG_\w*(DEBUG_VM|DEBUG_LIST|DEBUG_ATOMIC|PAGE_OWNER|PROVE_LOCKING|KUNIT|KPKEYS|FAIL|FAULT_INJ|KFENCE|DAMON|TEST_|MODULE|HW_AFDBM|ARM64_CNP|TLB_RANGE|KEXEC)\w*=\w+\n", "", text, flags=re.M) + \
        "CONFIG_CC_OPTIMIZE_FOR_PERFORMANCE=y\n" + variant.config


def _mark_split_lock(linux):
    """Let the plugin know when the lock is held that serialises splits."""
    def asm(hint):
        return f'asm volatile("hint #{hint}" : : : "memory")'

    path = os.path.join(linux, "arch/arm64/mm/mmu.c")
    text = read(path)
    lock = "static DEFINE_MUTEX(pgtable_split_lock);\n"
    if lock not in text:
        raise Fail("arch/arm64/mm/mmu.c has no pgtable_split_lock: see harness/bench.py")
    text = text.replace("mutex_lock(&pgtable_split_lock)", f"({{ mutex_lock(&pgtable_split_lock); {asm(115)}; }})")
    text = text.replace("mutex_unlock(&pgtable_split_lock)", f"({{ {asm(116)}; mutex_unlock(&pgtable_split_lock); }})")
    text = text.replace("guard(mutex)(&pgtable_split_lock)", "guard(marked_mutex)(&pgtable_split_lock)")
    text = text.replace(lock, f"{lock}DEFINE_GUARD(marked_mutex, struct mutex *, ({{ mutex_lock(_T); {asm(115)}; }}), "
                        f"({{ {asm(116)}; mutex_unlock(_T); }}))\n")
    write(path, text)


def prepare(variant):
    """The kernel of a variant, to be built; all share one work tree."""
    linux = os.path.join(WORK, "linux")
    tree.worktree(linux, variant.commit)
    for pick in variant.picks:
        git("apply", "-", stdin=git("diff", pick + "~", pick), cwd=linux)
    for patch in variant.patches:
        git("apply", os.path.join(SOURCE, patch + ".patch"), cwd=linux)
    _mark_split_lock(linux)
    if variant.change:
        variant.change(linux)
    with open(os.path.join(linux, "mm/Makefile"), "a") as f:
        for name in "pgtable_bench", "pgtable_pressure":
            shutil.copy(os.path.join(SOURCE, name + ".c"), os.path.join(linux, "mm"))
            f.write(f"obj-y += {name}.o\n")
    return kernel_of(variant)


def kernel_of(variant):
    return kernel.Kernel(variant.out, work=WORK, config=_config(variant))


_built = {}                                 # in this run: {object directory: what it is built from}


def build(variant):
    """Another command line needs no other build: the work tree would be as new, and all be compiled again."""
    source = variant.commit, variant.picks, variant.patches, variant.change, variant.config
    if _built.get(variant.out) == source:
        return kernel_of(variant)
    k = prepare(variant)
    k.build()
    _built[variant.out] = source
    return k


def _tools():
    """The plugin and the first process; returns their paths."""
    os.makedirs(WORK, exist_ok=True)
    plugin, init = os.path.join(WORK, "counter.so"), os.path.join(WORK, "userland/init")
    os.makedirs(os.path.dirname(init), exist_ok=True)
    run(["gcc", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-fvisibility=hidden", "-o", plugin,
         os.path.join(SOURCE, "counter.c")], log="bench")
    run([CROSS + "gcc", "-O2", "-Wall", "-Wextra", "-static", "-o", init, os.path.join(SOURCE, "user.c")],
        log="bench")
    initrd = os.path.join(WORK, "userland.cpio")
    run(["sh", "-c", f"cd '{WORK}/userland' && find . -exec touch -d @0 {{}} + && "
         f"find . | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc -R 0:0 >'{initrd}'"])
    return plugin, initrd


def _symbols(k, symbols, functions):
    """What the plugin counts arrivals at, and the functions by address."""
    address, texts = {}, {}
    with open(os.path.join(k.out, "System.map")) as f:
        for line in f:
            a, kind, name = line.split()
            address[name] = a
            # Marks in the middle of functions in assembly are not functions.
            if kind in "tT" and not name.startswith((".", "$")):
                texts.setdefault(int(a, 16), re.sub(r"\..*", "", name))
    with open(symbols, "w") as f:
        for kind, names in LOCKS.items():
            f.writelines(f"{kind} {address[n]}\n" for n in names if n in address)
    with open(functions, "w") as f:
        f.writelines(f"{name} {a:x}\n" for a, name in sorted(texts.items()))


def _measure(variant, k, map_, plugin, initrd, cpus=1):
    """One boot; returns {operation: {count: per operation}}. Of several CPUs, only what they do in each other's way."""
    out = os.path.join(WORK, f"{variant.name}-{map_}.counts")
    symbols, functions = (os.path.join(WORK, f"{variant.name}-{map_}.{what}") for what in ("symbols", "functions"))
    _symbols(k, symbols, functions)
    append = "norandmaps " + variant.append + ("" if cpus == 1 else " contended=yes")
    cmd = k.command("enforce", map_, append, initrd)
    cmd[cmd.index("-smp") + 1] = str(cpus)
    cmd[cmd.index("-machine") + 1] += ",dtb-randomness=off"
    cmd += ["-plugin", f"{plugin},out={out},symbols={symbols},functions={functions}"]
    if cpus == 1:
        # Nothing of the host is to be seen: the guest would be a little different each time.
        cmd += ["-icount", "shift=0,sleep=off", "-rtc", "base=2026-01-01,clock=vm", "-seed", "1"]
    log = f"bench {variant.name} {map_}" + ("" if cpus == 1 else f" {cpus} CPUs")
    console = run(cmd, check=False, log=log, timeout=600)
    if "bench: end" not in console or kernel.splats(console):
        raise Fail(f"the benchmarks of '{variant.name}', MAP={map_}, did not get to their end; "
                   f"log: {kernel.log_path(log)}\n" + kernel.tail(console))
    done = re.findall(r"^.*bench: (\S+) (\d+)\r?$", console, re.M)
    with open(out) as f:
        counts = [dict(pair.split("=") for pair in line.split()) for line in f]
    if len(done) != len(counts):
        raise Fail(f"{len(counts)} reports of the plugin for {len(done)} benchmarks; log: {kernel.log_path(log)}")
    result = {name: {c: v if c == "longest_in" else int(v) / (1 if c == "longest_window" else int(n))
                     for c, v in count.items()} for (name, n), count in zip(done, counts)}
    memory = {f"{when} {what}": int(kb) for when, what, kb in
              re.findall(r"meminfo: (\S+) (\S+):\s+(\d+) kB", console)}
    memory |= {f"{when} cache {what}": int(n) for when, what, n in
               re.findall(r"cache: (\S+) (\w+) (\d+)\r?$", console, re.M)}
    return result, memory


def _show(map_, results):
    """Instructions per operation beside those of the fair base, then what they do not say."""
    print(f"\nMAP={map_}: instructions per operation, and their ratio to those of 'fair', the base with {FAIR}")
    rows = []
    for op in results["hardened"]:
        fair_ = results["fair"].get(op)
        row = [op]
        for n in results:
            r = results[n].get(op)
            row.append("-" if not r else f"{r['instructions']:.0f}" +
                       (f" {r['instructions'] / fair_['instructions']:.4f}" if fair_ and n != "fair" else ""))
        rows.append(row)
    table(["operation", *results], rows)
    print(f"\nMAP={map_}: per operation, base > hardened")
    rows = []
    for op in results["hardened"]:
        base = results["base"].get(op, {})
        hard = results["hardened"][op]
        rows.append([op, *(f"{base.get(c, 0):.2f} > {hard.get(c, 0):.2f}" for c in COUNTS)])
    table(["operation", *COUNTS], rows)


def _show_windows(map_, results):
    """How long the window is open, without what interrupts it."""
    print(f"\nMAP={map_}: the longest window, in instructions, and where it was opened")
    rows = [[op, f"{c['longest_window']:.0f}", c["longest_in"]] for op, c in results["hardened"].items()]
    longest = max(rows, key=lambda row: int(row[1]))
    table(["operation", "instructions", "function"], [*rows, ["all of them", *longest[1:]]])


def _show_breakdown(map_, results, most=12):
    """By function, where more instructions are executed than by the base."""
    for op in BREAKDOWN:
        base, hard = results["base"][op], results["hardened"][op]
        more = {f: n - base.get(f, 0) for f, n in hard.items() if f.endswith("()")}
        more.update({f: -n for f, n in base.items() if f.endswith("()") and f not in hard})
        rows = sorted(more.items(), key=lambda item: -abs(item[1]))
        rest = sum(n for _, n in rows[most:])
        print(f"\nMAP={map_}: {op}, where {hard['instructions'] - base['instructions']:.1f} more instructions are")
        table(["function", "base", "hardened", "more"],
              [[f, f"{base.get(f, 0):.1f}", f"{hard.get(f, 0):.1f}", f"{n:+.1f}"] for f, n in rows[:most]] +
              [["(all others)", "", "", f"{rest:+.1f}"]])


def _show_memory(map_, memory):
    """What is idle, and how the direct map is made up after processes came and went."""
    print(f"\nMAP={map_}: kB after 64 MB processes; of the direct map, by kind of leaf")
    keys = [k for k in memory["base"] if k.startswith("after ")]
    table(["kernel", *(k.removeprefix("after ") for k in keys)],
          [[name, *(values.get(k, 0) for k in keys)] for name, values in memory.items()])


def _show_contended(map_, contended):
    print(f"\nMAP={map_}: per table, taken and freed by 8 CPUs at once")
    table(["kernel", "spinlocks", "waits for one"],
          [[name, f"{c.get('spinlock', 0):.3f}", f"{c.get('waits', 0):.5f}"] for name, c in contended.items()])


def _goals(everything):
    """An Outcome: what GOALS says, kept or not."""
    o, rows = kernel.Outcome("what operations cost"), []
    for variant, operation, count, limits in GOALS:
        for map_, limit in limits.items():
            base, value = (everything[map_][name][operation].get(count, 0) for name in ("fair", variant))
            if count == "instructions":
                value /= base
            o.check(f"{variant} {operation} {count} {map_}", None if value <= limit else f"{value:.4f} is more than {limit}")
            rows.append([map_, variant, operation, count, f"{value:.4f}", f"<= {limit}", "yes" if value <= limit else "NO"])
    o.check("reasons", _missed(everything)[1])
    print("\nwhat is measured against a goal; instructions as a ratio to those of 'fair'")
    table(["MAP", "kernel", "operation", "count", "value", "goal", "met"], rows)
    return o


HEAD = """<!-- SPDX-License-Identifier: GPL-2.0-only -->
# What operations cost

Generated by `make bench`; do not edit. Instructions for each operation, counted exactly on one CPU (see `harness/bench.py`), and
in parentheses relative to the base on the same kind of linear map. The base has %s of the series, which make it
faster without the rest. "reserve" is a kernel with the patches in front of kpkeys, "off" one with all of it and
`kpkeys_hardened_pgtables=0`; "blocks" and "pages" have protected page tables, on a block-mapped and on a PTE-mapped linear map,
with TPIDR2_EL0 in the place of POR_EL1, which the emulator does not have. What RCU frees later is not counted.
How many blocks the page allocator splits and merges depends on what is free, and makes up to 4%% of vmalloc() of 16 pages.

"""


def write_report(everything, top=TOP):
    def cell(map_, variant, op):
        n = everything[map_][variant][op]["instructions"]
        return f"{n:.0f} ({n / everything[map_]['fair'][op]['instructions']:.3f})"

    rows = [["operation", "base, blocks", "base, pages", *COLUMNS], ["---"] + ["--:"] * (2 + len(COLUMNS))]
    for op, what in OPERATIONS.items():
        rows.append([what, *(f"{everything[map_]['fair'][op]['instructions']:.0f}" for map_ in ("block", "pte")),
                     *(cell(map_, variant, op) for map_, variant in COLUMNS.values())])
    write(os.path.join(top, REPORT), HEAD % FAIR + "".join(f"| {' | '.join(row)} |\n" for row in rows) +
          _missed(everything)[0])


def _more(everything, map_, variant, op, most=5):
    """The functions that execute more instructions than in the base, and how many."""
    base, now = (everything[map_][name][op] for name in ("fair", variant))
    more = {f: now.get(f, 0) - base.get(f, 0) for f in {*base, *now} if f.endswith("()")}
    rows = sorted((item for item in more.items() if abs(item[1]) >= 0.5), key=lambda item: -abs(item[1]))
    rest = now["instructions"] - base["instructions"] - sum(n for _, n in rows[:most])
    return ", ".join([f"`{f}` {n:+.0f}" for f, n in rows[:most]] + [f"all others {rest:+.0f}"])


def _missed(everything):
    """What was WANTED and is not reached: the part of the report about it, and None or what WHY lacks or has too much."""
    why = dict(re.findall(r"^## (\S+)\n\n(.*?)\s*(?=^## |\Z)", read(WHY), re.M | re.S))
    rows, missed = [], []
    for op, limits in WANTED.items():
        for column, limit in zip(("off", "blocks", "pages"), (limits[0], limits[1], limits[1])):
            map_, variant = COLUMNS[column]
            base, now = (everything[map_][name][op]["instructions"] for name in ("fair", variant))
            if now > limit * base:
                rows.append([OPERATIONS[op], column, f"{limit}", f"{now / base:.3f}", f"{now - base:+.0f}",
                             _more(everything, map_, variant, op)])
                missed += [op] if op not in missed else []
    text = "\n## What was wanted, and is not reached\n\n" + \
        report.lines(["operation", "kernel", "wanted", "is", "instructions", "where"], rows) + \
        "".join(f"\n### {OPERATIONS[op]}\n\n{why.get(op, '(no reason yet)')}\n"
                for op in missed)
    odd = set(missed) ^ set(why)
    return text, f"not missed, or without a reason: {' '.join(sorted(odd))}" if odd else None


def reported(top=TOP):
    """{operation: {column: ratio to the base}}, as the report says."""
    head, rows = report.tables(os.path.join(top, REPORT))[0]
    return {row[0]: {column: float(cell.partition("(")[2].rstrip(")")) for column, cell in zip(head, row)
                     if column in COLUMNS} for row in rows}


def cost(top=TOP):
    """The table for the cover letter."""
    width = max(map(len, OPERATIONS.values()))
    lines = [" " * width + "".join(f"{name:>9}" for name in COLUMNS)]
    lines += [f"{what:{width}}" + "".join(f"{ratios[column]:>9.2f}" for column in COLUMNS)
              for what, ratios in reported(top).items()]
    return "\n".join(lines)


def cost_of_reserve(top=TOP):
    """The table for the cover letter of what comes in front of kpkeys."""
    return "\n".join(f"  {what:{max(map(len, OPERATIONS.values()))}}  1.00  {ratios['reserve']:.2f}"
                     for what, ratios in reported(top).items() if what.startswith("change of the linear map"))


def measure(what):
    """{map: {variant: counts}} and {map + " memory": {variant: kB}} of these variants."""
    plugin, initrd = _tools()
    everything = {}
    for variant in what:
        with step(f"bench: {variant.what}"):
            k = build(variant)
            for map_ in variant.maps:
                result, memory = _measure(variant, k, map_, plugin, initrd)
                everything.setdefault(map_, {})[variant.name] = result
                everything.setdefault(map_ + " memory", {})[variant.name] = memory
                if variant.contended:
                    result, _ = _measure(variant, k, map_, plugin, initrd, cpus=8)
                    everything.setdefault(map_ + " contended", {})[variant.name] = result["contended"]
    return everything


def bench(stack):
    """`make bench`"""
    tree.make(stack)
    everything = measure(variants())
    save_result("bench", everything)
    write_report(everything)
    for map_ in kernel.MAPS:
        _show(map_, everything[map_])
        _show_windows(map_, everything[map_])
        _show_breakdown(map_, everything[map_])
        _show_memory(map_, everything[map_ + " memory"])
        _show_contended(map_, everything[map_ + " contended"])
    return [_goals(everything)]
