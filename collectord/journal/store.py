"""Where everything is: the directories of one state directory, the names of a run's files, the locks.

Owns the layout of design section 5. Knows nothing of what the files hold.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from attrs import frozen

from collectord.errors import OperatorError
from collectord.journal.disk import Disk
from collectord.names import (
    TEMPORARY_SUFFIX,
    journal_file_name,
    parse_journal_file_name,
    temporary_file_name,
    trace_file_name,
)

_NETWORK_FILE_SYSTEMS: Final = frozenset(("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre"))


@frozen
class RunFound:
    """The files of one run as the directories show them."""

    uid: int
    stem: str
    run: int
    segment_paths: list[str]
    trace_path: str | None


class Store:
    """One state directory.

    Args:
        disk: to look with.
        state_dir: absolute.
        own_uid: whose sessions lie directly in ``traces/`` and ``journals/``; those of others in ``uid-<uid>/`` below.
    """

    def __init__(self, disk: Disk, state_dir: str, own_uid: int) -> None:
        self._disk = disk
        self._state_dir = state_dir
        self._own_uid = own_uid
        self._made: set[str] = set()

    def prepare(self) -> None:
        """Make the directories.

        Raises:
            OperatorError: ``directory-unusable``.
        """
        for path in (self._state_dir, self._in("traces"), self._in("journals"), self.quarantine_directory):
            try:
                self._disk.make_directory(path)
            except OSError as error:
                raise OperatorError("directory-unusable", f"{path}: {error.strerror or error}") from None

    def _in(self, name: str) -> str:
        return os.path.join(self._state_dir, name)

    def _of_user(self, base: str, uid: int) -> str:
        path = self._in(base)
        if uid == self._own_uid:
            return path
        path = os.path.join(path, f"uid-{uid}")
        if path not in self._made:
            self._disk.make_directory(path)
            self._made.add(path)
        return path

    # ------------------------------------------------------------ names

    def trace_directory(self, uid: int) -> str:
        """Where the trace files of a user are; made when it is asked for first."""
        return self._of_user("traces", uid)

    def journal_directory(self, uid: int) -> str:
        """Where the journals of a user are; made when it is asked for first."""
        return self._of_user("journals", uid)

    @property
    def quarantine_directory(self) -> str:
        """Where recovery sets aside what it cuts off."""
        return self._in("quarantine")

    def trace_path(self, uid: int, stem: str, run: int) -> str:
        """The trace file of a run."""
        return os.path.join(self.trace_directory(uid), trace_file_name(stem, run))

    def temporary_path(self, uid: int, stem: str, run: int, number: int) -> str:
        """Where an export of a run is rendered."""
        return os.path.join(self.trace_directory(uid), temporary_file_name(stem, run, number))

    def segment_path(self, uid: int, stem: str, run: int, segment: int) -> str:
        """One segment of a run's journal."""
        return os.path.join(self.journal_directory(uid), journal_file_name(stem, run, segment))

    # ------------------------------------------------------------ what is there

    def segments_of(self, uid: int, stem: str, run: int) -> list[str]:
        """The segments of a run's journal that are there, in order. Raises ``OSError``.

        A listing, since there may be holes in their numbers: what a failed try left and could not remove is passed over, and
        may be gone after a power cut.
        """
        directory = self.journal_directory(uid)
        names = map(parse_journal_file_name, self._disk.list_directory(directory))
        numbers = sorted(name.segment for name in names if name is not None and (name.stem, name.run) == (stem, run))
        return [self.segment_path(uid, stem, run, number) for number in numbers]

    def _is_used(self, uid: int, stem: str, run: int) -> bool:
        journal = self.segment_path(uid, stem, run, 0)
        return self._disk.exists(journal) or self._disk.exists(self.trace_path(uid, stem, run))

    def last_run(self, uid: int, stem: str) -> int | None:
        """The highest run number in use, or None. Raises ``OSError``.

        Gallops upward, since a listing of 100,000 files would take longer than the rest of an ``open``. That relies on run
        numbers without holes: pruning old runs will need a mark of the highest number ever used.
        """
        if not self._is_used(uid, stem, 1):
            return None
        low, high = 1, 2
        while self._is_used(uid, stem, high):
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            if self._is_used(uid, stem, middle):
                low = middle
            else:
                high = middle
        return low

    def next_run(self, uid: int, stem: str) -> int:
        """The number of the next run of a session. Raises ``OSError``."""
        return (self.last_run(uid, stem) or 0) + 1

    def runs_found(self) -> Iterator[RunFound]:
        """Every run that has a journal, in no order; a run whose first segment is missing too. Raises ``OSError``."""
        base = self._in("journals")
        yield from self._runs_in(base, self._own_uid)
        for name in self._disk.list_directory(base):
            if name.startswith("uid-") and name[4:].isdigit() and int(name[4:]) != self._own_uid:
                yield from self._runs_in(os.path.join(base, name), int(name[4:]))

    def _runs_in(self, directory: str, uid: int) -> Iterator[RunFound]:
        segments: dict[tuple[str, int], list[int]] = {}
        for file in self._disk.list_directory(directory):
            name = parse_journal_file_name(file)
            if name is not None:
                segments.setdefault((name.stem, name.run), []).append(name.segment)
        for (stem, run), numbers in segments.items():
            paths = [os.path.join(directory, journal_file_name(stem, run, number)) for number in sorted(numbers)]
            trace = self.trace_path(uid, stem, run)
            yield RunFound(uid, stem, run, paths, trace if self._disk.exists(trace) else None)

    def find_run(self, uid: int, stem: str, run: int) -> RunFound | None:
        """One run, by its name; None where it has no journal. Raises ``OSError``."""
        segments, trace = self.segments_of(uid, stem, run), self.trace_path(uid, stem, run)
        return RunFound(uid, stem, run, segments, trace if self._disk.exists(trace) else None) if segments else None

    def free_quarantine_path(self, name: str) -> str:
        """A place in the quarantine that nothing has: what was set aside once is never written over. Raises ``OSError``."""
        path, number = os.path.join(self.quarantine_directory, name), 1
        while self._disk.exists(path):
            path, number = os.path.join(self.quarantine_directory, f"{name}.{number}"), number + 1
        return path

    def sweep_temporary_files(self) -> int:
        """Remove what exports left that were never renamed; returns how many. Before anybody renders. Raises ``OSError``."""
        swept = 0
        base = self._in("traces")
        below = [os.path.join(base, name) for name in self._disk.list_directory(base) if name.startswith("uid-")]
        for directory in [base, *below]:
            for name in self._disk.list_directory(directory):
                if name.startswith(".") and name.endswith(TEMPORARY_SUFFIX):
                    self._disk.unlink(os.path.join(directory, name))
                    swept += 1
        return swept


LOCK_NAME: Final = "lock"
"""Of the lock file in a state directory."""


def is_locked(path: str, locks: str = "/proc/locks") -> bool:
    """Whether somebody holds the lock file at ``path``, without touching the lock: to try it would refuse who comes just then.

    A file system may call its device otherwise than the kernel's list does (btrfs): then the process id in the file decides.
    """
    try:
        found = os.stat(path)
        with open(path, encoding="ascii", errors="replace") as file:
            said = file.read(256).split()
        with open(locks, encoding="ascii", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        return False
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    locked = [fields for fields in lines if len(fields) > 5 and fields[1] == "FLOCK"]
    same_file = [fields for fields in locked if fields[5].rpartition(":")[2] == str(found.st_ino)]
    return any(fields[5] == device or fields[4] in said[1:2] for fields in same_file)


class StateLock:
    """A lock file that one collector holds as long as it lives.

    Args:
        path: of the file; it stays when the lock is given back, so that nobody locks a file that has lost its name.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take it.

        Raises:
            OperatorError: ``already-running``, with who holds it, or ``directory-unusable``.
        """
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise OperatorError("directory-unusable", f"{self._path}: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(fd, 256, 0).decode("ascii", "replace").strip() or "a process that has not said who it is"
            os.close(fd)
            raise OperatorError("already-running", f"{self._path} is held by {holder}") from None
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"pid {os.getpid()} since {since}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Give it back."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None) -> None:
        self.release()


def refuse_network_file_system(path: str, mounts: str = "/proc/self/mounts") -> None:
    """Say no to a directory on a network file system, where fsync and rename promise less.

    Raises:
        OperatorError: ``network-file-system``.
    """
    kind = file_system_of(path, mounts)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise OperatorError("network-file-system", f"{path} is on {kind}, where a sync may not mean what it says")


def file_system_of(path: str, mounts: str = "/proc/self/mounts") -> str:
    """The type of the file system that a path is on, or would be; empty where the kernel does not tell."""
    best, kind = "", ""
    path = os.path.realpath(path)
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].encode("utf-8", "surrogateescape").decode("unicode_escape")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind
