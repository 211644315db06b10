# SPDX-License-Identifier: GPL-2.0-only
"""Between the repository and build/linux: patches to commits and back.

A patch file is a readable mail, below a line that says so:

    # One patch of the series ...
    Subject: mm: Add something

    Why.

    ---
    new: mm/something.c
    gone: mm/other.c
    not-for-merging

    diff --git a/mm/Makefile b/mm/Makefile
    ...

The files behind "new:" are whole in the repository, at their kernel paths, so
that the hunks only touch files which the base has. A patch that is marked
not-for-merging may also touch those of the stack itself, or drop them ("gone:").

A stack of another design is in a folder of its own below compare/, with its own
new files. It lists the stack that it shares the patches of, and patches that come
on top of these, but in front of what is not for merging. They may touch what the
shared ones add: they are the difference between the two.

A stack may also be the beginning of another, which can be merged without the rest.
"""
import glob
import hashlib
import os
import re
import shutil
import time

import base
from common import BUILD, Fail, LINUX, TOP, choice, git, listed, read, step, write

STACKS = ["split-reserve", "gfp-flag", "gfp-flag-2-4", "reserve"]
SERIES = os.path.join(TOP, "series")
HEADS = {"reserve": "split-reserve"}        # the beginning of which stack
COMPARE = {"gfp-flag": "compare/gfp-flag", "gfp-flag-2-4": "compare/gfp-flag"}
# Where the product lives in the repository: every file in there belongs to a
# patch.
PRODUCT = ["arch", "include", "lib", "mm", "tools", "kernel", "security", "fs", "Documentation"]
NFM = "[NOT FOR MERGING] "
FIRST_LINE = "# One patch of the series: message, new files, hunks. 'git am' takes release/*.mbx, not this.\n"


def folder(stack_name_, top=TOP):
    """Where the list and the own patches of a stack are."""
    return os.path.join(top, COMPARE.get(stack_name_, "series"))


class Patch:
    def __init__(self, name, text, own=None, top=TOP):
        """@own: the folder of a patch that is not one of series/."""
        self.name, self.own = name, own
        self.root = own or top
        self.new, self.gone = [], []
        self.not_for_merging = False
        m = re.match(r"(?:#.*\n)*Subject: ([^\n]+)\n\n(.*?)(?:^---\n(.*?))?(?:^(diff --git .*))?\Z", text, re.S | re.M)
        if not m:
            raise Fail(f"series/{name}: not a mail with a Subject, a body and a line '---'")
        self.subject, self.body, notes, hunks = m.groups()
        self.hunks = hunks or ""
        for line in (notes or "").split("\n"):
            if line.startswith("new: "):
                self.new.append(line[5:])
            elif line.startswith("gone: "):
                self.gone.append(line[6:])
            elif line == "not-for-merging":
                self.not_for_merging = True
            elif line:
                raise Fail(f"series/{name}: '{line}' below '---' is none of 'new: FILE', 'gone: FILE' and "
                           "'not-for-merging'")

    def where(self, path):
        """Where the new file @path is."""
        return os.path.join(self.root, path)

    def message(self):
        return f"{self.subject}\n\n{self.body.strip()}\n"

    def text(self):
        notes = "".join(f"new: {path}\n" for path in self.new) + "".join(f"gone: {path}\n" for path in self.gone)
        notes += "not-for-merging\n" if self.not_for_merging else ""
        return (f"{FIRST_LINE}Subject: {self.subject}\n\n{self.body.strip()}\n\n---\n{notes}" +
                (f"\n{self.hunks}" if self.hunks else ""))


def stack_name():
    return choice("STACK", STACKS)


def _lines(name, suffix="", top=TOP):
    return [line.strip() for line in listed(os.path.join(folder(name, top), name + ".stack"))
            if line.strip().endswith(suffix)]


def stack(name, top=TOP):
    """The patches of a stack, in order."""
    own = folder(name, top)
    patches = []
    names = _lines(name, top=top)
    if name in HEADS and names != _lines(HEADS[name], top=top)[:len(names)]:
        raise Fail(f"series/{name}.stack is not the beginning of {HEADS[name]}.stack: it must list the same patches "
                   "in the same order")
    for n in names:
        if n.endswith(".stack"):
            patches += stack(n.removesuffix(".stack"), top)
            continue
        path = os.path.join(own, n)
        if not os.path.exists(path):
            raise Fail(f"{name}.stack lists {n}, which does not exist")
        patches.append(Patch(n, read(path), own if name in COMPARE else None, top))
    # What is not for merging stays behind the patches of a stack that includes it.
    return sorted(patches, key=lambda p: p.not_for_merging)


def product_files(top=TOP):
    found = set()
    for folder in PRODUCT:
        for path, _, names in os.walk(os.path.join(top, folder)):
            found |= {os.path.relpath(os.path.join(path, n), top) for n in names}
    return found


def _check_claims(patches, top):
    claimed = {}
    for p in patches:
        for path in p.new:
            if path in claimed:
                raise Fail(f"{path} is added by two patches: {claimed[path]} and {p.name}")
            if not os.path.exists(p.where(path)):
                raise Fail(f"{p.name} adds {path}, which is not in the repository")
            claimed[path] = p.name
    for path in sorted(product_files(top) - set(claimed)):
        raise Fail(f"{path} is in the repository, but no patch adds it ('new: {path}')")


def _commit(tree, parent, message, cwd):
    return git("commit-tree", tree, "-p", parent, stdin=message, env=base.IDENT, cwd=cwd).strip()


def assemble(name, cwd=LINUX, top=TOP):
    """Make the commits of a stack, without a work tree; returns the last. @top: another version of this repository."""
    patches = stack(name, top)
    _check_claims(stack(HEADS[name], top) if name in HEADS else patches, top)
    content = hashlib.sha256(f"{cwd} {git('rev-parse', 'origin/base', cwd=cwd)}".encode())
    for p in patches:
        content.update(p.text().encode())
        for path in p.new:
            with open(p.where(path), "rb") as f:
                content.update(f"\n{path} {os.access(f.name, os.X_OK)}\n".encode() + f.read())
    # What was made of the same content is there.
    ref = f"refs/kpkeys/{content.hexdigest()[:16]}"
    commit = git("rev-parse", "-q", "--verify", ref, cwd=cwd, check=False).strip()
    if not commit:
        commit = _assemble(patches, cwd)
        git("update-ref", ref, commit, cwd=cwd)
    return commit


def _assemble(patches, cwd):
    commit = git("rev-parse", "origin/base", cwd=cwd).strip()
    index = {"GIT_INDEX_FILE": os.path.join(cwd, ".git", "assemble-index")}
    # Only one run at a time gets here; what is there is left from one that was killed.
    for stale in (index["GIT_INDEX_FILE"], index["GIT_INDEX_FILE"] + ".lock"):
        if os.path.exists(stale):
            os.unlink(stale)
    git("read-tree", commit, env=index, cwd=cwd)
    for p in patches:
        if p.hunks:
            out = git("apply", "--cached", "--whitespace=nowarn", "-", stdin=p.hunks, env=index, cwd=cwd, check=False)
            bad = re.search(r"error: (?:patch failed: (\S+):(\d+)|(.+))", out)
            if bad:
                where = f"{bad[1]}, the hunk at line {bad[2]}" if bad[1] else bad[3]
                raise Fail(f"{os.path.relpath(p.own or SERIES, TOP)}/{p.name} does not apply: {where}")
        if p.new:
            files = [p.where(path) for path in p.new]
            blobs = git("hash-object", "-w", "--no-filters", "--stdin-paths", stdin="\n".join(files), cwd=cwd).split()
            modes = ["100755" if os.access(f, os.X_OK) else "100644" for f in files]
            git("update-index", "--add", "--index-info", env=index, cwd=cwd,
                stdin="".join(f"{mode} {blob}\t{path}\n" for mode, blob, path in zip(modes, blobs, p.new)))
        if p.gone:
            git("update-index", "--force-remove", *p.gone, env=index, cwd=cwd)
        tree = git("write-tree", env=index, cwd=cwd).strip()
        commit = _commit(tree, commit, p.message(), cwd)
    os.unlink(index["GIT_INDEX_FILE"])
    return commit


def ensure():
    repo = base.ensure()
    if os.path.isdir(LINUX + "/.git"):
        has = git("rev-parse", "-q", "--verify", "origin/base", check=False).strip()
        if has and os.path.exists(os.path.join(LINUX, ".git/complete")):
            if has == git("rev-parse", "base", cwd=repo).strip():
                return
            if _work():
                if not os.environ.get("FORCE"):
                    raise Fail("build/linux has work, and another base than is asked for now: 'make refresh' with the "
                               "LINUX and BASE of before keeps it, 'make tree FORCE=1' puts it aside")
                aside = time.strftime(LINUX + "-kept-%Y%m%d-%H%M%S", time.gmtime())
                os.rename(LINUX, aside)
                print(f"   build/linux: what it was is {os.path.relpath(aside, TOP)} now")
    with step("build/linux: checking out the base"):
        shutil.rmtree(LINUX, ignore_errors=True)
        os.makedirs(BUILD, exist_ok=True)
        try:
            git("clone", "-q", "--shared", "--branch", "base", repo, LINUX, cwd=BUILD)
            git("config", "gc.auto", "0")
            # Seen from outside, where the owner may be another, the files are still the same.
            git("config", "core.checkStat", "minimal")
            git("update-ref", "refs/kpkeys/assembled", "HEAD")
            open(os.path.join(LINUX, ".git/complete"), "w").close()
        except BaseException:
            # Half of it would take the place that is missing.
            shutil.rmtree(LINUX, ignore_errors=True)
            raise


def _ours():
    """The commits in build/linux that were made here."""
    return git("for-each-ref", "--format=%(objectname)", "refs/kpkeys").split()


def _work():
    """Is there anything in build/linux that was not made here?"""
    refs = git("for-each-ref", "--format=%(objectname)", "refs/heads", "refs/stash").split()
    return git("status", "--porcelain").strip() or not {git("rev-parse", "HEAD").strip(), *refs} <= set(_ours())


def _state(name):
    """What a stack is to be, what build/linux has that is in no commit, and the commits there that are the user's."""
    ensure()
    want = assemble(name)
    edits = git("status", "--porcelain", "--untracked-files=normal").rstrip().splitlines()
    ours = _ours()
    here = git("rev-parse", "HEAD").split() + git("for-each-ref", "--format=%(objectname)", "refs/heads/" + name).split()
    # The same content by other commits is what refresh leaves behind.
    return want, edits, [c for c in dict.fromkeys(here)
                         if c not in ours and git("diff", "--name-only", c, want).strip()]


def make(name):
    """`make tree`: bring build/linux to what the repository says."""
    want, edits, commits = _state(name)
    if edits and not os.environ.get("FORCE"):
        raise Fail(f"build/linux has edits that are in no commit ({edits[0].strip()}, ...): "
                   "commit them and 'make refresh', or put them aside by 'make tree FORCE=1'")
    if commits and not os.environ.get("FORCE"):
        raise Fail("build/linux has commits that the repository does not have: "
                   "'make refresh' to keep them, 'make tree FORCE=1' to put them aside")
    if edits:
        git("stash", "push", "-q", "-u", "-m", "make FORCE=1", env=base.IDENT)
        print("   build/linux: what was in no commit is in 'git stash' now")
    for commit in commits:
        kept = f"kept-{commit[:12]}"
        git("branch", "-q", "-f", kept, commit)
        print(f"   build/linux: the commits that are not in the repository are in branch {kept} now")
    # Only what differs is written, so that the next build is incremental.
    git("checkout", "-q", "-B", name, want)
    git("branch", "-q", "--set-upstream-to=origin/base", name)      # for git rebase
    return want


def as_it_is(name):
    """For what builds build/linux as the user has it: make(), unless there is work; says how that differs."""
    want, edits, commits = _state(name)
    branch = git("branch", "--show-current").strip()
    if not edits and git("rev-parse", "HEAD").strip() not in commits or branch in set(STACKS) - {name}:
        make(name)
        return
    files = git("diff", "--name-only", want).split() + [e[3:] for e in edits if e.startswith("??")]
    print("build/linux is built as it is; what differs from series/: " + " ".join(files[:3]) +
          (f" and {len(files) - 3} more" if files[3:] else ""), flush=True)


# Two thirds of the sources, of which no configuration here has anything.
ABSENT = [*(f"!/{folder}/**/*.[ch]" for folder in [
    "drivers/gpu/drm", "drivers/media", "drivers/net/*", "drivers/infiniband", "drivers/scsi", "drivers/staging",
    "drivers/iio", "drivers/accel", "sound"]),
    "!/Documentation/*/*", "!/tools/perf/*", "!/arch/*/boot/dts/**/*.dts*"]


def worktree(path, commit=None):
    """A work tree of build/linux; at @commit, if there is one. What is right there stays as it is."""
    # Those of a build/linux that is gone are of no use.
    if not os.path.exists(path + "/.git") or f"worktree {path}\n" not in git("worktree", "list", "--porcelain"):
        shutil.rmtree(path, ignore_errors=True)
        git("worktree", "prune")
        with step(f"{os.path.relpath(path, TOP)}: checking out"):
            git("worktree", "add", "-q", "--detach", "--no-checkout", path, commit or "origin/base")
            git("sparse-checkout", "set", "--no-cone", "/*", *ABSENT, cwd=path)
            git("checkout", "-q", "--force", "HEAD", cwd=path)
    if commit:
        git("checkout", "-q", "--force", "--detach", commit, cwd=path)


def kept():
    """What FORCE=1 has put aside."""
    return git("for-each-ref", "--format=%(refname:short)", "refs/stash", "refs/heads/kept-*").split() + \
        [os.path.basename(path) for path in sorted(glob.glob(LINUX + "-kept-*"))]


def _slug(subject):
    return re.sub(r"[^a-z0-9]+", "-", subject.removeprefix(NFM).lower()).strip("-")[:56].strip("-")


def _commits(last, cwd):
    """From the first after the base to @last."""
    return git("rev-list", "--reverse", f"origin/base..{last}", cwd=cwd).split()


def _patch_of(commit, n, source):
    """A commit as a patch, and the paths that its hunks touch."""
    subject, _, body = git("log", "-1", "--format=%B", commit, cwd=source).partition("\n")
    p = Patch(f"{n:02d}-{_slug(subject)}.patch", f"Subject: {subject}\n\n{body.strip()}\n\n---\n")
    p.not_for_merging = subject.startswith(NFM)
    paths = {"A": p.new, "D": p.gone, "M": [], "T": []}
    for line in git("diff-tree", "-r", "--no-renames", "--name-status", "--no-commit-id",
                    commit, cwd=source).splitlines():
        status, path = line.split("\t")
        paths[status].append(path)
    hunks = paths["M"] + paths["T"]
    if hunks:
        p.hunks = git("-c", "diff.algorithm=histogram", "diff-tree", "-p", "--no-renames", "--abbrev=12",
                      "--no-commit-id", "--no-ext-diff", commit, "--", *hunks, cwd=source)
    return p, hunks


def _write(p, commit, source, top, path):
    """Patch @p to @path, and its new files below @top."""
    for new in p.new:
        full = os.path.join(top, new)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        write(full, git("show", f"{commit}:{new}", cwd=source))
        mode = git("ls-tree", commit, "--", new, cwd=source).split()[0]
        os.chmod(full, 0o755 if mode == "100755" else 0o644)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write(path, p.text())


def _write_list(path, names):
    write(path, "# SPDX-License-Identifier: GPL-2.0-only\n# One patch a line, in the order in which they apply.\n" +
          "".join(name + "\n" for name in names))


def _refresh_own(name, source, top):
    """As refresh(), of a stack that includes another: the patches of that one must be as they are."""
    def patch_id(commit):
        return git("patch-id", "--stable", stdin=git("diff-tree", "-p", commit, cwd=source), cwd=source).split()[:1]

    own, (included,) = folder(name, top), _lines(name, ".stack")
    shared = {p.name for p in stack(included.removesuffix(".stack"))}
    known = {p.subject: (p, commit) for p, commit in zip(stack(name), _commits(assemble(name), source))}
    names = []
    for n, commit in enumerate(_commits("HEAD", source), 1):
        p, _ = _patch_of(commit, n, source)
        was, old = known.get(p.subject, (None, None))
        if was and was.name in shared:
            if patch_id(commit) != patch_id(old) or p.message() != was.message():
                raise Fail(f"'{p.subject}' belongs to {included}: change it there, after 'make tree STACK=...'")
            continue
        p.name = was.name if was else p.name[3:]
        _write(p, commit, source, own, os.path.join(own, p.name))
        names.append(p.name)
    _write_list(os.path.join(own, name + ".stack"), [included, *names])
    return len(names)


def refresh(name, source, top=TOP):
    """`make refresh`: write the commits of @source back as patches and files."""
    if git("status", "--porcelain", "--untracked-files=no", cwd=source).strip():
        raise Fail(f"{source} has edits that are in no commit: commit them first")
    branch = git("symbolic-ref", "-q", "--short", "HEAD", cwd=source, check=False).strip()
    if branch in STACKS and branch != name:
        raise Fail(f"{source} is stack {branch}, not {name}: 'make refresh STACK={branch}'")
    if name in HEADS:
        raise Fail(f"stack {name} is the beginning of {HEADS[name]}: change its patches there, after "
                   f"'make tree STACK={HEADS[name]}'")
    if name in COMPARE:
        return _refresh_own(name, source, top)
    ends = {head: stack(head)[-1].subject for head, whole in HEADS.items() if whole == name}
    patches, added = [], {}
    for n, commit in enumerate(_commits("HEAD", source), 1):
        p, changed = _patch_of(commit, n, source)
        for path in set(changed + p.gone) & set(added):
            if not p.not_for_merging:
                raise Fail(f"'{p.subject}' changes {path}, which '{added[path]}' adds: "
                           "make it one with 'git commit --fixup' and 'git rebase -i --autosquash'")
        added.update((path, p.name) for path in p.new)
        patches.append((p, commit))

    subjects = [p.subject for p, _ in patches]
    for head, last in ends.items():
        if last not in subjects:
            raise Fail(f"no patch is called '{last}' any more, which is the last of stack {head}: "
                       f"list the patches of {head} in series/{head}.stack by hand, then 'make refresh' again")
    old = {path for p in stack(name) for path in p.new} if os.path.exists(f"{SERIES}/{name}.stack") else set()
    for path in old - set(added):
        if os.path.exists(os.path.join(top, path)):
            os.unlink(os.path.join(top, path))
    series = os.path.join(top, "series")
    os.makedirs(series, exist_ok=True)
    for stale in os.listdir(series):
        if stale.endswith(".patch"):
            os.unlink(os.path.join(series, stale))
    for p, commit in patches:
        _write(p, commit, source, top, os.path.join(series, p.name))
    for n, last in [(name, subjects[-1]), *ends.items()]:
        _write_list(os.path.join(series, n + ".stack"), [p.name for p, _ in patches[:subjects.index(last) + 1]])
    return len(patches)


def round_trip(name, source=LINUX):
    """None if refresh gives back exactly what the repository has, else why not. @source is at that stack."""
    scratch = os.path.join(BUILD, "round-trip")
    shutil.rmtree(scratch, ignore_errors=True)
    if source == LINUX:
        make(name)
    refresh(name, source, scratch)
    own = COMPARE.get(name, "series")
    patches = [p for p in stack(name) if p.name in _lines(name)]
    want = {f"{own}/{p.name}" for p in patches} | {f"{own}/{name}.stack"}
    want |= {f"{own}/{head}.stack" for head, whole in HEADS.items() if whole == name}
    want |= {os.path.relpath(p.where(path), TOP) for p in patches for path in p.new}
    have = {os.path.relpath(os.path.join(d, n), scratch) for d, _, names in os.walk(scratch) for n in names}
    for path in sorted(want ^ have):
        return f"{path} is only on one side"
    for path in sorted(want):
        with open(os.path.join(TOP, path), "rb") as a, open(os.path.join(scratch, path), "rb") as b:
            if a.read() != b.read():
                return f"{path} differs"
    return None
