"""What is done with a run that an earlier collector left: one table that decides, and the mending of its journal.

The decision is pure. The mending changes only journals: a torn tail is cut and set aside, an open run gets its terminal record.
Whoever calls it derives the trace file. Doing it twice changes nothing.
"""

from __future__ import annotations

import os.path
from enum import Enum
from functools import partial
from typing import Final

from attrs import frozen

from collectord.journal.disk import Disk
from collectord.journal.finished import read_first_line
from collectord.journal.format import HEAD_SIZE_BYTES, HEADER_SIZE_BYTES, encode_record
from collectord.journal.scan import (
    DamageReport,
    FoundBadHead,
    FoundHead,
    FoundNewer,
    FoundRecord,
    FoundTorn,
    scan_segment,
)
from collectord.journal.store import RunFound, Store
from collectord.model import CrashReason, Outcome, Record, RecordType, Verdict
from collectord.session import records

_RESTARTED: Final = Verdict(CrashReason.COLLECTOR_RESTARTED, "the collector was restarted while the session ran")


class Decision(Enum):
    """What is to be done with a run that was found."""

    NOTHING = "nothing"
    DERIVE = "derive"
    CRASH = "crash"
    LEAVE = "leave"
    QUARANTINE = "quarantine"


class Journal(Enum):
    """What the journal of a run that was found is like."""

    OPEN = "open"
    TERMINAL = "terminal"
    NEWER = "newer"
    UNREADABLE = "unreadable"


class TraceFile(Enum):
    """What its trace file is like."""

    MISSING = "missing"
    RUNNING = "running"
    FINISHED = "finished"


TABLE: Final = {
    (Journal.OPEN, TraceFile.MISSING): Decision.CRASH,
    (Journal.OPEN, TraceFile.RUNNING): Decision.CRASH,
    (Journal.OPEN, TraceFile.FINISHED): Decision.CRASH,
    (Journal.TERMINAL, TraceFile.MISSING): Decision.DERIVE,
    (Journal.TERMINAL, TraceFile.RUNNING): Decision.DERIVE,
    (Journal.TERMINAL, TraceFile.FINISHED): Decision.NOTHING,
    (Journal.NEWER, TraceFile.MISSING): Decision.LEAVE,
    (Journal.NEWER, TraceFile.RUNNING): Decision.LEAVE,
    (Journal.NEWER, TraceFile.FINISHED): Decision.LEAVE,
    (Journal.UNREADABLE, TraceFile.MISSING): Decision.QUARANTINE,
    (Journal.UNREADABLE, TraceFile.RUNNING): Decision.LEAVE,
    (Journal.UNREADABLE, TraceFile.FINISHED): Decision.LEAVE,
}
"""Every journal with every trace file. A journal without a readable head holds nothing that could be checked: it is set aside
where no trace file would be orphaned by that, and left where it is otherwise."""


@frozen
class Recovered:
    """What was done, and whether the trace file must be derived now."""

    decision: Decision
    needs_render: bool
    damage: DamageReport


@frozen
class _Segment:
    """One file of a journal as it was found."""

    path: str
    size: int
    sound_end: int
    salt: int
    torn: FoundTorn | None


@frozen
class _Condition:
    journal: Journal
    last: _Segment | None
    damage: DamageReport


def recover_run(disk: Disk, store: Store, found: RunFound, at: int) -> Recovered:
    """Bring the journal of one run to its end.

    Args:
        disk: to mend on.
        store: where things are.
        found: the run.
        at: Unix nanoseconds: when the crash is said to have been noticed.

    Raises:
        OSError: the disk failed; what was done stays done, and the next start goes on from there.

    Durability: everything written is durable when this returns.
    """
    condition = _look(disk, found)
    decision = TABLE[condition.journal, _trace_file(disk, found)]
    if decision is Decision.CRASH:
        _end_as_crashed(disk, store, condition, at)
    elif decision is Decision.QUARANTINE:
        _set_aside(disk, store, found)
    return Recovered(decision, decision in (Decision.CRASH, Decision.DERIVE), condition.damage)


def _look(disk: Disk, found: RunFound) -> _Condition:
    """Scan every segment; remember the end of the last one."""
    damage = DamageReport()
    journal, last, opened = Journal.UNREADABLE, None, False
    for path in found.segment_paths:
        size = disk.size(path)
        salt, end, torn = 0, 0, None
        for item in scan_segment(partial(disk.read, path), size):
            if isinstance(item, FoundNewer):
                return _Condition(Journal.NEWER, None, damage)
            if isinstance(item, FoundHead):
                salt, end = item.head.salt, HEAD_SIZE_BYTES
            elif isinstance(item, FoundRecord):
                end = item.offset + HEADER_SIZE_BYTES + len(item.record.body)
                opened = opened or item.record.type is RecordType.OPENED
                if item.record.type is RecordType.TERMINAL:
                    journal = Journal.TERMINAL
            else:
                damage.note(path, item)
                if isinstance(item, FoundTorn):
                    torn = item
                elif not isinstance(item, FoundBadHead):
                    end = item.offset + item.length
        if end:
            last = _Segment(path, size, end, salt, torn)
    if opened and journal is not Journal.TERMINAL:
        journal = Journal.OPEN
    return _Condition(journal if opened else Journal.UNREADABLE, last, damage)


def _trace_file(disk: Disk, found: RunFound) -> TraceFile:
    if found.trace_path is None:
        return TraceFile.MISSING
    told = read_first_line(disk, found.trace_path)
    if told is None:
        return TraceFile.MISSING
    return TraceFile.RUNNING if told.get("outcome") == Outcome.RUNNING.value else TraceFile.FINISHED


def _end_as_crashed(disk: Disk, store: Store, condition: _Condition, at: int) -> None:
    last = condition.last
    assert last is not None
    additions: list[Record] = []
    if last.torn is not None:
        _cut(disk, store, last)
        additions.append(records.torn(0, last.torn.length, at))
    additions.append(records.crashed(at, _RESTARTED, None))
    offset, chunks = last.sound_end, []
    for record in additions:
        chunk = encode_record(record, last.salt, offset)
        chunks.append(chunk)
        offset += len(chunk)
    fd = disk.open_append(last.path)
    try:
        disk.write(fd, chunks)
        disk.sync(fd)
    finally:
        disk.close(fd)


def _cut(disk: Disk, store: Store, segment: _Segment) -> None:
    """Set a torn tail aside, then cut it off; the copy is durable before the cut."""
    torn = segment.torn
    assert torn is not None
    name = f"{os.path.basename(segment.path)}.{torn.offset}.torn"
    aside = os.path.join(store.quarantine_directory, name)
    disk.write_file(aside, disk.read(segment.path, torn.offset, torn.length), sync=True)
    note = f"cut from {segment.path}\noffset {torn.offset}\nbytes {torn.length}\nwhy: the last record was incomplete\n"
    disk.write_file(aside + ".txt", note.encode("utf-8", "surrogateescape"), sync=True)
    disk.sync_directory(store.quarantine_directory)
    disk.truncate(segment.path, torn.offset)


def _set_aside(disk: Disk, store: Store, found: RunFound) -> None:
    """Move a journal of which nothing can be read out of the way, untouched."""
    for path in found.segment_paths:
        disk.rename(path, os.path.join(store.quarantine_directory, os.path.basename(path)))
        disk.sync_directory(os.path.dirname(path))
    disk.sync_directory(store.quarantine_directory)
