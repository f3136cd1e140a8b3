"""A disk in memory that forgets what was not synced, fails on order, and fills up. The contract suite holds it to the real one.

Owns paths, descriptors, faults and room; what is durable and what a power cut leaves is ``storage``'s. Harsher than most file
systems are, as POSIX lets them be: a synced file has no name after a power cut unless its directory was synced.
"""

from __future__ import annotations

import errno
import itertools
import os
import posixpath
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import NoReturn

from attrs import define, frozen

from tests.simulation.storage import (
    Change,
    Choose,
    Directory,
    Inode,
    inodes,
    lose_names,
    surviving_tree,
    sync_names,
)

BLOCK_SIZE_BYTES = 512
"""What reaches a disk together, by default: a sector. A page cache writes pages of 4,096."""

NAME_SIZE_MAX_BYTES = 255
MUCH_BYTES = 1 << 40


class Effect(Enum):
    """How much of an operation that fails is done all the same.

    ``LOST`` is for syncs, and what Linux does: what should have been written counts as clean, reads go on to see it, the next
    sync succeeds, and the disk does not have it.
    """

    NOTHING = "nothing"
    PART = "part"
    WHOLE = "whole"
    LOST = "lost"


_EFFECTS = {
    "write": Effect.PART,
    "write_file": Effect.PART,
    "truncate": Effect.PART,
    "make_directory": Effect.PART,
    "allocate": Effect.PART,
    "close": Effect.WHOLE,
    "sync": Effect.LOST,
}
"""What a failure does where nobody says; elsewhere it is nothing."""


@frozen
class Failure:
    """How an operation fails."""

    error: int
    effect: Effect


@define
class Fault:
    """An operation that will fail."""

    operation: str
    after: int
    failure: Failure
    times: int


class SimulatedDisk:
    """The same operations as ``journal.disk.RealDisk``, in memory.

    Attributes:
        operations: what was called, with its paths.
        fired: how often what failed, by operation, error and effect.
        capacity: how many bytes there are in all; None for no end. Beyond it: ENOSPC.
        quota: how many of them we may have; None for all. Beyond it: EDQUOT.
        read_only: whether everything that changes something fails with EROFS.
        descriptors_max: how many may be open at once; None for no end. Beyond it: EMFILE.
        trouble: asked at every operation whether it is to fail; None where nothing is, beyond the armed faults.
    """

    def __init__(self, block: int = BLOCK_SIZE_BYTES) -> None:
        self._block = block
        self._root = Directory()
        self._open: dict[int, Inode] = {}
        self._next_fd = 100
        self._next_change = itertools.count()
        self._faults: list[Fault] = []
        self.operations: list[tuple[str, ...]] = []
        self.fired: Counter[tuple[str, str, str]] = Counter()
        self.capacity: int | None = None
        self.quota: int | None = None
        self.read_only = False
        self.descriptors_max: int | None = None
        self.trouble: Callable[[str, tuple[str, ...]], Failure | None] | None = None

    # ------------------------------------------------------------ faults

    def fail_nth(self, operation: str, n: int, error: int, times: int = 1, effect: Effect | None = None) -> None:
        """Let the nth call of an operation from now on fail, and ``times - 1`` behind it.

        Args:
            operation: by its name.
            n: from 1.
            error: an errno.
            times: how many calls fail.
            effect: how much is done all the same; None for what is usual.
        """
        assert hasattr(self, operation), f"there is no operation {operation}"
        usual = _EFFECTS.get(operation, Effect.NOTHING)
        self._faults.append(Fault(operation, n, Failure(error, effect if effect is not None else usual), times))

    @property
    def faults_left(self) -> int:
        """How many armed failures have not happened."""
        return sum(fault.times for fault in self._faults)

    def open_files(self) -> int:
        """How many descriptors are open."""
        return len(self._open)

    def close_all(self) -> None:
        """Every process that had a descriptor is gone."""
        self._open.clear()

    def abandon(self, descriptors: set[int]) -> None:
        """The process that had these descriptors is gone."""
        for fd in descriptors:
            self._open.pop(fd, None)

    # ------------------------------------------------------------ power

    def power_cut(self, choose: Choose) -> SimulatedDisk:
        """The disk as it may be found after the power has gone now. This one goes on.

        Args:
            choose: asked for each file's length and each block that is not certain, and for each directory.
        """
        survivor = SimulatedDisk(self._block)
        survivor._root = surviving_tree(self._root, choose)
        survivor.capacity, survivor.quota = self.capacity, self.quota
        return survivor

    def random_power_cut(self, dice: random.Random) -> SimulatedDisk:
        """One of the legal outcomes, drawn: each of all lost, all kept and a mixture as often as the others."""
        mood = dice.randrange(3)
        return self.power_cut((min, max, dice.choice)[mood])

    def power_cuts(self, limit: int) -> Iterator[SimulatedDisk]:
        """Every legal outcome, none twice; where there are more than ``limit``, the two extremes and others, drawn."""
        script: list[int] | None = []
        found: list[SimulatedDisk] = []
        for _ in range(limit):
            assert script is not None
            options: list[int] = []
            found.append(self.power_cut(_Script(script, options)))
            script = _following(script, options)
            if script is None:
                yield from found
                return
        yield self.power_cut(min)
        yield self.power_cut(max)
        dice = random.Random(limit)
        drawn: set[tuple[int, ...]] = set()
        while len(drawn) < limit - 2:
            choices: list[int] = []
            survivor = self.power_cut(lambda legal, to=choices: _drawn(dice, legal, to))  # type: ignore[misc]
            if any(choices) and tuple(choices) not in drawn:
                drawn.add(tuple(choices))
                yield survivor

    def view(self) -> SimulatedDisk:
        """What reads see now, to be looked at without any fault, and without leaving a trace."""
        found = self.power_cut(max)
        found.disarm()
        return found

    def peek(self, path: str) -> bytes:
        """What a read of the whole file would give, whatever is armed."""
        return bytes(self._inode(path).content)

    def disarm(self) -> None:
        """Nothing fails any more, and there is room."""
        self._faults.clear()
        self.trouble = None
        self.capacity = self.quota = self.descriptors_max = None
        self.read_only = False

    # ------------------------------------------------------------ looking up

    def _begin(self, operation: str, *arguments: str, changes: bool = False, opens: bool = False) -> Failure | None:
        """Note a call; raise where it fails without any effect.

        Args:
            operation: its name.
            arguments: its paths.
            changes: whether a read-only disk refuses it.
            opens: whether it needs a descriptor.

        Returns:
            How it is to fail after its effect; None where it is not.
        """
        self.operations.append((operation, *arguments))
        failure = self._failure(operation, arguments)
        if failure is not None:
            self.fired[operation, errno.errorcode[failure.error], failure.effect.value] += 1
            if failure.effect is Effect.NOTHING:
                _fail(failure.error, *arguments)
        if opens and self.descriptors_max is not None and len(self._open) >= self.descriptors_max:
            _fail(errno.EMFILE, *arguments)
        if changes and self.read_only:
            _fail(errno.EROFS, *arguments)
        return failure

    def _failure(self, operation: str, arguments: tuple[str, ...]) -> Failure | None:
        for fault in self._faults:
            if fault.operation != operation:
                continue
            fault.after -= 1
            if fault.after <= 0:
                fault.times -= 1
                if not fault.times:
                    self._faults.remove(fault)
                return fault.failure
        return self.trouble(operation, arguments) if self.trouble is not None else None

    def _node(self, path: str) -> Inode | Directory | None:
        """What bears a path; None where the last part of it is missing."""
        node: Inode | Directory | None = self._root
        parts = [part for part in path.split("/") if part]
        for number, part in enumerate(parts):
            if len(part.encode("utf-8", "surrogateescape")) > NAME_SIZE_MAX_BYTES:
                _fail(errno.ENAMETOOLONG, path)
            if isinstance(node, Inode):
                _fail(errno.ENOTDIR, path)
            node = node.entries.get(part) if node is not None else None
            if node is None and number < len(parts) - 1:
                _fail(errno.ENOENT, path)
        return node

    def _directory(self, path: str) -> Directory:
        found = self._node(path)
        if found is None:
            _fail(errno.ENOENT, path)
        if isinstance(found, Inode):
            _fail(errno.ENOTDIR, path)
        return found

    def _inode(self, path: str) -> Inode:
        found = self._node(path)
        if found is None:
            _fail(errno.ENOENT, path)
        if isinstance(found, Directory):
            _fail(errno.EISDIR, path)
        return found

    def _change(self, *names: tuple[str, Inode | Directory | None]) -> None:
        """Names as they are from now on, all at once."""
        entries = [(self._directory(posixpath.dirname(path)), posixpath.basename(path), node) for path, node in names]
        Change(next(self._next_change), entries).make()

    def _descriptor(self, inode: Inode) -> int:
        self._next_fd += 1
        self._open[self._next_fd] = inode
        return self._next_fd

    def _opened(self, fd: int) -> Inode:
        if fd not in self._open:
            _fail(errno.EBADF)
        return self._open[fd]

    # ------------------------------------------------------------ room

    def used_bytes(self) -> int:
        """How much of the disk is in use."""
        return sum(inode.allocated for inode in inodes(self._root) | set(self._open.values()))

    def _append(self, inode: Inode, content: bytes, *, whole: bool = False) -> None:
        """As much as there is room for (nothing, where it must be the whole), and an error where that is not all."""
        if self.capacity is not None or self.quota is not None:
            used = self.used_bytes()
            slack = inode.allocated - len(inode.content)
            limits = [(self.capacity, errno.ENOSPC), (self.quota, errno.EDQUOT)]
            room, error = min(
                (max(0, limit - used) // self._block * self._block, why) for limit, why in limits if limit is not None
            )
            if len(content) > slack + room:
                inode.append(b"" if whole else content[: slack + room])
                self.fired["full", errno.errorcode[error], Effect.PART.value] += 1
                _fail(error)
        inode.append(content)

    # ------------------------------------------------------------ the operations

    def create(self, path: str) -> int:
        failure = self._begin("create", path, opens=True)
        if self._node(path) is not None:
            _fail(errno.EEXIST, path)
        if self.read_only:
            _fail(errno.EROFS, path)
        inode = Inode(self._block)
        self._change((path, inode))
        _end(failure, path)
        return self._descriptor(inode)

    def open_append(self, path: str) -> int:
        failure = self._begin("open_append", path, opens=True)
        inode = self._inode(path)
        if self.read_only:
            _fail(errno.EROFS, path)
        _end(failure, path)
        return self._descriptor(inode)

    def write(self, fd: int, chunks: Sequence[bytes]) -> None:
        inode, content = self._opened(fd), b"".join(chunks)
        failure = self._begin("write", changes=True)
        if failure is not None and failure.effect is Effect.PART:
            content = content[: len(content) // 2]
        self._append(inode, content)
        _end(failure)

    def sync(self, fd: int) -> None:
        inode = self._opened(fd)
        failure = self._begin("sync", changes=True)
        if failure is not None and failure.effect is Effect.LOST:
            inode.lose()
        else:
            inode.sync()
        _end(failure)

    def close(self, fd: int) -> None:
        self._opened(fd)
        del self._open[fd]
        _end(self._begin("close"))

    def truncate(self, path: str, size: int) -> None:
        failure = self._begin("truncate", path, opens=True)
        inode = self._inode(path)
        if self.read_only:
            _fail(errno.EROFS, path)
        inode.resize(size)
        if failure is None or failure.effect is Effect.WHOLE:
            inode.sync()
        _end(failure, path)

    def allocate(self, path: str, size: int) -> None:
        failure = self._begin("allocate", path, opens=True)
        inode = self._made(path)
        if size <= 0:
            _fail(errno.EINVAL)
        missing = max(0, size - len(inode.content))
        if failure is not None and failure.effect is Effect.PART:
            missing //= 2
        self._append(inode, bytes(missing), whole=True)
        _end(failure)

    def write_file(self, path: str, content: bytes, sync: bool) -> None:
        failure = self._begin("write_file", path, opens=True)
        inode = self._made(path)
        inode.resize(0)
        if failure is not None and failure.effect is Effect.PART:
            content = content[: len(content) // 2]
        self._append(inode, content)
        if failure is not None and failure.effect is Effect.LOST:
            inode.lose()
        elif sync and (failure is None or failure.effect is Effect.WHOLE):
            inode.sync()
        _end(failure)

    def _made(self, path: str) -> Inode:
        """The file of that name, made where there is none."""
        if self._node(path) is None:
            if self.read_only:
                _fail(errno.EROFS, path)
            self._change((path, Inode(self._block)))
        inode = self._inode(path)
        if self.read_only:
            _fail(errno.EROFS, path)
        return inode

    def rename(self, source: str, target: str) -> None:
        failure = self._begin("rename", source, target, changes=True)
        self._directory(posixpath.dirname(source))
        self._directory(posixpath.dirname(target))
        inode = self._inode(source)
        if posixpath.dirname(source) == target:
            _fail(errno.ENOTEMPTY, source, target)
        if isinstance(self._node(target), Directory):
            _fail(errno.EISDIR, source, target)
        if self._node(target) is not inode:
            self._change((source, None), (target, inode))
        _end(failure, source, target)

    def unlink(self, path: str) -> None:
        failure = self._begin("unlink", path, changes=True)
        try:
            found = self._node(path)
        except FileNotFoundError:
            found = None
        if isinstance(found, Directory):
            _fail(errno.EISDIR, path)
        if found is not None:
            self._change((path, None))
        _end(failure, path)

    def sync_directory(self, path: str) -> None:
        failure = self._begin("sync_directory", path, opens=True)
        directory = self._directory(path)
        if failure is not None and failure.effect is Effect.LOST:
            lose_names(directory)
        else:
            sync_names(directory)
        _end(failure, path)

    def make_directory(self, path: str) -> None:
        self._make_directory(path, self._begin("make_directory", path))

    def _make_directory(self, path: str, failure: Failure | None) -> None:
        parent = posixpath.dirname(path)
        if not self._is_directory(path):
            if parent != path:
                self._make_directory(parent, None)
            if self._node(path) is not None:
                _fail(errno.EEXIST, path)
            if self.read_only:
                _fail(errno.EROFS, path)
            self._change((path, Directory()))
        if self.descriptors_max is not None and len(self._open) >= self.descriptors_max:
            _fail(errno.EMFILE, parent)
        if failure is None or failure.effect is Effect.WHOLE:
            sync_names(self._directory(parent))
        _end(failure, path)

    def _is_directory(self, path: str) -> bool:
        try:
            return isinstance(self._node(path), Directory)
        except OSError:
            return False

    def list_directory(self, path: str) -> list[str]:
        failure = self._begin("list_directory", path, opens=True)
        names = list(self._directory(path).entries)
        _end(failure, path)
        return names

    def exists(self, path: str) -> bool:
        try:
            return self._node(path) is not None
        except OSError:
            return False

    def size(self, path: str) -> int:
        failure = self._begin("size", path)
        size = len(self._inode(path).content)
        _end(failure, path)
        return size

    def read(self, path: str, offset: int, size: int) -> bytes:
        failure = self._begin("read", path, opens=True)
        if not size and isinstance(self._node(path), Directory):
            return b""  # no call is made for it but the opening
        content = bytes(self._inode(path).content[offset : offset + size])
        _end(failure, path)
        return content

    def free_bytes(self, path: str) -> int:
        _end(self._begin("free_bytes", path), path)
        if self._node(path) is None:
            _fail(errno.ENOENT, path)
        return MUCH_BYTES if self.capacity is None else max(0, self.capacity - self.used_bytes())

    def total_bytes(self, path: str) -> int:
        _end(self._begin("total_bytes", path), path)
        if self._node(path) is None:
            _fail(errno.ENOENT, path)
        return MUCH_BYTES if self.capacity is None else self.capacity


def _fail(error: int, *arguments: str) -> NoReturn:
    """As the kernel does, with the path where there is one."""
    if len(arguments) > 1:
        raise OSError(error, os.strerror(error), arguments[0], None, arguments[1])
    raise OSError(error, os.strerror(error), *arguments)


def _end(failure: Failure | None, *arguments: str) -> None:
    """An operation is over, as far as it came."""
    if failure is not None:
        _fail(failure.error, *arguments)


@define
class _Script:
    """Makes the choices that it is told, and the first of all others; notes how many there were."""

    script: list[int]
    options: list[int]

    def __call__(self, legal: list[int]) -> int:
        chosen = self.script[len(self.options)] if len(self.options) < len(self.script) else 0
        self.options.append(len(legal))
        return legal[chosen]


def _following(script: list[int], options: list[int]) -> list[int] | None:
    """The script behind one, as an odometer counts; None after the last."""
    choices = script + [0] * (len(options) - len(script))
    while choices and choices[-1] + 1 >= options[len(choices) - 1]:
        choices.pop()
    if not choices:
        return None
    choices[-1] += 1
    return choices


def _drawn(dice: random.Random, legal: list[int], to: list[int]) -> int:
    chosen = dice.randrange(len(legal))
    to.append(chosen)
    return legal[chosen]
