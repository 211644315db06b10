# SPDX-License-Identifier: GPL-2.0-only
"""Break the kernel on purpose: each patch in harness/sabotage/ must be noticed.

Their headers say what is broken ("What:"), which test or message must turn red
("Red:", regular expressions) and by which run ("Run:", values of MAP and MODE, of
SUITE and TIMEOUT; ARGS for the command line; MEMORY in MB; BOOT=1 for a boot to userland instead of KUnit,
and ARGS=only=FUNCTION for one of harness/userland/init). A patch of a header that everything includes names the files that are to see it ("Only:").
CODE=1 is for what disassembly.py must notice, in a tree that has nothing else. Those in harness/field/sabotage
must be noticed by a case of harness/field (CASE=NAME), or by what a cell of harness/matrix boots (CELL=NAME, BOOT=PROGRAM),
which takes a kernel each.

One image has them all, see guard.py, on a copy of the tree below build/sabotage, and
its switch is set in a copy of the image. A patch that cannot be put behind the switch,
or does not compile there, gets a build of its own. One that has "kpkeys_sabotage" in
it asks for the switch itself, and has SABOTAGE where its number is to be.
"""
import glob
import os
import re
import shlex
import shutil
import struct
import zlib
from functools import partial

import boot
import disassembly
import field
import guard
import kernel
import matrix
import tree
from common import BUILD, Fail, HARNESS, TOP, git, limit, read, step, steps_at_once, write

WORK = os.path.join(BUILD, "sabotage")
COPY = os.path.join(WORK, "linux")
ALONE = os.path.join(WORK, "alone")     # with a tree for those that are in no kernel with others
DEFINED = "init/main.c"         # where the switch is


class Sabotage:
    def __init__(self, path):
        self.path = path
        self.name = os.path.basename(path).removesuffix(".patch")
        self.text = read(path)
        head = dict(re.findall(r"^(What|Red|Run|Only): (.+)$", self.text.partition("\ndiff ")[0], re.M))
        if not {"What", "Red", "Run"} <= set(head):
            raise Fail(f"{path}: the header needs the lines What, Red and Run")
        self.files = re.findall(r"^\+\+\+ b/(\S+)", self.text, re.M)
        self.only = head.get("Only", "").split()
        self.what, self.red = head["What"], head["Red"].split()
        self.run = dict(pair.split("=", 1) for pair in shlex.split(head["Run"]))
        # The same whatever other patches there are, so that these build nothing again.
        self.number = zlib.crc32(self.name.encode()) % 0x7fff + 1
        self.own = None                 # why it needs a build of its own
        self.code = "CODE" in self.run  # what notices it is disassembly.py


def find(name=None, folder="sabotage"):
    paths = sorted(glob.glob(os.path.join(HARNESS, folder, "*.patch")))
    found = [s for s in map(Sabotage, paths) if not name or s.name == name]
    if not found:
        raise Fail(f"SABOTAGE={name} is unknown; it is one of: " +
                   " ".join(os.path.basename(p).removesuffix(".patch") for p in paths))
    return found


def rewrite(path, text):
    """Returns whether that changed anything."""
    if os.path.exists(path) and read(path) == text:
        return False
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write(path, text)
    return True


class Tree:
    """The copy of the tree: with everything behind the switch, or with one patch alone."""

    def __init__(self, stack, chosen=(), copy=COPY, apart=False):
        self.apart = apart
        self.commit = tree.make(stack)
        self.chosen, self.before, self.after, self.copy = chosen, {}, {}, copy
        tree.worktree(copy)
        for s in chosen:
            try:
                self.after[s.name] = self._applied(s)
            except Fail as e:
                s.own = str(e)

    def show(self, path):
        if path not in self.before:
            self.before[path] = git("show", f"{self.commit}:{path}")
        return self.before[path]

    def _applied(self, s):
        """The files of a patch as they are with it alone."""
        where = os.path.join(WORK, "apply")
        shutil.rmtree(where, ignore_errors=True)
        for path in s.files:
            rewrite(os.path.join(where, path), self.show(path))
        out = git("apply", "-", cwd=where, check=False, stdin=s.text.replace("SABOTAGE", str(s.number)),
                  env={"GIT_CEILING_DIRECTORIES": WORK})
        if out.strip():
            raise Fail(f"{os.path.relpath(s.path, TOP)} does not apply: {out.strip().splitlines()[0]}")
        return {path: read(os.path.join(where, path)) for path in s.files}

    def guarded(self):
        """The text of each file with everything behind the switch that can be there."""
        texts, patches, numbers = {DEFINED: self.show(DEFINED) + guard.DEFINE}, {}, {}
        for s in self.chosen:
            if numbers.setdefault(s.number, s.name) != s.name:
                raise Fail(f"{s.name} and {numbers[s.number]} have the same number: rename one")
            if s.own:
                continue
            try:
                if guard.SWITCH in s.text:
                    if set(s.files) & set(texts):
                        raise guard.Refused("another patch asks for the switch in this file")
                    texts.update(self.after[s.name])
                    continue
                found = {path: guard.difference(self.before[path], text) for path, text in self.after[s.name].items()}
                for path, difference in found.items():
                    patches.setdefault(path, []).append((s.number, s.only, difference))
            except guard.Refused as e:
                s.own = str(e)
        for path, these in patches.items():
            texts[path] = guard.guarded(texts.get(path, self.before[path]), these, self.apart and path.endswith(".c"))
        return texts

    def bring(self, texts):
        """Write these, and all else as it is in the commit; what is right stays, with its time."""
        was = git("rev-parse", "HEAD", cwd=self.copy).strip()
        git("update-ref", "--no-deref", "HEAD", self.commit, cwd=self.copy)
        git("read-tree", self.commit, cwd=self.copy)
        git("sparse-checkout", "reapply", cwd=self.copy, check=False)       # one of before is whole
        for path in git("diff", "--name-only", "--diff-filter=D", was, self.commit).split():
            if os.path.exists(os.path.join(self.copy, path)):
                os.unlink(os.path.join(self.copy, path))
        git("update-index", "-q", "--refresh", cwd=self.copy, check=False)
        stale = [path for path in git("diff-files", "--name-only", cwd=self.copy).split() if path not in texts]
        if stale:
            git("checkout-index", "-q", "-f", "--stdin", cwd=self.copy, stdin="\n".join(stale))
        for path, text in texts.items():
            rewrite(os.path.join(self.copy, path), text)

    def put(self, texts, only=()):
        """Write these; with @only, so that no other files are compiled again."""
        for path, text in texts.items():
            path = os.path.join(self.copy, path)
            when = os.stat(path).st_mtime_ns
            if rewrite(path, text) and only:
                os.utime(path, ns=(when, when))
        for path in only:
            os.utime(os.path.join(self.copy, path))


def switched(k, number, name, folder=WORK):
    """A copy of the image with @number in the switch; returns its path."""
    where = dict(re.findall(rf"^(\w+) \w (_text|{guard.SWITCH})$", read(os.path.join(k.out, "System.map")), re.M))
    at = {symbol: int(address, 16) for address, symbol in where.items()}
    image = bytearray()
    with open(k.image, "rb") as f:
        image += f.read()
    offset = at[guard.SWITCH] - at["_text"]
    if struct.unpack_from("<I", image, offset)[0]:
        raise Fail(f"{guard.SWITCH} is not where System.map says, or set already")
    struct.pack_into("<I", image, offset, number)
    path = os.path.join(folder, "images", name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(image)
    return path


def _kernel(stack, s=None):
    how = {"args": s.run.get("ARGS", ""), "qemu": kernel.memory(s.run.get("MEMORY", 1024))} if s else {}
    return kernel.Kernel(stack, work=WORK, config=kernel.fragments("arm64", "4k", "kunit", "lockdep"), **how)


def _glob(s):
    """What runs: of a suite only the test that must turn red, if it is one. SUITE=suite.* is for what needs more."""
    suite, red = s.run.get("SUITE", ""), s.red[0]
    alone = re.fullmatch(r"\w+", suite) and len(s.red) == 1 and re.fullmatch(r"kpkeys\w*_test_\w+", red)
    return f"{suite}.{red}" if alone else suite or None


def _ran(s, k):
    """The outcome of what is to notice the sabotage in a kernel."""
    mode, map_ = s.run.get("MODE", "enforce"), s.run.get("MAP", "pte")
    if s.run.get("BOOT"):
        return boot.boot(k, mode, map_)
    return k.kunit(mode, map_, _glob(s), timeout=int(s.run.get("TIMEOUT", 150)))


def _noticed(s, o):
    """None if the sabotage was noticed as it says, else what happened instead."""
    red = [f"{name}: {why}" for name, why in o.failed]
    for want in s.red:
        if not any(re.search(want, r) for r in red):
            return f"{want} is not red; red: {'; '.join(r[:80] for r in red) or 'nothing'}"
    return None


def _checked(o, s, notice):
    try:
        o.check(s.name, notice())
    except Fail as e:
        o.check(s.name, str(e))


def _in_one(o, s, stack, image):
    """Check one of those behind the switch."""
    def notice():
        k = _kernel(stack, s)
        k.image = image
        return _noticed(s, _ran(s, k))

    if not limit.skips(o, s.name):
        _checked(o, s, notice)
    os.unlink(image)


def _by_itself(o, s, stack, copy, texts):
    """Check one that needs a build of its own."""
    def notice():
        k = _kernel(stack, s)
        copy.put(copy.after[s.name], s.only)
        try:
            k.build("Image")
            return _noticed(s, _ran(s, k))
        finally:
            copy.put({path: texts.get(path, copy.before[path]) for path in s.files}, s.only)

    with step(f"sabotage {s.name}, with a build of its own, as it {s.own}: {s.what}"):
        _checked(o, s, notice)


def _compiles(copy, k, s, paths):
    """Do these files compile with one patch behind the switch?"""
    for path in set(paths) & set(s.files):
        alone = (s.number, s.only, guard.difference(copy.before[path], copy.after[s.name][path]))
        copy.put({path: guard.guarded(copy.before[path], [alone])})
        try:
            if path.endswith(".c"):
                k.compile(path[:-2] + ".o", log=f"build {k.name}, {s.name}")
        except Fail:
            return False
    return True


def _build(copy, k):
    """One kernel with all that compiles there; returns the text of its files."""
    while True:
        texts = copy.guarded()
        copy.bring(texts)
        try:
            k.build("Image")
            return texts
        except Fail as e:
            bad = [path for path in texts if path != DEFINED and re.search(rf"\b{re.escape(path[:-2])}\b", str(e))]
            found = [s for s in copy.chosen if not s.own and guard.SWITCH not in s.text and set(s.files) & set(bad)]
            if not found:
                raise
            print(f"   {' '.join(bad)}: does not compile with everything in it; {e}", flush=True)
            # Those that do not even by themselves; or all, if each one does.
            for s in [s for s in found if not _compiles(copy, k, s, bad)] or found:
                s.own = "does not compile behind a switch"


def _alone(o, chosen, stack, look):
    """Check some, each in a tree that has nothing else: @look() at it."""
    if not chosen:
        return
    copy = Tree(stack, chosen, copy=os.path.join(ALONE, "linux"))
    copy.bring({})
    for s in chosen:
        def notice():
            if s.own:
                return s.own
            copy.put(copy.after[s.name])
            try:
                return _noticed(s, look(s))
            finally:
                copy.put({path: copy.show(path) for path in s.files})

        if not limit.skips(o, s.name):
            with step(f"sabotage {s.name}: {s.what}"):
                _checked(o, s, notice)


def _in_field(s, stack):
    """The outcome of the boot that is to notice it."""
    map_ = s.run.get("MAP", "pte")
    if "CASE" in s.run:
        return field.once(stack, s.run["CASE"], map_, ALONE, s.run.get("ARGS", ""), s.run.get("TIMEOUT"))
    k = matrix.cells(s.run["CELL"])[0].kernel(stack, ALONE)
    k.build()
    return boot.boot(k, "enforce", map_, s.run["BOOT"], matrix.STRESS_SECONDS)


def run_field(stack, name):
    """Those of the cases of harness/field, or one of them."""
    o = kernel.Outcome("test the cases")
    _alone(o, find(None if name == "all" else name, "field/sabotage"), stack, lambda s: _in_field(s, stack))
    return [o]


def run_all(stack, name=None):
    o = kernel.Outcome("test-the-tests")
    chosen = find(name)
    _alone(o, [s for s in chosen if s.code], stack,
           lambda s: disassembly.check(os.path.join(ALONE, "linux"), ALONE, windows=False))
    chosen = [s for s in chosen if not s.code]
    if not chosen:
        return [o]
    everything = [s for s in find() if not s.code]
    copy, k = Tree(stack, everything), _kernel(stack)
    with step(f"one kernel with {len(everything)} kinds of sabotage behind a switch, and lockdep"):
        texts = _build(copy, k)
    chosen = [s for s in everything if s.name in {c.name for c in chosen}]
    together = [s for s in chosen if not s.own]
    images = {s.name: switched(k, s.number, s.name) for s in together}
    # What is red without sabotage would prove nothing.
    work = [(f"KUnit without sabotage, MAP={map_}", partial(k.kunit, "enforce", map_))
            for map_ in ([] if name else kernel.MAPS)]
    work += [(f"sabotage {s.name}: {s.what}", partial(_in_one, o, s, stack, images[s.name])) for s in together]
    unbroken = [u for u in steps_at_once(work) if u]
    for u in unbroken:
        u.what += " lockdep"
    for s in chosen:
        if s.own and s.name not in copy.after:
            o.check(s.name, s.own)
        elif s.own and not limit.skips(o, s.name):
            _by_itself(o, s, stack, copy, texts)
    o.note = f"{len(together)} in one kernel"
    return [*unbroken, o]
