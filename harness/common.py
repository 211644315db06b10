# SPDX-License-Identifier: GPL-2.0-only
"""Paths, commands, logs and errors: what every part of the harness uses."""
import contextlib
import fcntl
import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

TOP = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
HARNESS = os.path.join(TOP, "harness")
BUILD = os.path.join(TOP, "build")
LOGS = os.path.join(BUILD, "logs")
RESULTS = os.path.join(BUILD, "results")
LINUX = os.path.join(BUILD, "linux")
CACHE = os.environ.get("KPKEYS_CACHE", "")
CROSS = "aarch64-linux-gnu-"
VERBOSE = bool(os.environ.get("V"))


class Fail(Exception):
    """What the user did or has is wrong: one line, exit status 1."""


def choice(name, valid):
    """The value of variable @name: one of @valid, the first if it is not set."""
    value = os.environ.get(name) or valid[0]
    if value not in valid:
        raise Fail(f"{name}={value} is unknown; it is one of: {' '.join(valid)}")
    return value


def tail(text, lines=5):
    """The last lines of @text, indented."""
    return "\n".join("    " + line for line in text.strip().splitlines()[-lines:])


def log_path(name):
    return os.path.join(LOGS, name.replace(" ", "-") + ".log")


@contextlib.contextmanager
def step(what):
    """One line that says what is going on, and how long it took."""
    start = time.monotonic()
    print(f"== {what} ...", flush=True)
    yield
    print(f"   {what}: {time.monotonic() - start:.0f} s", flush=True)


def run(cmd, log=None, check=True, env=None, stdin=None, cwd=None, timeout=None):
    """Run @cmd and return what it printed. With @log, append to that log.

    If it fails, say which command, and where to read more.
    """
    if VERBOSE:
        print("+ " + " ".join(cmd), flush=True)
    try:
        res = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             input=stdin, text=True, errors="replace", cwd=cwd,
                             timeout=timeout, env=dict(os.environ, **(env or {})))
        out, status = res.stdout, res.returncode
    except subprocess.TimeoutExpired as e:
        out = (e.stdout or b"").decode(errors="replace") if isinstance(e.stdout, bytes) else (e.stdout or "")
        out, status = out + f"\ntimeout after {timeout} s\n", -1
    except FileNotFoundError:
        raise Fail(f"{cmd[0]} is not in the toolchain root: add it to harness/packages") from None
    if log:
        os.makedirs(LOGS, exist_ok=True)
        with open(log_path(log), "a") as f:
            f.write("+ " + " ".join(cmd) + "\n" + out)
    if status and check:
        if "No space left on device" in out:
            raise Fail(f"disk full while running {cmd[0]}: make room below {BUILD} and {CACHE}")
        raise Fail(f"{' '.join(cmd[:3])} failed ({status})" +
                   (f"; log: {log_path(log)}" if log else "") + "\n" + tail(out))
    return out


def two_at_once(function, items):
    """Much of what make and an emulator do keeps one CPU busy, and there are more."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(function, items))


def git(*args, cwd=LINUX, **kw):
    return run(["git", *args], cwd=cwd, **kw)


_results = {}


def save_result(name, data):
    """Write the entries of @data to build/results/NAME.json, beside what this run has there already."""
    _results.setdefault(name, {}).update(data)
    os.makedirs(RESULTS, exist_ok=True)
    with open(os.path.join(RESULTS, name + ".json"), "w") as f:
        json.dump(_results[name], f, indent=1, sort_keys=True)
        f.write("\n")


class Record:
    """What passed and need not be done again: a file of values by name, so that what takes hours may be interrupted.

    Each value has a key, of all that it depends on. One with another key is as good as none.
    """

    def __init__(self, path):
        self.path, self.entries, self.writing = path, {}, threading.Lock()
        if os.path.exists(path):
            with open(path) as f:
                self.entries = json.load(f)

    def get(self, name, key):
        entry = self.entries.get(name)
        return entry["value"] if entry and entry["key"] == key else None

    def put(self, name, key, value):
        with self.writing:
            self.entries[name] = {"key": key, "value": value}
            # Whole or not at all, or an interruption here would cost all of it.
            with open(self.path + ".new", "w") as f:
                json.dump(self.entries, f)
            os.replace(self.path + ".new", self.path)


def key_of(text, *patterns):
    """A key for a Record: @text, the tools, and the files of harness/ that match."""
    for path in sorted(p for pattern in ("packages", *patterns) for p in glob.glob(os.path.join(HARNESS, pattern))):
        with open(path) as f:
            text += f.read()
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def export(repo, revision, where, *paths):
    """The files of a revision of a git repository, or those below @paths, afresh in the folder @where."""
    shutil.rmtree(where, ignore_errors=True)
    os.makedirs(where)
    run(["bash", "-c", "set -o pipefail; git -c safe.directory='*' -C \"$1\" archive \"$2\" \"${@:4}\" | tar -x -C \"$3\"",
         "-", repo, revision, where, *paths], log="export")
    return where


class Limit:
    """The time after which `make test` begins with nothing new, so that it ends in time."""

    def __init__(self):
        self.end = None

    def start(self, minutes):
        self.minutes, self.end = minutes, time.monotonic() + 60 * minutes

    def skips(self, outcome, name, long=0):
        """Is it too late for test @name, or for the @long minutes that it cannot be interrupted?
        Then it is counted as skipped."""
        if not self.end or time.monotonic() + 60 * long < self.end:
            return False
        outcome.skipped.append((name, f"not begun so late, as MINUTES={self.minutes}"))
        return True


limit = Limit()


@contextlib.contextmanager
def locked(path, what, wait=False):
    """Only one run at a time for @path. Says who is in the way."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a+") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            f.seek(0)
            who = f.read().strip() or "another run"
            if not wait:
                raise Fail(f"{what} is in use by {who}: wait for it, or stop it") from None
            print(f"   waiting for {who}, which uses {what}", flush=True)
            fcntl.flock(f, fcntl.LOCK_EX)
        f.truncate(0)
        f.write(f"'make {sys.argv[1]}'\n" if len(sys.argv) > 1 else "a run\n")
        f.flush()
        yield


def table(head, rows):
    """Print @rows of strings in columns."""
    rows = [list(map(str, r)) for r in [head, *rows]]
    width = [max(len(r[i]) for r in rows) for i in range(len(head))]
    for n, r in enumerate(rows):
        print("  ".join(c.ljust(w) for c, w in zip(r, width)).rstrip())
        if n == 0:
            print("  ".join("-" * w for w in width))
