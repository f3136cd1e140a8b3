"""From a journal to the trace file: a pure function, streaming.

Owns the shape of the document (design section 5, docs/trace-format.md). Reads the journal two or three times instead of holding
it: once for what stands at the top, once for the spans, once more for logs if there are any. Memory is bounded by open spans.
Knows nothing of files: it is given a reader and something that takes bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, Protocol

from collectord.export.fold import Located, RunSummary, fold, place
from collectord.export.head import dumps, first_line, session_line
from collectord.export.request import RenderResult
from collectord.export.spans import LogLines, SpanLines
from collectord.export.values import attribute_list, clean_attributes, clean_names, plain_attributes
from collectord.model import OWNER_PRODUCER, Attributes, Event, Outcome, Record, RecordType
from collectord.session.records import unpack

_OURS = ("collectord.run", "collectord.outcome", "collectord.crash.")
"""What a client's resource cannot say: it is for us to say how a run stands."""

_SCOPE = b'{"scope":{"name":"collectord"},'


class Damage(Protocol):
    """What was found wrong in a journal."""

    @property
    def corrupt_records(self) -> int:
        """How many records were not sound."""

    @property
    def torn_bytes(self) -> int:
        """How long the incomplete record at its end is."""


class Reader(Protocol):
    """What rendering needs of a journal: its sound records, and each of them again."""

    def locate(self) -> Iterator[Located]:
        """Every sound record, in order, and where it is."""

    def read_record_at(self, segment_index: int, offset: int) -> Record:
        """One of them again."""

    @property
    def damage(self) -> Damage:
        """What was not sound, once all were read."""


class JournalIsEmpty(Exception):
    """There is no first record: nothing is known of this run that could be rendered."""


class _Lines:
    """Takes lines and counts bytes."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self.size = 0

    def put(self, line: bytes) -> None:
        self._write(line)
        self.size += len(line)


def render(make_reader: Callable[[], Reader], terminal: Record | None, write: Callable[[bytes], object]) -> RenderResult:
    """Render the trace file of a run.

    Args:
        make_reader: gives a reader over the durable part of the journal.
        terminal: the terminal record to be, where it is not in the journal yet. The document is the one that the journal
            will render to once it is.
        write: takes the document piece by piece.

    Raises:
        JournalIsEmpty: the journal's first record is missing.
    """
    reader = make_reader()
    located: Iterable[Located] = reader.locate()
    if terminal is not None:
        located = chain(located, [(0, 0, terminal)])
    summary = fold(located)
    if summary is None:
        raise JournalIsEmpty
    summary.ledger.corrupt_records = reader.damage.corrupt_records
    summary.ledger.torn_bytes += reader.damage.torn_bytes
    lines = _Lines(write)
    lines.put(first_line(summary) + b"\n" + session_line(summary) + b"\n")
    lines.put(b'"resourceSpans":[')
    _spans(reader, summary, lines)
    lines.put(b'],\n"resourceLogs":[')
    if summary.ledger.logs:
        _logs(reader, summary, lines)
    lines.put(b'],\n"spaces":' + _spaces(summary) + b"}\n")
    return RenderResult(lines.size, summary.ledger.last_position)


def _spaces(summary: RunSummary) -> bytes:
    names = clean_names(summary.spaces)
    return dumps({names[name]: plain_attributes(space) for name, space in summary.spaces.items()})


def _spans(reader: Reader, summary: RunSummary, lines: _Lines) -> None:
    """The spans, a group per producer; the owner's group is there even when it is empty."""
    for number, producer in enumerate(sorted(summary.ledger.producers)):
        lines.put(b",\n" if number else b"")
        lines.put(b'{"resource":' + resource(summary, producer) + b',"scopeSpans":[' + _SCOPE + b'"spans":[')
        first = True
        made = SpanLines(producer, summary.facts.trace_id.hex())
        for line in made.lines(_records_of(reader, summary, producer)):
            lines.put((b"\n" if first else b",\n") + line)
            first = False
        lines.put(b"\n]}]}")


def _logs(reader: Reader, summary: RunSummary, lines: _Lines) -> None:
    """The logs, a group per producer that has any."""
    first_group = True
    for producer in sorted(summary.ledger.producers):
        first = True
        made = LogLines(producer, summary.facts.trace_id.hex())
        for line in made.lines(_records_of(reader, summary, producer)):
            if first:
                lines.put(b"" if first_group else b",\n")
                lines.put(b'{"resource":' + resource(summary, producer) + b',"scopeLogs":[' + _SCOPE + b'"logRecords":[')
            lines.put((b"\n" if first else b",\n") + line)
            first = first_group = False
        if not first:
            lines.put(b"\n]}]}")


def _records_of(reader: Reader, summary: RunSummary, producer: int) -> Iterator[tuple[int, int, list[Event]]]:
    """The batches that may concern a producer: whose they are, their first sequence, their events."""
    for record in _located(reader, summary, producer):
        if record.type is RecordType.EVENTS:
            yield record.producer, record.first_sequence, unpack(record.body)


def _located(reader: Reader, summary: RunSummary, producer: int) -> Iterator[Record]:
    if summary.seam is None:
        for _, _, record in reader.locate():
            yield record
        return
    if producer == OWNER_PRODUCER:  # up to the first that joined, everything is the owner's
        seam = place(summary.seam)
        for segment, offset, record in reader.locate():
            if (segment, offset) == seam:
                break
            yield record
    for location in summary.where.get(producer, ()):
        yield reader.read_record_at(*place(location))


def resource(summary: RunSummary, producer: int) -> bytes:
    """The resource of a producer: who it was, and how the run ended, since viewers show nothing else of that."""
    facts, terminal = summary.facts, summary.terminal
    participant = summary.participants.get(producer)
    told = facts.resource if participant is None else participant.resource
    pid = facts.pid if participant is None else participant.pid  # the kernel's word; 0 where it has none: then the client's
    attributes: Attributes = {"service.name": "unknown_service"}
    attributes |= {key: value for key, value in told.items() if not key.startswith(_OURS)}
    attributes["session.id"] = facts.session_id
    if pid:
        attributes["process.pid"] = pid
    attributes |= {
        "host.name": told.get("host.name", facts.host),
        "collectord.run": facts.run,
        "collectord.outcome": summary.outcome,
    }
    if terminal is not None and terminal["outcome"] == Outcome.CRASHED.value:
        for name in ("reason", "signal", "exit_code"):
            if terminal[name] is not None:
                attributes[f"collectord.crash.{name}"] = terminal[name]
    return _attributes_as_json(attributes)


def _attributes_as_json(attributes: Attributes) -> bytes:
    cleaned: Any = {"attributes": attribute_list(clean_attributes(attributes))}
    return dumps(cleaned)
