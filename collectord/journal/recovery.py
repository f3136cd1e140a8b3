"""What is done with a run that an earlier collector left: one table that decides, and the mending of its journal.

The decision is pure. The mending changes only journals, and never a byte that a reader counts: what is not known to be durable is
written again, in a fresh segment; what is torn is set aside and cut. Whoever calls it derives trace files and wakes
open runs. Doing it twice changes nothing, and so does doing it again after it was interrupted anywhere.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Final

from attrs import frozen

from collectord.journal.condition import Condition, Journal, Tail, examine
from collectord.journal.damage import DamageReport
from collectord.journal.disk import Disk
from collectord.journal.finished import read_first_line
from collectord.journal.format import HEAD_SIZE_BYTES
from collectord.journal.scan import FoundNewer, FoundTorn, scan_segment
from collectord.journal.store import RunFound, Store
from collectord.journal.writer import JournalWriter, LeftOpen
from collectord.model import Outcome, Record
from collectord.session import records


class Decision(Enum):
    """What is to be done with a run that was found."""

    NOTHING = "nothing"
    DERIVE = "derive"
    REVIVE = "revive"
    LEAVE = "leave"
    QUARANTINE = "quarantine"


class TraceFile(Enum):
    """What its trace file is like. One that says nothing that we wrote is as good as missing."""

    MISSING = "missing"
    RUNNING = "running"
    FINISHED = "finished"


class Mending(Enum):
    """What is done to its journal first."""

    NONE = "none"
    SYNC = "sync"
    WRITE_AGAIN = "write again"
    CUT = "cut"


TABLE: Final = {
    (Journal.OPEN, TraceFile.MISSING): Decision.REVIVE,
    (Journal.OPEN, TraceFile.RUNNING): Decision.REVIVE,
    (Journal.OPEN, TraceFile.FINISHED): Decision.LEAVE,
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
"""Every journal with every trace file. A finished file is final: where its journal has lost the terminal record, both stay. A
journal without its first record says of nobody what it is: it is set aside where no trace file would be orphaned."""

MENDING: Final = {
    Tail.PROVEN: Mending.NONE,
    Tail.DAMAGED: Mending.SYNC,
    Tail.UNPROVEN: Mending.WRITE_AGAIN,
    Tail.TORN: Mending.CUT,
}
"""Before a run is revived, or its file derived: what its tail needs."""


@frozen
class Recovered:
    """What was done with a run.

    Attributes:
        decision: what is to be done with it further.
        journal: what its journal is like.
        mending: what was done to that.
        damage: what is wrong with it and stays.
        torn_bytes: how much was cut off.
        left: what is needed to go on with it; None where nobody will.
    """

    decision: Decision
    journal: Journal
    mending: Mending
    damage: DamageReport
    torn_bytes: int
    left: LeftOpen | None


def is_over(disk: Disk, found: RunFound) -> bool:
    """Whether nothing can be left to do for a run, by a look at the first bytes of its files.

    Where the trace file is finished, that is final whatever the journal holds; what may be wrong with that is for `verify` to
    find. So a start takes as long as there are open runs, not as there are journals. A journal of a newer version is no
    such case: its session is to be refused.

    Raises:
        OSError: a file cannot be read.
    """
    if _trace_file(disk, found) is not TraceFile.FINISHED:
        return False
    heads = (next(scan_segment(partial(disk.read, path), min(HEAD_SIZE_BYTES, disk.size(path)))) for path in found.segment_paths)
    return not any(isinstance(head, FoundNewer) for head in heads)


def recover_run(disk: Disk, store: Store, found: RunFound, new_salt: Callable[[], int], clock_ns: Callable[[], int]) -> Recovered:
    """Bring the journal of one run into order.

    Args:
        disk: to mend on.
        store: where things are.
        found: the run.
        new_salt: gives 32 random bits for a new file.
        clock_ns: gives Unix nanoseconds.

    Raises:
        OSError: the disk failed; what was done stays done, and the next try goes on from there.
        DiskError: the same, where it was a fresh segment that failed.

    Durability: everything that a reader finds is durable when this returns, but where corrupt records are beside it.
    """
    condition = examine(disk, found.segment_paths)
    decision = TABLE[condition.journal, _trace_file(disk, found)]
    if decision is Decision.QUARANTINE:
        _set_aside(disk, store, found)
    if decision not in (Decision.REVIVE, Decision.DERIVE):
        return Recovered(decision, condition.journal, Mending.NONE, condition.damage, 0, None)
    mending = MENDING[condition.tail]
    left = LeftOpen(condition.parts, condition.end, condition.salt, condition.next_number)
    if mending is Mending.SYNC:
        _sync(disk, condition.last_path)
    elif mending is not Mending.NONE:
        left = _write_again(disk, store, found, condition, left, new_salt, clock_ns)
    return Recovered(decision, condition.journal, mending, condition.damage, condition.torn_bytes, left)


def _trace_file(disk: Disk, found: RunFound) -> TraceFile:
    if found.trace_path is None:
        return TraceFile.MISSING
    told = read_first_line(disk, found.trace_path)
    if told is None:
        return TraceFile.MISSING
    return TraceFile.RUNNING if told.get("outcome") == Outcome.RUNNING.value else TraceFile.FINISHED


def _sync(disk: Disk, path: str) -> None:
    fd = disk.open_append(path)
    try:
        disk.sync(fd)
    finally:
        disk.close(fd)


def _write_again(
    disk: Disk,
    store: Store,
    found: RunFound,
    condition: Condition,
    left: LeftOpen,
    new_salt: Callable[[], int],
    clock_ns: Callable[[], int],
) -> LeftOpen:
    """Put the last group into a fresh segment, with the count of what is torn; only then is that cut off.

    The copy in the quarantine is durable before the count, and the count before the cut.
    """
    if condition.torn is not None:
        _keep_copy(disk, store, condition.last_path, condition.torn)
    again: list[Record] = list(condition.again)
    if condition.torn_bytes:
        again.append(records.torn(0, condition.torn_bytes, clock_ns()))
    directory = store.journal_directory(found.uid)
    writer = JournalWriter(disk, directory, found.stem, found.run, new_salt, clock_ns)
    writer.go_on(left, append=False)
    try:
        writer.append(again)
        writer.checkpoint()
        if condition.torn is not None:
            disk.truncate(condition.last_path, condition.torn.offset)
        return writer.left_open
    finally:
        writer.close()


def _keep_copy(disk: Disk, store: Store, path: str, torn: FoundTorn) -> None:
    """Set the bytes of a torn tail aside. Where that was done before and interrupted, it is the same file again."""
    aside = os.path.join(store.quarantine_directory, f"{os.path.basename(path)}.{torn.offset}.torn")
    disk.write_file(aside, disk.read(path, torn.offset, torn.length), sync=True)
    note = f"cut from {path}\noffset {torn.offset}\nbytes {torn.length}\nwhy: the last record was incomplete\n"
    disk.write_file(aside + ".txt", note.encode("utf-8", "surrogateescape"), sync=True)
    disk.sync_directory(store.quarantine_directory)


def _set_aside(disk: Disk, store: Store, found: RunFound) -> None:
    """Move a journal of which nothing can be said out of the way, untouched."""
    for path in found.segment_paths:
        disk.rename(path, store.free_quarantine_path(os.path.basename(path)))
        disk.sync_directory(os.path.dirname(path))
    disk.sync_directory(store.quarantine_directory)
