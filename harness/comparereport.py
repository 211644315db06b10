# SPDX-License-Identifier: GPL-2.0-only
"""compare/REPORT.md and its plots, from what "make compare" has measured."""
import os
import re

import compare
from common import Fail, LINUX, TOP, git, read, run, write

OURS, OTHER, LARGER, ALONE, NAMES = compare.OURS, compare.OTHER, compare.LARGER, compare.ALONE, compare.NAMES
PTE = "pages"
REPORT = "compare/REPORT.md"
# The columns of what instructions cost; all but the last on a direct map of blocks.
COLUMNS = {ALONE: ("block", ALONE), f"{NAMES[OURS]}, off": ("block", f"{OURS} inactive"),
           f"{NAMES[OTHER]}, off": ("block", f"{OTHER} inactive"), NAMES[OURS]: ("block", OURS),
           NAMES[OTHER]: ("block", OTHER), PTE: ("pte", OURS)}

OPERATIONS = {
    "table-alloc-free": "allocate and free a table",
    "tables-2048": "a table, with refills (2048 at once)",
    "set-memory-block": "change of the direct map, of a block",
    "set-memory-split": "change of the direct map, split already",
    "vmalloc-1": "vmalloc and vfree, 1 page",
    "vmalloc-16": "vmalloc and vfree, 16 pages",
    "vmalloc-256": "vmalloc and vfree, 256 pages",
    "fork-64MB": "fork and exit, 64 MB",
    "fork-64MB-huge": "fork and exit, 64 MB, huge pages",
    "munmap-64MB": "munmap, 64 MB",
    "mprotect-64MB": "mprotect, 64 MB",
    "page-fault": "page fault",
}
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
    return _left_table(["what happens", *(NAMES[s] for s in answers)],
                       [[k, *(a.get(k, "no answer") for a in answers.values())] for k in keys])


def _instructions(counts):
    rows = []
    for op, what in OPERATIONS.items():
        row = [what, f"{counts['block']['base'][op]['instructions']:.0f}"]
        for map_, variant in COLUMNS.values():
            n = counts[map_][variant][op]["instructions"]
            row.append(f"{n:.0f} ({n / counts[map_]['base'][op]['instructions']:.3f})")
        rows.append(row)
    return _table(["per operation", "base", *COLUMNS], rows)


def measured(top=TOP):
    """{operation: {column: ratio to the base}}, as the report says."""
    with open(os.path.join(top, REPORT)) as f:
        rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in f if line.startswith("|")]
    first = next(i for i, row in enumerate(rows) if row[0] == "per operation")
    return {row[0]: {column: cell.partition("(")[2].rstrip(")") for column, cell in zip(rows[first], row)}
            for row in rows[first + 2:first + 2 + len(OPERATIONS)]}


# What the cover letter says of it.
SAID = {ALONE: "reserve", f"{NAMES[OURS]}, off": "switched off", NAMES[OURS]: "blocks", PTE: "pages"}


def cost(top=TOP):
    """The table for the cover letter."""
    width = max(map(len, OPERATIONS.values()))
    lines = [" " * width + "".join(f"{name:>13}" for name in SAID.values())]
    for what, ratios in measured(top).items():
        lines.append(f"{what:{width}}" + "".join(f"{float(ratios[column]):>13.2f}" for column in SAID))
    return "\n".join(line.rstrip() for line in lines)


def cost_of_reserve(top=TOP):
    """The table for the cover letter of what comes in front of kpkeys."""
    return "\n".join(f"  {what:{max(map(len, OPERATIONS.values()))}}  1.00  {float(ratios[ALONE]):.2f}"
                     for what, ratios in measured(top).items() if what.startswith("change of the direct map"))


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
        rows.append([f"{what} with the feature, bytes more than the base", *(size[s][i] - size["base"][i] for s in stacks)])
        rows.append([f"{what} without it, bytes more than the base", *(size[s + " off"][i] - size["base"][i] for s in stacks)])
    return _table(["", *(NAMES[s] for s in stacks)], rows)


def _complexity(data):
    return _table(["function", "base", NAMES[OURS], NAMES[OTHER]],
                  [[f"`{f}`", *("-" if v is None else v for v in values)] for f, values in data["complexity"].items()])


def _plot(name, script):
    run(["gnuplot"], stdin=f"set terminal svg size 720,400 noenhanced font 'sans,12' background '#ffffff'\n"
        f"set output '{os.path.join(compare.FOLDER, name)}'\n" + script, log="compare")


def _plots(counts):
    lines = {"base": ("block", "base"), NAMES[OURS]: ("block", OURS), NAMES[OTHER]: ("block", OTHER),
             "one page at a time": ("block", "one-page"), PTE: ("pte", OURS)}
    whens = [("after", 0)] + [(f"sparse-{i}", i * 1000) for i in range(1, 9)]
    script = "set xlabel 'page tables in use, more than at the start'\nset ylabel '% of the direct map in blocks'\n" \
             "set yrange [-5:105]\nset key left center\n"
    for i, (map_, variant) in enumerate(lines.values()):
        m = counts[map_ + " memory"][variant]
        script += f"$d{i} << E\n" + "".join(f"{x} {_blocks(m, w):.2f}\n" for w, x in whens) + "E\n"
    # Where two lines are one, both are to be seen.
    script += "plot " + ", ".join(f"$d{i} with linespoints lw {5 if i == 1 else 2} title '{name}'"
                                  for i, name in enumerate(lines)) + "\n"
    _plot("blocks.svg", script)

    names = [NAMES[OURS], NAMES[OTHER], PTE]
    script = "set style data histograms\nset style fill solid\nset ylabel 'instructions, as a ratio to the base'\n" \
             "set yrange [0:*]\nset xtics rotate by -30\nset key top right\nset grid ytics\n$d << E\n"
    for op in OPERATIONS:
        row = [counts[m][s][op]["instructions"] / counts[m]["base"][op]["instructions"]
               for m, s in (("block", OURS), ("block", OTHER), ("pte", OURS))]
        script += f"\"{op}\" " + " ".join(f"{v:.4f}" for v in row) + "\n"
    script += "E\nplot " + ", ".join(f"$d using {i + 2}:xtic(1) title '{n}'" for i, n in enumerate(names)) + "\n"
    _plot("instructions.svg", script)


def _conclusion(data):
    """compare/conclusion.md: after each sentence that rests on a measurement stands which, to be checked."""
    text = read(os.path.join(compare.FOLDER, "conclusion.md"))
    for claim in re.findall(r"<!-- (.*?) -->", text, re.S):
        if claim.startswith("SPDX"):
            continue
        try:
            # Of this repository. One namespace, or a generator expression sees none of it.
            ok = eval(claim, {
                "__builtins__": {}, "facts": lambda s, k: data["correctness"][s]["facts"][k],
                "n": lambda m, v, op, c="instructions": data["counts"][m][v][op].get(c, 0),
                "code": data["code"], "size": data["size"], "rt": data["PREEMPT_RT"],
                "red": lambda s: {t.split(".")[-1] for t in data["correctness"][s]["red"]},
                "memory": lambda m, v, k: data["counts"][m + " memory"][v][k],
                "ours": OURS, "gfp": OTHER, "larger": LARGER, "alone": ALONE, "abs": abs, "set": set, "all": all, "range": range})
        except (KeyError, TypeError) as e:
            raise Fail(f"compare/conclusion.md rests on what was not measured: {claim} ({e!r})") from None
        if not ok:
            raise Fail(f"compare/conclusion.md says what is not so (any more): {claim}")
    return re.sub(r"\s*<!-- .*? -->", "", text, flags=re.S).strip() + "\n"


def make(data):
    version = git("log", "-1", "--format=%s", "origin/base", cwd=LINUX).strip()
    counts = data["counts"]
    rt = _left_table(["design", "what no object defines"],
                     [[NAMES[s], ", ".join(f"`{n}()`" for n in names) or "nothing: it links"]
                      for s, names in data["PREEMPT_RT"].items()])
    text = read(os.path.join(compare.FOLDER, "REPORT.in"))
    parts = {"VERSION": version, "SUITES": _suites(data), "RED": _red(data), "FACTS": _facts(data), "RT": rt,
             "INSTRUCTIONS": _instructions(counts), "EVENTS": _events(counts), "MEMORY": _memory(counts),
             "COMPUTED": _computed(), "CODE": _code(data), "COMPLEXITY": _complexity(data),
             "CONCLUSION": _conclusion(data), "PTE": PTE, "OURS": NAMES[OURS], "OTHER": NAMES[OTHER], "LARGER": NAMES[LARGER]}
    text = re.sub(r"@(\w+)@", lambda m: parts[m[1]].rstrip("\n"), text)
    _plots(counts)
    write(os.path.join(TOP, REPORT), text)
    print("\n" + parts["CONCLUSION"] + "\ncompare/REPORT.md and build/results/compare.json are written")
