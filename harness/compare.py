# SPDX-License-Identifier: GPL-2.0-only
"""The series beside another design of the same thing, compare/gfp-flag: "make compare".

All that is measured is written to build/results/compare.json, and as a page with
plots to compare/. What the conclusion (compare/conclusion.md) says is checked
against what was measured. Each part that is done is kept in build/compare/parts.json,
with a key of all that it depends on, and not done again, unless AGAIN=1 asks for it:
then all is measured once more, and what should be exact and is not the same fails.

All stacks are built in one work tree below build/compare, one after the other, so
that build/linux stays what the user has in it. V6=FILE adds a column: the allocator
of another version of kpkeys, unchanged, behind compare/v6/glue.c.
"""
import json
import os
import re
import shutil
from functools import partial

import bench
import boot
import kernel
import pressure
import reach
import tree
from common import BUILD, CROSS, TOP, Fail, Record, git, key_of, listed, read, run, save_result, step, two_at_once, write

WORK = os.path.join(BUILD, "compare")
TREE = os.path.join(WORK, "linux")
FOLDER = os.path.join(TOP, "compare")
SUITE = "kpkeys_compare_kunit"
OURS, OTHER, LARGER = tree.STACKS[:3]
ALONE = "reserve alone"       # what comes in front of kpkeys
V6 = "v6"                     # the file of V6=, on the GFP-flag stack
NAMES = {OURS: "split reserve", OTHER: "GFP flag, 2+2", LARGER: "GFP flag, 2+4 and owner", V6: "v6's file"}

# Not part of the product: tests, documentation, the list of maintainers.
NOT_CODE = [":!lib/tests", ":!lib/Kconfig.debug", ":!tools/testing", ":!Documentation", ":!MAINTAINERS"]
# What is in the tree of the GFP-flag design and is not compiled there.
UNUSED = [":!include/linux/kpkeys_split_reserve.h", ":!mm/kpkeys_split_reserve.c"]
# Where the functions are that are counted one by one.
COUNTED = ["arch/arm64/mm/mmu.c", "arch/arm64/mm/pageattr.c", "mm/kpkeys_hardened_pgtables.c",
           "mm/kpkeys_pgtable_cache.c", "mm/kpkeys_split_reserve.c"]


def checkout(stack, suite=False):
    """Bring the work tree to a stack; @suite: with that of the comparison. What does not differ stays as it is."""
    tree.ensure()
    commit = tree.assemble(stack)
    tree.worktree(TREE, commit)
    _add_suite(suite)
    return commit


def _add_suite(suite=True):
    target = os.path.join(TREE, "lib/tests", SUITE + ".c")
    if not suite:
        if os.path.exists(target):
            os.unlink(target)
        return
    shutil.copy2(os.path.join(FOLDER, SUITE + ".c"), target)
    with open(os.path.join(TREE, "lib/tests/Makefile"), "a") as f:
        f.write(f"obj-$(CONFIG_KPKEYS_HARDENED_PGTABLES_KUNIT_TEST) += {SUITE}.o\n")


def put_in(linux):
    """The file of V6= takes the place of the cache in a work tree of the GFP-flag stack."""
    glue = os.path.join(FOLDER, "v6")
    shutil.copy(os.path.join(glue, "glue.c"), os.path.join(linux, "mm/kpkeys_pgtable_cache.c"))
    shutil.copy(os.path.join(glue, "names.h"), os.path.join(linux, "mm/kpkeys_v6_names.h"))
    write(os.path.join(linux, "mm/kpkeys_v6.h"), given())


def given():
    """The text of the file of V6=, or None."""
    path = os.environ.get("V6_TEXT")
    return read(path) if path else None


def built(stack, suite=False, out=None, **config):
    """The kernel of a stack in the work tree; @out: the stack whose object directory it shares."""
    checkout(stack, suite)
    k = kernel.Kernel(out or stack, work=WORK, **config)
    with step(f"build {stack} {k.name.partition(' ')[2]}"):
        k.build()
    return k


def expected_red(stack):
    """Tests that cannot pass by design, and why: compare/gfp-flag/expected-red."""
    path = os.path.join(tree.folder(stack), "expected-red")
    if stack not in tree.COMPARE or not os.path.exists(path):
        return {}
    return dict(line.split(": ", 1) for line in listed(path))


def judged(stack, outcome):
    """An outcome in which what must be red is: that counts as passed, and green as failed."""
    o = kernel.Outcome(f"{stack}: {outcome.what}")
    o.skipped, o.note = outcome.skipped, outcome.note
    expected = expected_red(stack)
    for name in outcome.passed:
        why = expected.get(name.split(".")[-1])
        o.check(name, f"it passes; expected to fail: {why}" if why else None)
    for name, why in outcome.failed:
        o.check(name + (" fails as expected" if name.split(".")[-1] in expected else ""),
                None if name.split(".")[-1] in expected else why)
    known = {name.split(".")[-1] for name in [*outcome.passed, *(n for n, _ in outcome.failed + outcome.skipped)]}
    for name in sorted(set(expected) - known):
        o.check(name, "expected to fail, but there is no such test")
    return o


def suites(stack=OTHER):
    """For make test: the suites on the other design, as they are."""
    k = built(stack)
    with step(f"KUnit of {stack}, MAP=block"):
        o = judged(stack, k.kunit("enforce", "block"))
    o.check(f"make refresh gives back {stack}", tree.round_trip(stack, TREE))
    return o


# What is found out by running the suites.

RUNS = [("block", "enforce", ""), ("pte", "enforce", ""), ("block", "check", ""),
        ("block", "enforce", "kpkeys_test_bbml3=boot-cpu")]
RANGES = 4000           # that the hammer of splits takes, as in make test


def _without_facts(outcome):
    """That suite is skipped where the guest is too small for it."""
    outcome.skipped = [(name, why) for name, why in outcome.skipped if not name.startswith("kpkeys_compare")]
    return outcome


def _by_suite(outcome):
    """{suite: [passed, failed, skipped]}"""
    result = {}
    for i, names in enumerate((outcome.passed, (n for n, _ in outcome.failed), (n for n, _ in outcome.skipped))):
        for name in names:
            suite = name.split(".")[0] if "." in name else "the boot"
            result.setdefault(suite, [0, 0, 0])[i] += 1
    return result


def correctness(stack):
    """{"runs": {run: {suite: counts}}, "red": {...}, "facts": {what: answer}, "outcomes": all of them} of a stack."""
    k = built(stack, suite=True, out=OTHER if stack == LARGER else None)
    here = {"runs": {}, "red": {}, "facts": {}, "outcomes": []}

    def one(run_):
        map_, mode, args = run_
        name = " ".join(filter(None, (f"MAP={map_}", f"MODE={mode}", args)))
        with step(f"KUnit of {stack}, {name}"):
            return name, _without_facts(kernel.Kernel(k.stack, work=WORK, args=args).kunit(mode, map_, ranges=RANGES))

    for name, o in two_at_once(one, RUNS if stack != LARGER else RUNS[:1]):
        here["runs"][name] = _by_suite(o)
        for test, why in o.failed:
            here["red"].setdefault(test, why)
        here["outcomes"].append(vars(judged(stack, o)))
    k.args, k.qemu = "", kernel.memory(12288)
    here["facts"], o = _facts(k, stack)
    here["outcomes"].append(vars(o))
    return here


def _facts(k, stack):
    """{what: answer} and the outcome of the suite. If a case hangs, each is run in a boot of its own, and that is a row."""
    with step(f"facts about {stack}"):
        o = k.kunit("enforce", "block", "kpkeys_compare", timeout=k.timeout)
    o.what, facts = f"{stack}: facts", _facts_in(k.console)
    if _came_to_end(k.console):
        return facts, o
    for case in CASES:
        with step(f"facts about {stack}: {case}"):
            k.kunit("enforce", "block", f"kpkeys_compare.compare_{case}", timeout=120)
        facts |= _facts_in(k.console)
        if not _came_to_end(k.console):
            facts[f"case {case}"] = stopped(k.console)
    return facts, o


def _came_to_end(console):
    return "reboot: Restarting system" in console and "INFO: task" not in console


def _facts_in(console):
    return dict(re.findall(r"compare: (.+?) = (.+?)\s*$", console, re.M))


CASES = ["split_then_refill", "split_during_refill", "rivals", "nothing_left", "interrupt"]
# A hang is a result. Virtual time passes at once where nobody works.
HANGS = "CONFIG_DETECT_HUNG_TASK=y\nCONFIG_DEFAULT_HUNG_TASK_TIMEOUT=20\n"


def stopped(console):
    """Why a kernel did not come to its end, with the stack if it says one."""
    m = re.search(r"INFO: task (\S+) blocked for more than|Kernel panic - [^\r\n]*|Unable to handle [^\r\n]*|BUG: [^\r\n]*|"
                  r"timeout after \d+ s", console)
    if not m:
        return "stopped without a word"
    what = f"hangs, in {m[1]}" if m[1] else m[0].removeprefix("Kernel panic - ").strip()
    stack = re.findall(r"^(?:\[.*?\]\s*)? (\w+)\+0x\w+/0x\w+", console[m.start():].partition("Call trace:")[2], re.M)
    idle = {"__switch_to", "__schedule", "schedule", "schedule_preempt_disabled", "__mutex_lock", "dump_backtrace",
            "show_stack", "dump_stack_lvl", "dump_stack", "vpanic", "panic"}
    return f"{what}: " + " < ".join([f for f in stack if f not in idle][:6]) if stack else what


def facts_of_v6():
    """{what: answer} of the file of V6=."""
    checkout(OTHER, suite=True)
    put_in(TREE)
    config = kernel.fragments("arm64", "4k", "kunit").replace("CONFIG_KPKEYS_SPLIT_RESERVE_KUNIT_TEST=y\n", "") + HANGS
    k = kernel.Kernel(V6, work=WORK, config=config, qemu=kernel.memory(12288))
    with step("build v6's file"):
        k.build()
    return _facts(k, "v6's file")[0]


# Scarce memory, and where tables are; of a direct map of blocks.

ROWS = ["boot 1024 MB", "fragmented 512 MB", "processes 1024 MB", "kept 1024 MB", "used-up 512 MB", "nodes 1024 MB"]


def memory(stack):
    """{scenario: figures, or {"stopped": why}}, of a stack, of "off", or of V6."""
    commit = tree.assemble(OURS if stack == "off" else OTHER if stack == V6 else stack)
    with step(f"scarce memory, build {stack}"):
        k = pressure.build(commit, put_in if stack == V6 else None, HANGS if stack == V6 else "")
        initrd = pressure.userland()
    result = {}
    for row in ROWS:
        with step(f"scarce memory, {stack}: {row}"):
            console, log = pressure.start(k, initrd, row, "block", "off" if stack == "off" else "on", stack,
                                          timeout=150 if stack == V6 else 600)
        if pressure.ended(console):
            result[row] = pressure.figures_in(console)
        elif stack == V6:
            result[row] = {"stopped": stopped(console)}
        else:
            raise Fail(f"'{row}' of {stack} did not get to its end; log: {kernel.log_path(log)}\n" + kernel.tail(console))
    return result


def reached():
    """The callers by the source, and the splits of a boot with the workload."""
    checkout(OURS)
    counts = reach.count_splits(TREE)
    k = kernel.Kernel(OURS, work=WORK)
    with step("build a kernel that counts splits"):
        k.build()
    with step("splits of the workload"):
        o = boot.boot(k, "enforce", "block", "workload", 1)
    counted = reach.counted(read(o.log)) if counts else {}
    if not counted:
        raise Fail(f"the workload has said of no split how many page tables it takes: see harness/reach.py; log: {o.log}")
    return {"callers": reach.callers(), "counted": counted, "seconds": o.seconds}


def realtime():
    """{stack: what is undefined in the cache with PREEMPT_RT, and defined nowhere}"""
    config = re.sub(r"^CONFIG_\w*(?:KUNIT|TEST_)\w*=\w\n", "", kernel.fragments("arm64", "4k", "rt"), flags=re.M)
    result = {}
    for stack in (OURS, OTHER, LARGER):
        checkout(stack)
        k = kernel.Kernel(OTHER if stack == LARGER else stack, work=WORK, pages="rt", config=config)
        with step(f"{stack} with PREEMPT_RT"):
            objects = ["mm/kpkeys_pgtable_cache.o", "mm/kpkeys_hardened_pgtables.o", "arch/arm64/mm/mmu.o"]
            k.compile(*objects, "kernel/locking/", log=f"rt {stack}")
        locking = run([CROSS + "nm", "-A", os.path.join(k.out, "kernel/locking/built-in.a")])
        defined = set(re.findall(r" [TDBRWt] (\w+)$", locking, re.M))
        wanted = set()
        for o in objects:
            wanted |= set(re.findall(r" U (\w*(?:mutex|rt_spin)\w*)$", run([CROSS + "nm", os.path.join(k.out, o)]), re.M))
        result[stack] = sorted(wanted - defined)
    return result


# What is found out by counting.

def _bench_variants():
    feature = "CONFIG_KPKEYS_HARDENED_PGTABLES=y\n"
    result = [bench.fair("base", contended=True),
              bench.Variant(ALONE, "the reserve alone", bench.adding("include/linux/kpkeys.h", tree.assemble(OURS)) + "~",
                            out="reserve")]
    for stack in (OURS, OTHER):
        commit = tree.assemble(stack) + "~"         # the last is the emulation
        out = ("" if stack == OURS else stack + "+") + "mock-register"
        result += [bench.Variant(stack + " inactive", f"{stack}, switched off", commit, ["mock-register"], feature,
                                 "kpkeys_hardened_pgtables=0", out=out),
                   bench.Variant(stack, f"{stack}, on", commit, ["mock-register"], feature, out=out, contended=True)]
    commit = tree.assemble(OURS) + "~"
    result.append(bench.Variant("one-page", f"{OURS}, one page at a time", commit, ["mock-register", "one-page"],
                                feature, maps=["block"]))
    if given():
        result.append(bench.Variant(V6, "v6's file, on", tree.assemble(OTHER) + "~", ["mock-register"], feature + HANGS,
                                    maps=["block"], out="v6+mock-register", change=put_in))
    return result


# Objects whose size is told apart.
OBJECTS = {"the cache": "mm/kpkeys_pgtable_cache.o", "the reserve": "mm/kpkeys_split_reserve.o",
           "which pages are protected": "mm/kpkeys_hardened_pgtables.o"}


def size(out):
    """{what: [text, data, bss]} of mm/ and arch/arm64/ in an object directory, and of some objects."""
    def of(*paths):
        text = run([CROSS + "size", "-t", *paths], cwd=out)
        return [int(n) for n in text.splitlines()[-1].split()[:3]]

    return {"all": of("mm/built-in.a", "arch/arm64/built-in.a")} | \
        {what: of(path) for what, path in OBJECTS.items() if os.path.exists(os.path.join(out, path))}


def counts(variant):
    """What bench.measure() says of one kernel, without the functions, and its size."""
    try:
        found = bench.measure([variant])
    except Fail as e:
        if variant.name != V6:
            raise
        return {"counts": {}, "stopped": str(e).partition("\n")[0]}
    for per_variant in found.values():
        for operations in per_variant.values():
            for per in operations.values():
                for key in [k for k in per if k.endswith("()")] if isinstance(per, dict) else ():
                    del per[key]
    return {"counts": found, "size": size(bench.kernel_of(variant).out)}


def size_without(stack):
    v = bench.Variant(stack + " off", "", tree.assemble(stack) + "~", out=f"{stack}-off")
    with step(f"size of {v.name}"):
        k = bench.prepare(v)
        k.compile("mm/", "arch/arm64/", log=f"size {v.name}")
        return size(k.out)


def _show_file(commit, path):
    return git("show", f"{commit}:{path}", check=False) if \
        git("ls-tree", commit, "--", path).strip() else ""


def _functions(commit):
    """{(file, function): (complexity, text)}, by pmccabe."""
    result = {}
    for path in COUNTED:
        text = _show_file(commit, path)
        if not text:
            continue
        # Guards are no loops, though they look like some.
        plain = re.sub(r"\bscoped_guard\(.*?\)( \{|\n)", r"if (1)\1", text)
        lines = text.splitlines()
        name = os.path.join(WORK, os.path.basename(path))
        write(name, plain)
        for line in run(["pmccabe", name]).splitlines():
            # complexity, traditional one, statements, first line, lines, file(line): function
            m = re.match(r"(\d+)\t\d+\t\d+\t(\d+)\t(\d+)\t\S+: (\w+)$", line)
            if m:
                first, n = int(m[2]) - 1, int(m[3])
                result[path, m[4]] = int(m[1]), "\n".join(lines[first:first + n])
    return result


def code():
    """{stack: counts of what it changes}, and {function: complexity by stack} where they differ."""
    result, functions = {}, {}
    base_bits = len(re.findall(r"___GFP_\w+_BIT,", _show_file("origin/base", "include/linux/gfp_types.h")))
    functions["base"] = _functions("origin/base")
    for stack in (OURS, OTHER):
        commit = tree.assemble(stack) + "~"
        code_ = NOT_CODE + (UNUSED if stack == OTHER else [])
        c = result[stack] = {"files touched": 0, "lines added there": 0, "lines removed there": 0,
                             "new files": 0, "lines in new files": 0}
        status = dict(reversed(line.split("\t")) for line in
                      git("diff", "--no-renames", "--name-status", "origin/base", commit, "--", *code_).splitlines())
        for line in git("diff", "--no-renames", "--numstat", "origin/base", commit, "--", *code_).splitlines():
            more, less, path = line.split("\t")
            if status[path] == "A":
                c["new files"] += 1
                c["lines in new files"] += int(more)
            else:
                c["files touched"] += 1
                c["lines added there"] += int(more)
                c["lines removed there"] += int(less)
        bits = _show_file(commit, "include/linux/gfp_types.h")
        c["GFP bits"] = len(re.findall(r"___GFP_\w+_BIT,", bits)) - base_bits
        c["exported symbols"] = len(re.findall(r"^\+EXPORT_SYMBOL", git("diff", "origin/base", commit, "--", *code_),
                                               re.M))
        functions[stack] = {key: f for key, f in _functions(commit).items()
                            if stack == OURS or f":!{key[0]}" not in UNUSED}
    differ = {}
    for key in sorted(set(functions[OURS]) | set(functions[OTHER])):
        found = [functions[s].get(key) for s in ("base", OURS, OTHER)]
        if found[1] != found[2]:
            differ[f"{key[1]}()"] = [f[0] if f else None for f in found]
    for i, stack in enumerate((OURS, OTHER), 1):
        result[stack]["functions that differ"] = sum(v[i] is not None for v in differ.values())
        result[stack]["their cyclomatic complexity"] = sum(v[i] or 0 for v in differ.values())
    return result, differ


# Figures of these are of real time, and need not be the same twice.
INEXACT = re.compile(r"contended|correctness .*/outcomes|/nodes 1024|reach/seconds|reach/counted")


def _flat(value, where=""):
    if isinstance(value, dict):
        for key, v in value.items():
            yield from _flat(v, f"{where}/{key}")
    else:
        yield where, value


def _differs(name, before, now):
    """What should be exact and is not."""
    old = dict(_flat(before, name))
    return [f"{where}: {old.get(where)}, then {v}" for where, v in _flat(now, name)
            if old.get(where) != v and not INEXACT.search(where)]


class Parts:
    """What is measured, part by part; what is done is not done again."""

    def __init__(self):
        self.record, self.again = Record(os.path.join(WORK, "parts.json")), bool(os.environ.get("AGAIN"))
        self.outcome = kernel.Outcome("measured twice, and the same")
        self.trees = " ".join(git("rev-parse", f"{tree.assemble(s)}^{{tree}}").strip() for s in tree.STACKS[:3])
        self.done, self.all = 0, 0

    def get(self, name, function, *more):
        key = key_of(" ".join([self.trees, read(os.path.join(FOLDER, SUITE + ".c")), *more]), "bench/*", "config/*")
        value = self.record.get(name, key)
        self.done += 1
        print(f"== part {self.done} of {self.all}, {name}: " + ("there already" if value is not None and not self.again
                                                                else "to be measured"), flush=True)
        if value is None or self.again:
            # As it is read again: lists, not tuples.
            before, value = value, json.loads(json.dumps(function()))
            if before is not None:
                bad = _differs(name, before, value)
                self.outcome.check(name, "; ".join(bad[:3]) if bad else None)
            self.record.put(name, key, value)
        return value


def _restored(saved):
    o = kernel.Outcome(saved["what"])
    vars(o).update(saved, passed=list(saved["passed"]), failed=[tuple(f) for f in saved["failed"]],
                   skipped=[tuple(f) for f in saved["skipped"]])
    return o


def measure():
    """All that there is to say of the designs, and the outcomes of all suites."""
    tree.ensure()
    os.makedirs(WORK, exist_ok=True)
    v6 = given()
    more = [v6, *(read(os.path.join(FOLDER, "v6", f)) for f in ("glue.c", "names.h"))] if v6 else []
    parts, stacks, variants = Parts(), tree.STACKS[:3], _bench_variants()
    columns = ["off", OURS, OTHER, *([V6] if v6 else [])]
    parts.all = len(stacks) + bool(v6) + 1 + len(columns) + len(variants) + 2 + 1
    found = {s: parts.get(f"correctness {s}", partial(correctness, s)) for s in stacks}
    outcomes = [_restored(o) for s in stacks for o in found[s]["outcomes"]]
    if v6:
        found[V6] = {"runs": {}, "red": {}, "facts": parts.get("facts v6", facts_of_v6, *more)}
    data = {"correctness": found, "PREEMPT_RT": parts.get("PREEMPT_RT", realtime)}
    data["memory"] = {c: parts.get(f"scarce memory {c}", partial(memory, c), *(more if c == V6 else [])) for c in columns}
    data["counts"], data["size"] = {}, {}
    for v in variants:
        one = parts.get(f"instructions {v.name}", partial(counts, v), *(more if v.name == V6 else []))
        for key, value in one["counts"].items():
            data["counts"].setdefault(key, {}).update(value)
        data["size"][v.name] = one.get("size")
        if "stopped" in one:
            data["counts"]["stopped"] = one["stopped"]
    for s in (OURS, OTHER):
        data["size"][s + " off"] = parts.get(f"size without {s}", partial(size_without, s))
    data["reach"] = parts.get("reach", reached)
    data["code"], data["complexity"] = code()
    save_result("compare", data)
    return data, outcomes + ([parts.outcome] if parts.outcome.passed or parts.outcome.failed else [])
