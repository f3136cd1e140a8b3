"""What comes late, twice, or behind what it concerns: told the truth about, and changing nothing that stands."""

from __future__ import annotations

from collectord.model import CrashReason, RecordType, Verdict
from collectord.session import inputs
from collectord.session.records import unpack
from collectord.session.state import State
from collectord.wire import messages
from tests.session.runs import OWNER, Drive, log


def acks(drive: Drive) -> list[tuple[int, list[list[object]]]]:
    """What the owner was acknowledged, in order."""
    return [(ack.sequence, ack.refused) for ack in drive.heard(OWNER, messages.Ack)]


def gaps(drive: Drive) -> list[tuple[int, int]]:
    """The gaps on record: (first sequence, count)."""
    return [(r.first_sequence, unpack(r.body)["count"]) for r in drive.durable if r.type is RecordType.GAP]


def test_events_that_come_again_behind_the_end_are_not_called_refused() -> None:
    drive = Drive()
    drive.do(drive.events(1, log(), log()), drive.end(last=2))
    drive.do(drive.events(1, log(), log(), log()))
    drive.do(drive.events(2, log()))
    assert acks(drive) == [(2, []), (3, [[3, 1, "session-ended"]]), (2, [])]
    assert drive.core.refused_late == 1


def test_what_was_refused_behind_the_end_is_no_loss_of_the_clients() -> None:
    drive = Drive()
    drive.do(drive.events(1, log()), drive.end(last=1))
    drive.do(drive.events(2, log(), log()))
    report = inputs.Crash(5, OWNER, drive.request(), Verdict(CrashReason.REPORTED, "boom"), 1, 3)
    drive.core.mark(report)
    drive.do(report)
    drive.rendered()
    assert drive.outcomes() == ["crashed"]
    assert gaps(drive) == []
    assert drive.core.ledger.client_lost == 0
    notes = [unpack(record.body)["text"] for record in drive.durable if record.type is RecordType.NOTE]
    assert notes == ["2 events came after the end was asked for and were refused"]


def test_what_the_end_itself_says_was_sent_and_did_not_come_is_a_gap() -> None:
    drive = Drive()
    drive.do(drive.events(1, log()), drive.end(last=3))
    assert gaps(drive) == [(2, 2)]


def test_a_crash_reported_behind_the_mark_is_not_undone_by_an_end_that_does_not_wait() -> None:
    drive = Drive()
    drive.gone()
    report = drive.crash("the watchdog saw it hang")
    wanted = drive.end(wait=False)
    drive.do(report, wanted)
    drive.do(drive.verdict())
    drive.rendered()
    body = drive.terminal_body()
    assert (body["outcome"], body["reason"], body["message"]) == ("crashed", "reported", "the watchdog saw it hang")
    assert body["end_requested"] == "completed"
    for asker, request_id in (("reporter", report.request_id), (OWNER, wanted.request_id)):
        assert [m.outcome.value for m in drive.heard(asker, messages.Terminal) if m.id == request_id] == ["crashed"]


def test_a_crash_reported_behind_the_mark_and_no_end_leaves_the_verdict_to_the_kernel_and_a_note() -> None:
    drive = Drive()
    drive.gone()
    drive.do(drive.crash("it hangs"), drive.end(wait=True), drive.verdict())
    drive.rendered()
    body = drive.terminal_body()
    assert (body["reason"], body["signal"], body["end_requested"]) == ("process-died", "SIGKILL", "completed")
    assert [unpack(r.body)["text"] for r in drive.durable if r.type is RecordType.NOTE] == ["reported too: it hangs"]


def test_thousands_of_deferred_inputs_are_taken_in_when_the_disk_works_again() -> None:
    drive = Drive()
    drive.do(drive.events(1, log()), fail=True)
    for sequence in range(2, 3_002):
        drive.do(drive.events(sequence, log()))
    drive.do(drive.end(last=3_001))
    assert drive.acknowledged() == 0
    drive.recover()
    assert drive.acknowledged() == 3_001
    assert drive.stored() == list(range(1, 3_002))
    assert drive.core.state is State.ENDING


def test_a_late_report_behind_an_export_that_failed_renames_nothing() -> None:
    drive = Drive()
    drive.do(drive.end())
    drive.do(inputs.ExportFailed(9, drive.started[-1].number, "no space"))
    assert drive.core.closed
    drive.do(drive.crash("late"))
    assert drive.renamed == []
    assert [m.outcome.value for m in drive.heard("reporter", messages.Terminal)] == ["completed"]


def test_a_document_that_was_dropped_and_then_fails_does_not_pass_for_the_crashed_one() -> None:
    drive = Drive()
    drive.do(drive.events(1, log()), inputs.ExportDue())
    (running,) = drive.started
    drive.do(drive.crash(), fail=True)
    drive.do(inputs.ExportFailed(9, running.number, "no space"))
    assert not drive.core.closed, "its terminal record is not durable"
    assert drive.heard("reporter", messages.Terminal) == []
    drive.recover()
    drive.do(inputs.ExportFailed(9, running.number, "no space"))
    assert not drive.core.closed, "its document is being rendered"
    drive.rendered()
    assert [order.terminal for order in drive.renamed] == [None]
    assert [m.export_error for m in drive.heard("reporter", messages.Terminal)] == [None]
