"""The words of the domain as types: outcomes, event kinds, record types, statuses, reasons.

Pure: numbers and names that wire, session, journal and export share. What each word means is in docs/glossary.md.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any, Final

from attrs import frozen

Attributes = dict[str, Any]
Event = list[Any]
"""One event as it travels: an array whose first element is an ``EventKind`` (docs/protocol.md, "Events")."""

OWNER_PRODUCER: Final = 1
"""The producer number of the connection that opened the run; participants count on from it."""


class Outcome(Enum):
    """How a run stands: still running, or one of the terminal four."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CRASHED = "crashed"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing may change it any more."""
        return self is not Outcome.RUNNING


class CrashReason(Enum):
    """Why a run is `crashed`."""

    REPORTED = "reported"
    PROCESS_DIED = "process-died"
    CONNECTION_CLOSED = "connection-closed"
    PROTOCOL_ERROR = "protocol-error"
    COLLECTOR_RESTARTED = "collector-restarted"


class GapReason(Enum):
    """Why a stretch of events is known to be missing."""

    CLIENT_LOST = "client-lost"


class EventKind(IntEnum):
    """The first element of every event. Numbers are part of the protocol and of the journal: never reused."""

    SPAN_START = 1
    SPAN_UPDATE = 2
    SPAN_EVENT = 3
    SPAN_END = 4
    LOG = 5
    SESSION_UPDATE = 6
    KV_SET = 7
    KV_DELETE = 8
    KV_CLEAR = 9


class SpanStatus(IntEnum):
    """OpenTelemetry's status codes."""

    UNSET = 0
    OK = 1
    ERROR = 2


class RecordType(IntEnum):
    """The type byte of a journal record. Numbers are part of the journal format: never reused."""

    OPENED = 1
    EVENTS = 2
    JOINED = 3
    LEFT = 4
    REFUSED = 5
    GAP = 6
    END_REQUESTED = 7
    CANCEL_REQUESTED = 8
    TERMINAL = 9
    NOTE = 10
    SEGMENT = 11
    TORN = 12
    DUPLICATES = 13
    RESUMED = 14
    CHECKPOINT = 15


SEVERITIES: Final = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17, "fatal": 21}
"""Names of log severities and their OpenTelemetry numbers; these six and no others are accepted."""

SEVERITY_NAMES: Final = {number: name.upper() for name, number in SEVERITIES.items()}


@frozen
class Record:
    """One entry of a journal before it has an offset.

    Attributes:
        type: what kind of entry.
        body: msgpack; for ``EVENTS`` the array of the events exactly as they came over the wire.
        producer: whose entry; 0 where it is the collector's own.
        first_sequence: the producer's number of the first event; 0 where it does not apply.
        first_position: the run's number of the first event; 0 where it does not apply.
        count: how many events, or how many sequences a gap or a refusal covers.
    """

    type: RecordType
    body: bytes
    producer: int = 0
    first_sequence: int = 0
    first_position: int = 0
    count: int = 0


@frozen
class Verdict:
    """What is known about the death of the owner.

    Attributes:
        reason: why the run is crashed.
        signal: the name of the signal that ended the process, where the kernel told.
        exit_code: the exit status of the process, where the kernel told.
        message: one sentence for a person.
        exception: ``{"type", "message", "stack"}`` of a reported crash, each a string or None.
    """

    reason: CrashReason
    message: str
    signal: str | None = None
    exit_code: int | None = None
    exception: Attributes | None = None
