"""The life of one run as a machine without I/O: inputs in, effects out.

Pure: no clock, no trio, no files. ``state.TABLE`` decides what may follow what; the actions below say what each row does.
Whoever drives it keeps three promises: ``mark`` is called the moment a crash report or the owner's death is known; inputs
are handled in the order in which they came; and what ``take`` returns is performed from top to bottom, ``Synced`` or
``SyncFailed`` being fed before any other input when there were records.

The moment of truth of a run is the transition to one of the terminal four, in ``hand_over`` and ``_commit``: from then on
nothing changes the outcome, and until then a mark does.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from attrs import define

from collectord.limits import CANCEL_GRACE_S, NOTES_MAX, REFUSALS_PER_ACK_MAX, RESUME_GRACE_UNKNOWN_S
from collectord.model import OWNER_PRODUCER, Attributes, Outcome, Record, Verdict
from collectord.session import inputs, records
from collectord.session.absent import Absent
from collectord.session.effects import Effects, ExportKind, ExportOrder, Say
from collectord.session.inputs import AnyInput, Asker
from collectord.session.intake import skip_to, take_in
from collectord.session.ledger import Ledger
from collectord.session.records import RunFacts
from collectord.session.state import TABLE, TERMINAL, Action, Input, State
from collectord.wire import messages
from collectord.wire.messages import Ack, Answer, Terminal

_OUTCOME_STATES: Final = {
    Outcome.COMPLETED: State.COMPLETED,
    Outcome.FAILED: State.FAILED,
    Outcome.CANCELLED: State.CANCELLED,
}


@define
class EndWanted:
    """How the owner, or the grace after a cancel, wants the run to end."""

    outcome: Outcome
    message: str | None
    exception: Attributes | None
    wait: bool
    at: int


class RunCore:
    """One run.

    Args:
        facts: what is fixed from the start.
        path: of the trace file, as answers name it.
        owner: the connection that opened the run, or None where it was found open.
        ledger: what the journal of one that was found open adds up to.
    """

    __slots__ = (
        "_absent", "_acks", "_after_sync", "_askers", "_before_stall", "_deferred", "_effects", "_end",
        "_export_waiters", "_in_flight", "_mark", "_notes", "_notes_left_out", "_notes_written", "_order",
        "_order_number", "_order_position", "_published", "_renaming", "_report_behind_mark", "_waiters", "closed",
        "export_error", "exported_position", "facts", "ledger", "path", "refused_late", "stall_cause", "state", "verdict",
    )  # fmt: skip

    def __init__(self, facts: RunFacts, path: str, owner: Asker, ledger: Ledger | None = None) -> None:
        self.facts = facts
        self.path = path
        self.state = State.OPENING
        self.ledger = ledger if ledger is not None else Ledger()
        self.verdict: Verdict | None = None
        self.exported_position = -1
        self.stall_cause: str | None = None
        self.closed = False
        self.refused_late = 0
        self._absent: Absent | None = None
        self._effects = Effects()
        self._in_flight = False
        self._after_sync: list[Say] = []
        self._acks: dict[int, Ack] = {}
        self._askers: dict[int, Asker] = {OWNER_PRODUCER: owner}
        self._mark: inputs.Crash | inputs.OwnerGone | None = None
        self._report_behind_mark: inputs.Crash | None = None
        self._end: EndWanted | None = None
        self._waiters: list[tuple[Asker, int]] = []
        self._notes: list[Record] = []
        self._notes_written = 0
        self._notes_left_out = 0
        self._deferred: deque[AnyInput] | None = None
        self._before_stall = State.RUNNING
        self._order_number = 0
        self._order: ExportOrder | None = None
        self._order_position = 0
        self._export_waiters: list[tuple[int, Say]] = []
        self.export_error: str | None = None
        self._renaming = False
        self._published = False
        self.ledger.producer(OWNER_PRODUCER)

    # ------------------------------------------------------------ driving it

    def open(self, request_id: int) -> None:
        """Begin: the first record is to be written, and the opener answered when it is durable."""
        self._append(records.opened(self.facts))
        self._say_after_sync(self._askers[OWNER_PRODUCER], self.opened_answer(request_id))

    def wait_for(self, absent: Absent) -> None:
        """Begin as one that was found open: its producers are to come back."""
        self.state, self._absent = State.RECOVERED, absent

    def end_as_wanted(self, wanted: EndWanted) -> None:
        """Begin as one that was found open, and whose owner had said that it would not wait for the end it asked for."""
        self.state, self._end = State.ENDING, wanted
        self._confirm_end(inputs.Synced())

    def opened_answer(self, request_id: int, producer: int = OWNER_PRODUCER, token: bytes | None = None) -> Answer:
        """The answer to an open or a join; the same again for an open that is repeated."""
        return messages.Opened(
            id=request_id,
            run=self.facts.run,
            producer=producer,
            trace_id=self.facts.trace_id,
            next_sequence=self.ledger.producer(producer).next_sequence,
            resume_token=self.facts.resume_token if token is None else token,
            path=self.path,
        )

    def mark(self, cause: inputs.Crash | inputs.OwnerGone) -> None:
        """Say at once, in memory, that the run has crashed; a crash report is handled in its turn all the same.

        After this returns, no outcome but `crashed` can be handed to the disk, except where the table says otherwise: it
        has been already, or the owner had said that it will not wait.
        """
        if self._mark is None and self.state not in TERMINAL and not self._never_was:
            self._transit(cause)

    def handle(self, event: AnyInput) -> None:
        """Take in what happened, in its turn; then whatever a stall had deferred and no longer does."""
        self._handle_one(event)
        while self._deferred and self.state is not State.STALLED:  # a loop: thousands of inputs may have been deferred
            self._handle_one(self._deferred.popleft())

    def _handle_one(self, event: AnyInput) -> None:
        if self._never_was:
            self._refuse_unopened(event)
            return
        if isinstance(event, inputs.Crash | inputs.OwnerGone):
            self.mark(event)
            if isinstance(event, inputs.OwnerGone):
                return
            if self.state is State.STALLED:
                self._defer(event)
                return
        if isinstance(event, inputs.Synced):
            self._in_flight = False
        self._transit(event)

    @property
    def _never_was(self) -> bool:
        """Whether the run could not be opened, and was given up."""
        return self.closed and self.state not in TERMINAL

    def _refuse_unopened(self, event: AnyInput) -> None:
        request_id = getattr(event, "request_id", None)
        if request_id is not None:
            message = "the run could not be opened: open the session again, on another connection"
            self._say(getattr(event, "asker", None), messages.Error("disk-failed", message, True, request_id))

    def unheard_token(self) -> bytes | None:
        """The owner's token, where it may never have heard it: the collector was killed while it answered the ``open``."""
        if self.state is not State.RECOVERED or self._absent is None or self._absent.was_heard:
            return None
        return self._absent.tokens.get(OWNER_PRODUCER)

    def take(self) -> Effects:
        """What is to be done now, once."""
        effects, self._effects = self._effects, Effects()
        if effects.records:
            self._in_flight = True
        return effects

    # ------------------------------------------------------------ what others ask

    @property
    def outcome(self) -> Outcome:
        """How the run stands. A reported crash counts at once; a vanished owner when what it left unread is known.

        On a disk that does not answer, a vanished owner counts at once too: what it left cannot be recorded.
        """
        if isinstance(self._mark, inputs.Crash) or (self._mark is not None and self.state is State.STALLED):
            return Outcome.CRASHED
        return self.state.outcome

    @property
    def is_durable(self) -> bool:
        """Whether what is said of the run is on the disk, a crash that was only noticed included."""
        return not self._in_flight and (self._mark is None or self.state in TERMINAL)

    @property
    def misses_somebody(self) -> bool:
        """Whether a producer of a run that was found open is not back."""
        return self._absent is not None and bool(self._absent.tokens)

    @property
    def is_live(self) -> bool:
        """Whether it takes events and participants."""
        return self.state in (State.OPENING, State.RUNNING, State.CANCEL_REQUESTED, State.STALLED, State.RECOVERED)

    @property
    def is_dirty(self) -> bool:
        """Whether the running trace file lacks something that an export now would show.

        Not while the run ends: nothing is ordered then, and whoever waited for that would wait in a circle.
        """
        shows = self.state in (State.RUNNING, State.CANCEL_REQUESTED, State.RECOVERED)
        return shows and self._order is None and self.ledger.last_position > self.exported_position

    @property
    def is_exporting(self) -> bool:
        """Whether a document was ordered and stands under its name not yet."""
        return self._order is not None

    def everyone(self) -> list[Asker]:
        """Each connection that has something to hear from this run, once."""
        hears = [*self._askers.values(), *(asker for asker, _ in self._waiters), *(say.to for say in self._after_sync)]
        return list({id(asker): asker for asker in hears if asker is not None}.values())

    def forget_everyone(self) -> None:
        """After the last word: connections hold this run in turn, and both would wait for the cycle collector."""
        self._askers.clear()

    def terminal_answer(self, request_id: int | None) -> Terminal:
        """The outcome that stands."""
        verdict = self.verdict
        return Terminal(
            outcome=self.outcome,
            run=self.facts.run,
            path=self.path if self.export_error is None else None,
            id=request_id,
            reason=None if verdict is None else verdict.reason.value,
            message=verdict.message if verdict is not None else (self._end.message if self._end else None),
            export_error=self.export_error,
        )

    # ------------------------------------------------------------ the machine

    def _transit(self, event: AnyInput) -> None:
        row = TABLE[self.state, event.kind]
        following = getattr(self, f"_{row.action.value}")(event)
        state = following if following is not None else self.state
        if following is None and self.state not in row.next:
            (state,) = row.next
        assert state in row.next, (self.state, event.kind, state)
        self.state = state

    def _append(self, record: Record) -> None:
        self._effects.records.append(record)

    def _say(self, to: Asker, message: Answer) -> None:
        if to is not None:
            self._effects.say.append(Say(to, message))

    def _say_after_sync(self, to: Asker, message: Answer) -> None:
        """Hold an answer until what it promises is durable: at once where nothing is under way."""
        if to is None:
            return
        if self._effects.records or self._in_flight:
            self._after_sync.append(Say(to, message))
        else:
            self._effects.say.append(Say(to, message))

    def _catch_up(self, producer: int, last_sequence: int | None, at: int) -> None:
        """A control message says how far its producer had counted: what did not come by then will not.

        Once an end was asked for, what came behind it was refused and is no loss of the producer's.
        """
        if self._end is not None:
            return
        source = self.ledger.producer(producer)
        if last_sequence is not None and last_sequence >= source.next_sequence:
            self._append(skip_to(self.ledger, source, last_sequence + 1, at))

    def _note(self, at: int, kind: str, text: str) -> None:
        """Keep a note for behind the terminal record; beyond the most, only how many: said at 1, 2, 4, 8 … more."""
        if self._notes_written + len(self._notes) < NOTES_MAX:
            self._notes.append(records.note(at, kind, text))
            return
        self._notes_left_out += 1
        if self._notes_left_out.bit_count() == 1:
            self._notes.append(records.note(at, "notes", f"at least {self._notes_left_out} more notes were left out"))

    def _note_refused_late(self, at: int) -> None:
        if self.refused_late:
            self._note(at, "refused", f"{self.refused_late} events came after the end was asked for and were refused")

    def _write_notes(self) -> None:
        self._notes_written += len(self._notes)
        self._effects.records.extend(self._notes)
        self._notes.clear()

    # ------------------------------------------------------------ events and producers

    def _store(self, event: inputs.Events) -> None:
        if self._end is not None:  # crashing after an end was asked for: what came behind that end is late all the same
            self._refuse_events(event)
            return
        producer = self.ledger.producer(event.producer)
        intake = take_in(self.ledger, producer, event.batch, event.at)
        self._effects.records.extend(intake.records)
        self._acknowledge(event.producer, producer.next_sequence - 1, intake.refused)

    def _acknowledge(self, producer: int, sequence: int, refused: list[tuple[int, int, str]]) -> None:
        """One acknowledgement a group and producer, spoken when the group is durable."""
        before = self._acks.get(producer)
        listed = before.refused if before is not None else []
        more = before.refused_more if before is not None else 0
        room = REFUSALS_PER_ACK_MAX - len(listed)
        listed.extend([first, count, code] for first, count, code in refused[:room])
        more += sum(count for _, count, _ in refused[room:])
        self._acks[producer] = Ack(sequence, listed, more)

    def _refuse_events(self, event: inputs.Events) -> None:
        """Too late: told to the producer, behind what it sent in time, and kept out of the books, which are closed."""
        batch = event.batch
        known = self.ledger.producer(event.producer).next_sequence - 1  # what comes again is no news, and was answered for
        first = max(batch.first_sequence, known + 1)
        count = batch.first_sequence + len(batch.events) - first
        asker = self._askers.get(event.producer)
        if count <= 0:
            self._say_after_sync(asker, Ack(known))
            return
        self.refused_late += count
        self._say_after_sync(asker, Ack(first + count - 1, [[first, count, "session-ended"]]))

    def _flush(self, event: inputs.Flush) -> None:
        if self.state not in TERMINAL and self.state is not State.ENDING:
            self._catch_up(event.producer, event.last_sequence, event.at)
        producer = self.ledger.producer(event.producer)
        answer = messages.Flushed(event.request_id, producer.next_sequence - 1, producer.refused)
        if not event.export or self._published:
            self._say_after_sync(event.asker, answer)
            return
        self._export_waiters.append((self.ledger.last_position, Say(event.asker, answer)))
        if self.state in (State.OPENING, State.RUNNING, State.CANCEL_REQUESTED, State.RECOVERED):
            self._start_export(event)

    def _admit(self, event: inputs.Join) -> None:
        number = max(self.ledger.producers) + 1
        self.ledger.producer(number)
        self._askers[number] = event.asker
        self._append(records.joined(number, event.at, event.pid, event.command, event.resource, event.resume_token))
        self._say_after_sync(event.asker, self.opened_answer(event.request_id, number, event.resume_token))

    def _refuse_ended(self, event: inputs.Join) -> None:
        message = "the run is over or ending: it takes no more participants"
        self._say(event.asker, messages.Error("session-ended", message, False, event.request_id))

    def _leave(self, event: inputs.ParticipantGone) -> None:
        self._catch_up(event.producer, event.last_sequence, event.at)
        if event.torn_bytes:
            self.ledger.torn_bytes += event.torn_bytes
            self._append(records.torn(event.producer, event.torn_bytes, event.at))
        self._append(records.left(event.producer, event.at, event.asker is not None, event.error))
        self._askers.pop(event.producer, None)
        sequence = self.ledger.producer(event.producer).next_sequence - 1
        self._say_after_sync(event.asker, messages.Detached(event.request_id, sequence, self.path))

    def _leave_late(self, event: inputs.ParticipantGone) -> None:
        """The books are closed: a participant that goes now is only answered."""
        self._askers.pop(event.producer, None)
        sequence = self.ledger.producer(event.producer).next_sequence - 1
        self._say_after_sync(event.asker, messages.Detached(event.request_id, sequence, self.path))

    def _ask_owner(self, event: inputs.CancelRequested) -> None:
        if self.state is not State.CANCEL_REQUESTED:
            self._effects.grace_s = CANCEL_GRACE_S
        self._append(records.cancel_requested(event.reason, event.at, event.pid))
        self._say_after_sync(event.asker, messages.CancelAnswer(event.request_id, self.facts.run))
        self._say_after_sync(self._askers.get(OWNER_PRODUCER), messages.CancelRequested(event.reason, CANCEL_GRACE_S))

    def _ask_absent(self, event: inputs.CancelRequested) -> None:
        """The owner is not there to be asked: it is when it comes back, and has its grace from then."""
        if self._absent is not None:
            self._absent.cancel_reason = event.reason
        self._append(records.cancel_requested(event.reason, event.at, event.pid))
        self._say_after_sync(event.asker, messages.CancelAnswer(event.request_id, self.facts.run))

    # ------------------------------------------------------------ syncing

    def _confirm(self, _: AnyInput) -> None:
        """What was handed to the disk is durable: everything that waited for it may be said."""
        self.stall_cause = None
        self._welcome_back()
        begun = [say for say in self._after_sync if isinstance(say.message, messages.Opened)]
        others = [say for say in self._after_sync if not isinstance(say.message, messages.Opened)]
        self._effects.say.extend(begun)  # first: who sends events right behind its open hears of them after it
        for producer, ack in self._acks.items():
            self._say(self._askers.get(producer), ack)
        self._acks.clear()
        self._effects.say.extend(others)
        self._after_sync.clear()

    def _begin(self, event: AnyInput) -> None:
        self.exported_position = 0  # the first trace file was made with the journal
        self._confirm(event)

    def give_up(self, cause: str) -> None:
        """A run whose first record is not durable has never existed: say so to everyone who asked, and close."""
        unsaid = [*self._after_sync, *(say for _, say in self._export_waiters)]
        asked = [(say.to, getattr(say.message, "id", None)) for say in unsaid]
        for asker, request_id in [*asked, *self._waiters]:
            self._say(asker, messages.Error("disk-failed", cause, True, request_id))
        self._after_sync.clear()
        self._export_waiters.clear()
        self._waiters.clear()
        self._close()

    def _give_up(self, event: inputs.SyncFailed) -> None:
        self.give_up(event.cause)

    def _stall(self, event: inputs.SyncFailed) -> State:
        self._before_stall = self.state
        for resume in self._absent.take_coming().values() if self._absent is not None else ():
            self._refuse_stalled(resume)
        self._tell_stalled(event)
        return State.STALLED

    def _tell_stalled(self, event: inputs.SyncFailed) -> None:
        """Once, to everyone who writes; a run whose terminal record waits for the disk is stalled in no other way."""
        if self.stall_cause is None:
            for asker in self._askers.values():
                self._say(asker, messages.Stalled("disk-failed", event.cause))
        self.stall_cause = event.cause

    def _mark_stalled(self, event: inputs.Crash | inputs.OwnerGone) -> None:
        patient = self._before_stall is State.ENDING and self._end is not None and not self._end.wait
        if not (isinstance(event, inputs.OwnerGone) and patient):
            self._mark = event

    def _unstall(self, event: inputs.Synced) -> State:
        if self._mark is not None:
            self._drop_order()
            self._confirm(event)
            return State.CRASHING
        if self._before_stall is State.ENDING:
            self._confirm_end(event)
        else:
            self._confirm(event)
        return self._before_stall

    def _defer(self, event: AnyInput) -> None:
        if self._deferred is None:  # only now: an empty deque takes three quarters of a kilobyte, for each idle run
            self._deferred = deque()
        self._deferred.append(event)

    # ------------------------------------------------------------ ending

    def _request_end(self, event: inputs.End) -> None:
        wanted = EndWanted(event.outcome, event.message, event.exception, event.wait, event.at)
        self._begin_end(wanted, event.asker, event.request_id, event.last_sequence)

    def _request_cancel(self, event: inputs.Cancel) -> None:
        wanted = EndWanted(Outcome.CANCELLED, event.reason, None, event.wait, event.at)
        self._begin_end(wanted, event.asker, event.request_id, event.last_sequence)

    def _end_by_grace(self, event: inputs.GraceExpired) -> None:
        wanted = EndWanted(Outcome.CANCELLED, "cancelled: the agent did not end in time", None, False, event.at)
        self._begin_end(wanted, None, 0, None)

    def _begin_end(self, wanted: EndWanted, asker: Asker, request_id: int, last_sequence: int | None) -> None:
        self._catch_up(OWNER_PRODUCER, last_sequence, wanted.at)
        self._end = wanted
        if asker is not None:
            self._waiters.append((asker, request_id))
        self._drop_order()
        self._append(records.end_requested(wanted.outcome, wanted.message, wanted.exception, wanted.at, wanted.wait))

    def _confirm_end(self, event: AnyInput) -> None:
        """The wish is durable: render the document as it will be, before the terminal record says that it is."""
        self._confirm(event)
        if self._order is None and self._end is not None:
            terminal = records.ended(self._end.outcome, self._end.at, self._end.message, self._end.exception)
            self._order_export(ExportKind.FINAL, terminal)

    def _hand_over(self, event: inputs.Rendered | inputs.ExportFailed) -> State:
        """The moment of truth: this row exists only while no mark stands, and from here on none counts."""
        order = self._order
        if order is None or order.terminal is None or event.number != order.number:
            self._drop_stale(event)
            return State.ENDING
        assert self._end is not None
        self._append(order.terminal)
        self._note_refused_late(event.at)
        self._write_notes()
        return _OUTCOME_STATES[self._end.outcome]

    def _hand_over_without_file(self, event: inputs.ExportFailed) -> State:
        """The outcome is recorded all the same: the file is derived from the journal when that is possible again."""
        state = self._hand_over(event)
        if state in TERMINAL:
            self.export_error = event.cause
            self._effects.drop.append(event.number)
        return state

    def _publish(self, event: AnyInput) -> None:
        """The terminal record is durable: the document that was rendered before it takes its name."""
        self._confirm(event)
        if self.closed:
            return  # a note behind the terminal record
        if self.export_error is not None:
            self._finish_now()
        elif not self._renaming:
            self._renaming = True
            self._effects.rename = self._order

    def _await_outcome(self, event: inputs.End | inputs.Cancel | inputs.CancelRequested) -> None:
        if isinstance(event, inputs.End) and self._end is not None and self.state is State.ENDING:
            differs = (event.outcome, event.message) != (self._end.outcome, self._end.message)
            if differs:
                self._note(event.at, "end", f"asked again to end as {event.outcome.value}: {event.message or ''}")
            if self._end.wait and not event.wait:  # it waits no longer: from here on its leaving is no crash
                self._end.wait, wanted = False, self._end
                self._append(records.end_requested(wanted.outcome, wanted.message, wanted.exception, event.at, False))
        self._answer_when_over(event.asker, event.request_id)

    def _answer_when_over(self, asker: Asker, request_id: int) -> None:
        if asker is None:
            return
        if self.closed:
            self._say_after_sync(asker, self.terminal_answer(request_id))
        else:
            self._waiters.append((asker, request_id))

    # ------------------------------------------------------------ crashing

    def _mark_crashed(self, event: inputs.Crash | inputs.OwnerGone) -> None:
        self._mark = event
        self._drop_order()

    def _mark_if_waiting(self, event: inputs.OwnerGone) -> State:
        assert self._end is not None
        if not self._end.wait:
            return State.ENDING
        self._mark_crashed(event)
        return State.CRASHING

    def _end_in_last_drain(self, event: inputs.End | inputs.Cancel) -> State:
        """An `end` was still unread when its sender vanished: it counts if the sender had said not to wait for it.

        A crash that somebody reported meanwhile counts all the same, and is then what the run died of.
        """
        if isinstance(self._mark, inputs.OwnerGone) and not event.wait and self._end is None:
            self._mark = self._report_behind_mark
        if self._mark is None:
            if isinstance(event, inputs.End):
                self._request_end(event)
            else:
                self._request_cancel(event)
            return State.ENDING
        if self._end is None:
            outcome = event.outcome if isinstance(event, inputs.End) else Outcome.CANCELLED
            message = event.message if isinstance(event, inputs.End) else event.reason
            exception = event.exception if isinstance(event, inputs.End) else None
            wanted = EndWanted(outcome, message, exception, event.wait, event.at)
            self._begin_end(wanted, event.asker, event.request_id, event.last_sequence)
        else:
            self._answer_when_over(event.asker, event.request_id)
        return State.CRASHING

    def _commit_report(self, event: inputs.Crash) -> State:
        if event.producer:
            self._catch_up(event.producer, event.last_sequence, event.at)
        self._waiters.append((event.asker, event.request_id))
        last_word = isinstance(self._mark, inputs.OwnerGone) and event.producer == OWNER_PRODUCER
        if event is self._mark or last_word:
            return self._commit(event.at, event.verdict)
        if self._report_behind_mark is None and isinstance(self._mark, inputs.OwnerGone):
            self._report_behind_mark = event
        self._note(event.at, "crash", f"reported too: {event.verdict.message}")
        return State.CRASHING

    def _commit_verdict(self, event: inputs.ExitInfo) -> State:
        if event.torn_bytes:
            self.ledger.torn_bytes += event.torn_bytes
            self._append(records.torn(OWNER_PRODUCER, event.torn_bytes, event.at))
        if isinstance(self._mark, inputs.OwnerGone):
            return self._commit(event.at, event.verdict)
        if self._mark is not None and self._mark is self._report_behind_mark:
            return self._commit(event.at, self._mark.verdict)
        return State.CRASHING  # a report is on its way through the queue, and says more

    def _commit(self, at: int, verdict: Verdict) -> State:
        self.verdict = verdict
        wanted = self._end.outcome if self._end is not None else None
        if wanted is None and self._absent is not None:
            wanted = self._absent.end_wanted
        self._append(records.crashed(at, verdict, None if wanted is None else wanted.value))
        self._note_refused_late(at)
        self._write_notes()
        return State.CRASHED

    def _render_crashed(self, event: inputs.Synced) -> None:
        self._confirm(event)
        if self._order is None and not self._published and not self.closed:
            self._order_export(ExportKind.FINAL, None)

    def _rename_crashed(self, event: inputs.Rendered) -> None:
        if self._order is None or event.number != self._order.number:
            self._drop_stale(event)
            return
        self._effects.rename = self._order

    def _note_late(self, event: inputs.Crash) -> None:
        self._note(event.at, "crash", f"reported late: {event.verdict.message}")
        self._write_notes()
        self._answer_when_over(event.asker, event.request_id)

    def _finish(self, _: AnyInput) -> None:
        self._finish_now()

    def _finish_without_file(self, event: inputs.ExportFailed) -> None:
        self._effects.drop.append(event.number)
        if self._order is None or event.number != self._order.number:
            return  # one that was dropped: the final one is still to come, and its record may not even be durable
        if not self._published and not self.closed:
            self.export_error = event.cause
            self._finish_now()

    def _finish_now(self) -> None:
        """Answer everyone, once, with the outcome that stands."""
        self._published = True
        for _, say in self._export_waiters:
            self._effects.say.append(say)
        self._export_waiters.clear()
        answered = set()
        for asker, request_id in self._waiters:
            answered.add(id(asker))
            self._say(asker, self.terminal_answer(request_id))
        self._waiters.clear()
        for asker in self._askers.values():
            if id(asker) not in answered:
                self._say(asker, self.terminal_answer(None))
        self._close()

    def _close(self) -> None:
        self.closed = True
        self._effects.close = True

    # ------------------------------------------------------------ exports

    def _order_export(self, kind: ExportKind, terminal: Record | None) -> None:
        self._order_number += 1
        self._order = self._effects.start = ExportOrder(self._order_number, kind, terminal)
        self._order_position = self.ledger.last_position

    def _drop_order(self) -> None:
        """Whatever is being rendered is out of date: its file goes when it comes, or now where it has.

        Not before it comes: there are file systems that do not unlink a file while it is being synced, and the crash would
        wait for that.
        """
        if self._order is not None:
            if self._effects.start is self._order:
                self._effects.start = None
            if self._effects.rename is self._order:
                self._effects.rename = None
                self._effects.drop.append(self._order.number)
            self._order = None

    def _start_export(self, _: AnyInput) -> None:
        if self._order is None:
            self._order_export(ExportKind.RUNNING, None)

    def _drop_stale(self, event: inputs.Rendered | inputs.ExportFailed) -> None:
        self._effects.drop.append(event.number)

    def _rename_running(self, event: inputs.Rendered) -> None:
        if self._order is None or event.number != self._order.number:
            self._drop_stale(event)
            return
        self._effects.rename = self._order

    def _renamed_running(self, event: inputs.Renamed) -> None:
        if self._order is None or event.number != self._order.number:
            return
        self._order = None
        self.exported_position = self._order_position
        ready = [say for position, say in self._export_waiters if position <= self.exported_position]
        self._export_waiters = [wait for wait in self._export_waiters if wait[0] > self.exported_position]
        self._effects.say.extend(ready)
        if self._export_waiters:
            self._start_export(event)

    def _running_export_failed(self, event: inputs.ExportFailed) -> None:
        self._order = None
        self._effects.drop.append(event.number)
        for _, say in self._export_waiters:
            request_id = getattr(say.message, "id", None)
            self._say(say.to, messages.Error("export-failed", event.cause, True, request_id))
        self._export_waiters.clear()

    # ------------------------------------------------------------ coming back after a restart of the collector

    def _resume_producer(self, event: inputs.Resume) -> None:
        """Somebody is back: it is heard when that is recorded, behind everything that it will be told is stored."""
        number = self._absent.number_of(event.token) if self._absent is not None else None
        if self._absent is None or number is None:
            self._refuse_resume(event)
            return
        before = self._absent.coming.get(number)
        if before is not None:
            message = "the same producer has come back on another connection"
            self._say(before.asker, messages.Error("resume-refused", message, False, before.request_id))
        self._absent.coming[number] = event
        back = (number, event.at, event.pid, event.process_start_time, event.boot_id, event.command)
        self._append(records.resumed(*back))

    def _welcome_back(self) -> None:
        """Those whose return is durable now go on."""
        if self._absent is None or not self._absent.coming:
            return
        for number, event in self._absent.take_coming().items():
            token = self._absent.tokens.pop(number)
            self._askers[number] = event.asker
            self._say(event.asker, self.opened_answer(event.request_id, number, token))

    def _confirm_resumed(self, event: AnyInput) -> State:
        assert self._absent is not None
        reason = self._absent.cancel_reason
        self._confirm(event)
        if OWNER_PRODUCER in self._absent.tokens:
            return State.RECOVERED
        if reason is None:
            return State.RUNNING
        self._effects.grace_s = CANCEL_GRACE_S
        self._say(self._askers[OWNER_PRODUCER], messages.CancelRequested(reason, CANCEL_GRACE_S))
        return State.CANCEL_REQUESTED

    def _absence_over(self, event: inputs.ResumeExpired) -> State:
        """The owner did not come back, unless it is about to, or was told to try again: then all have a little longer."""
        absent = self._absent
        if absent is not None and (OWNER_PRODUCER in absent.coming or absent.turned_away):
            absent.turned_away = False
            self._wait_longer(event)
            return State.RECOVERED
        self._mark_crashed(inputs.OwnerGone(event.at))
        self._defer(inputs.ExitInfo(event.at, event.verdict))
        return State.CRASHING

    def _wait_longer(self, _: inputs.ResumeExpired) -> None:
        self._effects.resume_again_s = RESUME_GRACE_UNKNOWN_S

    def _give_up_absent(self, event: inputs.ResumeExpired) -> None:
        """The run goes on without the participants that did not come back."""
        if self._absent is None:
            return
        for number in [number for number in self._absent.tokens if number not in self._absent.coming]:
            del self._absent.tokens[number]
            self._leave(inputs.ParticipantGone(event.at, number))

    def _refuse_resume(self, event: inputs.Resume) -> None:
        code, message = "resume-refused", "the run goes on in this collector, where the end of a connection is final"
        if self._never_was or self.state in (State.ENDING, State.CRASHING) or self.state in TERMINAL:
            code, message = "session-ended", "the run is over or ending: it cannot be taken up again"
        elif self._absent is not None and self.misses_somebody:
            code, message = "resume-token-wrong", "no producer that this run waits for has that token"
        self._say(event.asker, messages.Error(code, message, False, event.request_id))

    def _refuse_stalled(self, event: inputs.Resume) -> None:
        if self._absent is not None and self._absent.number_of(event.token) == OWNER_PRODUCER:
            self._absent.turned_away = True
        cause = self.stall_cause or "the run's record could not be written"
        self._say(event.asker, messages.Error("disk-failed", cause, True, event.request_id))

    # ------------------------------------------------------------ the rest

    def _ignore(self, _: AnyInput) -> None:
        """The table says: nothing follows from this here."""


assert all(hasattr(RunCore, f"_{action.value}") for action in Action)
assert all((state, cause) in TABLE for state in State for cause in Input)
