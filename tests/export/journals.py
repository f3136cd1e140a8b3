"""Journals made in memory for rendering, and rendering made simple."""

from __future__ import annotations

from typing import Any

from collectord.export.render import render
from collectord.journal.reader import JournalReader
from collectord.journal.store import Store
from collectord.journal.writer import JournalWriter
from collectord.model import Record, RecordType
from collectord.session import records
from collectord.session.records import RunFacts, pack
from tests.export.otlp import check_document
from tests.simulation.disk import SimulatedDisk

T0 = 1_700_000_000_000_000_000
SPAN = bytes(range(1, 9))


def facts(session_id: str = "s", **fields: Any) -> RunFacts:
    """A run like any other."""
    told: dict[str, Any] = {
        "session_id": session_id, "run": 1, "trace_id": bytes(range(1, 17)), "opened_at": T0, "uid": 1000, "pid": 42,
        "process_start_time": 1, "boot_id": "b", "host": "box", "command": "agent --fast", "liveness": "process",
        "attributes": {}, "resource": {}, "resume_token": b"r" * 16,
    }  # fmt: skip
    return RunFacts(**{**told, **fields})


class JournalInMemory:
    """One run's journal on a simulated disk."""

    def __init__(self, run: RunFacts | None = None) -> None:
        self.disk = SimulatedDisk()
        self.store = Store(self.disk, "/state", 0)
        self.store.prepare()
        self._writer = JournalWriter(self.disk, "/state/journals", "s", 1, lambda: 9, lambda: T0)
        self._writer.create([records.opened(run or facts())])
        self._sequences: dict[int, int] = {}
        self._position = 0

    def events(self, *events: list[Any], producer: int = 1) -> int:
        """Append a batch; returns the sequence of its first event."""
        first = self._sequences.get(producer, 0) + 1
        self._sequences[producer] = first + len(events) - 1
        body = pack(list(events))
        self.append(Record(RecordType.EVENTS, body, producer, first, self._position + 1, len(events)))
        self._position += len(events)
        return first

    def append(self, record: Record) -> None:
        """Append any record."""
        self._writer.append([record])

    def render(self, terminal: Record | None = None) -> bytes:
        """The document as it stands."""
        parts: list[bytes] = []
        render(self.reader, terminal, parts.append)
        return b"".join(parts)

    def document(self, terminal: Record | None = None) -> dict[str, Any]:
        """The document, checked."""
        return check_document(self.render(terminal))

    def reader(self) -> JournalReader:
        """A reader over what is durable."""
        segments = self._writer.segments
        return JournalReader(self.disk, [part.path for part in segments], [part.durable_offset for part in segments])


def start(
    at: int = T0,
    span_id: bytes = SPAN,
    attributes: dict[str, Any] | None = None,
    parent: bytes | None = None,
    name: str = "span",
    links: list[Any] | None = None,
) -> list[Any]:
    """A ``span_start``."""
    event = [1, at, span_id, parent, name, 1, attributes or {}]
    return event if links is None else [*event, links]


def end(
    reference: Any, at: int = T0 + 1, attributes: dict[str, Any] | None = None, status: int = 0, message: str | None = None
) -> list[Any]:
    """A ``span_end``."""
    return [4, at, reference, status, message, attributes or {}]
