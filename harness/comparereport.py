# SPDX-License-Identifier: GPL-2.0-only
"""compare/REPORT.md and its plots, from what "make compare" has measured."""
import os
import re

import compare
import svg
from bench import OPERATIONS
from common import Fail, LINUX, TOP, git, read, write

OURS, OTHER, LARGER, ALONE, NAMES, V6 = (compare.OURS, compare.OTHER, compare.LARGER, compare.ALONE, compare.NAMES,
                                         compare.V6)
PTE = "pages"
REPORT = "compare/REPORT.md"
# The columns of what instructions cost; all but the last on a direct map of blocks.
COLUMNS = {ALONE: ("block", ALONE), f"{NAMES[OURS]}, off": ("block", f"{OURS} inactive"),
           f"{NAMES[OTHER]}, off": ("block", f"{OTHER} inactive"), NAMES[OURS]: ("block", OURS),
           NAMES[OTHER]: ("block", OTHER), PTE: ("pte", OURS)}

EVENTS = ["switches", "isb", "dsb", "tlbi_bcast", "mutex", "spinlock", "under_lock"]
GB = 1 << 30


def _table(head, rows):
    rows = [[str(c) for c in row] for row in rows]
    out = ["| " + " | ".join(head) + " |", "|" + "|".join("---" if not i else "--:" for i in range(len(head))) + "|"]
    return "\n".join(out + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def _left_table(head, rows):
    return _table(head, rows).replace("--:", "---")


def _suites(data):
    runs = []
    for stack, found in data["correctness"].items():
        for name, suites in found["runs"].items():
            runs.append((stack, name, suites))
    names = sorted({s for _, _, suites in runs for s in suites} - {"the boot"}) + ["the boot"]
    rows = [[f"{NAMES[stack]}: {name}"] +
            ["/".join(map(str, suites[s])) if s in suites else "-" for s in names] for stack, name, suites in runs]
    return _table(["run", *names], rows)


def _red(data):
    rows = []
    for stack, found in data["correctness"].items():
        expected = compare.expected_red(stack)
        for test in sorted(found["red"]):
            short = test.split(".")[-1]
            rows.append([NAMES[stack], f"`{short}`", expected.get(short, "not expected: see the log")])
    return _left_table(["design", "test", "why"], rows) if rows else "None.\n"


def _facts(data):
    answers = {s: f["facts"] for s, f in data["correctness"].items()}
    keys = list(dict.fromkeys(k for a in answers.values() for k in a))
    if V6 not in answers:
        answers[V6] = dict.fromkeys(keys, "not supplied")
    return _left_table(["what happens", *(NAMES[s] for s in answers)],
                       [[k, *(a.get(k, "no answer") for a in answers.values())] for k in keys])


def _instructions(counts):
    rows = []
    columns = COLUMNS | ({NAMES[V6]: ("block", V6)} if V6 in counts["block"] else {})
    for op, what in OPERATIONS.items():
        row = [what, f"{counts['block']['base'][op]['instructions']:.0f}"]
        for map_, variant in columns.values():
            n = counts[map_][variant][op]["instructions"]
            row.append(f"{n:.0f} ({n / counts[map_]['base'][op]['instructions']:.3f})")
        rows.append(row)
    return _table(["per operation", "base", *columns], rows)


def _events(counts):
    rows = []
    for op, what in OPERATIONS.items():
        row = [what]
        for e in EVENTS:
            values = [counts[m][s][op].get(e, 0) for m, s in (("block", "base"), ("block", OURS), ("block", OTHER),
                                                              ("pte", OURS))]
            row.append(" / ".join(f"{v:.2f}".rstrip("0").rstrip(".") for v in values))
        rows.append(row)
    return _table(["base / " + f"{NAMES[OURS]} / {NAMES[OTHER]} / {PTE}", "switches", "ISB", "DSB", "broadcast TLBI",
                   "mutexes", "spinlocks", "instructions under the split lock"], rows)


def _blocks(memory, when):
    """The share of the direct map that is mapped by PMD blocks or larger ones, in percent."""
    kinds = {k: memory.get(f"{when} Map{k}", 0) for k in ("PUD", "ContPMD", "PMD", "ContPTE", "PTE")}
    return 100 * (kinds["PUD"] + kinds["ContPMD"] + kinds["PMD"]) / sum(kinds.values())


# Of the scenarios of harness/pressure.py: (what, scenario, figure).
SCARCE = [
    ("taken right after boot, pages", "boot 1024 MB", "boot-taken"),
    ("1,500 processes: taken, pages", "processes 1024 MB", "many-taken"),
    ("these in use", "processes 1024 MB", "many-in_use"),
    ("all killed, drop_caches: taken", "processes 1024 MB", "dropped-taken"),
    ("these in use", "processes 1024 MB", "dropped-in_use"),
    ("splits of the linear map for that", "processes 1024 MB", "splits"),
    ("51,200 tables, 99 % freed at random: taken", "kept 1024 MB", "before-taken"),
    ("the shrinker is called once, for 512 pages: gives back", "kept 1024 MB", "given_back"),
    ("and takes, instructions", "kept 1024 MB", "took"),
    ("drop_caches: taken", "kept 1024 MB", "dropped-taken"),
    ("these in use", "kept 1024 MB", "dropped-in_use"),
    ("linear map in blocks before that, permille", "kept 1024 MB", "before-blocks-permille"),
    ("linear map in blocks after it, permille", "kept 1024 MB", "dropped-blocks-permille"),
    ("no two free pages together, 8,000 tables: allocations that failed", "fragmented 512 MB", "failed"),
    ("tasks killed", "fragmented 512 MB", "killed"),
    ("the slowest table, instructions", "fragmented 512 MB", "slowest"),
    ("40,000 tables freed, then a process takes all memory: pages it gets", "used-up 512 MB", "touched"),
    ("MemAvailable before that, kB", "used-up 512 MB", "available-kb"),
    ("NUMA: of 400 tables of a task on node 0, on node 0", "nodes 1024 MB", "nodes-cpu-of-0"),
    ("of a task on node 1, on node 1", "nodes 1024 MB", "nodes-cpu-of-1"),
    ("of a task bound to node 1, on node 1", "nodes 1024 MB", "nodes-bind-1"),
    ("of a task that interleaves, on nodes 0/1", "nodes 1024 MB", "nodes-interleave"),
]


def _scarce_cell(found, scenario, figure):
    figures = found[scenario]
    if "stopped" in figures:
        return figures["stopped"]
    value = figures.get(figure, "-")
    if isinstance(value, list):
        # Tables of others are counted, too.
        value = f"{min(value[0], 400)}/{min(value[1], 400)}" if figure.endswith("interleave") else \
            min(value[0 if figure.endswith("of-0") else 1], 400)
    return f"{value:,}" if isinstance(value, int) else value


def _scarce(data):
    columns = {"feature off": "off", NAMES[OURS]: OURS, NAMES[OTHER]: OTHER, NAMES[V6]: V6}
    return _table(["what", *columns], [[what, *(_scarce_cell(data["memory"][c], scenario, figure) if c in data["memory"] else
                                               "not supplied" for c in columns.values())] for what, scenario, figure in SCARCE])


# What fails, and the test that shows what becomes of it.
FAILURES = [("the pkey change of a refill, before its split", "kpkeys_pgtable_cache_test_refill_fails"),
            ("the pkey change of a refill, after its split", "kpkeys_pgtable_cache_test_refill_fails_after_split"),
            ("the pkey change of a release", "kpkeys_pgtable_cache_test_give_back_fails"),
            ("an allocation in the middle of a split", "kpkeys_split_test_no_memory"),
            ("all allocations of chunks", "kpkeys_pgtable_cache_test_fragmented")]


def _failures(data):
    rows = []
    for what, test in FAILURES:
        row = [what, f"`{test}`"]
        for stack in (OURS, OTHER):
            outcomes = [o for o in data["correctness"][stack]["outcomes"] if "block enforce" in o["what"]]
            passed = [n for o in outcomes for n in o["passed"] if n.split(" ")[0].split(".")[-1] == test]
            expected = compare.expected_red(stack).get(test)
            row.append(f"red: {expected}" if expected else "passes" if passed else "did not run")
        rows.append(row)
    return _left_table(["what fails", "shown by", NAMES[OURS], NAMES[OTHER]], rows)


HELD = 200              # instructions for which a lock of a node is held: an assumption
CPUS = 192


def busy(counts, map_, variant):
    """The share of time for which one lock is held if 192 CPUs do nothing but take and free tables, and if they do nothing
    but fault in memory by pages, which takes a table for each 512 faults. Above 1, they queue."""
    locks, table = counts[map_ + " contended"][variant]["spinlock"], counts[map_][variant]["table-alloc-free"]["instructions"]
    fault = counts[map_][variant]["page-fault"]["instructions"]
    return CPUS * locks * HELD / table, CPUS * locks * HELD / (512 * fault)


def _contention(counts):
    rows = []
    for map_, variant, name in (("block", "base", "base"), ("block", OURS, NAMES[OURS]), ("block", OTHER, NAMES[OTHER]),
                                ("pte", "base", "base, PTE-mapped"), ("pte", OURS, f"{NAMES[OURS]}, {PTE}")):
        c = counts[map_ + " contended"][variant]
        rows.append([name, f"{c.get('spinlock', 0):.2f}", f"{c.get('waits', 0):.4f}",
                     *(["-", "-"] if variant == "base" else [f"{share:.3f}" for share in busy(counts, map_, variant)])])
    return _table(["kernel", "spinlocks for each table", "that had to wait", "192 CPUs, tables only", "192 CPUs, page faults only"], rows)


def _callers(data):
    return _left_table(["tables", "what it changes", "when", "calls in"],
                       [[f"0 to {most}" if most else "0", what, when, ", ".join(f"`{path}` {n}" for path, n in files.items())]
                        for most, what, when, files in data["reach"]["callers"]])


def _reached(data):
    counted = data["reach"]["counted"]
    return _table(["page tables", "0", "1", "2", "3", "4"], [["splits", *(counted.get(str(n), 0) for n in range(5))]])


def _memory(counts):
    rows = []
    for map_, variant, name in (("block", "base", "base, blocks"), ("block", OURS, NAMES[OURS]),
                                ("block", OTHER, NAMES[OTHER]), ("block", "one-page", "blocks, one page at a time"),
                                ("pte", "base", "base, pages"), ("pte", OURS, PTE)):
        m = counts[map_ + " memory"][variant]
        rows.append([name, *(m.get(f"before cache {k}", "-") for k in ("taken", "in_use", "cached", "reserved")),
                     *(m.get(f"after cache {k}", "-") for k in ("taken", "in_use", "cached", "reserved")),
                     m["before MemFree"], *(f"{_blocks(m, w):.1f}" for w in ("before", "after", "sparse-8", "sparse-freed"))])
    return _table(["kernel", "taken at start", "in use", "cached", "set aside", "taken after fork etc.", "in use", "cached",
                   "set aside", "MemFree at start, kB", "% in blocks at start", "after fork etc.", "8000 tables more",
                   "these freed"], rows)


def _computed():
    rows = []
    for gb in (2, 8, 64):
        size = gb * GB
        tables = size // (2 << 20) + size // GB
        rows.append([f"{gb} GB", f"{tables * 4:,} kB", "4 kB",
                     f"{size // 4096:,}", f"{size // 65536:,}", f"{size // (2 << 20):,}", f"{size // GB}"])
    return _table(["memory", "page tables of the direct map, by pages", "by 1 GB blocks", "TLB entries for all of it: pages",
                   "groups of 16 pages", "2 MB blocks", "1 GB blocks"], rows)


def _code(data):
    stacks = (OURS, OTHER)
    keys = list(data["code"][OURS])
    rows = [[k, *(data["code"][s][k] for s in stacks)] for k in keys]
    size = data["size"]
    for i, what in enumerate(("text", "data")):
        for how, off in (("with the feature", ""), ("with the option off", " off")):
            rows.append([f"{what} {how}, bytes more than the base", *(size[s + off]["all"][i] - size["base"]["all"][i] for s in stacks)])
    for what in compare.OBJECTS:
        rows.append([f"text of {what}, bytes", *(size[s].get(what, ["-"])[0] for s in stacks)])
    return _table(["", *(NAMES[s] for s in stacks)], rows)


def _complexity(data):
    return _table(["function", "base", NAMES[OURS], NAMES[OTHER]],
                  [[f"`{f}`", *("-" if v is None else v for v in values)] for f, values in data["complexity"].items()])


def _by_pages(memory, when):
    """MB of the linear map that are mapped by pages and groups of pages."""
    return (memory.get(f"{when} MapContPTE", 0) + memory.get(f"{when} MapPTE", 0)) / 1024


def _plots(counts):
    lines = {"base": ("block", "base"), NAMES[OURS]: ("block", OURS), NAMES[OTHER]: ("block", OTHER),
             "blocks, one page at a time": ("block", "one-page"), PTE: ("pte", OURS)}
    whens = [("after", 0)] + [(f"sparse-{i}", i * 1000) for i in range(1, 9)]
    write(os.path.join(compare.FOLDER, "blocks.svg"),
          svg.lines("page tables in use, more than at the start", "MB of the linear map that are not mapped by blocks, of 1,024",
                    {name: [(x, _by_pages(counts[map_ + " memory"][variant], w)) for w, x in whens]
                     for name, (map_, variant) in lines.items()}, 1, 1000))

    def panel(title, map_, columns):
        return title, [(what, [(name, counts[map_][variant][op]["instructions"] / counts[map_]["base"][op]["instructions"])
                               for name, variant in columns.items()]) for op, what in OPERATIONS.items()]

    write(os.path.join(compare.FOLDER, "instructions.svg"),
          svg.ratios([panel("Block-mapped linear map: instructions, as a ratio to the block-mapped base", "block",
                            {NAMES[OURS]: OURS, NAMES[OTHER]: OTHER}),
                      panel("PTE-mapped linear map: instructions, as a ratio to the PTE-mapped base", "pte", {PTE: OURS})]))


def _conclusion(data):
    """compare/conclusion.md. After each sentence that rests on a measurement stands which, to be checked; and {{...}} in a
    sentence is a value. All that is not so (any more) is said at once."""
    text, bad = read(os.path.join(compare.FOLDER, "conclusion.md")), []
    # Of this repository. One namespace, or a generator expression sees none of it.
    names = {
        "__builtins__": {}, "facts": lambda s, k: data["correctness"][s]["facts"][k],
        "n": lambda m, v, op, c="instructions": data["counts"][m][v][op].get(c, 0),
        "code": data["code"], "size": data["size"], "rt": data["PREEMPT_RT"], "counted": data["reach"]["counted"],
        "red": lambda s: {t.split(".")[-1] for t in data["correctness"][s]["red"]}, "callers": data["reach"]["callers"],
        "memory": lambda m, v, k: data["counts"][m + " memory"][v][k], "scarce": lambda c, s, k: data["memory"][c][s][k],
        "busy": lambda m, v: busy(data["counts"], m, v), "ours": OURS, "gfp": OTHER, "larger": LARGER, "alone": ALONE,
        "abs": abs, "set": set, "all": all, "range": range, "sum": sum, "max": max, "round": round}

    def value(claim):
        try:
            return eval(claim, names)
        except (KeyError, TypeError, IndexError) as e:
            bad.append(f"rests on what was not measured: {claim} ({e!r})")
            return True

    for claim in re.findall(r"<!-- (.*?) -->", text, re.S):
        if not claim.startswith("SPDX") and not value(claim):
            bad.append(f"says what is not so: {claim}")
    text = re.sub(r"\{\{(.*?)\}\}", lambda m: str(value(m[1])), re.sub(r"\s*<!-- .*? -->", "", text, flags=re.S))
    return text.strip() + "\n", bad


def make(data):
    version = git("log", "-1", "--format=%s", "origin/base", cwd=LINUX).strip()
    counts = data["counts"]
    rt = _left_table(["design", "what no object defines"],
                     [[NAMES[s], ", ".join(f"`{n}()`" for n in names) or "nothing: it links"]
                      for s, names in data["PREEMPT_RT"].items()])
    text = read(os.path.join(compare.FOLDER, "REPORT.in"))
    conclusion, bad = _conclusion(data)
    parts = {"VERSION": version, "SUITES": _suites(data), "RED": _red(data), "FACTS": _facts(data), "RT": rt,
             "INSTRUCTIONS": _instructions(counts), "EVENTS": _events(counts), "MEMORY": _memory(counts),
             "COMPUTED": _computed(), "CODE": _code(data), "COMPLEXITY": _complexity(data), "CONTENTION": _contention(counts),
             "SCARCE": _scarce(data), "FAILURES": _failures(data), "CALLERS": _callers(data), "REACHED": _reached(data),
             "V6": read(os.path.join(compare.FOLDER, "v6/measured.md")).partition("-->")[2].strip(), "HELD": str(HELD),
             "CONCLUSION": conclusion, "PTE": PTE, "OURS": NAMES[OURS], "OTHER": NAMES[OTHER], "LARGER": NAMES[LARGER]}
    text = re.sub(r"@([A-Z]\w*)@", lambda m: parts[m[1]].rstrip("\n"), text)
    _plots(counts)
    if bad:
        write(os.path.join(compare.WORK, "REPORT.md"), text)
        raise Fail("compare/conclusion.md " + "; ".join(bad) + " (all else is in build/compare/REPORT.md; what was measured "
                   "is kept, and 'make compare' writes the report once the conclusion says what is so)")
    write(os.path.join(TOP, REPORT), text)
    print("\n" + conclusion + "\ncompare/REPORT.md and build/results/compare.json are written")
