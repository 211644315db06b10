# SPDX-License-Identifier: GPL-2.0-only
"""Configure, build, boot and judge one kernel."""
import os
import re
import sys
import time

import tree
from common import (BUILD, CROSS, Fail, HARNESS, LINUX, STOPPED, choice, git, listed, log_path, new_log, number, read,
                    run, tail, write)

ARCHES = ["arm64", "um"]
# Of what the kernel makes its direct map, by the CPU: with the identity of one that has BBM level 3 it is of blocks,
# which are split live.
CPUS = {"pte": "max", "block": "max,midr=0x410fd8e0"}
MAPS = list(CPUS)
MODES = ["enforce", "check", "off"]
PAGES = ["4k", "16k", "64k"]
# The same sources give the same image, and ccache its hits. What the image says of itself
# goes into the random numbers, and so into how long a hash chain is: see harness/bench.py.
SAME_IMAGE = ["KBUILD_BUILD_TIMESTAMP=@0", "KBUILD_BUILD_VERSION=1", "KBUILD_BUILD_USER=kpkeys",
              "KBUILD_BUILD_HOST=localhost"]

TIMEOUT = "TIMEOUT", 300, "number of seconds"
IMAGE = "arch/arm64/boot/Image"

# What the kernel says about its backend, by MODE. An emulator with FEAT_S1POE
# gets the real one, without being asked.
BACKENDS = {"enforce": r"POE|PIE emulation \(enforcing\)", "check": r"PIE emulation \(checking\)"}

SPLAT = re.compile(r"WARNING: |BUG: |Kernel panic|Internal error|Unable to handle|Bad mode|"
                   r"INFO: (?:rcu|task|trying)|turning off the locking|possible (?:recursive|circular) locking")

# Races of the base, in a function that the series adds or changes: ssbs_thread_switch(), which is part of __switch_to(),
# reads the flags of who is next, who was interrupted while it wrote them for an allocation. A thread of a test asks where
# it runs until that is another CPU: the scheduler, which KCSAN does not look at, changes what raw_smp_processor_id() reads.
BASE_RACES = re.compile(r"data-race in (__switch_to / (memalloc_\w+|pcpu_balance_workfn)|remote_migrate_open\+\S+)$")


# Arguments of Kernel() for a machine that has neither FEAT_S1POE nor FEAT_S1PIE, as most that are sold. They are for
# MODE=off, whose "kpkeys=off" they undo: the kernel has to find out by itself.
OLD = "kpkeys=enforce", "kpkeys: no backend", "-cpu cortex-a76"


def fragments(*names):
    """The texts of these files of harness/config."""
    text = ""
    for name in names:
        text += read(os.path.join(HARNESS, "config", name + ".config"))
    return text


def memory(megabytes):
    """For the emulator: a machine with so much, of which the host gives what is used."""
    return f"-m {megabytes} -machine memory-backend=ram -object memory-backend-ram,id=ram,size={megabytes}M,reserve=off"


class Kernel:
    """One configuration of one tree: its object directory and how to use it."""

    def __init__(self, stack, arch="arm64", pages="4k", work=BUILD, config=None, args="", says="", compiler="gcc",
                 qemu="", times=1):
        """@config: text of a configuration, instead of that of the tests; @args: for the command line;
        @says: what the log must have in each boot, a regular expression; @qemu: arguments of the emulator;
        @times: how many times the usual limit a boot may take."""
        self.stack, self.arch, self.pages, self.config, self.args = stack, arch, pages, config, args
        self.says, self.qemu, self.timeout = says, qemu, number(*TIMEOUT) * times
        self.tree = os.path.join(work, "linux")
        name = arch if arch == "um" else f"{arch}-{pages}"
        self.name = f"{stack} {name}"
        self.out = os.path.join(work, stack, name)
        self.image = os.path.join(self.out, IMAGE)
        prefix = CROSS if arch == "arm64" and compiler != "clang" else ""
        self.tools = [f"CC=ccache {prefix}{compiler}", *(["LLVM=1"] if compiler == "clang" else [])]

    def make(self, *targets, log):
        return run(["make", "-C", self.tree, f"O={self.out}", f"ARCH={self.arch}", *self.tools] +
                   ([f"CROSS_COMPILE={CROSS}"] if self.arch == "arm64" else []) + list(targets),
                   log=log)

    def configure(self):
        """tinyconfig and the fragments; what they ask for must come out."""
        text = self.config or fragments(*(["arm64", self.pages] if self.arch == "arm64" else ["um"]), "kunit")
        if self.stack == "reserve":
            # What the rest of the series brings.
            text = re.sub(r"^CONFIG_(?!KPKEYS_(?:SPLIT_RESERVE|DIRECT_MAP_SPLIT)_)\w*(?:KPKEYS|FAIL_PGTABLE)\w*=y\n", "",
                          text, flags=re.M)
        elif self.stack != tree.STACKS[0]:
            # The suite of an object that only the first has.
            text = text.replace("CONFIG_KPKEYS_SPLIT_RESERVE_KUNIT_TEST=y\n", "")
        os.makedirs(self.out, exist_ok=True)
        result = os.path.join(self.out, "kunit.config")
        stamp = result + ".from"
        kconfig = ["--", "*Kconfig*"]
        source = git("ls-files", "-s", *kconfig, cwd=self.tree) + git("diff", *kconfig, cwd=self.tree) + text
        if os.path.exists(result) and os.path.exists(stamp):
            with open(stamp) as f:
                if f.read() == source:
                    return

        config = os.path.join(self.out, ".config")
        log = f"config {self.name}"
        self.make("tinyconfig", log=log)
        with open(config, "a") as f:
            f.write(text)
        self.make("olddefconfig", log=log)
        have = set(read(config).splitlines())
        # As in a configuration, the last line about a symbol counts.
        asked = {re.search(r"CONFIG_\w+", line)[0]: line for line in text.splitlines()
                 if re.match(r"CONFIG_\w+=|# CONFIG_\w+ is not set$", line)}
        dropped = [line for line in asked.values() if line.startswith("CONFIG_") and line not in have]
        if dropped:
            raise Fail(f"harness/config asks for what the Kconfig of {self.name} drops: {' '.join(dropped)}")
        os.replace(config, result)
        write(stamp, source)

    def compile(self, *targets, log):
        """Build these and no whole kernel."""
        self.configure()
        want = read(os.path.join(self.out, "kunit.config"))
        config = os.path.join(self.out, ".config")
        # make would take one that was written again for another.
        if not os.path.exists(config) or open(config).read() != want:
            write(config, want)
        self.make(f"-j{os.cpu_count()}", *SAME_IMAGE, *targets, log=log)

    def build(self, *targets):
        """Build what is not up to date."""
        self.compile(*targets or ["all"], log=f"build {self.name}")

    def has(self, line):
        """Does the configuration that came out have this line?"""
        path = os.path.join(self.out, "kunit.config")
        with open(path if os.path.exists(path) else os.path.join(self.out, ".config")) as f:
            return line + "\n" in f.readlines()

    def command(self, mode, map_, append="", initrd=None, memory=1024):
        """How to start it; the last argument is the command line. @initrd: with a userland, which says what runs."""
        args = " ".join([*([f"kpkeys={mode}"] if mode != "enforce" else []),
                         # An oops may leave the kernel unable to reach its userland.
                         *(["kunit.autorun=0 oops=panic"] if initrd else []), self.args, append]).strip()
        if self.arch == "um":
            return [os.path.join(self.out, "linux"), "mem=1G", "console=tty", *args.split()]
        return ["qemu-system-aarch64", "-nodefaults", "-m", str(memory), "-no-reboot", "-nographic",
                "-serial", "mon:stdio", "-machine", "virt,gic-version=3", "-cpu", CPUS[map_], "-smp", "4",
                *self.qemu.split(), "-kernel", self.image, *(["-initrd", initrd] if initrd else []),
                # Without panic=-1 a kernel that panics would never end.
                "-append", f"console=ttyAMA0 earlycon panic=-1 {args}".strip()]

    def outcome(self, what, mode, cmd, log, timeout, starts=1):
        """What became of a kernel that is started, and its console."""
        start = time.monotonic()
        console = "".join(run(cmd, check=False, log=log, timeout=timeout) for _ in range(starts))
        o = Outcome(what)
        o.seconds, o.log = round(time.monotonic() - start), log_path(log)
        if not ktap(o, console):
            o.check("tests ran", f"zero tests ran; log: {o.log}")
        health(o, mode, self.races_of_ours(console))
        if any(name == "the kernel runs" for name, _ in o.failed):
            # Tests without a name are those that are missing, for this reason.
            o.failed = [(name, why) for name, why in o.failed if name.rpartition(".")[2]]
        if self.says:
            o.check(f"the log has '{self.says}'", None if re.search(self.says, console) else f"see {o.log}")
        return o, console

    def kunit(self, mode="enforce", map_="pte", suite=None, timeout=None, ranges=None):
        """One boot, all suites or those that match; @ranges: how many the hammer splits. Returns what happened."""
        um = self.arch == "um"
        what = " ".join(["KUnit", *(["um"] if um else [self.arch, self.pages, map_, mode]), *self.args.split(),
                         *re.findall(r"^-m (\d+)", self.qemu)])
        append = "kunit.enable=1 kunit_shutdown=" + ("halt" if um else "reboot")
        append += f" kunit.filter_glob={suite}" if suite else ""
        append += f" kpkeys_direct_map_split_kunit.hammer_ranges={ranges}" if ranges else ""
        o, self.console = self.outcome(what, None if um else mode, self.command(mode, map_, append),
                                       new_log(f"{self.stack} {what}"), timeout or self.timeout)
        return o

    def races_of_ours(self, console):
        """The log, in which a race that KCSAN reports is no splat if the series has nothing to do with it: as the
        base has such. That is if no function takes part that the series adds or changes; code of the series that is
        inlined into any other function is not told from that."""
        if not self.has("CONFIG_KCSAN=y"):
            return console
        diff = git("diff", "-U0", "origin/base", "HEAD", "--", "*.c", "*.h", ":!tools", cwd=self.tree)
        ours = set(re.findall(r"^(?:@@ .* @@ |\+)(?=[a-z]).*?(\w+)\(", diff, re.M))
        if not ours:
            raise Fail(f"no function of {self.stack} found in {self.tree}: no race would count")

        def base_race(m):
            return BASE_RACES.search(m[1].strip()) or not ours & set(re.findall(r"\w+", m[2]))

        return re.sub(r"BUG: (KCSAN: .* in (.*))", lambda m: m[1] if base_race(m) else m[0], console)


class Outcome:
    """What one run came to: names of tests, with the reason if there is one."""

    def __init__(self, what):
        self.what = what
        self.passed, self.failed, self.skipped = [], [], []
        self.note = ""
        self.seconds, self.log = 0, ""

    @classmethod
    def of(cls, values):
        """One that was kept: what vars() made of it."""
        o = cls("")
        vars(o).update(values)
        return o

    def check(self, name, why=None):
        """One more test: passed, or failed for the reason @why."""
        if why:
            self.failed.append((name, why))
        else:
            self.passed.append(name)


def ktap(o, text):
    """Count the tests whose results are in @text, as the kernel's own parser reads them; returns how many there are."""
    path = os.path.join(LINUX, "tools/testing/kunit")
    if path not in sys.path:
        sys.path.append(path)
    import kunit_parser
    import kunit_printer

    def count(test, prefix=""):
        if test.subtests:
            return sum(count(t, f"{prefix}{test.name}." if test.name else prefix) for t in test.subtests)
        name, said = prefix + test.name, "\n".join(test.log)
        if test.status == kunit_parser.TestStatus.SKIPPED:
            o.skipped.append((name, test.skip_reason.strip() or "no reason given"))
        elif test.ok_status():
            o.check(name)
        else:
            m = re.search(rf"# {re.escape(test.name)}: ((?:EXPECT|ASSERT)(?:.*\n?){{4}})", said) or \
                re.search(rf"# {re.escape(test.name)}: (.*)", said)
            o.check(name, re.sub(r"\s+", " ", m[1])[:200] if m else
                    test.status.name.lower().replace("_", " ") + (f"; log: {o.log}" if o.log else ""))
        return 1

    top = kunit_parser.parse_run_tests(text.splitlines(), kunit_printer.Printer(print=False))
    return sum(count(t) for t in top.subtests)


def expected_warnings():
    """The regular expressions in harness/expected-warnings, one a line."""
    return list(map(re.compile, listed(os.path.join(HARNESS, "expected-warnings"))))


def splats(console):
    """Lines of the kernel's log that say something is wrong and that nobody expects."""
    expected = expected_warnings()
    return [line for line in console.splitlines()
            if SPLAT.search(line) and not any(e.search(line) for e in expected)]


def health(outcome, mode, console):
    """What must be true of every boot, whatever ran in it."""
    panic = re.search(r"Kernel panic - (?!not syncing: sysrq triggered crash).*", console)
    stopped = STOPPED.search(console)
    where = f"log: {outcome.log}\n" + tail(console)
    if panic:
        outcome.check("the kernel runs", f"{panic[0].strip()}; {where}")
    elif stopped:
        outcome.check("the kernel runs", f"{stopped[0]}; {where}")
    elif mode and not re.search(r"reboot: (Restarting system|Power down)", console):
        outcome.check("the kernel runs", f"the emulator ended before the kernel did; {where}")
    else:
        outcome.check("the kernel runs")
        bad = splats(console)
        outcome.check("no unexpected warning in the log", "; ".join(bad[:3]) if bad else None)
    if mode in BACKENDS:
        m = re.search(r"kpkeys: backend (.+)|kpkeys: no backend", console)
        said = m[1].strip() if m and m[1] else "none"
        outcome.note = said
        outcome.check(f"the backend of MODE={mode}",
                      None if re.fullmatch(BACKENDS[mode], said) else f"it is '{said}'")


def selected():
    """The kernel, map and mode that the variables of make name."""
    number(*TIMEOUT)
    arch = choice("ARCH", ARCHES)
    for name in ("MAP", "MODE", "PAGES") if arch == "um" else ():
        if os.environ.get(name):
            raise Fail(f"{name}={os.environ[name]} is for ARCH=arm64; User Mode Linux has no direct map to protect")
    # The reserve by itself protects nothing.
    mode = choice("MODE", ["off"] if os.environ.get("STACK") == "reserve" else MODES)
    return dict(arch=arch, pages=choice("PAGES", PAGES), args=os.environ.get("APPEND") or ""), \
        dict(map_=choice("MAP", MAPS), mode=mode, suite=os.environ.get("SUITE") or None)
