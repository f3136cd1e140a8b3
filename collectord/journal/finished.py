"""Runs that are over: what they came to, and the notes that may still be put behind them.

Owns the reading of a trace file's first line. A finished trace file is never changed here; a note goes into the journal alone.
"""

from __future__ import annotations

from typing import Final

import orjson
from attrs import frozen

from collectord.journal.disk import Disk
from collectord.journal.store import Store
from collectord.journal.writer import append_note as append_note_to
from collectord.limits import HEAD_LINE_MAX_BYTES
from collectord.model import Outcome, Record

_SECOND_LINE_MAX_BYTES: Final = 1 << 20
"""Why: it holds the attributes of the session, mostly a few hundred bytes. Beyond it: as if it said nothing."""


@frozen
class FinishedRun:
    """What is known of a run that is over."""

    run: int
    outcome: str
    path: str
    reason: str | None
    message: str | None
    segments: list[str]


def read_first_line(disk: Disk, path: str) -> dict[str, object] | None:
    """What line 1 of a trace file says, or None where it says nothing that we wrote.

    Raises:
        OSError: the file cannot be read.
    """
    raw = disk.read(path, 0, HEAD_LINE_MAX_BYTES + 2)
    line, newline, _ = raw.partition(b"\n")
    if not newline:
        return None
    try:
        head = orjson.loads(line.rstrip(b", ") + b"}")
    except orjson.JSONDecodeError:
        return None
    told = head.get("collectord") if isinstance(head, dict) else None
    return told if isinstance(told, dict) else None


def shown_position(disk: Disk, path: str) -> int | None:
    """The last position that a trace file shows, by its second line; None where it is not whole, or says nothing of that.

    Raises:
        OSError: the file cannot be read.
    """
    size = disk.size(path)
    if disk.read(path, max(0, size - 2), 2) != b"}\n":
        return None
    lines = disk.read(path, 0, _SECOND_LINE_MAX_BYTES).split(b"\n", 2)
    if len(lines) < 3:
        return None
    try:
        session = orjson.loads(b"{" + lines[1].rstrip(b", ") + b"}")["session"]
        return int(session["integrity"]["last_position"])
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError):
        return None


def read_finished(disk: Disk, store: Store, uid: int, stem: str, run: int | None) -> FinishedRun | None:
    """The run of that number, or the last one; None where there is none that is over.

    Raises:
        OSError: its files cannot be read.
    """
    number = store.last_run(uid, stem) if run is None else run
    if number is None:
        return None
    path = store.trace_path(uid, stem, number)
    if not disk.exists(path):
        return None
    told = read_first_line(disk, path)
    if told is None or told.get("outcome") in (None, Outcome.RUNNING.value):
        return None
    reason, message = told.get("reason"), told.get("message")
    return FinishedRun(
        number,
        str(told["outcome"]),
        path,
        None if reason is None else str(reason),
        None if message is None else str(message),
        store.segments_of(uid, stem, number),
    )


def append_note(disk: Disk, segments: list[str], note: Record) -> None:
    """Put a note behind the terminal record of a run that is over.

    Raises:
        OSError: the disk failed. DiskError: the journal's tail is not sound.

    Durability: the note is durable when this returns.
    """
    append_note_to(disk, segments, note)
