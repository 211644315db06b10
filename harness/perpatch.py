# SPDX-License-Identifier: GPL-2.0-only
"""Each patch by itself: it builds, brings no warning, and follows the style.

Works on commits, whether they are those of the series or ones that
harness/planted/ breaks on purpose: what is planted must turn red at its patch.
A message counts if the base does not have it. The base is asked only when
there is a message.
"""
import glob
import os
import re
import shutil
import threading

import base
import kernel
import tree
from common import (BUILD, CROSS, Fail, HARNESS, LINUX, Record, git, key_of, limit, listed, read, run, step,
                    two_at_once, write)

WORK = os.path.join(BUILD, "check")
TREE = os.path.join(WORK, "linux")
BASE = os.path.join(WORK, "base")
DONE = os.path.join(WORK, "done.json")
# Files that include the headers which patches touch.
SAMPLE = ["mm/memory.c", "kernel/fork.c"]
SAMPLE_ARM64 = ["arch/arm64/mm/mmu.c"]
# What code of the series depends on, and the configuration of the tests lacks.
MORE = """CONFIG_SWAP=y
CONFIG_HIBERNATION=y
CONFIG_KEXEC=y
CONFIG_PTDUMP_DEBUGFS=y
"""
# And what no patch comes near, which would be compiled again for each.
LESS = re.compile(r"^CONFIG_(?:NET|UNIX|PERF_EVENTS|DAMON\w*|AIO|KSM|SYSVIPC|CPU_IDLE|\w*_CPUIDLE)=y\n", re.M)
X86 = "CONFIG_64BIT=y\nCONFIG_SMP=y\nCONFIG_PRINTK=y\nCONFIG_BUG=y\n"
# Of compilers, linkers and checkers; coccinelle gives a range of columns and a text.
MESSAGE = re.compile(r"\b(?:error|warning|WARNING|ERROR): |undefined reference|^\S+\.[ch]:\d+:\d+-\d+: ")
# Messages about the .config that is written here, and about single targets; and the
# .gitignore at the root of the base ignores those in the folders, which make then says of a new one.
NOISE = re.compile(r"override: reassigning|(?:overriding|ignoring old) recipe|/\.gitignore: warning: ignored by one of")
# What is compiled, when the message is about a file that it includes.
INCLUDES = re.compile(r"^(?:In file included| +) from (\S+\.[cS]):\d", re.M)
# A change of such a file reaches code that it does not name.
HEADER = re.compile(r"include/.*\.h$")
CONFIGURES = re.compile(r"Kconfig[^/]*$|Makefile$")


class Build:
    """One configuration in a work tree that all share."""

    def __init__(self, what, arch="arm64", config="", clang=False, where=TREE):
        self.what, self.arch, self.config, self.clang, self.tree = what, arch, config, clang, where
        self.out = os.path.join(WORK, what.replace(" ", "-")) + ("" if where == TREE else "-base")
        cross = CROSS if arch == "arm64" else ""
        # One command's output after the other's, or their lines are mixed.
        # kernel-doc is a check of its own, so that it is not told for each object.
        self.args = ["make", "-k", "-Otarget", f"-j{os.cpu_count()}", "-C", where, f"O={self.out}", f"ARCH={arch}",
                     "W=1", "KBUILD_BUILD_TIMESTAMP=@0", "cmd_checkdoc="]
        self.args += ["LLVM=1", "CC=ccache clang"] if clang else [f"CROSS_COMPILE={cross}", f"CC=ccache {cross}gcc"]
        self.compiled = set()           # files of the series that have been compiled once
        # What the last make compiled when it had a message about a file that is included there.
        self.including = set()
        self.complaints = []            # of Kconfig
        self.configured = None

    def _make(self, *targets, check=False):
        out = run([*self.args, *targets], log=f"check {self.what}", check=check)
        # Objects are beside the trees; ccache repeats what it saw in the one about those of the other.
        return re.sub(re.escape(WORK) + r"/(linux|base)/|\.\./(linux|base)/", "", out)

    def configure(self):
        """tinyconfig and what this tree knows of the rest; again only if a Kconfig changed."""
        kconfig = git("ls-files", "-s", "--", "*Kconfig*", cwd=self.tree)
        if kconfig == self.configured:
            return
        os.makedirs(self.out, exist_ok=True)
        seed, config = (os.path.join(self.out, name) for name in ("seed.config", ".config"))
        if not self.configured:
            self._make("tinyconfig", check=True)
            with open(config, "a") as f:
                f.write(self.config)
            shutil.copy(config, seed)
        shutil.copy(seed, config)
        self.complaints = [line for line in self._make("olddefconfig", check=True).splitlines()
                           if re.search(r"warning:|WARNING:|error:", line) and not NOISE.search(line)]
        self.configured = kconfig

    def messages(self, targets):
        """What make says about these, by what is the same if lines move."""
        self.configure()
        out = self._make(*targets)
        self.including = set(INCLUDES.findall(out))
        found = self.complaints + [line for line in out.splitlines()
                                   if MESSAGE.search(line) and not NOISE.search(line)]
        told = {re.sub(r":\d+(?::[\d-]+)?(?=:)", "", line): line for line in found}
        stopped = re.search(r"^make.*\*\*\* .*", out, re.M)
        return {**told, "make": stopped[0]} if stopped else told

    def objects(self, paths):
        """What this configuration makes of these files: the Makefile beside each says."""
        self.configure()
        found = []
        for folder in sorted({os.path.dirname(p) for p in paths}):
            if not os.path.exists(os.path.join(self.tree, folder, "Makefile")):
                continue
            # Rules that need more than is here come after the line that prints.
            has = run(["make", "-s", "-rR", "-f", "-"], cwd=self.tree, check=False, stdin=f"""
srctree := .
src := {folder}
obj := {folder}
SRCARCH := {self.arch}
include {self.out}/.config
include {folder}/Makefile
$(info has: $(obj-y) $(obj-m) $(lib-y) $(extra-y) $(always-y))
""")
            has = set(re.search(r"^has:(.*)$", has, re.M)[1].split())
            for path in paths:
                name = os.path.splitext(os.path.basename(path))[0]
                if os.path.dirname(path) == folder and {name, name + ".o", name + ".pi.o", name + ".s"} & has:
                    found.append(os.path.join(folder, name if name.endswith(".lds") else name + ".o"))
        return found


def builds():
    on = LESS.sub("", kernel.fragments("arm64", "4k", "kunit")) + MORE
    off = re.sub(r"^CONFIG_\w*KPKEYS\w*=y\n", "", on, flags=re.M)
    always = [Build("arm64 gcc on", config=on), Build("arm64 gcc off", config=off)]
    more = [Build("arm64 clang", config=on, clang=True), Build("um gcc", "um", kernel.fragments("um", "kunit"))]
    if os.uname().machine == "x86_64":
        more.append(Build("x86_64 gcc", "x86_64", X86))
    return always, more


def touched(commit):
    """The files of a commit that are still there, and those that it adds."""
    lines = git("diff-tree", "-r", "--no-renames", "--name-status", "--no-commit-id", commit).splitlines()
    paths = dict(reversed(line.split("\t")) for line in lines)
    return [p for p, s in paths.items() if s != "D"], [p for p, s in paths.items() if s == "A"]


def _subject(commit):
    return git("log", "-1", "--format=%s", commit).strip()


def commits_of(stack):
    return git("rev-list", "--reverse", f"origin/base..{tree.assemble(stack)}").split()


class Series:
    """The commits, one after the other, and what is known of them."""

    def __init__(self, stack, full):
        self.o = kernel.Outcome("each patch")
        self.stack, self.full = stack, full
        self.commits = commits_of(stack)
        self.always, self.more = builds()
        # What an earlier run has compiled would be up to date, and say nothing; ccache repeats what was said.
        for path in glob.glob(os.path.join(WORK, "*", ".config")):
            shutil.rmtree(os.path.dirname(path))
        self.own = []                   # files that the series has added so far
        self.known = {}                 # by configuration: messages that the base has
        self.base = threading.Lock()
        # The patches that passed the whole check, by commit.
        self.record = Record(DONE) if full else None
        self.how = key_of("".join(b.what + b.config for b in self.always + self.more),
                          "perpatch.py", "planted/*.patch", "checkpatch-ignore", "expected-warnings", "kernel.py")

    def _targets(self, b, paths):
        """The objects that show whether a commit builds in @b."""
        sources = {p for p in paths if p.endswith((".c", ".S"))}
        if any(HEADER.search(p) for p in paths):
            sources |= set(SAMPLE + (SAMPLE_ARM64 if b.arch == "arm64" else []))
        if any(CONFIGURES.search(p) for p in paths):
            # What was added before may only now be configured.
            sources |= {p for p in self.own if p.endswith(".c")} - b.compiled
        sources = {p for p in sources if os.path.exists(os.path.join(TREE, p)) and
                   (not p.startswith("arch/") or p.startswith(f"arch/{b.arch}/"))}
        objects = b.objects(sorted(sources))
        b.compiled |= {o[:-1] + "c" for o in objects}
        return objects

    def new(self, b, targets):
        """None, or what @b says about these and did not say about the base."""
        found = b.messages(targets)
        known = self.known.setdefault(b.what, {})
        if set(found) - set(known):
            # The base is asked about the files that the messages are about, and about those of git.
            files = {m[1] for m in (re.match(r"(\S+\.[cS]):\d", line) for line in found.values()) if m}
            with self.base:
                tree.worktree(BASE, "origin/base")
                before = Build(b.what, b.arch, b.config, b.clang, where=BASE)
                before.args += b.args[len(before.args):]
                files = sorted(p for p in files | b.including | set(SAMPLE) if os.path.exists(os.path.join(BASE, p)))
                known.update(before.messages([*before.objects(files), "misc-check"]))
                # That make failed is never the same: a checker that does not work would find nothing.
                known.pop("make", None)
        return "; ".join(line for key, line in found.items() if key not in known)[:400] or None

    def one(self, o, commit, builds_):
        """Check one commit, which is checked out."""
        paths, _ = touched(commit)
        subject = _subject(commit)

        def build(b):
            targets = self._targets(b, paths)
            return (b.what, self.new(b, targets)) if targets else None

        for result in filter(None, two_at_once(build, builds_)):
            o.check(f"{result[0]}: {subject}", result[1])
        code = [p for p in paths if p.endswith((".c", ".h"))]
        if code:
            o.check(f"kernel-doc: {subject}", kernel_doc(code, TREE, compare=True))

    def walk(self):
        plants = [Plant(path, self.commits) for path in sorted(glob.glob(os.path.join(HARNESS, "planted", "*.patch")))]
        for n, commit in enumerate(self.commits, 1):
            what = f"patch {n} of {len(self.commits)}: {_subject(commit)[:60]}"
            if limit.skips(self.o, _subject(commit)):
                continue
            if self._was_done(commit):
                print(f"   {what}: passed in an earlier run")
                continue
            with step(what):
                told, passed = len(self.o.failed), len(self.o.passed)
                self._look_at(commit, [p for p in plants if p.victim == commit])
                for name, why in self.o.failed[told:]:
                    print(f"   FAILED: {name}: {why}", flush=True)
                if self.record and len(self.o.failed) == told:
                    compiled = {b.what: sorted(b.compiled) for b in self.always + self.more}
                    self.record.put(commit, self.how, {"passed": self.o.passed[passed:], "compiled": compiled})
        if self.o.skipped:
            return
        tree.worktree(TREE, self.commits[-1])
        never = {p for p in self.own if p.endswith(".c") and not p.startswith("tools/")} - self.always[0].compiled
        self.o.check("each new file is compiled", " ".join(sorted(never)) or None)

    def _was_done(self, commit):
        """Did this patch pass in an earlier run? Then things are as they were after that."""
        then = self.record and self.record.get(commit, self.how)
        if not then:
            return False
        self.o.passed += then["passed"]
        self.own += touched(commit)[1]
        for b in self.always + self.more:
            b.compiled |= set(then["compiled"][b.what])
        return True

    def _look_at(self, commit, plants):
        """All that is checked of one commit, and what is planted there."""
        tree.worktree(TREE, commit)
        paths, new = touched(commit)
        self.own += new
        wide = self.full and (commit == self.commits[-1] or any(p.startswith("include/") for p in paths))
        self.one(self.o, commit, self.always + (self.more if wide else []))
        for plant in plants:
            plant.check(self)
        if self.full:
            self._whole(commit, paths, self.always)

    def _whole(self, commit, paths, builds_):
        """The whole kernel at a commit: it links, and the suites that there are pass."""
        subject = _subject(commit)
        for b, why in zip(builds_, two_at_once(lambda b: self.new(b, ["all"]), builds_)):
            self.o.check(f"whole, {b.what}: {subject}", why)
        if any(re.match(r"lib/tests/|mm/|arch/arm64/", p) for p in paths):
            k = kernel.Kernel(self.stack, work=WORK)
            k.out = self.always[0].out
            for map_ in kernel.MAPS:
                ran = k.kunit("off" if commit != self.commits[-1] else "enforce", map_)
                self.o.check(f"KUnit, MAP={map_}: {subject}", "; ".join(": ".join(f) for f in ran.failed) or None)


def kernel_doc(paths, where, compare=False):
    """None, or what kernel-doc says about these files; with @compare, and not about those of the base."""
    def ask(files, cwd):
        out = run([os.path.join(where, "scripts/kernel-doc"), "-none", "-Wall", *files], cwd=cwd, check=False,
                  log="kernel-doc")
        return {re.sub(r":\d+", "", line): line for line in out.splitlines()
                if re.search(r"\b(warning|error)\b", line, re.I)}

    found = ask(paths, where)
    known = {}
    if found and compare:
        with_base = [p for p in paths if any(p in key for key in found) and
                     git("ls-tree", "origin/base", "--", p).strip()]
        # A work tree of the base would take longer than all the rest.
        before = os.path.join(WORK, "kernel-doc")
        for path in with_base:
            os.makedirs(os.path.dirname(os.path.join(before, path)), exist_ok=True)
            write(os.path.join(before, path), git("show", f"origin/base:{path}"))
        if with_base:
            known = ask(with_base, before)
    return "; ".join([line for key, line in found.items() if key not in known][:2]) or None


def style(path):
    """None if checkpatch has nothing to say about the mail @path that is not accepted."""
    ignore = [line.split()[0] for line in listed(os.path.join(HARNESS, "checkpatch-ignore"))]
    in_file = [i.split("@") for i in ignore if "@" in i]
    ignore = [i for i in ignore if "@" not in i]
    out = run(["scripts/checkpatch.pl", "--strict", "--show-types", "--terse", "--showfile", "--no-summary",
               "--ignore", ",".join(ignore), path], cwd=LINUX, check=False, log="checkpatch")
    lines = [line for line in out.splitlines() if re.search(r"(ERROR|WARNING|CHECK):", line) and
             not any(f":{kind}: " in line and line.startswith(folder) for kind, folder in in_file)]
    return "; ".join(lines[:3]) if lines else None


class Plant:
    """An error in one patch of the series, which must turn red what it says, there, and nothing else."""

    def __init__(self, path, commits):
        self.path = path
        self.name = os.path.relpath(path, HARNESS)
        text = read(path)
        self.head = dict(re.findall(r"^(What|In|Red): (.+)$", text.partition("\ndiff ")[0], re.M))
        if not {"What", "In", "Red"} <= set(self.head):
            raise Fail(f"{self.name}: the header needs the lines What, In and Red")
        victims = [c for c in commits if _subject(c) == self.head["In"]]
        if not victims:
            raise Fail(f"{self.name}: no patch of the series is called '{self.head['In']}'")
        self.victim, = victims

    def check(self, series):
        what = f"planted {self.head['What']}"
        out = git("apply", "--index", self.path, cwd=TREE, check=False)
        if out.strip():
            series.o.check(what, f"{self.name} does not apply: {out.strip().splitlines()[0]}")
            return
        # Signed as the mails are, so that nothing but what is planted is red.
        message = git("log", "-1", "--format=%B", self.victim).strip() + \
            f"\n\nSigned-off-by: {base.IDENT['GIT_AUTHOR_NAME']} <{base.IDENT['GIT_AUTHOR_EMAIL']}>\n"
        commit = git("commit-tree", git("write-tree", cwd=TREE).strip(), "-p", self.victim + "~",
                     stdin=message, env=base.IDENT).strip()
        found = kernel.Outcome(self.name)
        series.one(found, commit, series.always)
        mail, = git("format-patch", "-1", "-o", WORK, commit).split()
        found.check(f"checkpatch: {self.head['In']}", style(mail))
        os.unlink(mail)
        git("reset", "-q", "--hard", self.victim, cwd=TREE)
        red = [name for name, _ in found.failed]
        right = [r for r in red if r.startswith(self.head["Red"]) and r.endswith(": " + self.head["In"])]
        series.o.check(what, None if red and right == red else
                       f"red is {'; '.join(': '.join(f) for f in found.failed) or 'nothing'}, "
                       f"not '{self.head['Red']}' alone")


def each(stack, full=False):
    """Every patch of the series; with @full also whole, booted, and by other compilers. Returns the Series."""
    s = Series(stack, full)
    s.walk()
    return s
