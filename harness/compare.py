# SPDX-License-Identifier: GPL-2.0-only
"""The series beside another design of the same thing, compare/gfp-flag: "make compare".

All that is measured is written to build/results/compare.json, and as a page with
plots to compare/. What the conclusion (compare/conclusion.md) says is checked
against what was measured.

All stacks are built in one work tree below build/compare, one after the other, so
that build/linux stays what the user has in it.
"""
import os
import re
import shutil

import bench
import kernel
import tree
from common import BUILD, CROSS, TOP, git, listed, run, save_result, step, write

WORK = os.path.join(BUILD, "compare")
TREE = os.path.join(WORK, "linux")
FOLDER = os.path.join(TOP, "compare")
SUITE = "kpkeys_compare_kunit"
OURS, OTHER, LARGER = tree.STACKS[:3]
ALONE = "reserve alone"       # what comes in front of kpkeys
NAMES = {OURS: "split reserve", OTHER: "GFP flag, 2+2", LARGER: "GFP flag, 2+4"}

# Not part of the product: tests, documentation, the list of maintainers.
NOT_CODE = [":!lib/tests", ":!lib/Kconfig.debug", ":!tools/testing", ":!Documentation", ":!MAINTAINERS"]
# Where the functions are that are counted one by one.
COUNTED = ["arch/arm64/mm/mmu.c", "arch/arm64/mm/pageattr.c", "mm/kpkeys_hardened_pgtables.c",
           "mm/kpkeys_pgtable_cache.c", "mm/kpkeys_split_reserve.c"]


def checkout(stack, suite=False):
    """Bring the work tree to a stack; @suite: with that of the comparison. What does not differ stays as it is."""
    tree.ensure()
    commit = tree.assemble(stack)
    tree.worktree(TREE, commit)
    target = os.path.join(TREE, "lib/tests", SUITE + ".c")
    if not suite:
        if os.path.exists(target):
            os.unlink(target)
        return commit
    shutil.copy2(os.path.join(FOLDER, SUITE + ".c"), target)
    with open(os.path.join(TREE, "lib/tests/Makefile"), "a") as f:
        f.write(f"obj-$(CONFIG_KPKEYS_HARDENED_PGTABLES_KUNIT_TEST) += {SUITE}.o\n")
    return commit


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


def correctness():
    """{stack: {"runs": {run: {suite: counts}}, "red": [...], "facts": {what: answer}}}, and all outcomes."""
    found, outcomes = {}, []
    for stack in tree.STACKS[:3]:
        k = built(stack, suite=True, out=OTHER if stack == LARGER else None)
        here = found[stack] = {"runs": {}, "red": {}, "facts": {}}
        for map_, mode, args in RUNS if stack != LARGER else RUNS[:1]:
            name = " ".join(filter(None, (f"MAP={map_}", f"MODE={mode}", args)))
            k.args = args
            with step(f"KUnit of {stack}, {name}"):
                o = _without_facts(k.kunit(mode, map_))
            here["runs"][name] = _by_suite(o)
            for test, why in o.failed:
                here["red"].setdefault(test, why)
            outcomes.append(judged(stack, o))
        k.args, k.qemu = "", "-m 12288"
        with step(f"facts about {stack}"):
            o = k.kunit("enforce", "block", "kpkeys_compare")
        here["facts"] = dict(re.findall(r"compare: (.+?) = (.+?)\s*$", k.console, re.M))
        o.what = f"{stack}: facts"
        outcomes.append(o)
    return found, outcomes


def realtime():
    """{stack: what is undefined in the cache with PREEMPT_RT, and defined nowhere}"""
    config = re.sub(r"^CONFIG_\w*(?:KUNIT|TEST_)\w*=\w\n", "", kernel.fragments("arm64", "4k", "rt"), flags=re.M)
    result = {}
    for stack in (OURS, OTHER):
        checkout(stack)
        k = kernel.Kernel(stack, work=WORK, pages="rt", config=config)
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
    result = [bench.Variant("base", "the base", "origin/base"),
              bench.Variant(ALONE, "the reserve alone", bench.adding("include/linux/kpkeys.h", tree.assemble(OURS)) + "~",
                            out="reserve-alone")]
    for stack in (OURS, OTHER):
        commit = tree.assemble(stack) + "~"         # the last is the emulation
        out = ("" if stack == OURS else stack + "+") + "mock-register"
        result += [bench.Variant(stack + " inactive", f"{stack}, switched off", commit, ["mock-register"], feature,
                                 "kpkeys_hardened_pgtables=0", out=out),
                   bench.Variant(stack, f"{stack}, on", commit, ["mock-register"], feature, out=out)]
    commit = tree.assemble(OURS) + "~"
    result.append(bench.Variant("one-page", f"{OURS}, one page at a time", commit, ["mock-register", "one-page"],
                                feature, maps=["block"]))
    return result


def sizes(measured):
    """{kernel: [text, data, bss]} of mm/ and arch/arm64/: of the kernels that were @measured, and without the feature."""
    result = {}

    def of(name, out):
        text = run([CROSS + "size", "-t", "mm/built-in.a", "arch/arm64/built-in.a"], cwd=out)
        result[name] = [int(n) for n in text.splitlines()[-1].split()[:3]]

    for v in measured:
        if v.name in ("base", OURS, OTHER):
            of(v.name, bench.kernel_of(v).out)
    for stack in (OURS, OTHER):
        v = bench.Variant(stack + " off", "", tree.assemble(stack) + "~", out=f"{stack}-off")
        with step(f"size of {v.name}"):
            k = bench.prepare(v)
            k.compile("mm/", "arch/arm64/", log=f"size {v.name}")
            of(v.name, k.out)
    return result


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
        c = result[stack] = {"files touched": 0, "lines added there": 0, "lines removed there": 0,
                             "new files": 0, "lines in new files": 0}
        status = dict(reversed(line.split("\t")) for line in
                      git("diff", "--no-renames", "--name-status", "origin/base", commit, "--", *NOT_CODE).splitlines())
        for line in git("diff", "--no-renames", "--numstat", "origin/base", commit, "--", *NOT_CODE).splitlines():
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
        c["exported symbols"] = len(re.findall(r"^\+EXPORT_SYMBOL", git("diff", "origin/base", commit, "--", *NOT_CODE),
                                               re.M))
        functions[stack] = _functions(commit)
    differ = {}
    for key in sorted(set(functions[OURS]) | set(functions[OTHER])):
        found = [functions[s].get(key) for s in ("base", OURS, OTHER)]
        if found[1] != found[2]:
            differ[f"{key[1]}()"] = [f[0] if f else None for f in found]
    for i, stack in enumerate((OURS, OTHER), 1):
        result[stack]["functions that differ"] = sum(v[i] is not None for v in differ.values())
        result[stack]["their cyclomatic complexity"] = sum(v[i] or 0 for v in differ.values())
    return result, differ


def measure():
    """All that there is to say of the designs, and the outcomes of all suites."""
    tree.ensure()
    found, outcomes = correctness()
    data = {"correctness": found, "PREEMPT_RT": realtime()}
    variants = _bench_variants()
    data["counts"] = bench.measure(variants)
    data["size"] = sizes(variants)
    data["code"], data["complexity"] = code()
    save_result("compare", data)
    return data, outcomes
