"""The life of a run, promise by promise."""

from __future__ import annotations

from typing import Any

import pytest

from collectord.limits import REFUSALS_PER_ACK_MAX
from collectord.model import Outcome, RecordType
from collectord.session import inputs
from collectord.session.records import unpack
from collectord.session.state import State
from collectord.wire import messages
from tests.session.runs import OWNER, Drive, end, log, start


def test_a_run_is_opened_only_when_its_first_record_is_durable() -> None:
    drive = Drive()
    (opened,) = drive.heard(OWNER, messages.Opened)
    assert opened.next_sequence == 1
    assert drive.durable[0].type is RecordType.OPENED
    assert drive.core.state is State.RUNNING


def test_a_run_whose_first_record_fails_has_never_existed() -> None:
    from collectord.session.core import RunCore
    from tests.session.runs import facts

    core = RunCore(facts(), "/p", OWNER)
    core.open(1)
    core.take()
    core.handle(inputs.SyncFailed("no space"))
    effects = core.take()
    assert effects.close
    assert [type(say.message) for say in effects.say] == [messages.Error]


def test_nothing_is_promised_in_the_effects_that_hold_its_records() -> None:
    drive = Drive()
    drive.core.handle(drive.events(1, start(1)))
    drive.core.handle(inputs.Flush(1, OWNER, 50, 1, 1, False))
    effects = drive.core.take()
    assert effects.records
    assert effects.say == []
    drive.core.handle(inputs.Synced())
    assert [type(say.message) for say in drive.core.take().say] == [messages.Ack, messages.Flushed]


def test_a_crash_before_the_hand_over_beats_an_end_whose_document_is_ready() -> None:
    drive = Drive()
    wanted = drive.end()
    drive.do(wanted)
    report = drive.crash()
    drive.rendered()
    assert drive.outcomes() == []
    drive.do(report)
    drive.rendered()
    assert drive.outcomes() == ["crashed"]
    assert drive.terminal_body()["end_requested"] == "completed"
    assert [m.outcome for m in drive.heard(OWNER, messages.Terminal)] == [Outcome.CRASHED]
    assert drive.core.closed


def test_nothing_beats_an_outcome_that_was_handed_over() -> None:
    drive = Drive()
    drive.do(drive.end())
    drive.core.handle(inputs.Rendered(9, drive.started[-1].number))
    late = drive.crash("too late")
    drive.gone()
    drive.core.handle(late)
    drive.settle()
    assert drive.outcomes() == ["completed"]
    assert [m.outcome for m in drive.heard("reporter", messages.Terminal)] == [Outcome.COMPLETED]
    notes = [unpack(record.body)["text"] for record in drive.durable if record.type is RecordType.NOTE]
    assert notes == ["reported late: too late"]


def test_an_owner_that_vanishes_while_its_end_waits_has_crashed() -> None:
    drive = Drive()
    drive.do(drive.end(wait=True))
    drive.gone()
    drive.do(drive.verdict())
    drive.rendered()
    body = drive.terminal_body()
    assert (body["outcome"], body["signal"], body["end_requested"]) == ("crashed", "SIGKILL", "completed")


def test_an_owner_that_does_not_wait_for_its_end_may_go() -> None:
    drive = Drive()
    drive.do(drive.end(wait=False))
    drive.gone()
    drive.do(drive.verdict())
    drive.rendered()
    assert drive.outcomes() == ["completed"]


def test_an_end_found_in_the_last_drain_counts_if_it_does_not_wait() -> None:
    for wait, outcome in ((False, "completed"), (True, "crashed")):
        drive = Drive()
        drive.gone()
        drive.do(drive.events(1, log()), drive.end(last=1, wait=wait))
        drive.do(drive.verdict())
        drive.rendered()
        assert drive.outcomes() == [outcome]
        assert drive.stored() == [1]


def test_a_report_from_the_owner_itself_says_more_than_its_vanishing() -> None:
    drive = Drive()
    drive.gone()
    drive.do(drive.crash("ValueError: x", OWNER, producer=1), drive.verdict())
    drive.rendered()
    assert drive.terminal_body()["reason"] == "reported"


def test_the_first_report_stands_and_the_others_are_noted() -> None:
    drive = Drive()
    reports = [drive.crash(f"report {n}", f"reporter {n}") for n in range(3)]
    drive.do(*reports)
    drive.rendered()
    assert drive.terminal_body()["message"] == "report 0"
    notes = [unpack(record.body)["text"] for record in drive.durable if record.type is RecordType.NOTE]
    assert sorted(note[-8:] for note in notes) == ["report 1", "report 2"]
    assert all(len(drive.heard(f"reporter {n}", messages.Terminal)) == 1 for n in range(3))


def test_events_after_the_end_are_refused_behind_what_came_in_time() -> None:
    drive = Drive()
    drive.core.handle(drive.events(1, log()))
    drive.core.handle(drive.end(last=1))
    drive.core.handle(drive.events(2, log(), log()))
    assert drive.core.take().say == [], "not before what came in time is durable"
    drive.core.handle(inputs.Synced())
    acks = [say.message for say in drive.core.take().say if isinstance(say.message, messages.Ack)]
    assert [(ack.sequence, ack.refused) for ack in acks] == [(1, []), (3, [[2, 2, "session-ended"]])]


def test_a_jump_in_the_sequence_is_recorded_as_a_gap_and_a_control_message_closes_it() -> None:
    drive = Drive()
    drive.do(drive.events(4, log()))
    drive.do(drive.end(last=9))
    gaps = [(r.first_sequence, unpack(r.body)["count"]) for r in drive.durable if r.type is RecordType.GAP]
    assert gaps == [(1, 3), (5, 5)]
    assert drive.core.ledger.client_lost == 8


def test_events_that_come_again_are_stored_once_and_acknowledged_again() -> None:
    drive = Drive()
    drive.do(drive.events(1, log("a"), log("b")))
    drive.do(drive.events(2, log("b"), log("c")))
    assert drive.stored() == [1, 2, 3]
    assert drive.core.ledger.duplicates == 1
    assert drive.acknowledged() == 3


def test_a_bad_event_is_refused_with_its_sequence_and_the_rest_is_stored() -> None:
    drive = Drive()
    drive.do(drive.events(1, start(1), [99, 1], end(1), end(1), log()))
    assert drive.stored() == [1, 3, 5]
    (ack,) = drive.heard(OWNER, messages.Ack)
    assert ack.refused == [[2, 1, "event-unknown"], [4, 1, "span-ended"]]
    positions = [r.first_position for r in drive.durable if r.type is RecordType.EVENTS]
    assert positions == [1, 2, 3]


def test_an_acknowledgement_lists_only_so_many_refusals_and_counts_the_rest() -> None:
    drive = Drive()
    drive.do(drive.events(1, *[e for _ in range(400) for e in (log(), end(7_000))]))
    (ack,) = drive.heard(OWNER, messages.Ack)
    assert len(ack.refused) == REFUSALS_PER_ACK_MAX
    assert sum(count for _, count, _ in ack.refused) + ack.refused_more == 400


def test_a_stalled_run_defers_in_order_and_marks_survive() -> None:
    drive = Drive()
    drive.do(drive.events(1, log()), fail=True)
    assert drive.core.state is State.STALLED
    assert drive.acknowledged() == 0
    assert [m.code for m in drive.heard(OWNER, messages.Stalled)] == ["disk-failed"]
    drive.do(drive.events(2, log()), drive.crash())
    assert drive.outcomes() == []
    drive.recover()
    drive.rendered()
    assert drive.outcomes() == ["crashed"]
    assert drive.acknowledged() == 2


def test_a_flush_with_export_is_answered_when_a_file_that_shows_it_is_in_place() -> None:
    drive = Drive()
    drive.do(drive.events(1, log()), inputs.Flush(1, OWNER, 60, 1, 1, True))
    assert drive.heard(OWNER, messages.Flushed) == []
    drive.do(drive.events(2, log()), inputs.Flush(1, OWNER, 61, 1, 2, True))
    drive.rendered()
    assert [m.id for m in drive.heard(OWNER, messages.Flushed)] == [60]
    drive.rendered()
    assert [m.id for m in drive.heard(OWNER, messages.Flushed)] == [60, 61]


def test_a_participant_adds_leaves_and_cannot_be_taken_for_the_owner() -> None:
    drive = Drive()
    drive.do(inputs.Join(2, "child", 70, 99, "worker", {}, b"x" * 16))
    (opened,) = drive.heard("child", messages.Opened)
    assert opened.producer == 2
    drive.do(drive.events(1, start(1), producer=2), inputs.ParticipantGone(3, 2))
    assert drive.core.state is State.RUNNING
    assert drive.core.ledger.open_spans == 1
    drive.do(inputs.Join(2, "late", 71, 99, "worker", {}, b"x" * 16), drive.end())
    drive.do(inputs.Join(2, "too late", 72, 99, "worker", {}, b"x" * 16))
    (refused,) = drive.heard("too late", messages.Error)
    assert refused.code == "session-ended"


def test_a_cancel_that_is_asked_for_is_told_to_the_owner_and_comes_by_grace() -> None:
    drive = Drive()
    drive.do(inputs.CancelRequested(2, "cli", 80, "enough", 1))
    assert [m.reason for m in drive.heard(OWNER, messages.CancelRequested)] == ["enough"]
    assert len(drive.grace) == 1
    drive.do(drive.events(1, log()))
    drive.do(inputs.GraceExpired(5))
    drive.rendered()
    assert drive.outcomes() == ["cancelled"]
    assert drive.stored() == [1]


def test_an_export_that_fails_does_not_take_the_outcome_along() -> None:
    drive = Drive()
    drive.do(drive.end())
    drive.do(inputs.ExportFailed(9, drive.started[-1].number, "no space"))
    assert drive.outcomes() == ["completed"]
    (answer,) = drive.heard(OWNER, messages.Terminal)
    assert (answer.outcome, answer.path, answer.export_error) == (Outcome.COMPLETED, None, "no space")


def test_who_asks_again_without_waiting_may_leave() -> None:
    drive = Drive()
    drive.do(drive.end(wait=True))
    drive.do(drive.end(wait=False))
    assert [unpack(r.body)["wait"] for r in drive.durable if r.type is RecordType.END_REQUESTED] == [True, False]
    drive.gone()
    drive.do(drive.verdict())
    drive.rendered()
    assert drive.outcomes() == ["completed"]
    assert len(drive.started) == 1, "the document is rendered once"


@pytest.mark.parametrize(
    ("attributes", "tokens"),
    [
        ({"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 7}, (5, 7)),
        ({"llm.token_count.prompt": 5}, (5, 0)),
        ({"gen_ai.usage.input_tokens": 5, "gen_ai.operation.name": "invoke_agent"}, (0, 0)),
        ({"gen_ai.usage.input_tokens": float("nan")}, (0, 0)),
        ({"gen_ai.usage.input_tokens": -3}, (0, 0)),
    ],
)
def test_usage_is_what_leaf_spans_report(attributes: dict[str, Any], tokens: tuple[int, int]) -> None:
    drive = Drive()
    drive.do(drive.events(1, start(1), end(1, attributes)))
    usage = drive.core.ledger.usage
    assert (usage.input_tokens, usage.output_tokens) == tokens


def test_usage_counts_a_response_once_and_no_roll_up() -> None:
    drive = Drive()
    usage = {"gen_ai.usage.input_tokens": 10, "gen_ai.response.id": "r1"}
    parent = (1).to_bytes(8, "big")
    drive.do(
        drive.events(1, start(1), start(2, parent=parent), start(3, parent=parent), end(2, usage), end(3, usage), end(1, usage))
    )
    assert drive.core.ledger.usage.input_tokens == 10


def test_parents_in_a_loop_end() -> None:
    drive = Drive()
    a, b = (1).to_bytes(8, "big"), (2).to_bytes(8, "big")
    usage = {"gen_ai.usage.input_tokens": 1}
    drive.do(drive.events(1, start(1, parent=b), start(2, parent=a), start(3, parent=a), end(3, usage), end(1), end(2)))
    assert drive.core.ledger.usage.input_tokens == 1
