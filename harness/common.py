# SPDX-License-Identifier: GPL-2.0-only
"""Paths, commands, logs and errors: what every part of the harness uses."""
import contextlib
import fcntl
import glob
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

TOP = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
HARNESS = os.path.join(TOP, "harness")
BUILD = os.path.join(TOP, "build")
# One folder a run, with all that it said.
LOGS = os.path.join(BUILD, "logs", "-".join([time.strftime("%Y%m%d-%H%M%S", time.gmtime()),
                                            *(a for a in sys.argv[1:2] if re.fullmatch("[a-z-]+", a))]))
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


def read(path):
    with open(path) as f:
        return f.read()


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


def listed(path):
    """The lines of a file that are neither empty nor comments."""
    return [line for line in read(path).splitlines() if line.strip() and not line.startswith("#")]


def tail(text, lines=5):
    """The last lines of @text, indented."""
    return "\n".join("    " + line for line in text.strip().splitlines()[-lines:])


def log_path(name):
    return os.path.join(LOGS, re.sub(r"[^\w.=,-]+", "-", name) + ".log")


def new_log(name):
    """A name of a log that is none yet: @name, or with a number behind it."""
    os.makedirs(LOGS, exist_ok=True)
    for n in itertools.count(2):
        with contextlib.suppress(FileExistsError):
            os.close(os.open(log_path(name), os.O_CREAT | os.O_EXCL))
            return name
        name = f"{name.removesuffix(f' {n - 1}')} {n}"


def number(name, default, what="number"):
    """The value of variable @name, a whole number above 0."""
    value = os.environ.get(name) or str(default)
    if not re.fullmatch(r"0*[1-9]\d*", value):
        raise Fail(f"{name.removeprefix('FUZZ_')}={value} is not a {what}")
    return int(value)


PROGRESS = 10 if sys.stdout.isatty() else 60        # seconds
MOST = 128 << 20                                    # bytes that what goes to a log may be
# What run() adds to the output of what it had to stop.
STOPPED = re.compile(r"^(?:timeout after \d+ s|prints without end: stopped after \d+ MB)$", re.M)
spent = []              # (seconds, what) of each step
_latest = {}            # the last line that went to a log, by thread


@contextlib.contextmanager
def step(what):
    """One line that says what is going on, one at times that it still is, and one that says how long it took."""
    start, over, thread = time.monotonic(), threading.Event(), threading.get_ident()
    _latest.pop(thread, None)

    def seconds():
        return time.monotonic() - start

    def ticks():
        while not over.wait(PROGRESS):
            print(f"   {what}: {seconds():.0f} s so far; {_latest.get(thread, 'at work')}", flush=True)

    print(f"== {what} ...", flush=True)
    threading.Thread(target=ticks, daemon=True).start()
    try:
        yield
        print(f"   {what}: {seconds():.0f} s", flush=True)
    finally:
        over.set()
        spent.append((seconds(), what))


_running, _stopped = set(), threading.Event()


def _signal_all(signal_):
    for proc in list(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(proc.pid, signal_)


def interrupted(*_):
    """On a signal: what runs is to end, too, and leaves in its log what it has said."""
    # Another one, from timeout(1) or an impatient hand, must not stop what cleans up after the first.
    if _stopped.is_set():
        return
    _stopped.set()
    _signal_all(signal.SIGINT)
    late = threading.Timer(3, _signal_all, [signal.SIGKILL])
    late.daemon = True
    late.start()
    raise KeyboardInterrupt


def _follow(proc, log, until):
    """The lines that @proc prints, which go to the @log as they come; no more is needed after one that is @until."""
    lines, built, size = [], 0, 0
    for line in proc.stdout:
        lines.append(line)
        if until and until(line):
            os.killpg(proc.pid, signal.SIGKILL)
            until = None
        if not log:
            continue
        size += len(line)
        if size > MOST:
            os.killpg(proc.pid, signal.SIGKILL)
            return "".join(lines[:1000]) + f"\nprints without end: stopped after {MOST >> 20} MB\n"
        log.write(line)
        log.flush()
        built += bool(re.match(r"  (?:CC|AS|LD)\b", line))
        if line.strip():
            _latest[threading.get_ident()] = (f"{built} objects; " if built else "") + line.strip()[:90]
        if VERBOSE:
            print(line, end="", flush=True)
    return "".join(lines)


def run(cmd, log=None, check=True, env=None, stdin=None, cwd=None, timeout=None, until=None):
    """Run @cmd and return what it printed. With @log, append to that log, and with V=1 to the terminal.

    If it fails, say which command, and where to read more.
    """
    if VERBOSE:
        print("+ " + " ".join(cmd), flush=True)
    if _stopped.is_set():
        raise KeyboardInterrupt
    late = threading.Event()
    with contextlib.ExitStack() as files:
        feed, to = subprocess.DEVNULL, None
        if stdin:
            feed = files.enter_context(tempfile.TemporaryFile("w+"))
            feed.write(stdin)
            feed.seek(0)
        if log:
            os.makedirs(LOGS, exist_ok=True)
            to = files.enter_context(open(log_path(log), "a"))
            to.write("+ " + " ".join(cmd) + "\n")
            to.flush()
        try:
            # In a group of its own, which ends as a whole.
            proc = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=feed, text=True,
                                    errors="replace", cwd=cwd, env=dict(os.environ, **(env or {})),
                                    start_new_session=True)
        except FileNotFoundError:
            raise Fail(f"{cmd[0]} is not in the toolchain root: add it to harness/packages") from None
        _running.add(proc)
        clock = threading.Timer(timeout or 0, lambda: (late.set(), os.killpg(proc.pid, signal.SIGKILL)))
        if timeout:
            clock.start()
        try:
            with proc:
                out = _follow(proc, to, until)
            status = proc.returncode
        except BaseException:
            # What does not end by the signal that it had: nothing of it is left.
            with contextlib.suppress(subprocess.TimeoutExpired):
                proc.wait(3)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(proc.pid, signal.SIGKILL)
            raise
        finally:
            clock.cancel()
            _running.discard(proc)
        if late.is_set():
            out, status = out + f"\ntimeout after {timeout} s\n", -1
            if to:
                to.write(f"\ntimeout after {timeout} s\n")
    if _stopped.is_set():
        raise KeyboardInterrupt
    if status and check:
        # Two of these are what git says.
        if re.search("No space left on device|Out of diskspace|unable to write file", out):
            raise Fail(f"disk full while running {cmd[0]}: make room below {BUILD} and {CACHE}")
        wrong = [line for line in out.splitlines() if re.search(r"\berror: |undefined reference", line)][:5]
        raise Fail(f"{' '.join(cmd[:3])} failed ({status})" +
                   (f"; log: {log_path(log)}" if log else "") + "\n" + tail("\n".join(wrong) or out))
    return out


def steps_at_once(work):
    """The results of these (what, function), two at a time, each as a step."""
    def one(item):
        with step(item[0]):
            return item[1]()
    return two_at_once(one, work)


def two_at_once(function, items):
    """Much of what make and an emulator do keeps one CPU busy, and there are more."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(function, items))


def git(*args, cwd=LINUX, **kw):
    return run(["git", *args], cwd=cwd, **kw)


_results = {}


def save_result(name, data):
    """Write the entries of @data to build/results/NAME.json and to the logs, beside what this run has there."""
    _results.setdefault(name, {}).update(data)
    for folder in RESULTS, LOGS:
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, name + ".json"), "w") as f:
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
        text += read(path)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def export(repo, revision, where, *paths):
    """The files of a revision of a git repository, or those below @paths, afresh in the folder @where."""
    shutil.rmtree(where, ignore_errors=True)
    os.makedirs(where)
    run(["bash", "-c", "set -o pipefail; git -c safe.directory='*' -C \"$1\" archive \"$2\" \"${@:4}\" | tar -x -C \"$3\"",
         "-", repo, revision, where, *paths], log="export")
    return where


@contextlib.contextmanager
def removed(*paths):
    """Folders and files that are gone in the end, whatever happens: nothing half-done takes the place that is missing."""
    try:
        yield
    finally:
        for path in paths:
            if os.path.isfile(path):
                os.unlink(path)
            else:
                shutil.rmtree(path, ignore_errors=True)


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
