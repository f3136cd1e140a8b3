"""A disk that fails: nothing is acknowledged, everyone concerned is told once, and what was asked is done in order afterwards."""

from __future__ import annotations

from collectord.limits import NOTES_MAX, OPEN_SPAN_NAME_MAX_CHARACTERS
from collectord.model import Outcome, RecordType
from collectord.session import inputs
from collectord.session.ledger import NAME
from collectord.session.records import unpack
from collectord.session.state import State
from collectord.wire import messages
from tests.session.runs import OWNER, Drive, log, start


def cause(drive: Drive) -> str | None:
    """Why the run is stalled, as `status` shows it."""
    return drive.core.stall_cause


def test_a_stalled_run_is_told_once_however_often_the_disk_is_tried() -> None:
    drive = Drive()
    drive.do(drive.events(1, log()), fail=True)
    for _ in range(3):
        drive.do(inputs.SyncFailed("still full"))
    assert len(drive.heard(OWNER, messages.Stalled)) == 1
    assert cause(drive) == "no space left on device"
    drive.recover()
    assert cause(drive) is None
    drive.do(drive.events(2, log()), fail=True)
    assert len(drive.heard(OWNER, messages.Stalled)) == 2


def test_a_terminal_record_that_cannot_be_written_is_told_as_a_stall_and_answered_when_it_is_durable() -> None:
    for crashed in (False, True):
        drive = Drive()
        if crashed:
            drive.do(drive.crash(), fail=True)
        else:
            drive.do(drive.end())
            drive.do(inputs.Rendered(9, drive.started[-1].number), fail=True)
        drive.do(inputs.SyncFailed("still full"))
        assert drive.outcomes() == []
        assert drive.heard(OWNER, messages.Terminal) == []
        assert len(drive.heard(OWNER, messages.Stalled)) == 1
        assert cause(drive) == "still full"
        drive.recover()
        assert cause(drive) is None
        if crashed:
            drive.rendered()
        wanted = Outcome.CRASHED if crashed else Outcome.COMPLETED
        assert [m.outcome for m in drive.heard(OWNER, messages.Terminal)] == [wanted]


def test_what_a_stall_deferred_is_done_in_the_order_in_which_it_was_asked() -> None:
    drive = Drive()
    drive.do(drive.events(1, log()), fail=True)
    drive.do(
        drive.events(2, start(2)),
        inputs.Join(2, "child", 70, 99, "worker", {}, b"x" * 16),
        inputs.Flush(1, OWNER, 60, 1, 2, False),
        drive.events(3, [4, 3, 2, 0, None, {}], [4, 3, 2, 0, None, {}]),
        drive.end(last=4),
        drive.events(5, log()),
    )
    assert [type(say.message) for say in drive.said[1:]] == [messages.Stalled]
    drive.recover()
    drive.rendered()
    told = [type(say.message) for say in drive.said if say.to == OWNER]
    assert told[:2] == [messages.Opened, messages.Stalled]
    assert told[-1] is messages.Terminal
    assert [m.sequence for m in drive.heard(OWNER, messages.Flushed)] == [2]
    assert drive.stored() == [1, 2, 3]
    assert [m.refused for m in drive.heard(OWNER, messages.Ack)][-2:] == [[[4, 1, "span-ended"]], [[5, 1, "session-ended"]]]
    assert drive.outcomes() == ["completed"]


def test_an_owner_that_vanishes_from_a_stalled_end_has_crashed_unless_it_does_not_wait() -> None:
    for wait, outcome in ((True, "crashed"), (False, "completed")):
        drive = Drive()
        drive.do(drive.end(wait=wait), fail=True)
        assert drive.core.state is State.STALLED
        drive.gone()
        drive.do(drive.verdict())
        drive.recover()
        drive.rendered()
        assert drive.outcomes() == [outcome]


def test_a_report_beats_a_stalled_end_that_does_not_wait() -> None:
    drive = Drive()
    drive.do(drive.end(wait=False), fail=True)
    drive.do(drive.crash())
    assert drive.core.outcome is Outcome.CRASHED
    drive.recover()
    drive.rendered()
    assert drive.outcomes() == ["crashed"]


def test_a_stall_in_the_last_drain_keeps_the_verdict() -> None:
    drive = Drive()
    drive.gone()
    drive.do(drive.events(1, log()), fail=True)
    drive.do(drive.verdict())
    drive.recover()
    drive.rendered()
    assert drive.terminal_body()["signal"] == "SIGKILL"
    assert drive.stored() == [1]


def test_a_flush_with_export_in_a_stall_waits_and_hears_the_failure_of_its_document() -> None:
    drive = Drive()
    drive.do(drive.events(1, log()), fail=True)
    drive.do(inputs.Flush(1, OWNER, 60, 1, 1, True))
    drive.recover()
    drive.do(inputs.ExportFailed(9, drive.started[-1].number, "no space"))
    (error,) = drive.heard(OWNER, messages.Error)
    assert (error.id, error.code) == (60, "export-failed")
    assert drive.core.state is State.RUNNING


def test_of_too_many_notes_the_first_are_kept_and_the_rest_is_counted() -> None:
    drive = Drive()
    drive.gone()
    drive.do(*(drive.crash(f"report {n}", f"reporter {n}") for n in range(NOTES_MAX + 5)), drive.verdict())
    drive.rendered()
    notes = [unpack(record.body)["text"] for record in drive.durable if record.type is RecordType.NOTE]
    assert notes[:NOTES_MAX] == [f"reported too: report {n}" for n in range(NOTES_MAX)]
    assert notes[NOTES_MAX:] == [f"at least {n} more notes were left out" for n in (1, 2, 4)]
    assert all(len(drive.heard(f"reporter {n}", messages.Terminal)) == 1 for n in range(NOTES_MAX + 5))


def test_names_of_open_spans_are_held_as_far_as_status_shows_them() -> None:
    drive = Drive()
    drive.do(drive.events(1, start(1, "n" * 1_000_000)))
    (span,) = drive.core.ledger.producers[1].open.values()
    assert len(span[NAME]) == OPEN_SPAN_NAME_MAX_CHARACTERS
    drive.do(drive.events(2, [2, 2, 1, {}, "m" * 1_000_000]))
    assert span[NAME] == "m" * OPEN_SPAN_NAME_MAX_CHARACTERS
    (body, _) = (record.body for record in drive.durable if record.type is RecordType.EVENTS)
    assert len(body) > 1_000_000
