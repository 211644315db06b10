# SPDX-License-Identifier: GPL-2.0-only
"""make proofs: tools/testing/kpkeys_pgtable; in CI with bounds that fit."""
import concurrent.futures
import glob
import json
import os
import re
import shutil
from functools import partial

import kernel
from common import BUILD, Fail, HARNESS, LINUX, listed, log_path, read, run, step, tail, two_at_once, write

SOURCE = os.path.join(LINUX, "tools/testing/kpkeys_pgtable")
OUT = os.path.join(BUILD, "proofs")
# What the fuzzer found worth keeping, one input a line: two hexadecimal bytes are a step.
CORPUS = os.path.join(HARNESS, "fuzz-corpus")
FILES = ("kpkeys_split_reserve.c", "kpkeys_pgtable_cache.c")
SEEDS = 4


def _make(*targets):
    run(["make", "-s", "-C", SOURCE, f"O={OUT}", f"-j{os.cpu_count()}", *targets], log="proofs build")


def _program(o, what, name, *args, env=None, timeout=300):
    """Run a program, which is one test; returns what it printed."""
    try:
        out = run([os.path.join(OUT, name), *map(str, args)], log=f"proofs {name}", timeout=timeout,
                  env={"TSAN_OPTIONS": "halt_on_error=1", **(env or {})})
        o.check(what)
        return out
    except Fail as e:
        o.check(what, str(e))
        return ""


def _checker(o, what, target, *args, refuted=None, timeout=600):
    """Run a model checker by make: it must find nothing, or, in a mutant, what matches @refuted."""
    out = run(["make", "-s", "-C", SOURCE, target, *args], check=False, log=f"proofs {target.split('_')[0]}",
              timeout=timeout)
    if refuted:
        o.check(what, None if re.search(refuted, out) else f"not refuted; log: {log_path('proofs ' + target.split('_')[0])}")
    else:
        o.check(what, None if re.search(r"VERIFICATION SUCCESSFUL|errors: 0", out) and "*** [" not in out else tail(out))
    return out


def _refute(o, program, evidence, *args):
    """Run @program with each of the mutants that are its own; returns those that it refutes."""
    refuted = []
    for name, target, why in _mutants():
        if target == program:
            _make(f"O={OUT}/{name}", f"MUTANT={name}", f"{OUT}/{name}/{program}")
            out = run([f"{OUT}/{name}/{program}", *args], check=False, log=f"proofs {program}", timeout=120)
            o.check(f"{name}: {why}", None if re.search(evidence, out) else "not refuted")
            refuted += [name] if f"{name}: {why}" in o.passed else []
    return refuted


def _mutants():
    """(name, what refutes it, why) of each."""
    for path in sorted(glob.glob(os.path.join(SOURCE, "mutants", "*.sed"))):
        target, why = re.search(r"^# (\w+): (.*)$", read(path), re.M).groups()
        yield os.path.basename(path)[:-4], target, why


def prove():
    """CBMC on the split reserve, and that it refutes the mutant of it.

    Not on the cache: its state is in pages that are found through other pages.
    """
    o = kernel.Outcome("proofs: CBMC")
    o.numbers = {"bounds": "the split reserve alone, up to 6 pages in it", "assertions": 0}
    targets = re.findall(r"^void (prove_\w+)", read(os.path.join(SOURCE, "proof.c")), re.M)
    mutants = [m for m in _mutants() if m[1] in targets]
    with step(f"CBMC, {len(targets)} proofs and {len(mutants)} mutants"), \
            concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        proofs = [pool.submit(_checker, o, t, t, f"O={OUT}/{t}", timeout=3600) for t in targets]
        for name, target, why in mutants:
            pool.submit(_checker, o, f"{name}: {why}", target, f"O={OUT}/{name}", f"MUTANT={name}",
                        refuted=r"\.assertion\.\d+\] .*: FAILURE")   # not the bound of a loop
        for t, p in zip(targets, proofs):
            o.numbers["assertions"] += len(re.findall(rf"^\[{t}\..*: SUCCESS$", p.result(), re.M))
    o.numbers["refuted"] = [name for name, _, why in mutants if f"{name}: {why}" in o.passed]
    o.note = f"{len(targets)} proofs, {len(o.numbers['refuted'])} mutants refuted; bounds: {o.numbers['bounds']}"
    return o


def locks():
    """spin: no deadlock, and that it finds the one of each kernel that has one."""
    o = kernel.Outcome("proofs: spin")
    breaks = sorted(set(re.findall(r"^#ifn?def (\w+)", read(os.path.join(SOURCE, "locks.pml")), re.M)))
    with step("spin, lock order"):
        out = _checker(o, "no deadlock", "locks", f"O={OUT}")
        states = int((re.findall(r"(\d+) states, stored", out) or [0])[0])
        for what in breaks:
            _checker(o, f"{what} is refuted", "locks", f"O={OUT}", f"BREAK={what}",
                     refuted="invalid end state|assertion violated")
    o.numbers = {"states": states, "refuted": breaks}
    o.note = f"{states} states, {len(breaks)} broken variants refuted"
    return o


def litmus():
    """herd7: what the walk without a lock reads; and that each of its barriers is needed."""
    o = kernel.Outcome("proofs: litmus")
    model = os.path.join(LINUX, "tools/memory-model")
    for path in sorted(glob.glob(os.path.join(SOURCE, "*.litmus"))):
        name = os.path.basename(path)
        if not shutil.which("herd7"):
            o.skipped.append((name, "herd7 is not in the toolchain root: its package needs a later C library"))
            continue
        text = read(path)
        for barrier in "", "smp_wmb", "smp_rmb":
            broken = os.path.join(OUT, name)
            write(broken, re.sub(rf"^\s*{barrier}\(\);\n", "", text, flags=re.M) if barrier else text)
            out = run(["herd7", "-conf", "linux-kernel.cfg", broken], cwd=model, check=False, log="proofs litmus")
            want = "Sometimes" if barrier else "Never"
            o.check(f"{name} {'without ' + barrier if barrier else ''}".strip(),
                    None if re.search(rf"^Observation \S+ {want}", out, re.M) else tail(out))
    return o


def _profile(name):
    return {"LLVM_PROFILE_FILE": os.path.join(OUT, name + ".profraw")}


def unit():
    """Scenarios and random sequences, with AddressSanitizer and UndefinedBehaviorSanitizer."""
    o = kernel.Outcome("proofs: one thread")
    with step("scenarios and random sequences, ASan and UBSan"):
        out = _program(o, "scenarios", "unit")
        o.passed += re.findall(r"^ok (.*)$", out, re.M)
        steps, splits = 0, [0] * 5
        for seed in range(1, SEEDS + 1):
            out = _program(o, f"random seed {seed}", "random", seed, 50000)
            steps += sum(map(int, re.findall(r"(\d+) steps", out)))
            for tables, n in re.findall(r" (\d):(\d+)", out):
                splits[int(tables)] += int(n)
        refuted = _refute(o, "unit", "does not hold|warning:|AddressSanitizer|runtime error")
    o.note = f"{steps} steps; splits by tables: {' '.join(map(str, splits))}; {len(refuted)} mutants refuted"
    o.numbers = {"steps": steps, "splits_by_tables": splits, "refuted": refuted}
    return o


def every():
    """All sequences of a few steps, with all combinations of a few failures."""
    o = kernel.Outcome("proofs: every failure")
    with step("every sequence of a few steps, with every failure"):
        out = _program(o, "1 step, up to 2 failures", "every", 1, 2)
        out += _program(o, "3 steps, up to 1 failure", "every", 3, 1)
        runs = sum(map(int, re.findall(r"(\d+) runs", out)))
        refuted = _refute(o, "every", "does not hold|warning:", "1", "1")
    o.numbers = {"runs": runs, "refuted": refuted}
    o.note = f"{runs} runs, {len(refuted)} mutants refuted"
    return o


def threads():
    """Four threads, with ThreadSanitizer."""
    o = kernel.Outcome("proofs: threads")
    with step("threads, TSan"):
        steps = 0
        for seed in range(1, SEEDS + 1):
            out = _program(o, f"threads seed {seed}", "threads", seed, 60)
            steps += sum(map(int, re.findall(r"(\d+) steps", out)))
        refuted = _refute(o, "threads", "data race", "1", "5")
    o.numbers = {"steps": steps, "refuted": refuted}
    o.note = f"{steps} steps, {len(refuted)} mutants refuted"
    return o


def _unpack(folder):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for n, line in enumerate(listed(CORPUS)):
        with open(os.path.join(folder, f"{n:04d}"), "wb") as f:
            f.write(bytes.fromhex(line))


def _pack(folder):
    inputs = []
    for path in glob.glob(os.path.join(folder, "*")):
        with open(path, "rb") as f:
            inputs.append(f.read().hex())
    with open(CORPUS, "w") as f:
        f.write("# SPDX-License-Identifier: GPL-2.0-only\n")
        f.writelines(line + "\n" for line in sorted(inputs, key=lambda i: (len(i), i)))


def fuzz(seconds, keep=False):
    """libFuzzer; @keep what it finds in the corpus of the repository."""
    o = kernel.Outcome("proofs: fuzzer")
    corpus, crashes = os.path.join(OUT, "corpus"), os.path.join(OUT, "crash-")
    with step(f"fuzzer, {seconds} s"):
        _unpack(corpus)
        for stale in glob.glob(crashes + "*"):
            os.unlink(stale)
        out = _program(o, "fuzzer", "fuzz", f"-max_total_time={seconds}", "-max_len=128", "-len_control=0", "-timeout=20",
                       "-print_final_stats=1", f"-artifact_prefix={crashes}", corpus, timeout=seconds + 120)
        for crash in glob.glob(crashes + "*"):
            o.failed.append(("fuzzer", f"'build/proofs/fuzz {os.path.relpath(crash, os.path.dirname(BUILD))}' repeats it"))
        executions = int((re.findall(r"stat::number_of_executed_units: *(\d+)", out) or [0])[-1])
        inputs = len(os.listdir(corpus))
        o.check("inputs were executed", None if executions > inputs else f"only {executions}")
        if keep and not o.failed:
            small = os.path.join(OUT, "corpus-small")
            shutil.rmtree(small, ignore_errors=True)
            os.makedirs(small)
            run([os.path.join(OUT, "fuzz"), "-merge=1", "-max_len=128", small, corpus], log="proofs fuzz")
            _pack(small)
    o.note = f"{executions} executions in {seconds} s, corpus of {inputs}"
    o.numbers = {"executions": executions, "seconds": seconds, "corpus": inputs}
    return o


def profile(o):
    """Run what counts; returns the arguments of llvm-cov for what was counted."""
    corpus, merged = os.path.join(OUT, "corpus-coverage"), os.path.join(OUT, "coverage.profdata")
    _unpack(corpus)
    for name, args in ("unit", []), ("random", [1, 50000]), ("fuzz", ["-runs=0", corpus]):
        _program(o, f"coverage by {name}", name + ".cov", *args, env=_profile(name))
    run(["llvm-profdata", "merge", "-o", merged, *glob.glob(os.path.join(OUT, "*.profraw"))])
    return ["-instr-profile", merged, f"{OUT}/unit.cov", "-object", f"{OUT}/random.cov", "-object", f"{OUT}/fuzz.cov"]


def coverage():
    """What the scenarios, the random sequences and the corpus reach in the two files."""
    o = kernel.Outcome("proofs: coverage")
    result = {}
    with step("coverage of the two files"):
        data = json.loads(run(["llvm-cov", "export", "-summary-only", *profile(o)]))
        for f in data["data"][0]["files"]:
            name = os.path.basename(f["filename"])
            if name in FILES:
                result[name] = {k: [f["summary"][k]["covered"], f["summary"][k]["count"]]
                                for k in ("functions", "lines", "branches")}
    for name in FILES:
        covered = result.get(name, {"functions": [0, 1]})["functions"]
        o.check(f"every function of {name} is reached",
                None if covered[0] == covered[1] else f"{covered[0]} of {covered[1]}")
    both = [sum(r["branches"][i] for r in result.values()) for i in (0, 1)]
    o.note = f"edges {both[0]} of {both[1]} of the two files"
    o.numbers = result
    return o


def build():
    with step("build"):
        _make()


def run_all(seconds=20):
    build()
    return two_at_once(lambda check: check(), [unit, locks, every, partial(fuzz, seconds), threads, coverage, prove, litmus])


def long_fuzz(seconds):
    """make fuzz: only that, and the corpus keeps what it finds."""
    build()
    return [fuzz(seconds, keep=True)]
