"""The life cycle of a run: its states, its inputs, and the one table that says what follows from what.

Pure. This file alone decides which state may follow which; ``core`` holds the actions that the rows name. The diagram in
docs/architecture.md is compared with ``TABLE`` by a test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from attrs import frozen

from collectord.model import Outcome


class State(Enum):
    """Where a run stands. The last four are terminal: their record has been handed to the disk."""

    OPENING = "opening"
    RUNNING = "running"
    CANCEL_REQUESTED = "cancel-requested"
    ENDING = "ending"
    CRASHING = "crashing"
    STALLED = "stalled"
    RECOVERED = "recovered"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CRASHED = "crashed"

    @property
    def outcome(self) -> Outcome:
        """What is said of a run in this state."""
        return Outcome(self.value) if self in TERMINAL else Outcome.RUNNING


class Input(Enum):
    """What can happen to a run."""

    EVENTS = "events"
    FLUSH = "flush"
    JOIN = "join"
    END = "end"
    CANCEL = "cancel"
    CANCEL_REQUESTED = "cancel_requested"
    CRASH = "crash"
    OWNER_GONE = "owner_gone"
    PARTICIPANT_GONE = "participant_gone"
    SYNCED = "synced"
    SYNC_FAILED = "sync_failed"
    EXPORT_DUE = "export_due"
    RENDERED = "rendered"
    RENAMED = "renamed"
    EXPORT_FAILED = "export_failed"
    EXIT_INFO = "exit_info"
    GRACE_EXPIRED = "grace_expired"
    RESUME = "resume"
    RESUME_EXPIRED = "resume_expired"
    DRAIN = "drain"


class Action(Enum):
    """What ``core`` does for a row; each is a method of the same name there."""

    STORE = "store"
    FLUSH = "flush"
    ADMIT = "admit"
    REQUEST_END = "request_end"
    REQUEST_CANCEL = "request_cancel"
    END_BY_GRACE = "end_by_grace"
    ASK_OWNER = "ask_owner"
    ASK_ABSENT = "ask_absent"
    MARK = "mark_crashed"
    MARK_IF_WAITING = "mark_if_waiting"
    MARK_STALLED = "mark_stalled"
    COMMIT_REPORT = "commit_report"
    COMMIT_VERDICT = "commit_verdict"
    END_IN_LAST_DRAIN = "end_in_last_drain"
    LEAVE = "leave"
    LEAVE_LATE = "leave_late"
    CONFIRM = "confirm"
    BEGIN = "begin"
    CONFIRM_END = "confirm_end"
    PUBLISH = "publish"
    RENDER_CRASHED = "render_crashed"
    STALL = "stall"
    TELL_STALLED = "tell_stalled"
    UNSTALL = "unstall"
    GIVE_UP = "give_up"
    DEFER = "defer"
    START_EXPORT = "start_export"
    RENAME_RUNNING = "rename_running"
    RENAMED_RUNNING = "renamed_running"
    RUNNING_EXPORT_FAILED = "running_export_failed"
    HAND_OVER = "hand_over"
    HAND_OVER_WITHOUT_FILE = "hand_over_without_file"
    RENAME_CRASHED = "rename_crashed"
    FINISH = "finish"
    FINISH_WITHOUT_FILE = "finish_without_file"
    AWAIT_OUTCOME = "await_outcome"
    NOTE_LATE = "note_late"
    REFUSE_ENDED = "refuse_ended"
    REFUSE_EVENTS = "refuse_events"
    REFUSE_RESUME = "refuse_resume"
    REFUSE_STALLED = "refuse_stalled"
    DROP_STALE = "drop_stale"
    RESUME = "resume_producer"
    CONFIRM_RESUMED = "confirm_resumed"
    GIVE_UP_ABSENT = "give_up_absent"
    ABSENCE_OVER = "absence_over"
    WAIT_LONGER = "wait_longer"
    IGNORE = "ignore"


@frozen
class Row:
    """One row of the table: what is done, and in which states the run may stand afterwards."""

    action: Action
    next: frozenset[State]


TERMINAL: Final = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.CRASHED})


def _row(action: Action, *following: State) -> Row:
    return Row(action, frozenset(following))


S, I, A = State, Input, Action  # noqa: E741 — a table is read by its columns


def _live(state: State) -> dict[Input, Row]:
    """RUNNING and CANCEL_REQUESTED differ only in what a request to cancel does, and in the grace."""
    return {
        I.EVENTS: _row(A.STORE, state),
        I.FLUSH: _row(A.FLUSH, state),
        I.JOIN: _row(A.ADMIT, state),
        I.END: _row(A.REQUEST_END, S.ENDING),
        I.CANCEL: _row(A.REQUEST_CANCEL, S.ENDING),
        I.CANCEL_REQUESTED: _row(A.ASK_OWNER, S.CANCEL_REQUESTED),
        I.CRASH: _row(A.MARK, S.CRASHING),
        I.OWNER_GONE: _row(A.MARK, S.CRASHING),
        I.PARTICIPANT_GONE: _row(A.LEAVE, state),
        I.SYNCED: _row(A.CONFIRM, state),
        I.SYNC_FAILED: _row(A.STALL, S.STALLED),
        I.EXPORT_DUE: _row(A.START_EXPORT, state),
        I.RENDERED: _row(A.RENAME_RUNNING, state),
        I.RENAMED: _row(A.RENAMED_RUNNING, state),
        I.EXPORT_FAILED: _row(A.RUNNING_EXPORT_FAILED, state),
        I.EXIT_INFO: _row(A.IGNORE, state),
        I.GRACE_EXPIRED: _row(A.END_BY_GRACE, S.ENDING) if state is S.CANCEL_REQUESTED else _row(A.IGNORE, state),
        I.RESUME: _row(A.RESUME, state),
        I.RESUME_EXPIRED: _row(A.GIVE_UP_ABSENT, state),
        I.DRAIN: _row(A.IGNORE, state),
    }


def _ended(state: State) -> dict[Input, Row]:
    """The terminal four: nothing leads out of them. CRASHED alone is rendered after its record, not before."""
    crashed = state is S.CRASHED
    return {
        I.EVENTS: _row(A.REFUSE_EVENTS, state),
        I.FLUSH: _row(A.FLUSH, state),
        I.JOIN: _row(A.REFUSE_ENDED, state),
        I.END: _row(A.AWAIT_OUTCOME, state),
        I.CANCEL: _row(A.AWAIT_OUTCOME, state),
        I.CANCEL_REQUESTED: _row(A.AWAIT_OUTCOME, state),
        I.CRASH: _row(A.NOTE_LATE, state),
        I.OWNER_GONE: _row(A.IGNORE, state),
        I.PARTICIPANT_GONE: _row(A.LEAVE_LATE, state),
        I.SYNCED: _row(A.RENDER_CRASHED if crashed else A.PUBLISH, state),
        I.SYNC_FAILED: _row(A.TELL_STALLED, state),
        I.EXPORT_DUE: _row(A.IGNORE, state),
        I.RENDERED: _row(A.RENAME_CRASHED if crashed else A.DROP_STALE, state),
        I.RENAMED: _row(A.FINISH, state),
        I.EXPORT_FAILED: _row(A.FINISH_WITHOUT_FILE, state),
        I.EXIT_INFO: _row(A.IGNORE, state),
        I.GRACE_EXPIRED: _row(A.IGNORE, state),
        I.RESUME: _row(A.REFUSE_RESUME, state),
        I.RESUME_EXPIRED: _row(A.IGNORE, state),
        I.DRAIN: _row(A.IGNORE, state),
    }


_ROWS: Final[dict[State, dict[Input, Row]]] = {
    S.OPENING: {
        I.EVENTS: _row(A.STORE, S.OPENING),
        I.FLUSH: _row(A.FLUSH, S.OPENING),
        I.JOIN: _row(A.ADMIT, S.OPENING),
        I.END: _row(A.REQUEST_END, S.ENDING),
        I.CANCEL: _row(A.REQUEST_CANCEL, S.ENDING),
        I.CANCEL_REQUESTED: _row(A.ASK_OWNER, S.CANCEL_REQUESTED),
        I.CRASH: _row(A.MARK, S.CRASHING),
        I.OWNER_GONE: _row(A.MARK, S.CRASHING),
        I.PARTICIPANT_GONE: _row(A.LEAVE, S.OPENING),
        I.SYNCED: _row(A.BEGIN, S.RUNNING),
        I.SYNC_FAILED: _row(A.GIVE_UP, S.OPENING),
        I.EXPORT_DUE: _row(A.IGNORE, S.OPENING),
        I.RENDERED: _row(A.DROP_STALE, S.OPENING),
        I.RENAMED: _row(A.IGNORE, S.OPENING),
        I.EXPORT_FAILED: _row(A.IGNORE, S.OPENING),
        I.EXIT_INFO: _row(A.IGNORE, S.OPENING),
        I.GRACE_EXPIRED: _row(A.IGNORE, S.OPENING),
        I.RESUME: _row(A.REFUSE_RESUME, S.OPENING),
        I.RESUME_EXPIRED: _row(A.IGNORE, S.OPENING),
        I.DRAIN: _row(A.IGNORE, S.OPENING),
    },
    S.RUNNING: _live(S.RUNNING),
    S.CANCEL_REQUESTED: _live(S.CANCEL_REQUESTED),
    S.ENDING: {
        I.EVENTS: _row(A.REFUSE_EVENTS, S.ENDING),
        I.FLUSH: _row(A.FLUSH, S.ENDING),
        I.JOIN: _row(A.REFUSE_ENDED, S.ENDING),
        I.END: _row(A.AWAIT_OUTCOME, S.ENDING),
        I.CANCEL: _row(A.AWAIT_OUTCOME, S.ENDING),
        I.CANCEL_REQUESTED: _row(A.AWAIT_OUTCOME, S.ENDING),
        I.CRASH: _row(A.MARK, S.CRASHING),
        I.OWNER_GONE: _row(A.MARK_IF_WAITING, S.CRASHING, S.ENDING),
        I.PARTICIPANT_GONE: _row(A.LEAVE_LATE, S.ENDING),
        I.SYNCED: _row(A.CONFIRM_END, S.ENDING),
        I.SYNC_FAILED: _row(A.STALL, S.STALLED),
        I.EXPORT_DUE: _row(A.IGNORE, S.ENDING),
        I.RENDERED: _row(A.HAND_OVER, S.ENDING, S.COMPLETED, S.FAILED, S.CANCELLED),
        I.RENAMED: _row(A.IGNORE, S.ENDING),
        I.EXPORT_FAILED: _row(A.HAND_OVER_WITHOUT_FILE, S.ENDING, S.COMPLETED, S.FAILED, S.CANCELLED),
        I.EXIT_INFO: _row(A.IGNORE, S.ENDING),
        I.GRACE_EXPIRED: _row(A.IGNORE, S.ENDING),
        I.RESUME: _row(A.REFUSE_RESUME, S.ENDING),
        I.RESUME_EXPIRED: _row(A.IGNORE, S.ENDING),
        I.DRAIN: _row(A.IGNORE, S.ENDING),
    },
    S.CRASHING: {
        I.EVENTS: _row(A.STORE, S.CRASHING),
        I.FLUSH: _row(A.FLUSH, S.CRASHING),
        I.JOIN: _row(A.REFUSE_ENDED, S.CRASHING),
        I.END: _row(A.END_IN_LAST_DRAIN, S.CRASHING, S.ENDING),
        I.CANCEL: _row(A.END_IN_LAST_DRAIN, S.CRASHING, S.ENDING),
        I.CANCEL_REQUESTED: _row(A.AWAIT_OUTCOME, S.CRASHING),
        I.CRASH: _row(A.COMMIT_REPORT, S.CRASHING, S.CRASHED),
        I.OWNER_GONE: _row(A.IGNORE, S.CRASHING),
        I.PARTICIPANT_GONE: _row(A.LEAVE, S.CRASHING),
        I.SYNCED: _row(A.CONFIRM, S.CRASHING),
        I.SYNC_FAILED: _row(A.STALL, S.STALLED),
        I.EXPORT_DUE: _row(A.IGNORE, S.CRASHING),
        I.RENDERED: _row(A.DROP_STALE, S.CRASHING),
        I.RENAMED: _row(A.IGNORE, S.CRASHING),
        I.EXPORT_FAILED: _row(A.DROP_STALE, S.CRASHING),
        I.EXIT_INFO: _row(A.COMMIT_VERDICT, S.CRASHING, S.CRASHED),
        I.GRACE_EXPIRED: _row(A.IGNORE, S.CRASHING),
        I.RESUME: _row(A.REFUSE_RESUME, S.CRASHING),
        I.RESUME_EXPIRED: _row(A.IGNORE, S.CRASHING),
        I.DRAIN: _row(A.IGNORE, S.CRASHING),
    },
    S.STALLED: {  # the disk does not answer for this run: what is asked waits, in order; what must be known is marked
        I.EVENTS: _row(A.DEFER, S.STALLED),
        I.FLUSH: _row(A.DEFER, S.STALLED),
        I.JOIN: _row(A.DEFER, S.STALLED),
        I.END: _row(A.DEFER, S.STALLED),
        I.CANCEL: _row(A.DEFER, S.STALLED),
        I.CANCEL_REQUESTED: _row(A.DEFER, S.STALLED),
        I.CRASH: _row(A.MARK_STALLED, S.STALLED),
        I.OWNER_GONE: _row(A.MARK_STALLED, S.STALLED),
        I.PARTICIPANT_GONE: _row(A.DEFER, S.STALLED),
        I.SYNCED: _row(A.UNSTALL, S.RUNNING, S.CANCEL_REQUESTED, S.ENDING, S.CRASHING, S.RECOVERED),
        I.SYNC_FAILED: _row(A.IGNORE, S.STALLED),
        I.EXPORT_DUE: _row(A.IGNORE, S.STALLED),
        I.RENDERED: _row(A.DEFER, S.STALLED),
        I.RENAMED: _row(A.DEFER, S.STALLED),
        I.EXPORT_FAILED: _row(A.DEFER, S.STALLED),
        I.EXIT_INFO: _row(A.DEFER, S.STALLED),
        I.GRACE_EXPIRED: _row(A.DEFER, S.STALLED),
        I.RESUME: _row(A.REFUSE_STALLED, S.STALLED),
        I.RESUME_EXPIRED: _row(A.WAIT_LONGER, S.STALLED),
        I.DRAIN: _row(A.IGNORE, S.STALLED),
    },
    S.RECOVERED: {  # found open by a new collector: its owner is not connected until it has resumed
        I.EVENTS: _row(A.STORE, S.RECOVERED),
        I.FLUSH: _row(A.FLUSH, S.RECOVERED),
        I.JOIN: _row(A.ADMIT, S.RECOVERED),
        I.END: _row(A.REQUEST_END, S.ENDING),
        I.CANCEL: _row(A.REQUEST_CANCEL, S.ENDING),
        I.CANCEL_REQUESTED: _row(A.ASK_ABSENT, S.RECOVERED),
        I.CRASH: _row(A.MARK, S.CRASHING),
        I.OWNER_GONE: _row(A.MARK, S.CRASHING),
        I.PARTICIPANT_GONE: _row(A.LEAVE, S.RECOVERED),
        I.SYNCED: _row(A.CONFIRM_RESUMED, S.RECOVERED, S.RUNNING, S.CANCEL_REQUESTED),
        I.SYNC_FAILED: _row(A.STALL, S.STALLED),
        I.EXPORT_DUE: _row(A.START_EXPORT, S.RECOVERED),
        I.RENDERED: _row(A.RENAME_RUNNING, S.RECOVERED),
        I.RENAMED: _row(A.RENAMED_RUNNING, S.RECOVERED),
        I.EXPORT_FAILED: _row(A.RUNNING_EXPORT_FAILED, S.RECOVERED),
        I.EXIT_INFO: _row(A.IGNORE, S.RECOVERED),
        I.GRACE_EXPIRED: _row(A.IGNORE, S.RECOVERED),
        I.RESUME: _row(A.RESUME, S.RECOVERED),
        I.RESUME_EXPIRED: _row(A.ABSENCE_OVER, S.CRASHING, S.RECOVERED),
        I.DRAIN: _row(A.IGNORE, S.RECOVERED),
    },
    S.COMPLETED: _ended(S.COMPLETED),
    S.FAILED: _ended(S.FAILED),
    S.CANCELLED: _ended(S.CANCELLED),
    S.CRASHED: _ended(S.CRASHED),
}

TABLE: Final[Mapping[tuple[State, Input], Row]] = MappingProxyType(
    {(state, cause): row for state, rows in _ROWS.items() for cause, row in rows.items()}
)
"""Every state with every input: what is done and what may follow."""


def edges() -> Iterable[tuple[State, Input, State]]:
    """The rows that lead from one state to another, for the diagram."""
    for (state, cause), row in TABLE.items():
        for following in sorted(row.next, key=lambda s: s.value):
            if following is not state:
                yield state, cause, following
