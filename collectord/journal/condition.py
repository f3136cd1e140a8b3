"""What the journal of a run that was found is like: whether it is over, what its tail is, what in it is damaged.

Changes nothing. Owns one judgement that a reader cannot make: what of the last group is *torn*. A group begins only when all
before it was synced, so damage that lies before the last group's beginning is corruption of what was durable. Damage in the last
group may be what a power cut leaves of bytes that were never synced: where a hole of zeros is in it, nobody was told of what
lies from there on, and it is torn. Damage of any other kind is taken for corruption, and kept.
"""

from __future__ import annotations

from enum import Enum
from functools import partial

from attrs import Factory, define, frozen

from collectord.journal.chain import Link, Seam, faults_of, link, read_link
from collectord.journal.damage import DamageReport
from collectord.journal.disk import Disk
from collectord.journal.format import HEAD_SIZE_BYTES
from collectord.journal.scan import (
    Found,
    FoundBadHead,
    FoundCorrupt,
    FoundHead,
    FoundNewer,
    FoundRecord,
    FoundTorn,
    has_hole,
    scan_segment,
)
from collectord.journal.writer import SegmentPart
from collectord.model import Record, RecordType
from collectord.names import parse_journal_file_name


class Journal(Enum):
    """What is said of the run."""

    OPEN = "open"
    TERMINAL = "terminal"
    NEWER = "newer"
    UNREADABLE = "unreadable"


class Tail(Enum):
    """What the last group is."""

    PROVEN = "proven"
    UNPROVEN = "unproven"
    DAMAGED = "damaged"
    TORN = "torn"


@frozen
class Condition:
    """A journal as it was found.

    Attributes:
        journal: whether the run is over.
        tail: whether the last group is known to be durable, is not, holds damage that stays, or ends torn.
        parts: the files that count, and how far each is durable and sound.
        again: the records of the last group, where nobody knows that they are durable.
        torn: what is to be cut off the last file.
        torn_bytes: how much that is, with the later files that never counted.
        last_path: of the last file that counts.
        end: where it ends without what is torn, a checkpoint included; -1 where nothing may be appended to it.
        salt: of it.
        next_number: of a segment that nothing has.
        damage: what was found wrong, but for what is torn.
    """

    journal: Journal
    tail: Tail
    parts: tuple[SegmentPart, ...]
    again: tuple[Record, ...]
    torn: FoundTorn | None
    torn_bytes: int
    last_path: str
    end: int
    salt: int
    next_number: int
    damage: DamageReport


@define
class _Tail:
    """The last group of a file while it is read."""

    salt: int = 0
    start: int = HEAD_SIZE_BYTES
    end: int = HEAD_SIZE_BYTES
    group: list[Record] = Factory(list)
    corrupt: list[FoundCorrupt] = Factory(list)
    torn: FoundTorn | None = None
    terminal_before: bool = False


def examine(disk: Disk, paths: list[str]) -> Condition:
    """Look at every file of a run's journal.

    Args:
        disk: where they are.
        paths: in order of their numbers.

    Raises:
        OSError: a file cannot be read.
    """
    links, unfinished = link(disk, paths, [None] * len(paths))
    damage = DamageReport()
    opened, newer, terminal_before = False, False, False
    last = _Tail()
    for one in links:
        terminal_before = terminal_before or last.terminal_before or _holds_terminal(last.group)
        for fault in faults_of(one):
            damage.note(one.path, fault)
        last, has_opened, is_newer = _read(disk, one, damage, is_last=one is links[-1])
        opened, newer = opened or has_opened, newer or is_newer
    hole = next((item for item in last.corrupt if has_hole(partial(disk.read, links[-1].path), item)), None) if links else None
    if hole is not None:
        last = _without(disk, links[-1], last, hole)
    for item in last.corrupt:
        damage.note(links[-1].path, item)
    is_over = terminal_before or last.terminal_before or _holds_terminal(last.group)
    journal = Journal.NEWER if newer else _journal(opened, is_over)
    return _condition(journal, links, [disk.size(path) for path in unfinished], paths, last, damage)


def _journal(opened: bool, is_over: bool) -> Journal:
    if not opened:
        return Journal.UNREADABLE
    return Journal.TERMINAL if is_over else Journal.OPEN


def _condition(
    journal: Journal, links: list[Link], sizes_of_unfinished: list[int], paths: list[str], last: _Tail, damage: DamageReport
) -> Condition:
    again = tuple(record for record in last.group if record.type not in (RecordType.CHECKPOINT, RecordType.SEGMENT))
    parts = [SegmentPart(one.path, one.size + one.missing) for one in links]
    end, torn_bytes = last.end, sum(sizes_of_unfinished)
    if last.torn is not None:
        tail, torn_bytes = Tail.TORN, torn_bytes + last.torn.length
    elif last.corrupt:
        tail = Tail.DAMAGED
    else:
        tail = Tail.UNPROVEN if again or sizes_of_unfinished else Tail.PROVEN
    if last.corrupt:  # corrupt records stay where they are, and so does all that is beside them
        again, durable, end = (), last.end, -1
    else:
        durable = last.start
    if links and durable <= HEAD_SIZE_BYTES and len(links) > 1 and links[-1].seam is Seam.SOUND:
        parts.pop()  # nothing in the last file is known to be durable: it is passed over
    elif links:
        parts[-1] = SegmentPart(links[-1].path, durable)
    return Condition(
        journal, tail, tuple(parts), again, last.torn, torn_bytes, links[-1].path if links else "", end, last.salt,
        _next_number(paths), damage,
    )  # fmt: skip


def _next_number(paths: list[str]) -> int:
    names = [parse_journal_file_name(path.rpartition("/")[2]) for path in paths]
    return max((name.segment + 1 for name in names if name is not None), default=len(paths))


def _holds_terminal(group: list[Record]) -> bool:
    return any(record.type is RecordType.TERMINAL for record in group)


def _read(disk: Disk, one: Link, damage: DamageReport, is_last: bool) -> tuple[_Tail, bool, bool]:
    """One file: its last group, whether the run's first record is in it, and whether it is of a newer version."""
    tail, opened, newer = _Tail(), False, False
    if not one.size and not one.missing and not is_last:
        return tail, opened, newer
    for item in read_link(disk, one):
        if isinstance(item, FoundNewer):
            newer = True
        elif isinstance(item, FoundHead):
            tail.salt = item.head.salt
        elif isinstance(item, FoundRecord):
            if item.begins_group:
                _begin_group(tail, one, item, damage)
            tail.group.append(item.record)
            tail.end = item.end
            opened = opened or item.record.type is RecordType.OPENED
        elif isinstance(item, FoundTorn):
            tail.torn = item
        elif isinstance(item, FoundCorrupt):
            tail.corrupt.append(item)
            tail.end = item.end
        elif isinstance(item, FoundBadHead):
            damage.note(one.path, item)
    if not is_last:
        stays: list[Found] = [*tail.corrupt] if tail.torn is None else [*tail.corrupt, tail.torn]
        for found in stays:
            damage.note(one.path, found)
        tail.corrupt, tail.torn = [], None
    return tail, opened, newer


def _begin_group(tail: _Tail, one: Link, item: FoundRecord, damage: DamageReport) -> None:
    """All before is proven to have been durable: damage in it is no tail's."""
    for found in tail.corrupt:
        damage.note(one.path, found)
    tail.terminal_before = tail.terminal_before or _holds_terminal(tail.group)
    tail.corrupt.clear()
    tail.group.clear()
    tail.start = item.offset


def _without(disk: Disk, one: Link, last: _Tail, hole: FoundCorrupt) -> _Tail:
    """The last group up to the hole; from there on it is torn."""
    kept: list[Record] = []
    end = last.start
    for item in scan_segment(partial(disk.read, one.path), hole.offset):
        if isinstance(item, FoundRecord) and item.offset >= last.start:
            kept.append(item.record)
            end = item.end
    corrupt = [item for item in last.corrupt if item.offset < hole.offset]
    end = max([end, *(item.end for item in corrupt)])
    torn = FoundTorn(hole.offset, one.size - hole.offset)
    return _Tail(last.salt, last.start, end, kept, corrupt, torn, last.terminal_before)
