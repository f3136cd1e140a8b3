"""SIGKILL of a daemon, or of one of its renderers, at one chosen system call: strace is attached and told which.

Owns the listing of a process's calls on its state directory, and the killing at one of them. Knows nothing of sessions.

strace counts calls *of each thread*, so what is done is cut into steps, and a point is (step, call, path, number): among the
calls of one thread on one path since the step began. Few are hidden behind another thread's call of the same number; ``Listing``
says how many. The signal comes before the call is carried out, so the next point shows what a call left behind. Only calls that
change something, open or close are listed: a kill at any other leaves what a kill at the next of these leaves.
(`--seccomp-bpf` would be faster, and never kill: strace 6.1 injects errors there, but no signals.)
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from attrs import frozen

from tests.process.daemon import Daemon
from tests.scenarios.support import until

CALLS = (
    "openat", "mkdir", "write", "writev", "pwrite64", "fdatasync", "fsync", "rename", "unlink", "ftruncate", "fallocate", "close",
    "chmod",
)  # fmt: skip

_GATED = (
    "import sys, collectord.daemon.server, collectord.cli.main as cli\n"
    "print('loaded', file=sys.stderr, flush=True)\n"
    "sys.stdin.readline()\n"
    "cli.main(sys.argv[1:])\n"
)
"""The daemon's program, which waits for a word once it is loaded: loading it under strace would take most of a second."""


@frozen
class Point:
    """One call at which a process is killed.

    Attributes:
        step: in which it is made; strace is attached when that begins.
        call: its name.
        path: of what it works on; the first one where it names two.
        number: among the calls of that name on that path in one thread, from 1.
    """

    step: int
    call: str
    path: str
    number: int

    def __str__(self) -> str:
        return f"{self.call} {self.number} on {self.path or '.'} in step {self.step}"


class Strace:
    """strace, attached to processes as long as they live; what it notes is kept in a file.

    Args:
        pids: of the processes.
        directory: for its files.
        options: what it is to note or to do.
    """

    def __init__(self, pids: Sequence[int], directory: Path, *options: str) -> None:
        self.log = directory / "calls"
        said = directory / "strace"
        which = [word for pid in pids for word in ("-p", str(pid))]
        with said.open("wb") as file:
            self.process = subprocess.Popen(
                ["strace", "-f", *options, "-o", str(self.log), *which],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file,
            )  # fmt: skip
        until(lambda: self.process.poll() is not None or said.read_bytes().count(b" attached") >= len(pids))
        if self.process.poll() is not None:
            raise OSError(f"strace ended: {said.read_text().strip()}")

    def has_killed(self) -> bool:
        """Whether one of them was killed; to be asked when they are gone or strace is."""
        return "+++ killed by SIGKILL +++" in self.log.read_text()

    def detach(self) -> None:
        """Let go of what still lives."""
        self.process.terminate()
        self.process.wait(30)


@cache
def why_not() -> str | None:
    """Why no process can be killed at a call here, or None."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    waiting = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        with tempfile.TemporaryDirectory() as directory:
            strace = Strace([waiting.pid], Path(directory), "-b", "execve", "-e", "trace=write", "-e", "inject=write:signal=KILL")
            waiting.communicate(b"x")
            strace.process.wait(30)
            return None if strace.has_killed() else "strace injects no signals here"
    except OSError as error:
        return str(error)
    finally:
        waiting.kill()
        waiting.wait()


def need_strace() -> None:
    """Skip the test where nothing can be killed at a call."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


# ---------------------------------------------------------------- whom to attach to


@contextmanager
def scratch_daemon() -> Iterator[tuple[Daemon, Path]]:
    """A daemon that is not started, and a directory for what is noted about it; whatever runs at the end is killed."""
    with tempfile.TemporaryDirectory(prefix="cd-") as directory:
        daemon = Daemon(Path(directory, "d"))
        daemon.directory.mkdir()
        try:
            yield daemon, Path(directory)
        finally:
            if daemon.process is not None and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait()


def renderers_of(daemon: Daemon) -> list[int]:
    """The process ids of its renderers, once they are there."""

    def look() -> list[int]:
        found = []
        for task in Path(f"/proc/{daemon.pid}/task").iterdir():
            found += [int(pid) for pid in (task / "children").read_text().split()]
        return found if len(found) >= 2 else []

    pids: list[int] = until(look, "it has no renderers")
    return pids


@contextmanager
def gated(daemon: Daemon) -> Iterator[int]:
    """Start a daemon that does nothing before the block is left; gives its process id."""
    daemon.launch([sys.executable, "-c", _GATED], stdin=subprocess.PIPE)
    process = daemon.process
    assert process is not None
    assert process.stderr is not None
    assert process.stdin is not None
    assert process.stderr.readline() == b"loaded\n"
    yield process.pid
    process.stdin.write(b"\n")
    process.stdin.close()


# ---------------------------------------------------------------- listing and killing

Pids = Callable[[], Sequence[int]]

_CALL = re.compile(r"(\d+) +(\w+)\((.*)")


class Listing:
    """Lists the calls of processes on a directory, step by step: to be called when each begins.

    Args:
        pids: whose; asked at each step.
        directory: on which.
        notes: for strace's.

    Attributes:
        points: all that they can be killed at, in the order in which they came; paths are relative to the directory.
        calls: how many calls there were in all; more than points where two threads worked on one path in one step.
    """

    def __init__(self, pids: Pids, directory: Path, notes: Path) -> None:
        self._pids = pids
        self._path = re.compile(re.escape(str(directory)) + r"(/[^\">,]*)?(?=[\">])")
        self._notes = notes
        self._strace: Strace | None = None
        self._step = 0
        self.points: list[Point] = []
        self.calls = 0

    def __call__(self, step: int) -> None:
        """What comes from now on belongs to that step."""
        self.close()
        self._step = step
        what = f"trace={','.join(CALLS)}"
        self._strace = Strace(self._pids(), self._notes, "-b", "execve", "-y", "-s", "0", "-e", what)

    def close(self) -> None:
        """No more steps: read the notes of the last one."""
        if self._strace is None:
            return
        self._strace.detach()
        numbers: Counter[tuple[str, str, str]] = Counter()
        for line in self._strace.log.read_text().splitlines():
            noted = _CALL.match(line)
            named = self._path.search(noted[3]) if noted else None
            if noted is None or named is None:
                continue
            thread, call, where = noted[1], noted[2], (named[1] or "").lstrip("/")
            numbers[thread, call, where] += 1
            point = Point(self._step, call, where, numbers[thread, call, where])
            self.calls += 1
            if point not in self.points:
                self.points.append(point)
        self._strace = None


class Killer:
    """Kills one of several processes at a point: to be called when each step begins.

    Args:
        point: where.
        pids: of whom; asked when the step begins.
        directory: which the point's path is relative to.
        notes: for strace's.
    """

    def __init__(self, point: Point, pids: Pids, directory: Path, notes: Path) -> None:
        self._point = point
        self._pids = pids
        self._path = os.path.join(directory, point.path).rstrip("/")
        self._notes = notes
        self._strace: Strace | None = None

    def __call__(self, step: int) -> None:
        """Attach, if it is in this step."""
        if step == self._point.step:
            call = self._point.call
            self._strace = Strace(
                self._pids(), self._notes, "-b", "execve", "-P", self._path,
                "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={self._point.number}",
            )  # fmt: skip

    def has_killed(self) -> bool:
        """Whether it has; to be asked when the processes are gone."""
        if self._strace is None:
            return False
        self._strace.process.wait(30)
        return self._strace.has_killed()
