# SPDX-License-Identifier: GPL-2.0-only
"""Does the series apply to other versions of the kernel: those that Debian serves.

Only the files that hunks touch are needed, so of each version only the folders
that they are in are kept, in the cache. What such a version calls by another name
is listed in series/names-VERSION; the series is applied with these names.
"""
import glob
import os
import re
import shutil

import base
import kernel
import tree
from common import BUILD, CACHE, Fail, LINUX, TOP, export, listed, locked, read, run, step, write

WORK = os.path.join(BUILD, "rebase")
STORE = os.path.join(CACHE, "rebase")
# The suites that have a kernel of this age; the toolchain root knows only some.
SUITES = ["trixie-backports", "forky", "sid", "experimental"]


def _apt(*args, **kw):
    """apt with lists of its own, so that the toolchain root stays what it is."""
    state = os.path.join(STORE, "apt")
    os.makedirs(state + "/lists/partial", exist_ok=True)
    mirror = read("/etc/apt/sources.list").split()[1]
    with open(state + "/sources.list", "w") as f:
        f.writelines(f"deb {mirror} {suite} main\n" for suite in SUITES)
    arch = run(["dpkg", "--print-architecture"]).strip()
    return run([args[0], "-o", f"Dir::State::lists={state}/lists", "-o", f"Dir::Etc::sourcelist={state}/sources.list",
                "-o", "Dir::Etc::sourceparts=-", "-o", f"Dir::Cache={state}", "-o", f"APT::Architectures={arch}",
                "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "-o", "Acquire::Languages=none",
                *args[1:]], log="rebase", **kw)


def _order(version):
    return [int(n) for n in re.findall(r"\d+", version)]


def _served():
    """The newest version of each package with a kernel source: {package: version}."""
    _apt("apt-get", "update", check=False)
    major, minor = base.VERSION.split(".")[:2]
    names = re.findall(rf"^linux-source-{major}\.\d+\b", _apt("apt-cache", "search", "--names-only",
                                                             rf"^linux-source-{major}\."), re.M)
    wanted = {f"linux-source-{major}.{int(minor) + d}" for d in (-1, 0, 1)}
    found = dict.fromkeys(wanted)
    for name in set(names):
        versions = re.findall(r"\| *(\S+) *\|", _apt("apt-cache", "madison", name))
        found[name] = max(versions, key=_order, default=None)
    return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def _folder(path):
    """What is kept for the sake of @path: a folder, or the file if it lies at the top."""
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] == "arch" else parts[0]


def _fetch(package, version, folders):
    """The folder in the cache that has these folders of a kernel source."""
    where = os.path.join(STORE, f"{package}_{version}")
    if all(os.path.exists(os.path.join(where, f)) for f in folders):
        return where
    new = where + ".new"
    shutil.rmtree(new, ignore_errors=True)
    os.makedirs(new + "/deb")
    os.makedirs(new + "/tree")
    _apt("apt-get", "download", f"{package}={version}", cwd=new + "/deb")
    deb, = glob.glob(new + "/deb/*.deb")
    run(["bash", "-c", "set -o pipefail; dpkg-deb --fsys-tarfile \"$1\" | tar -xO ./usr/src/$2.tar.xz |"
         " tar -xJ --strip-components=1 -C \"$3\" \"${@:4}\"", "-", deb, package, new + "/tree",
         *(f"{package}/{f}" for f in folders)], log="rebase")
    shutil.rmtree(where, ignore_errors=True)
    os.rename(new + "/tree", where)
    shutil.rmtree(new)
    return where


def _names(version):
    """A function that puts the names of this version into a text."""
    path = os.path.join(tree.SERIES, "names-" + ".".join(version.split(".")[:2]))
    if not os.path.exists(path):
        return lambda text: text
    names = dict(line.split() for line in listed(path))
    return lambda text: re.sub(r"\b(?:" + "|".join(names) + r")\b", lambda m: names[m[0]], text)


def _apply(patch, where, names):
    """What patch(1) says of the hunks: lists of those that moved, took fuzz, failed."""
    moved, fuzz, failed = [], [], []
    for path in patch.new:
        full = os.path.join(where, path)
        if os.path.exists(full):
            failed.append(f"{path}: exists already")
        os.makedirs(os.path.dirname(full), exist_ok=True)
        write(full, names(read(os.path.join(TOP, path))))
    for diff in re.split(r"^(?=diff --git )", names(patch.hunks), flags=re.M)[1:]:
        path = re.search(r"^\+\+\+ b/(\S+)", diff, re.M)[1]
        if not os.path.exists(os.path.join(where, path)):
            failed.append(f"{path}: no such file")
            continue
        starts = re.findall(r"^@@ -(\d+).*", diff, re.M)
        out = run(["patch", "-p1", "--batch", "--forward", "--no-backup-if-mismatch", "--reject-file=-"], cwd=where,
                  stdin=diff, log="rebase", check=False)
        for n, rest in re.findall(r"^Hunk #(\d+) (.*)", out, re.M):
            name = f"{path}, hunk {n} (line {starts[int(n) - 1]})"
            if "succeeded" not in rest:
                failed.append(name)
            elif "fuzz" in rest:
                fuzz.append(name)
            else:
                moved.append(name)
        if not re.search(r"^patching file|^Hunk", out, re.M):
            failed.append(f"{path}: {out.strip().splitlines()[-1]}")
    return moved, fuzz, failed


def _try(stack, what, source):
    """One version: an outcome with a test a patch."""
    version = base.version(source)
    o, names = kernel.Outcome(f"Linux {version} ({what})"), _names(version)
    where = os.path.join(WORK, "tree")
    shutil.rmtree(where, ignore_errors=True)
    patches = tree.stack(stack)
    for path in sorted({p for patch in patches for p in re.findall(r"^\+\+\+ b/(\S+)", patch.hunks, re.M)}):
        if os.path.exists(os.path.join(source, path)):
            os.makedirs(os.path.dirname(os.path.join(where, path)), exist_ok=True)
            shutil.copy(os.path.join(source, path), os.path.join(where, path))
    for patch in patches:
        for path in patch.new:
            if os.path.exists(os.path.join(source, path)):
                shutil.copy(os.path.join(source, path), os.path.join(where, path))
    moved = fuzz = 0
    for patch in patches:
        m, f, failed = _apply(patch, where, names)
        moved, fuzz = moved + len(m), fuzz + len(f)
        for hunk in f:
            print(f"   fuzz: {patch.name}: {hunk}")
        o.check(patch.name, f"fails: {'; '.join(failed)}" if failed else None)
    o.note = ("does not apply" if o.failed else "applies with fuzz" if fuzz else "applies") + \
        f": {moved} hunks moved, {fuzz} took fuzz"
    return o


def check(stack):
    folders = sorted({_folder(p) for patch in tree.stack(stack)
                      for p in re.findall(r"^\+\+\+ b/(\S+)", patch.hunks, re.M) + patch.new} | {"Makefile"})
    outcomes = []
    with step("the version that the series is made for"):
        outcomes.append(_try(stack, "the base", export(LINUX, "origin/base", os.path.join(WORK, "base"), *folders)))
    with locked(os.path.join(CACHE, "rebase.lock"), "kernel sources in the cache", wait=True):
        for package, version in _served().items():
            if not version:
                o = kernel.Outcome(package)
                o.skipped.append((package, "is not served by this Debian mirror"))
                outcomes.append(o)
                continue
            with step(f"{package} {version}"):
                try:
                    outcomes.append(_try(stack, f"{package} {version}", _fetch(package, version, folders)))
                except Fail as e:
                    o = kernel.Outcome(package)
                    o.check("fetched", str(e))
                    outcomes.append(o)
    return outcomes
