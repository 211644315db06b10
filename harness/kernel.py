# SPDX-License-Identifier: GPL-2.0-only
"""Configure, build and test one kernel, through the kernel's own kunit.py."""
import json
import os
import re
import time

import tree
from common import BUILD, CROSS, HARNESS, Fail, choice, git, log_path, number, run, tail

ARCHES = ["arm64", "um"]
MAPS = ["pte", "block"]
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

# Races of the base, in a function that the series changes too: ssbs_thread_switch(), which is part of __switch_to(),
# reads the flags of who is next, who was interrupted while it wrote them for an allocation.
BASE_RACES = re.compile(r"data-race in __switch_to / (memalloc_\w+|pcpu_balance_workfn)$")


def fragments(*names):
    """The texts of these files of harness/config."""
    text = ""
    for name in names:
        with open(os.path.join(HARNESS, "config", name + ".config")) as f:
            text += f.read()
    return text


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
        with open(config) as f:
            have = set(f.read().splitlines())
        # As in a configuration, the last line about a symbol counts.
        asked = {re.search(r"CONFIG_\w+", line)[0]: line for line in text.splitlines()
                 if re.match(r"CONFIG_\w+=|# CONFIG_\w+ is not set$", line)}
        dropped = [line for line in asked.values() if line.startswith("CONFIG_") and line not in have]
        if dropped:
            raise Fail(f"harness/config asks for what the Kconfig of {self.name} drops: {' '.join(dropped)}")
        os.replace(config, result)
        with open(stamp, "w") as f:
            f.write(source)

    def compile(self, *targets, log):
        """Build these and no whole kernel."""
        self.configure()
        with open(os.path.join(self.out, "kunit.config")) as f:
            want = f.read()
        config = os.path.join(self.out, ".config")
        # make would take one that was written again for another.
        if not os.path.exists(config) or open(config).read() != want:
            with open(config, "w") as f:
                f.write(want)
        self.make(f"-j{os.cpu_count()}", *SAME_IMAGE, *targets, log=log)

    def build(self, *targets):
        """Build what is not up to date."""
        self.compile(*targets or ["all"], log=f"build {self.name}")

    def has(self, line):
        """Does the configuration that came out have this line?"""
        path = os.path.join(self.out, "kunit.config")
        with open(path if os.path.exists(path) else os.path.join(self.out, ".config")) as f:
            return line + "\n" in f.readlines()

    def kunit(self, mode="enforce", map_="pte", suite=None, timeout=None, ranges=None):
        """One boot, all suites or those that match; @ranges: how many the hammer splits. Returns what happened."""
        timeout = timeout or self.timeout
        what = "KUnit um" if self.arch == "um" else f"KUnit {self.arch} {self.pages} {map_} {mode}"
        what += f" {self.args}" if self.args else ""
        log = f"kunit {self.stack} {what[6:]}"
        # kunit.py leaves the console there, and another may run meanwhile.
        folder = where = log_path(log).removesuffix(".log")
        n = 1
        while os.path.exists(where):
            n += 1
            where = f"{folder}-{n}"
        os.makedirs(os.path.dirname(os.path.join(where, IMAGE)))
        os.symlink(self.image, os.path.join(where, IMAGE))
        os.symlink(os.path.join(self.out, "linux"), os.path.join(where, "linux"))
        result, path = os.path.join(where, "kunit.json"), os.path.join(where, "test.log")
        cmd = [os.path.join(self.tree, "tools/testing/kunit/kunit.py"), "exec", "--arch", self.arch,
               "--build_dir", where, "--timeout", str(timeout), "--json=" + result]
        if self.arch == "arm64":
            cmd += ["--qemu_config", os.path.join(HARNESS, "qemu_arm64.py")]
        args = ([f"kpkeys={mode}"] if mode != "enforce" else []) + self.args.split()
        args += [f"kpkeys_direct_map_split_kunit.hammer_ranges={ranges}"] if ranges else []
        cmd += [word for arg in args for word in ("--kernel_args", arg)]
        if self.qemu:
            cmd.append(f"--qemu_args={self.qemu}")
        if suite:
            cmd.append(suite)
        start = time.monotonic()
        out = run(cmd, cwd=self.tree, log=log, check=False, env={"MAP": map_})
        took = time.monotonic() - start
        with open(path, errors="replace") as f:
            self.console = console = f.read()
        o = judge(what, mode if self.arch == "arm64" else None, self.races_of_ours(console), out, result,
                  took >= timeout, log)
        o.seconds, o.log = round(took), log_path(log)
        self.expect(o, console, log)
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

    def expect(self, outcome, console, log):
        """Does the kernel say what it is to say?"""
        if self.says:
            outcome.check(f"the log has '{self.says}'",
                          None if re.search(self.says, console) else f"see {log_path(log)}")


class Outcome:
    """What one run came to: names of tests, with the reason if there is one."""

    def __init__(self, what):
        self.what = what
        self.passed, self.failed, self.skipped = [], [], []
        self.note = ""
        self.seconds, self.log = 0, ""

    def check(self, name, why=None):
        """One more test: passed, or failed for the reason @why."""
        if why:
            self.failed.append((name, why))
        else:
            self.passed.append(name)


def _cases(group, prefix=""):
    for case in group.get("test_cases", []):
        yield prefix + case["name"], case["status"]
    for sub in group.get("sub_groups", []):
        yield from _cases(sub, prefix + sub["name"] + ".")


def expected_warnings():
    """The regular expressions in harness/expected-warnings, one a line."""
    with open(os.path.join(HARNESS, "expected-warnings")) as f:
        return [re.compile(line.rstrip("\n")) for line in f if line.strip() and not line.startswith("#")]


def splats(console):
    """Lines of the kernel's log that say something is wrong and that nobody expects."""
    expected = expected_warnings()
    return [line for line in console.splitlines()
            if SPLAT.search(line) and not any(e.search(line) for e in expected)]


def health(outcome, mode, console, hung, log):
    """What must be true of every boot, whatever ran in it."""
    panic = re.search(r"Kernel panic - .*", console)
    where = f"log: {log_path(log)}\n" + tail(console)
    if panic:
        outcome.check("the kernel runs", f"{panic[0].strip()}; {where}")
    elif hung:
        outcome.check("the kernel runs", f"hang: no end in time; {where}")
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


def judge(what, mode, console, out, result, hung, log):
    """Turn a run of kunit.py into an Outcome; nothing at all is a failure."""
    o = Outcome(what)
    reasons = dict(re.findall(r"^(?:\[[^\]]*\] )?\s*ok \d+ (\S+) # SKIP ?(.*)$", console, re.M))
    seen = 0
    if os.path.exists(result):
        with open(result) as f:
            for name, status in _cases(json.load(f)):
                seen += 1
                if status == "PASS":
                    o.passed.append(name)
                elif status == "SKIP":
                    o.skipped.append((name, reasons.get(name.split(".")[-1], "").strip() or "no reason given"))
                else:
                    m = re.search(rf"# {re.escape(name.split('.')[-1])}: (EXPECT.*(?:\n.*){{3}})", console)
                    o.failed.append((name, re.sub(r"\s+", " ", m[1])[:200] if m else
                                     f"{status.lower()}; log: {log_path(log)}"))
    health(o, mode, console, hung, log)
    if not seen:
        o.failed.append(("tests ran", f"zero tests ran; log: {log_path(log)}\n" + tail(out)))
    return o


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
