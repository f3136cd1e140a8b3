"""What a trace file says of itself, and whether the rest of it is what a journal renders to.

Pure over a disk. Reads the first two lines whole and everything behind them in pieces, beside the rendering: neither document is
ever held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson
from attrs import frozen

from collectord.export.fold import RunSummary
from collectord.export.head import first_line, session_line
from collectord.export.render import Reader, render
from collectord.journal.disk import Disk
from collectord.limits import TRACE_LINE_MAX_BYTES
from collectord.model import Outcome

_CHUNK_SIZE_BYTES: Final = 1 << 20
_SESSION: Final = b'"session":'

Sums = tuple[object, ...]
"""The figures of a document by which one state of its run is told from most others."""


@frozen
class Claim:
    """The first two lines of a trace file.

    Attributes:
        lines: as they stand, with their ends; empty where there are not two.
        head: what line 1 says; None where that is nothing that we wrote.
        session: what line 2 says; None likewise.
        size: of the file.
    """

    lines: bytes
    head: dict[str, Any] | None
    session: dict[str, Any] | None
    size: int

    @property
    def is_ours(self) -> bool:
        """Whether both lines are those of a trace file."""
        return self.head is not None and self.session is not None

    @property
    def is_finished(self) -> bool:
        """Whether it says that the run is over."""
        return self.head is not None and self.head.get("outcome") != Outcome.RUNNING.value

    @property
    def sums(self) -> Sums:
        """As ``sums_of`` has them for a summary."""
        session = self.session or {}
        integrity = _map(session.get("integrity"))
        figures = ("last_position", "received", "duplicates", "client_lost", "torn_bytes", "corrupt_records")
        lengths = (_length(session.get("participants")), _length(session.get("notes")))
        return (session.get("outcome"), *(integrity.get(figure) for figure in figures), *lengths)

    @property
    def last_position(self) -> int | None:
        """Of the last event that is in the file, where it says so."""
        found = _map((self.session or {}).get("integrity")).get("last_position")
        return found if type(found) is int else None

    def why_sums_are_wrong(self) -> str | None:
        """A sentence, or None where `received = stored + refused`, and the figures agree."""
        session = self.session or {}
        integrity, counts = _map(session.get("integrity")), _map(session.get("counts"))
        refused = _map(integrity.get("refused")).values()
        figures = [integrity.get("received"), integrity.get("stored"), counts.get("events"), *refused]
        if not all(type(figure) is int for figure in figures):
            return "its figures are not all there"
        received, stored, events = figures[:3]
        if received != stored + sum(refused):
            return f"it says that {received} events were received, and {stored} stored and {sum(refused)} refused"
        if events != stored:
            return f"it says that {stored} events were stored, and counts {events}"
        return None


def sums_of(summary: RunSummary) -> Sums:
    """The figures of a document that would be rendered now."""
    ledger = summary.ledger
    return (
        summary.outcome,
        ledger.last_position,
        ledger.stored + ledger.refused_total,
        ledger.duplicates,
        ledger.client_lost,
        ledger.torn_bytes,
        ledger.corrupt_records,
        len(summary.participants),
        len(summary.notes),
    )


def lines_of(summary: RunSummary) -> bytes:
    """The first two lines of that document."""
    return first_line(summary) + b"\n" + session_line(summary) + b"\n"


def read_claim(disk: Disk, path: str) -> Claim:
    """Read the first two lines of a trace file.

    Raises:
        OSError: it cannot be read.
    """
    size = disk.size(path)
    raw = b""
    while raw.count(b"\n") < 2 and len(raw) < TRACE_LINE_MAX_BYTES:
        part = disk.read(path, len(raw), _CHUNK_SIZE_BYTES)
        if not part:
            break
        raw += part
    first, _, rest = raw.partition(b"\n")
    second, newline, _ = rest.partition(b"\n")
    if not newline:
        return Claim(b"", None, None, size)
    head = _parsed(first, b"")
    told = None if head is None else head.get("collectord")
    return Claim(first + b"\n" + second + b"\n", told if isinstance(told, dict) else None, _parsed(second, _SESSION), size)


def _parsed(line: bytes, prefix: bytes) -> dict[str, Any] | None:
    """The value of one line of the document, which ends in a comma."""
    if not line.startswith(prefix) or not line.endswith(b","):
        return None
    text = line[len(prefix) : -1]
    try:
        found = orjson.loads(text if prefix else text + b"}")
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _map(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _length(value: object) -> int | None:
    return len(value) if isinstance(value, list) else None


class _Differs(Exception):
    """The rendering need not go on."""


class _Comparison:
    """Takes a document piece by piece and holds it against a file."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._waiting: list[bytes] = []
        self._size = 0
        self.offset = 0

    def take(self, piece: bytes) -> None:
        self._waiting.append(piece)
        self._size += len(piece)
        if self._size >= _CHUNK_SIZE_BYTES:
            self.compare()

    def compare(self) -> None:
        """Compare what waits. Raises ``_Differs``, with ``offset`` at the first byte that does."""
        wanted = b"".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        found = self._disk.read(self._path, self.offset, len(wanted))
        if found != wanted:
            self.offset += _common(found, wanted)
            raise _Differs
        self.offset += len(wanted)


def _common(one: bytes, other: bytes) -> int:
    """How many bytes two pieces have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def first_difference(disk: Disk, path: str, size: int, make_reader: Callable[[], Reader]) -> int | None:
    """The offset of the first byte at which a file is not what a journal renders to, or None where it is that.

    Args:
        disk: where the file is.
        path: of the file.
        size: of the file.
        make_reader: gives a reader over the part of the journal that is to be rendered.

    Raises:
        OSError: something cannot be read.
        JournalIsEmpty: the journal's first record is missing.
    """
    comparison = _Comparison(disk, path)
    try:
        render(make_reader, None, comparison.take)
        comparison.compare()
    except _Differs:
        return comparison.offset
    return None if size == comparison.offset else comparison.offset
