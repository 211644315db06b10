# SPDX-License-Identifier: GPL-2.0-only
"""The kernel base: from a Debian package to a git repository in the cache."""
import glob
import hashlib
import os
import re
import shutil
import subprocess

from common import BUILD, CACHE, Fail, git, locked, read, removed, run, step, write

# What the series is made for. If the archive has moved on, the newest that it
# serves is used instead, and that is said.
VERSION = "7.3.4"
PACKAGES = ["linux-source-7.3", "linux-source-7.4", "linux-source-7.2"]

DATE = "2026-01-01T00:00:00+0000"
IDENT = {"GIT_AUTHOR_NAME": "kpkeys harness", "GIT_AUTHOR_EMAIL": "harness@localhost",
         "GIT_COMMITTER_NAME": "kpkeys harness", "GIT_COMMITTER_EMAIL": "harness@localhost",
         "GIT_AUTHOR_DATE": DATE, "GIT_COMMITTER_DATE": DATE}


def _sha256(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            h.update(chunk)
    return h.hexdigest()


def _fetch():
    """The package file, as apt has verified it; fetched only once."""
    folder = os.path.join(CACHE, "packages")
    os.makedirs(folder, exist_ok=True)
    for path in sorted(glob.glob(folder + "/linux-source-*.deb")):
        note = path + ".sha256"
        if os.path.exists(note):
            with open(note) as f:
                if f.read().strip() == _sha256(path):
                    return path
        print(f"   {os.path.basename(path)} in the cache is damaged: fetching it again")
        os.unlink(path)

    tmp = os.path.join(CACHE, "packages.new")
    shutil.rmtree(tmp, ignore_errors=True)
    os.makedirs(tmp)
    run(["apt-get", "update"], log="base", check=False)
    for package in PACKAGES:
        out = run(["apt-cache", "policy", package], log="base", check=False)
        if not re.search(r"Candidate: \d", out):
            print(f"   {package} is not served any more")
            continue
        try:
            run(["apt-get", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3",
                 "download", package], log="base", cwd=tmp)
        except Fail as e:
            if "disk full" in str(e):
                raise
            why = "the mirror lists it, but does not serve it: try again later" if re.search(r"\b404\b", str(e)) \
                else "no network?"
            raise Fail(f"{package} cannot be fetched ({why}); {e}") from None
        deb, = glob.glob(tmp + "/*.deb")
        write(deb + ".sha256", _sha256(deb) + "\n")
        for path in (deb + ".sha256", deb):         # the package last: it counts
            os.rename(path, os.path.join(folder, os.path.basename(path)))
        return os.path.join(folder, os.path.basename(deb))
    raise Fail(f"none of {' '.join(PACKAGES)} is served by this Debian mirror")


def _unpack(deb, repo):
    tree = repo + ".new"
    for left in tree, repo + ".git.new":
        shutil.rmtree(left, ignore_errors=True)
    os.makedirs(tree)
    name = os.path.basename(deb).split("_")[0]
    tar = subprocess.run(
        f"dpkg-deb --fsys-tarfile '{deb}' | tar -xO ./usr/src/{name}.tar.xz |"
        f" tar -xJ --strip-components=1 -C '{tree}'",
        shell=True, executable="/bin/bash", capture_output=True, text=True)
    if tar.returncode or not os.path.exists(tree + "/Makefile"):
        why = (tar.stderr.strip().splitlines() or ["?"])[-1]
        if re.search("No space left on device|Wrote only", tar.stderr):
            raise Fail(f"disk full while unpacking {os.path.basename(deb)}: make room below {CACHE}")
        os.unlink(deb)
        raise Fail(f"{os.path.basename(deb)} cannot be unpacked ({why}); it was removed: run again")

    # Debian ignores every file that it has not added itself, which would make
    # git overlook the files that patches add.
    path = os.path.join(tree, ".gitignore")
    lines = read(path)
    write(path, lines.split("\n#\n# Debian packaging")[0] + "\n")

    git("init", "-q", "-b", "base", cwd=tree)
    git("config", "gc.auto", "0", cwd=tree)
    git("-c", "core.compression=1", "add", "-A", "-f", ".", cwd=tree)
    git("commit", "-q", "-m", f"Linux {version(tree)} as packaged by Debian", cwd=tree, env=IDENT)
    # Checkouts are made from the objects alone.
    os.rename(tree + "/.git", repo + ".git.new")
    shutil.rmtree(tree)
    git("config", "core.bare", "true", cwd=repo + ".git.new")
    write(repo + ".git.new/kpkeys-size", _size(repo + ".git.new"))
    os.rename(repo + ".git.new", repo)


def version(tree):
    with open(os.path.join(tree, "Makefile")) as f:
        text = f.read(400)
    return ".".join(re.search(rf"^{k} = (\d+)$", text, re.M)[1]
                    for k in ("VERSION", "PATCHLEVEL", "SUBLEVEL"))


def _size(repo):
    """What a cut-off or overwritten object store would not match."""
    total = n = 0
    for path, _, names in os.walk(os.path.join(repo, "objects")):
        for name in names:
            n += 1
            total += os.path.getsize(os.path.join(path, name))
    return f"{n} {total}\n"


def _intact(repo):
    try:
        return read(repo + "/kpkeys-size") == _size(repo)
    except OSError:
        return False


# The objects of a kernel tree of the user, and which commit of it is the base: see harness/enter.
OWN, COMMIT = os.environ.get("OBJECTS"), os.environ.get("BASE")


def _own():
    """As ensure(): a repository that borrows the user's objects, at the same path inside and outside."""
    # One for each of the user's, as what is made from it borrows the same.
    repo = os.path.join(BUILD, f"base-own-{hashlib.sha256(OWN.encode()).hexdigest()[:12]}.git")
    shutil.rmtree(repo, ignore_errors=True)
    git("init", "-q", "--bare", "-b", "base", repo, cwd=BUILD)
    write(repo + "/objects/info/alternates", OWN + "\n")
    if git("cat-file", "-t", COMMIT + ":MAINTAINERS", cwd=repo, check=False).strip() != "blob":
        raise Fail(f"BASE={COMMIT[:12]} is not a Linux tree, or its objects are not all below {OWN}")
    git("update-ref", "refs/heads/base", COMMIT, cwd=repo)
    return repo


def ensure():
    """The repository of the base (one commit, branch "base"); made if needed."""
    if OWN:
        return _own()
    with locked(os.path.join(CACHE, "base.lock"), "the kernel base in the cache", wait=True):
        repos = sorted(glob.glob(CACHE + "/base-*.git"))
        for repo in repos:
            if _intact(repo):
                return repo
            print(f"   {repo} is damaged: making it again")
            shutil.rmtree(repo)
        with step("kernel base: fetching and unpacking"):
            with removed(os.path.join(CACHE, "packages.new")):
                deb = _fetch()
            served = re.search(r"_([0-9.]+)-", os.path.basename(deb))[1]
            if served != VERSION:
                print(f"   Linux {VERSION} is no longer served; using Linux {served}")
            repo = os.path.join(CACHE, f"base-{served}.git")
            with removed(repo + ".new", repo + ".git.new"):
                _unpack(deb, repo)
        return repo
