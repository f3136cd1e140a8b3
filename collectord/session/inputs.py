"""What can happen to a run, as values. Each class knows which ``Input`` of the table it is.

Times are Unix nanoseconds taken by whoever made the value: the core has no clock. ``asker`` is an opaque token of the
connection that wants the answer; the core only hands it back.
"""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import frozen

from collectord.model import Attributes, Outcome, Verdict
from collectord.session.state import Input
from collectord.wire.events import EventBatch

Asker = Any


@frozen(eq=False)
class Events:
    """A batch from a producer."""

    kind: ClassVar = Input.EVENTS
    at: int
    producer: int
    batch: EventBatch


@frozen(eq=False)
class Flush:
    """A producer asks to be told when all it sent is durable; with ``export``, in the trace file too."""

    kind: ClassVar = Input.FLUSH
    at: int
    asker: Asker
    request_id: int
    producer: int
    last_sequence: int
    export: bool


@frozen(eq=False)
class Join:
    """A participant comes."""

    kind: ClassVar = Input.JOIN
    at: int
    asker: Asker
    request_id: int
    pid: int
    command: str
    resource: Attributes
    resume_token: bytes


@frozen(eq=False)
class End:
    """The owner ends the run as completed or failed."""

    kind: ClassVar = Input.END
    at: int
    asker: Asker
    request_id: int
    outcome: Outcome
    message: str | None
    exception: Attributes | None
    wait: bool
    last_sequence: int


@frozen(eq=False)
class Cancel:
    """The owner ends the run as cancelled."""

    kind: ClassVar = Input.CANCEL
    at: int
    asker: Asker
    request_id: int
    reason: str
    wait: bool
    last_sequence: int | None


@frozen(eq=False)
class CancelRequested:
    """Somebody else of the same user wants the run to stop."""

    kind: ClassVar = Input.CANCEL_REQUESTED
    at: int
    asker: Asker
    request_id: int
    reason: str
    pid: int


@frozen(eq=False)
class Crash:
    """A crash is reported; ``producer`` is the connection's own, 0 where it comes from outside the run."""

    kind: ClassVar = Input.CRASH
    at: int
    asker: Asker
    request_id: int
    verdict: Verdict
    producer: int
    last_sequence: int | None


@frozen(eq=False)
class OwnerGone:
    """End-of-file, reset or death of the owner, at the moment it was noticed: a mark, before what was unread is read."""

    kind: ClassVar = Input.OWNER_GONE
    at: int


@frozen(eq=False)
class ExitInfo:
    """What was unread is posted, and this is what is known of the owner's death."""

    kind: ClassVar = Input.EXIT_INFO
    at: int
    verdict: Verdict
    torn_bytes: int = 0


@frozen(eq=False)
class ParticipantGone:
    """A participant detached (then ``asker`` waits), or vanished."""

    kind: ClassVar = Input.PARTICIPANT_GONE
    at: int
    producer: int
    last_sequence: int | None = None
    asker: Asker = None
    request_id: int = 0
    error: Attributes | None = None
    torn_bytes: int = 0


@frozen(eq=False)
class Synced:
    """All records taken so far are durable."""

    kind: ClassVar = Input.SYNCED


@frozen(eq=False)
class SyncFailed:
    """The records taken last are not durable, in the first segment tried nor in a fresh one."""

    kind: ClassVar = Input.SYNC_FAILED
    cause: str


@frozen(eq=False)
class ExportDue:
    """The running trace file is to follow."""

    kind: ClassVar = Input.EXPORT_DUE


@frozen(eq=False)
class Rendered:
    """The ordered document stands in its temporary file."""

    kind: ClassVar = Input.RENDERED
    at: int
    number: int


@frozen(eq=False)
class Renamed:
    """The document stands under its name; a final one durably."""

    kind: ClassVar = Input.RENAMED
    number: int


@frozen(eq=False)
class ExportFailed:
    """The ordered document could not be rendered or renamed."""

    kind: ClassVar = Input.EXPORT_FAILED
    at: int
    number: int
    cause: str


@frozen(eq=False)
class GraceExpired:
    """The time to answer a cancel is over."""

    kind: ClassVar = Input.GRACE_EXPIRED
    at: int


@frozen(eq=False)
class Resume:
    """A producer of a recovered run is back, with its token."""

    kind: ClassVar = Input.RESUME
    at: int
    asker: Asker
    request_id: int
    token: bytes
    pid: int = 0
    process_start_time: int = 0
    boot_id: str = ""
    command: str = ""


@frozen(eq=False)
class ResumeExpired:
    """The absent had their time, or are known to be dead; ``verdict`` is what the run dies of if its owner is among them."""

    kind: ClassVar = Input.RESUME_EXPIRED
    at: int
    verdict: Verdict


@frozen(eq=False)
class Drain:
    """The collector stops: no more is accepted, the run stays resumable."""

    kind: ClassVar = Input.DRAIN


AnyInput = (
    Events
    | Flush
    | Join
    | End
    | Cancel
    | CancelRequested
    | Crash
    | OwnerGone
    | ExitInfo
    | ParticipantGone
    | Synced
    | SyncFailed
    | ExportDue
    | Rendered
    | Renamed
    | ExportFailed
    | GraceExpired
    | Resume
    | ResumeExpired
    | Drain
)
