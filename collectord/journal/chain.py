"""Which files of a run's journal count, and how far each is to be read.

A later segment names the one it follows and how far that one is good: what lies behind comes again in it. A file that no later
one names, and that lies between two that count, never counted: it is what a failed try left and could not remove. A last
file that does not begin as a later segment must is what nobody finished.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from enum import Enum
from functools import partial
from typing import Any

from attrs import evolve, frozen

from collectord.journal.disk import Disk
from collectord.journal.format import HEAD_SIZE_BYTES
from collectord.journal.scan import (
    Found,
    FoundBadHead,
    FoundCorrupt,
    FoundNewer,
    FoundRecord,
    FoundTorn,
    has_hole,
    scan_segment,
)
from collectord.model import RecordType
from collectord.names import parse_journal_file_name
from collectord.session.records import unpack


class Seam(Enum):
    """How a file is tied to the one before it."""

    FIRST = "first"
    SOUND = "sound"
    LOST = "lost"


@frozen
class Link:
    """One file that counts.

    Attributes:
        path: of the file.
        number: of the segment.
        size: how far it is to be read.
        missing: how much less it holds than was durable once.
        seam: whether it says what it follows; where that is lost, some of what it holds may have been read before.
        lost_before: whether the file that it follows is not there.
    """

    path: str
    number: int
    size: int
    missing: int = 0
    seam: Seam = Seam.FIRST
    lost_before: bool = False


@frozen
class _File:
    """A file as its first bytes show it."""

    path: str
    number: int
    size: int
    missing: int
    is_newer: bool
    seam: dict[str, Any] | None


def link(disk: Disk, paths: list[str], limits: list[int | None]) -> tuple[list[Link], list[str]]:
    """The files that count, in order, and the last ones that nobody finished.

    Args:
        disk: where they are.
        paths: of all segments that are there, in order of their numbers.
        limits: how much of each was durable, where that is known: then each of them counts.

    Raises:
        OSError: a file cannot be read.
    """
    files = [_look(disk, index, path, limit) for index, (path, limit) in enumerate(zip(paths, limits, strict=True))]
    unfinished: list[str] = []
    while files and limits[len(files) - 1] is None and _is_unfinished(disk, files[-1]):
        unfinished.insert(0, files.pop().path)
    links: list[Link] = []
    for file in files:
        _tie(links, file)
    return links, unfinished


def _look(disk: Disk, index: int, path: str, limit: int | None) -> _File:
    name = parse_journal_file_name(os.path.basename(path))
    number = index if name is None else name.segment
    size = disk.size(path)
    missing = 0 if limit is None else max(0, limit - size)
    size = size if limit is None else min(size, limit)
    if not number:
        return _File(path, number, size, missing, False, None)
    items = scan_segment(partial(disk.read, path), size)
    start, first = next(items), next(items, None)
    is_segment = isinstance(first, FoundRecord) and first.record.type is RecordType.SEGMENT
    seam = unpack(first.record.body) if is_segment and isinstance(first, FoundRecord) else None
    return _File(path, number, size, missing, isinstance(start, FoundNewer), seam)


def _is_unfinished(disk: Disk, file: _File) -> bool:
    """Whether a last file never counted: its first group, which says what it follows, was never synced as a whole.

    That shows in what is not there: records are missing, the file ends within the group, or has a hole. One that holds a second
    group did count, and so did one that is whole: what is wrong in it is damage. To believe the first record of a group
    whose rest never came would cut off what is repeated there, and may have been acknowledged.
    """
    if not file.number or file.is_newer:
        return False
    read = partial(disk.read, file.path)
    groups, following, is_rotten = 0, 0, False
    for item in scan_segment(read, file.size):
        if isinstance(item, FoundBadHead):
            return file.size < HEAD_SIZE_BYTES or not any(read(0, HEAD_SIZE_BYTES))
        if isinstance(item, FoundRecord):
            groups += item.begins_group
            following += not item.begins_group
        is_rotten |= isinstance(item, FoundCorrupt) and not has_hole(read, item)
        if groups > 1 or (file.seam is not None and following >= file.seam.get("records", 0)):
            return False
    return not is_rotten


def _tie(links: list[Link], file: _File) -> None:
    """Put a file behind those that it follows."""
    if file.seam is None:
        seam = Seam.LOST if file.number else Seam.FIRST
        links.append(Link(file.path, file.number, file.size, file.missing, seam))
        return
    predecessor: int = file.seam["predecessor"]
    durable: int = file.seam["durable_offset"]
    while links and links[-1].number > predecessor:  # passed over: they never counted
        links.pop()
    lost = links[-1].number != predecessor if links else durable > HEAD_SIZE_BYTES  # else nothing of the first was durable
    if links and not lost:
        durable = 0 if durable <= HEAD_SIZE_BYTES else durable  # of a head alone nothing is wanted, nor whether it survived
        size = links[-1].size
        links[-1] = evolve(links[-1], size=min(size, durable), missing=max(0, durable - size))
    links.append(Link(file.path, file.number, file.size, file.missing, Seam.SOUND, lost))


def read_link(disk: Disk, one: Link) -> Iterator[Found]:
    """Everything in a file that counts, up to where it counts.

    A record that is cut short below what was durable once is not torn: it is one fault with all that is missing behind it.
    """
    gone = one.size
    for found in scan_segment(partial(disk.read, one.path), one.size):
        if one.missing and isinstance(found, FoundTorn):
            gone = found.offset
        elif one.missing and isinstance(found, FoundBadHead) and one.size < HEAD_SIZE_BYTES:
            gone = 0
        else:
            yield found
    if one.missing:
        yield FoundCorrupt(gone, one.size + one.missing - gone, "the file ends before what was durable does")


def faults_of(one: Link) -> list[Found]:
    """What is wrong with a file beyond its bytes."""
    return [FoundCorrupt(0, 0, "the segment that it follows is missing")] if one.lost_before else []
