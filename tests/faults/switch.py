"""Which operations of a file system fail or dawdle: switched by a test in one process, looked at by the file system in another.

The faults stand in a file that is replaced as a whole; what was fired is appended to another, for the test to count. Once the
switch was thrown, the next operation sees it.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any, Final

import orjson
from attrs import asdict, define, frozen

OPERATIONS: Final = ("open", "write", "fsync", "fsyncdir", "rename", "unlink", "mkdir", "truncate")


@frozen
class Fault:
    """One order.

    Attributes:
        operation: of ``OPERATIONS``.
        match: only for paths in which this pattern is found.
        error: the name of an error number; None: it does not fail.
        after: so many succeed first.
        times: so many fail; None: all from there on.
        delay_s: how long each takes.
        short: for writes: at most so many bytes are taken of each.
        room_bytes: for writes: so much is taken in all; the last write is short, then ENOSPC.
    """

    operation: str
    match: str
    error: str | None = None
    after: int = 0
    times: int | None = None
    delay_s: float = 0.0
    short: int | None = None
    room_bytes: int | None = None


class Switch:
    """A test's end.

    Args:
        path: of the file.
        fired: of the other.
    """

    def __init__(self, path: Path, fired: Path) -> None:
        self._path = path
        self._fired = fired
        self.order()

    def order(self, *faults: Fault) -> None:
        """From now on these, and no others; what was counted before is forgotten."""
        assert all(fault.operation in OPERATIONS for fault in faults)
        waiting = self._path.with_suffix(".new")
        waiting.write_bytes(orjson.dumps([asdict(fault) for fault in faults]))
        self._fired.write_bytes(b"")
        waiting.rename(self._path)

    def heal(self) -> None:
        """No faults."""
        fired = self._fired.read_bytes()
        self.order()
        self._fired.write_bytes(fired)

    def fired(self, what: str = "") -> list[str]:
        """What was fired since the last order: lines of ``when operation path``, those with ``what`` in them."""
        return [line for line in self._fired.read_text().splitlines() if what in line]


@define
class _Armed:
    fault: Fault
    seen: int = 0
    taken: int = 0


class Faults:
    """The file system's end.

    Args:
        path: of the file.
        fired: of the other.
    """

    def __init__(self, path: str, fired: str) -> None:
        self._path = path
        self._fired = os.open(fired, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._stamp: Any = None
        self._armed: list[_Armed] = []

    def _read(self) -> list[_Armed]:
        found = os.stat(self._path)
        if self._stamp != (found.st_ino, found.st_mtime_ns):
            with open(self._path, "rb") as file:
                self._armed = [_Armed(Fault(**fault)) for fault in orjson.loads(file.read())]
            self._stamp = (found.st_ino, found.st_mtime_ns)
        return self._armed

    def note(self, when: str, operation: str, path: str) -> None:
        """Let the test see it."""
        os.write(self._fired, f"{when} {operation} {path}\n".encode())

    def look(self, operation: str, path: str) -> tuple[float, int]:
        """How long an operation takes, and the number of the error that it ends with, or 0."""
        for armed in self._read():
            fault = armed.fault
            if fault.operation != operation or not re.search(fault.match, path) or not (fault.error or fault.delay_s):
                continue
            armed.seen += 1
            over = armed.seen - fault.after
            if over <= 0 or (fault.times is not None and over > fault.times):
                continue
            self.note("fault", operation, path)
            return fault.delay_s, getattr(errno, fault.error) if fault.error else 0
        return 0.0, 0

    def room(self, path: str, size: int) -> int:
        """How many bytes of a write are taken; 0 is ENOSPC."""
        for armed in self._read():
            fault = armed.fault
            if fault.operation != "write" or not re.search(fault.match, path):
                continue
            wanted = size
            if fault.short is not None:
                size = min(size, fault.short)
            if fault.room_bytes is not None:
                size = min(size, fault.room_bytes - armed.taken)
            armed.taken += size
            if size < wanted:
                self.note("fault", "write", path)
        return size
