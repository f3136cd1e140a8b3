"""SIGKILL of a daemon, or of one of its renderers, at one chosen system call: strace is attached and told which.

Owns the listing of a process's calls on its state directory, and the killing at one of them. Knows nothing of sessions.

strace counts calls *of each thread*, so a point is (call, path, number): among the calls of one thread on one path. What one
client asks for one after the other is done by one thread nearly always; ``Listing`` says how many calls there were and how many
points cover them. The signal comes before the call is carried out, so the next point shows what a call left behind. Only calls
that change something, open or close are listed: a kill at any other leaves what a kill at the next of these leaves.
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
from collections.abc import Iterable, Iterator, Sequence
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
        call: its name.
        path: of what it works on; the first one where it names two.
        number: among the calls of that name on that path in one thread, from 1.
    """

    call: str
    path: str
    number: int

    def __str__(self) -> str:
        return f"{self.call} {self.number} on {self.path}"


@frozen
class Listing:
    """The calls that a process made on its directory.

    Attributes:
        points: all that it can be killed at, in the order in which they came; paths are relative to the directory.
        calls: how many calls there were in all; more than points where two threads worked on one path.
    """

    points: list[Point]
    calls: int


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


def list_calls(pids: Sequence[int], into: Path) -> Strace:
    """Attach, to note every call; read the notes with ``listing``."""
    return Strace(pids, into, "-b", "execve", "-y", "-s", "0", "-e", f"trace={','.join(CALLS)}")


_CALL = re.compile(r"(\d+) +(\w+)\((.*)")


def listing(log: Iterable[str], directory: Path) -> Listing:
    """What strace has noted of calls on what is below a directory."""
    path = re.compile(re.escape(str(directory)) + r"(/[^\">,]*)?(?=[\">])")
    points: list[Point] = []
    numbers: Counter[tuple[str, str, str]] = Counter()
    calls = 0
    for line in log:
        noted = _CALL.match(line)
        named = path.search(noted[3]) if noted else None
        if noted is None or named is None:
            continue
        calls += 1
        thread, call, where = noted[1], noted[2], (named[1] or "").lstrip("/")
        numbers[thread, call, where] += 1
        point = Point(call, where, numbers[thread, call, where])
        if point not in points:
            points.append(point)
    return Listing(points, calls)


def kill_at(point: Point, pids: Sequence[int], directory: Path, into: Path) -> Strace:
    """Attach, to kill what makes that call."""
    return Strace(
        pids, into, "-b", "execve", "-P", os.path.join(directory, point.path).rstrip("/"),
        "-e", f"trace={point.call}", "-e", f"inject={point.call}:signal=KILL:when={point.number}",
    )  # fmt: skip
