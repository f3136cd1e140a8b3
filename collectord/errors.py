"""Every error collectord can state: its code, whose doing it was, and what to do about it.

This module owns the list of codes (``CODES``) and the exceptions that carry one. It knows nothing of how an error
travels (``wire.messages.Error``) or where it is shown. ``docs/errors.md`` is compared with ``CODES`` by a test.

Whose doing is the one distinction every reader needs first, so it is in the class as well as in the table:
``PeerError`` is the other side's fault and ends its connection, ``RefusedError`` is a well-formed wish that cannot be
granted, ``OperatorError`` is configuration, ``DiskError`` is the storage.
"""

from __future__ import annotations

from typing import Final, Literal

from attrs import frozen

Whose = Literal["client", "collector", "disk", "operator"]


@frozen
class ErrorCode:
    """One row of the table of errors.

    Attributes:
        code: stable, lower-case, hyphenated; what programs compare.
        whose: who has to change something.
        retryable: whether the same request may succeed later without being changed.
        remedy: one sentence that says what to do.
    """

    code: str
    whose: Whose
    retryable: bool
    remedy: str


_ROWS: Final = (
    # Frames and messages: the connection is closed after the error was sent, since its bytes have lost their meaning.
    ErrorCode("frame-too-large", "client", False, "send smaller frames: the limit is in `welcome.limits`"),
    ErrorCode("frame-malformed", "client", False, "a frame's payload must be exactly one msgpack value"),
    ErrorCode("message-malformed", "client", False, "compare the message with docs/protocol.md, field by field"),
    ErrorCode("message-unknown", "client", False, "use a message type that docs/protocol.md lists"),
    ErrorCode("message-unexpected", "client", False, "say hello first, then open, then events"),
    ErrorCode("protocol-unsupported", "client", False, "use a client that speaks a protocol version named in the error"),
    ErrorCode("hello-timeout", "client", True, "say hello within the time named in the error"),
    # Requests that are understood and not granted: the connection goes on.
    ErrorCode("session-busy", "client", True, "this session is running: join it, or wait until it ends"),
    ErrorCode("session-unknown", "client", False, "no such session for this user: open it, or check the id"),
    ErrorCode("run-unknown", "client", False, "that run of the session does not exist: leave `run` out for the latest"),
    ErrorCode("session-ended", "client", False, "the run is over and takes no more events: open the session again"),
    ErrorCode("session-id-invalid", "client", False, "a session id is 1 to 65,536 bytes of text"),
    ErrorCode("not-owner", "client", False, "only the connection that opened the run may end it: detach instead"),
    ErrorCode("resume-refused", "client", False, "the run goes on where it was: only a restart of the collector can be resumed"),
    ErrorCode("resume-token-wrong", "client", False, "resume with the token that `opened` gave, or open the session anew"),
    ErrorCode("connection-used", "client", False, "a writing connection serves one run: open another connection"),
    ErrorCode("journal-too-new", "operator", False, "the session's journal was written by a newer collectord: upgrade"),
    ErrorCode("collector-draining", "collector", True, "the collector is stopping: connect again in a moment"),
    ErrorCode("too-many-sessions", "collector", True, "end some sessions, or raise the collector's descriptor limit"),
    ErrorCode("disk-full", "operator", True, "free some space, or lower the collector's disk_free_min"),
    ErrorCode("disk-failed", "disk", True, "look at the collector's disk: `collectord status` names the cause"),
    ErrorCode("export-failed", "disk", True, "the journal is safe; the trace file is derived again at the next start"),
    ErrorCode("internal-error", "collector", False, "this is a bug of collectord: please report what its log says"),
    # Reasons why one event of a batch was refused; the rest of the batch is stored.
    ErrorCode("event-malformed", "client", False, "compare the event with docs/protocol.md, element by element"),
    ErrorCode("event-unknown", "client", False, "use an event kind that docs/protocol.md lists"),
    ErrorCode("value-invalid", "client", False, "values are nil, bool, int, float, str, bin, array, and map with str keys"),
    ErrorCode("value-too-deep", "client", False, "nest values less deeply: the limit is in `welcome.limits`"),
    ErrorCode("attributes-too-many", "client", False, "set fewer attributes at once: the limit is in `welcome.limits`"),
    ErrorCode("text-not-utf8", "client", False, "text is UTF-8; send other bytes as msgpack bin"),
    ErrorCode("time-invalid", "client", False, "times are Unix nanoseconds that fit in 64 bits without a sign"),
    ErrorCode("span-id-invalid", "client", False, "span ids are 8 bytes, trace ids 16, and neither is all zero"),
    ErrorCode("span-ended", "client", False, "the span has ended: nothing may be added to it"),
    ErrorCode("span-unknown", "client", False, "refer to a span by the sequence of its span_start, sent before"),
    ErrorCode("spans-too-many", "client", False, "end some spans first: the limit is in `welcome.limits`"),
    # The operator's: the daemon refuses to start, or a command to run.
    ErrorCode("config-invalid", "operator", False, "mend the option or the line that the message names"),
    ErrorCode("directory-unusable", "operator", False, "name a directory that exists or can be made, and can be written"),
    ErrorCode("network-file-system", "operator", False, "use a local disk, or say --allow-network-fs and read why not"),
    ErrorCode("already-running", "operator", False, "stop the other collectord, or use another directory and socket"),
    ErrorCode("socket-unusable", "operator", False, "name a socket path that is free and shorter than 108 bytes"),
    ErrorCode("journal-unreadable", "disk", False, "see `collectord verify`: nothing can be made of what is left of it"),
    ErrorCode("trace-kept", "operator", False, "the trace file may hold more than the journal: use --output to compare"),
    ErrorCode("no-daemon", "operator", True, "start it with `collectord serve`, or name its socket with --socket"),
)

CODES: Final[dict[str, ErrorCode]] = {row.code: row for row in _ROWS}
"""Every code by its name."""


class CollectordError(Exception):
    """The root of all errors that collectord raises on purpose.

    Args:
        code: a key of ``CODES``.
        message: one sentence about this very case, for a person.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code: Final = CODES[code].code
        self.message: Final = message

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later, unchanged."""
        return CODES[self.code].retryable

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class PeerError(CollectordError):
    """The other side broke the protocol. Its connection is told why and closed."""


class RefusedError(CollectordError):
    """A well-formed request that cannot be granted. The connection goes on."""


class OperatorError(CollectordError):
    """Configuration or surroundings that the daemon will not start with, or a command cannot work with."""


class DiskError(CollectordError):
    """The storage failed. What was not durable before is not durable now, and nothing of it was acknowledged."""
