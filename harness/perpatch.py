# SPDX-License-Identifier: GPL-2.0-only
"""Each patch by itself: it builds, brings no warning, and follows the style.

Works on commits, whether they are those of the series or ones that
harness/planted/ breaks on purpose: what is planted must turn red at its patch.
"""
import glob
import os
import re
import shutil

import base
import kernel
import tree
from common import BUILD, CROSS, Fail, HARNESS, LINUX, git, run, step

WORK = os.path.join(BUILD, "check")
TREE = os.path.join(WORK, "linux")
# Files that include the headers which patches touch.
SAMPLE = {
    "arm64": ["mm/memory.c", "mm/vmalloc.c", "kernel/fork.c", "arch/arm64/mm/mmu.c"],
    "um": ["mm/memory.c", "mm/vmalloc.c", "kernel/fork.c"],
    "x86_64": ["mm/memory.c", "mm/vmalloc.c", "kernel/fork.c"],
}
X86 = "CONFIG_64BIT=y\nCONFIG_SMP=y\nCONFIG_PRINTK=y\nCONFIG_BUG=y\n"
# What a warning looks like: the compiler's, and kernel-doc's, which W=1 runs.
MESSAGE = re.compile(r"(?:\berror|\bwarning|\bWarning|undefined reference)[ :]|ERROR: modpost")
# Of which kind of file a change reaches code that it does not name.
HEADER = re.compile(r"include/.*\.h$|\bKconfig|Kbuild$|Makefile$")


class Build:
    """One configuration in the work tree that all share."""

    def __init__(self, what, arch="arm64", config="", clang=False):
        self.what, self.arch, self.config = what, arch, config
        self.out = os.path.join(WORK, what.replace(" ", "-").replace("/", "-"))
        cross = CROSS if arch == "arm64" else ""
        self.args = ["make", "-k", f"-j{os.cpu_count()}", "-C", TREE, f"O={self.out}", f"ARCH={arch}", "W=1",
                     "KBUILD_BUILD_TIMESTAMP=@0"]
        self.args += ["LLVM=1", "CC=ccache clang"] if clang else [f"CROSS_COMPILE={cross}", f"CC=ccache {cross}gcc"]
        self.known = {}                 # messages of the base
        self.foreign = set()            # objects that this configuration cannot have
        self.configured = None

    def _make(self, *targets, check=False):
        return run([*self.args, *targets], log=f"check {self.what}", check=check)

    def configure(self):
        """tinyconfig and what this tree knows of the rest; again only if a Kconfig changed."""
        kconfig = git("ls-files", "-s", "--", "*Kconfig*", cwd=TREE)
        if kconfig == self.configured:
            return
        os.makedirs(self.out, exist_ok=True)
        self._make("tinyconfig", check=True)
        with open(os.path.join(self.out, ".config"), "a") as f:
            f.write(self.config)
        self._make("olddefconfig", check=True)
        self.configured = kconfig

    def messages(self, targets):
        """What the compiler says about these, without the line numbers."""
        self.configure()
        out = self._make(*targets)
        found = [line for line in out.splitlines() if MESSAGE.search(line)]
        if not found and re.search(r"^make.*\*\*\* .*Error \d", out, re.M):
            found = [re.search(r"^make.*\*\*\* .*Error \d+", out, re.M)[0]]
        return {re.sub(r":\d+(?=:)|^\.\./|^(?:\S*/)?linux/", "", re.sub(r"^(?:\.\./)+linux/", "", line)): line
                for line in found if " *** " not in line or len(found) == 1}

    def covers(self, path):
        """Whether @path is compiled by this configuration."""
        if path.startswith("arch/"):
            return path.startswith(f"arch/{'x86' if self.arch == 'x86_64' else self.arch}/")
        return not path.startswith(("drivers/", "tools/", "samples/"))


def builds():
    on = kernel.fragments("arm64", "4k", "kunit") + "CONFIG_PTDUMP_DEBUGFS=y\n"
    off = re.sub(r"^CONFIG_\w*KPKEYS\w*=y\n", "", on, flags=re.M)
    um = kernel.fragments("um", "kunit")
    always = [Build("arm64 gcc on", config=on), Build("arm64 gcc off", config=off)]
    headers = [Build("arm64 clang", config=on, clang=True), Build("um gcc", "um", um)]
    if os.uname().machine == "x86_64":
        headers.append(Build("x86_64 gcc", "x86_64", X86))
    return always, headers


def _worktree():
    if not os.path.exists(os.path.join(TREE, ".git")):
        shutil.rmtree(TREE, ignore_errors=True)
        git("worktree", "prune")
        git("worktree", "add", "-q", "--detach", TREE, "origin/base")


def _checkout(commit):
    git("reset", "-q", "--hard", cwd=TREE)
    git("checkout", "-q", "--detach", commit, cwd=TREE)


def _touched(commit):
    """The files of a commit that are still there, and those that it adds."""
    lines = git("diff-tree", "-r", "--no-renames", "--name-status", "--no-commit-id", commit).splitlines()
    paths = dict(reversed(line.split("\t")) for line in lines)
    return [p for p, s in paths.items() if s != "D"], [p for p, s in paths.items() if s == "A"]


def _targets(b, commit):
    """The objects that show whether @commit builds in @b."""
    paths, new = _touched(commit)
    sources = {p for p in paths if p.endswith((".c", ".S")) and b.covers(p)}
    if b.what != "arm64 gcc on" and b.what != "arm64 clang":
        sources -= set(new)             # not part of what is configured
    if any(HEADER.search(p) for p in paths):
        sources |= set(SAMPLE[b.arch])
    objects = {os.path.splitext(p)[0] + ".o" for p in sources if os.path.exists(os.path.join(TREE, p))}
    return sorted(objects - b.foreign)


def _compare(b, targets, known):
    new = {key: line for key, line in b.messages(targets).items() if key not in known}
    return "; ".join(list(new.values())[:3]) or None


def _kernel_doc(paths):
    out = run(["scripts/kernel-doc", "-none", "-Wall", *paths], cwd=TREE, check=False, log="check kernel-doc")
    return {re.sub(r":\d+", "", line): line for line in out.splitlines() if re.search(r"[Ww]arning|[Ee]rror", line)}


def style(path):
    """None if checkpatch has nothing to say about the mail @path that is not accepted."""
    with open(os.path.join(HARNESS, "checkpatch-ignore")) as f:
        ignore = [line.split()[0] for line in f if line.strip() and not line.startswith("#")]
    in_file = [i.split("@") for i in ignore if "@" in i]
    ignore = [i for i in ignore if "@" not in i]
    out = run(["scripts/checkpatch.pl", "--strict", "--show-types", "--terse", "--showfile", "--no-summary",
               "--ignore", ",".join(ignore), path], cwd=LINUX, check=False, log="checkpatch")
    lines = [line for line in out.splitlines() if re.search(r"(ERROR|WARNING|CHECK):", line) and
             not any(f":{kind}: " in line and line.startswith(folder) for kind, folder in in_file)]
    return "; ".join(lines[:3]) if lines else None


def _sources_of(b, commits):
    """Those files of the tree that any of the commits touches, as objects."""
    return sorted({t for c in commits for t in _targets(b, c)})


def _subject(commit):
    return git("log", "-1", "--format=%s", commit).strip()


def one(o, commit, always, headers, docs, everywhere=False):
    """Check one commit."""
    _checkout(commit)
    paths, _ = _touched(commit)
    subject = _subject(commit)[:50]
    for b in always + (headers if everywhere or any(p.startswith("include/") for p in paths) else []):
        targets = _targets(b, commit)
        if targets:
            o.check(f"{b.what}: {subject}", _compare(b, targets, b.known))
    code = [p for p in paths if p.endswith((".c", ".h"))]
    if code:
        new = {k: line for k, line in _kernel_doc(code).items() if k not in docs}
        o.check(f"kernel-doc: {subject}", "; ".join(list(new.values())[:2]) or None)


def _base_messages(builds_, commits):
    """What the base has to say about the same files, for each configuration."""
    _checkout("origin/base")
    for b in builds_:
        sources = _sources_of(b, commits)
        b.known = b.messages(sources)
        b.foreign = {t for t in sources if not os.path.exists(os.path.join(b.out, t))}
    code = sorted({p for c in commits for p in _touched(c)[0]
                   if p.endswith((".c", ".h")) and os.path.exists(os.path.join(TREE, p))})
    return _kernel_doc(code)


def commits_of(stack):
    return git("rev-list", "--reverse", f"origin/base..{tree.assemble(stack)}").split()


def each(stack, full=False):
    """Every patch of the series; with @full also with other compilers and architectures, and the tip whole."""
    o = kernel.Outcome("each patch")
    _worktree()
    commits = commits_of(stack)
    always, headers = builds()
    with step("each patch: what the base warns about"):
        docs = _base_messages(always + headers, commits)
    for n, commit in enumerate(commits, 1):
        tip = commit == commits[-1]
        with step(f"patch {n} of {len(commits)}: {_subject(commit)[:60]}"):
            one(o, commit, always, headers if full or tip else [], docs, everywhere=tip)
    if full:
        for b in always + headers:
            _checkout("origin/base")
            with step(f"whole: {b.what}"):
                known = b.messages([])
                _checkout(commits[-1])
                o.check(f"whole tip: {b.what}", _compare(b, [], known))
    _static(o, commits)
    with step("planted errors"):
        _planted(o, commits, always, docs)
    return o


def _static(o, commits):
    """sparse on every file of the series, coccinelle and checkincludes on its new files."""
    _checkout(commits[-1])
    b = Build("arm64 sparse", config=kernel.fragments("arm64", "4k", "kunit"))
    b.args += ["C=2"]
    changed = {t for c in commits for t in _targets(b, c)}
    new = sorted({p for c in commits for p in _touched(c)[1] if p.endswith((".c", ".h"))})
    with step("sparse"):
        _checkout("origin/base")
        known = b.messages([t for t in sorted(changed) if os.path.exists(os.path.join(TREE, t[:-1] + "c"))])
        _checkout(commits[-1])
        o.check("sparse", _compare(b, sorted(changed | {p[:-1] + "o" for p in new if p.endswith(".c")}), known))
    with step("coccinelle"):
        bad = []
        noise = re.compile(r"No OCaml|virtual rule|should .* be a metavariable|^warning: |^HANDLING|^\s*$")
        for script in sorted(glob.glob(TREE + "/scripts/coccinelle/*/*.cocci")):
            out = run(["spatch", "-D", "report", "--very-quiet", "--no-show-diff", "--cocci-file", script,
                       "-I", "include", "-I", "arch/arm64/include", "--include-headers", *new],
                      cwd=TREE, check=False, log="coccinelle")
            bad += [line for line in out.splitlines() if re.match(r"\S+\.[ch]:\d+", line) and not noise.search(line)]
        o.check("coccinelle", "; ".join(bad[:3]) or None)
    out = run(["scripts/checkincludes.pl", *new], cwd=TREE, check=False, log="coccinelle")
    o.check("checkincludes", out.strip().splitlines()[0] if out.strip() else None)


def _plant(path, commits):
    """The commit that the planted patch spoils, spoilt; and the head of the planted patch."""
    with open(path) as f:
        text = f.read()
    head = dict(re.findall(r"^(What|In|Red): (.+)$", text.partition("\ndiff ")[0], re.M))
    name = os.path.relpath(path, HARNESS)
    if not {"What", "In", "Red"} <= set(head):
        raise Fail(f"{name}: the header needs the lines What, In and Red")
    victims = [c for c in commits if _subject(c) == head["In"]]
    if not victims:
        raise Fail(f"{name}: no patch of the series is called '{head['In']}'")
    _checkout(victims[0])
    out = git("apply", "--index", path, cwd=TREE, check=False)
    if out.strip():
        raise Fail(f"{name} does not apply: {out.strip().splitlines()[0]}")
    new = git("write-tree", cwd=TREE).strip()
    message = git("log", "-1", "--format=%B", victims[0])
    return head, git("commit-tree", new, "-p", victims[0] + "~", stdin=message, env=base.IDENT).strip()


def _planted(o, commits, always, docs):
    """Each error of harness/planted/ turns red what it says, at the patch that it is planted in."""
    for path in sorted(glob.glob(os.path.join(HARNESS, "planted", "*.patch"))):
        name = os.path.basename(path)[:-len(".patch")]
        try:
            head, commit = _plant(path, commits)
            found = kernel.Outcome(name)
            one(found, commit, always, [], docs)
            mail = git("format-patch", "-q", "-1", "-o", WORK, commit).strip()
            mail = mail or max(glob.glob(WORK + "/0001-*.patch"), key=os.path.getmtime)
            found.check(f"checkpatch: {head['In'][:50]}", style(mail))
            os.unlink(mail)
        except Fail as e:
            o.check(f"planted {name}", str(e))
            continue
        red = [what for what, _ in found.failed]
        want = f"{head['Red']}: {head['In'][:50]}"
        o.check(f"planted {name}: {head['What']}",
                None if red and all(r == want for r in red) else f"red is {red}, not '{want}' alone")
