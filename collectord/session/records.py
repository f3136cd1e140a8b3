"""The bodies of the journal's control records: written by the core, read back by the export, named once, here.

Pure. docs/journal-format.md lists the same fields. Bodies are msgpack maps; times are Unix nanoseconds.
"""

from __future__ import annotations

from typing import Any

import msgpack
from attrs import asdict, frozen

from collectord.model import Attributes, GapReason, Outcome, Record, RecordType, Verdict


@frozen
class RunFacts:
    """What is fixed when a run is opened, before any event.

    Attributes:
        session_id: the raw id.
        run: which incarnation, from 1.
        trace_id: 16 bytes.
        opened_at: Unix nanoseconds of the collector.
        uid: whose session.
        pid: of the owner as the kernel says, 0 where it does not.
        process_start_time: of the owner in clock ticks since boot, 0 where unknown: tells a pid from its later double.
        boot_id: of the machine.
        host: its name.
        command: the owner's command line, for display.
        liveness: ``process`` or ``connection``: which death counts.
        attributes: of the session.
        resource: OpenTelemetry resource attributes of the owner's process.
        resume_token: 16 bytes that prove to be the owner.
    """

    session_id: str
    run: int
    trace_id: bytes
    opened_at: int
    uid: int
    pid: int
    process_start_time: int
    boot_id: str
    host: str
    command: str
    liveness: str
    attributes: Attributes
    resource: Attributes
    resume_token: bytes


def pack(body: Any) -> bytes:
    """Msgpack as the journal holds it."""
    packed: bytes = msgpack.packb(body, unicode_errors="surrogatepass")
    return packed


def unpack(body: bytes) -> Any:
    """The other way; raises what msgpack raises, since a body whose checksum is right was written by ``pack``."""
    return msgpack.unpackb(body, unicode_errors="surrogatepass")


def opened(facts: RunFacts) -> Record:
    """The first record of every journal."""
    return Record(RecordType.OPENED, pack(asdict(facts, recurse=False)), producer=1)


def facts_from(body: bytes) -> RunFacts:
    """What the first record of a journal says."""
    return RunFacts(**unpack(body))


def joined(producer: int, at: int, pid: int, command: str, resource: Attributes, resume_token: bytes) -> Record:
    """A participant came."""
    body = {"at": at, "pid": pid, "command": command, "resource": resource, "resume_token": resume_token}
    return Record(RecordType.JOINED, pack(body), producer=producer)


def resumed(producer: int, at: int, pid: int, process_start_time: int, boot_id: str, command: str) -> Record:
    """A producer came back after a restart of the collector; the next restart judges the owner by this process."""
    body = {"at": at, "pid": pid, "process_start_time": process_start_time, "boot_id": boot_id, "command": command}
    return Record(RecordType.RESUMED, pack(body), producer=producer)


def left(producer: int, at: int, detached: bool, error: Attributes | None) -> Record:
    """A participant detached, or vanished."""
    return Record(RecordType.LEFT, pack({"at": at, "detached": detached, "error": error}), producer=producer)


def refused(producer: int, first_sequence: int, count: int, code: str, at: int) -> Record:
    """A stretch of events that were not stored, all for one reason."""
    body = pack({"at": at, "code": code})
    return Record(RecordType.REFUSED, body, producer=producer, first_sequence=first_sequence, count=count)


def gap(producer: int, first_sequence: int, count: int, at: int) -> Record:
    """A stretch of events that the client says it lost; the count is in the body, since it may pass 32 bits."""
    body = pack({"at": at, "reason": GapReason.CLIENT_LOST.value, "count": count})
    return Record(RecordType.GAP, body, producer=producer, first_sequence=first_sequence)


def duplicates(producer: int, first_sequence: int, count: int, at: int) -> Record:
    """Events that came again and were not stored again."""
    body = pack({"at": at})
    return Record(RecordType.DUPLICATES, body, producer=producer, first_sequence=first_sequence, count=count)


def torn(producer: int, size: int, at: int) -> Record:
    """Bytes of a frame that never came whole."""
    return Record(RecordType.TORN, pack({"at": at, "bytes": size}), producer=producer)


def end_requested(outcome: Outcome, message: str | None, exception: Attributes | None, at: int, wait: bool) -> Record:
    """The owner wants the run to end so."""
    body = {"at": at, "outcome": outcome.value, "message": message, "exception": exception, "wait": wait}
    return Record(RecordType.END_REQUESTED, pack(body), producer=1)


def cancel_requested(reason: str, at: int, pid: int) -> Record:
    """Somebody else wants the run to stop."""
    return Record(RecordType.CANCEL_REQUESTED, pack({"at": at, "reason": reason, "pid": pid}))


def ended(outcome: Outcome, at: int, message: str | None, exception: Attributes | None) -> Record:
    """The one terminal record of a run that did not crash."""
    body = {"outcome": outcome.value, "at": at, "message": message, "exception": exception}
    return Record(RecordType.TERMINAL, pack(body))


def crashed(at: int, verdict: Verdict, end_wanted: str | None) -> Record:
    """The one terminal record of a run that crashed; ``end_wanted`` is the outcome that a pending `end` asked for."""
    body = {
        "outcome": Outcome.CRASHED.value,
        "at": at,
        "reason": verdict.reason.value,
        "signal": verdict.signal,
        "exit_code": verdict.exit_code,
        "message": verdict.message,
        "exception": verdict.exception,
        "end_requested": end_wanted,
    }
    return Record(RecordType.TERMINAL, pack(body))


def note(at: int, kind: str, text: str) -> Record:
    """Something that came too late to change anything, kept to be shown."""
    return Record(RecordType.NOTE, pack({"at": at, "kind": kind, "text": text}))


def segment(predecessor: int, durable_offset: int, cause: str, at: int, following: int) -> Record:
    """The first record of a later segment: which one failed, up to where it is good, and why it was left.

    ``following`` is how many records come behind it in its group: what it says holds only if they are all there.
    """
    body = {"at": at, "predecessor": predecessor, "durable_offset": durable_offset, "cause": cause, "records": following}
    return Record(RecordType.SEGMENT, pack(body))


def checkpoint() -> Record:
    """Says nothing but that it begins a group: everything before it is durable."""
    return Record(RecordType.CHECKPOINT, pack({}))
