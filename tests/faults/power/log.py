"""The log of a disk: its writes, flushes and marks in order, and every state in which a power cut may leave it.

Pure. A write is in the disk's cache until a flush that came after it has returned. So a crash state is all writes before the last
flush, and any of those after it: all, none, or some, and of one that was under way only its first sectors.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import Any, Final

import orjson
from attrs import frozen

WRITE: Final = 1
FLUSH: Final = 2
MARK: Final = 3

SECTOR_BYTES: Final = 4096
"""What a disk writes wholly or not at all. With 512, all that disks once promised, btrfs and ext4 now and then cannot be mounted:
they count on a superblock being written in one piece."""

_RECORD = struct.Struct("<BQI")


def encode(kind: int, offset: int, length: int) -> bytes:
    """The head of a record; the bytes follow."""
    return _RECORD.pack(kind, offset, length)


@frozen
class Write:
    """Bytes that were given to the disk."""

    offset: int
    content: bytes


@frozen
class Entry:
    """One record of the log: a write, a mark, or (neither of them) a flush."""

    write: Write | None = None
    mark: Any = None


def read_log(raw: bytes) -> list[Entry]:
    """The entries of a log."""
    entries, place = [], 0
    while place < len(raw):
        kind, offset, length = _RECORD.unpack_from(raw, place)
        place += _RECORD.size
        content = raw[place : place + length]
        place += length
        if kind == WRITE:
            entries.append(Entry(write=Write(offset, content)))
        elif kind == MARK:
            entries.append(Entry(mark=orjson.loads(content)))
        else:
            assert kind == FLUSH, f"at {place} the log holds something else"
            entries.append(Entry())
    assert place == len(raw), "the log is cut short"
    return entries


@frozen
class CrashState:
    """Where the power went, and what the disk kept of what it had not flushed.

    Attributes:
        entry: how many entries of the log had come.
        how: in words.
        told: whether something has just been told here.
        kept: the unflushed writes that survived.
    """

    entry: int
    how: str
    told: bool
    kept: list[Write]


@frozen
class Step:
    """One entry of the log, and the crash states that lie right behind it.

    Attributes:
        flushed: writes that are on the disk for certain from here on; they come before ``states``.
        mark: what was told to a client here, or is about to be asked by one.
    """

    states: list[CrashState]
    flushed: list[Write]
    mark: Any


def steps(entries: list[Entry], subsets: int, seed: int) -> Iterator[Step]:
    """The log entry by entry, with all crash states.

    Args:
        entries: the log.
        subsets: how many random choices to make at each place where there is a choice.
        seed: of the choices.
    """
    choose = random.Random(seed)
    pending: list[Write] = []
    for number, entry in enumerate(entries, 1):
        if entry.write is not None:
            pending.append(entry.write)
            yield Step(_choices(number, pending, False, subsets, choose), [], None)
        elif entry.mark is not None:
            yield Step(_choices(number, pending, "told" in entry.mark, subsets, choose), [], entry.mark)
        else:
            flushed, pending = pending, []
            yield Step([CrashState(number, "all (flushed)", False, [])], flushed, None)


def _choices(number: int, pending: list[Write], told: bool, subsets: int, choose: random.Random) -> list[CrashState]:
    """What may be left here. *None* is only new where something was told since the last flush."""
    states = [CrashState(number, "all", told, list(pending))]
    if pending and told:
        states.append(CrashState(number, "none", told, []))
    for _ in range(subsets if len(pending) > 1 else 0):
        states.append(CrashState(number, "some", told, _some(pending, choose)))
    return states


def _some(pending: list[Write], choose: random.Random) -> list[Write]:
    """A random choice: each write or not, and one of them perhaps cut short."""
    share = choose.choice((0.2, 0.5, 0.8))
    kept = [write for write in pending if choose.random() < share]
    if kept and choose.random() < 0.3:
        place = choose.randrange(len(kept))
        write = kept[place]
        sectors = len(write.content) // SECTOR_BYTES
        if sectors > 1:
            kept[place] = Write(write.offset, write.content[: SECTOR_BYTES * choose.randrange(1, sectors)])
    return kept
