"""What the collector counts, and how `status` tells it.

Owns the shape of the status answer (design section 9). Counts of live runs stay in their ledgers; what a finished run counted
is added here when it is over, so that the totals are right at any moment and nothing is counted twice.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable

import trio

from collectord import __version__
from collectord.daemon.owner import RunOwner
from collectord.limits import FINISHED_REMEMBERED, FRAME_SIZE_MAX_BYTES
from collectord.model import Attributes
from collectord.session.ledger import NAME, SPAN_ID, STARTED_AT
from collectord.times import rfc3339
from collectord.wire.messages import StatusAnswer

_ROW_SIZE_BYTES = 1_024
"""One session's part of a status answer without its id and path, generously."""

_NAME_SHOWN_MAX = 200
"""Why: a span's name may be megabytes long; `status` shows where it begins."""

_MESSAGE_SHOWN_MAX = 500
"""Why: as above, for the message of a crash; the trace file has all of it."""


class Totals:
    """Sums over the runs that are over, and what was refused after the end of one."""

    __slots__ = ("duplicates", "refused", "sessions", "stored")

    def __init__(self) -> None:
        self.sessions = 0
        self.stored = 0
        self.refused = 0
        self.duplicates = 0


class Statistics:
    """The collector's numbers."""

    def __init__(self) -> None:
        self._over = Totals()
        self._finished: deque[Attributes] = deque(maxlen=FINISHED_REMEMBERED)

    def run_opened(self) -> None:
        """A run was begun."""
        self._over.sessions += 1

    def run_over(self, owner: RunOwner, at_ns: int) -> None:
        """A run is over: keep what it counted and how it is to be shown."""
        ledger = owner.core.ledger
        self._over.stored += ledger.stored
        self._over.refused += ledger.refused_total + owner.core.refused_late
        self._over.duplicates += ledger.duplicates
        if owner.core.outcome.is_terminal:
            self._finished.append(session_row(owner, at_ns))

    def refused_late(self, count: int) -> None:
        """Events came for a run that was over."""
        self._over.refused += count

    def answer(self, request_id: int, owners: Iterable[RunOwner], surroundings: Attributes, uid: int | None) -> StatusAnswer:
        """The answer to ``status``: the running sessions, then the finished ones, the latest first.

        Args:
            request_id: of the question.
            owners: of all live runs.
            surroundings: what the collector adds to ``daemon``.
            uid: whose sessions the asker may see; None sees all. The totals are everybody's.
        """
        live = list(owners)
        stored = self._over.stored + sum(owner.core.ledger.stored for owner in live)
        refused = self._over.refused + sum(o.core.ledger.refused_total + o.core.refused_late for o in live)
        duplicates = self._over.duplicates + sum(owner.core.ledger.duplicates for owner in live)
        daemon: Attributes = {
            "pid": os.getpid(),
            "version": __version__,
            "sessions_running": len(live),
            "sessions_total": self._over.sessions,
            "events_received": stored + refused,
            "events_stored": stored,
            "events_refused": refused,
            "events_duplicate": duplicates,
            "stalled": sum(owner.core.stall_cause is not None for owner in live),
            "memory_bytes": resident_bytes(),
            "descriptors": open_descriptors(),
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            **surroundings,
        }
        rows = [session_row(owner, None) for owner in live if uid is None or owner.core.facts.uid == uid]
        rows.extend(row for row in reversed(self._finished) if uid is None or row["uid"] == uid)
        return _fitted(request_id, daemon, rows)


def _fitted(request_id: int, daemon: Attributes, rows: list[Attributes]) -> StatusAnswer:
    """As many rows as one frame takes for certain; the rest is counted."""
    room = FRAME_SIZE_MAX_BYTES // 2
    for kept, row in enumerate(rows):
        room -= _ROW_SIZE_BYTES + 4 * (len(row["id"]) + len(row["path"]))
        if room < 0:
            return StatusAnswer(request_id, daemon, rows[:kept], len(rows) - kept)
    return StatusAnswer(request_id, daemon, rows)


def session_row(owner: RunOwner, ended_at: int | None) -> Attributes:
    """One run as `status` shows it."""
    core = owner.core
    facts, ledger = core.facts, core.ledger
    return {
        "id": facts.session_id,
        "run": facts.run,
        "outcome": core.outcome.value,
        "state": core.state.value,
        "pid": facts.pid,
        "uid": facts.uid,
        "trace_id": facts.trace_id.hex(),
        "path": core.path,
        "opened_at": rfc3339(facts.opened_at),
        "ended_at": None if ended_at is None else rfc3339(ended_at),
        "last_event_at": None if ledger.last_event_at is None else rfc3339(ledger.last_event_at),
        "events": ledger.stored,
        "spans": ledger.spans,
        "unfinished": ledger.open_spans,
        "errors": ledger.errors,
        "logs": ledger.logs,
        "refused": ledger.refused_total,
        "duplicates": ledger.duplicates,
        "gaps": len(ledger.gaps),
        "client_lost": ledger.client_lost,
        "torn_bytes": ledger.torn_bytes,
        "corrupt_records": ledger.corrupt_records,
        "participants": len(ledger.producers) - 1,
        "usage": ledger.usage.as_dict(),
        "activity": _activity(owner) if ended_at is None else None,
        "crash": _crash(owner),
        "stalled": core.stall_cause,
        "durable": owner.is_durable,
    }


def _activity(owner: RunOwner) -> Attributes | None:
    """What the agent is doing: the innermost open span."""
    span = owner.core.ledger.innermost()
    if span is None:
        return None
    return {
        "name": _shortened(span[NAME], _NAME_SHOWN_MAX),
        "span_id": span[SPAN_ID].hex(),
        "started_at": rfc3339(span[STARTED_AT]),
    }


def _crash(owner: RunOwner) -> Attributes | None:
    verdict = owner.core.verdict
    if verdict is None:
        return None
    return {
        "reason": verdict.reason.value,
        "signal": verdict.signal,
        "exit_code": verdict.exit_code,
        "message": _shortened(verdict.message, _MESSAGE_SHOWN_MAX),
    }


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def resident_bytes() -> int:
    """The daemon's memory as the kernel counts it, 0 where it does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def open_descriptors() -> int:
    """How many descriptors the daemon has open, 0 where the kernel does not tell."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0
