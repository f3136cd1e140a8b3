"""A restart of the collector is not a crash: who comes back goes on, who does not is given up, and a crash in between wins."""

from __future__ import annotations

from typing import Any

import pytest

from collectord.model import CrashReason, Outcome, RecordType, Verdict
from collectord.session import inputs
from collectord.session.absent import Absent
from collectord.session.core import EndWanted, RunCore
from collectord.session.ledger import Ledger
from collectord.session.records import unpack
from collectord.session.state import State
from collectord.wire import messages
from tests.session.runs import OWNER, Drive, facts, log

TOKEN = b"r" * 16
OTHER = b"p" * 16
DIED = Verdict(CrashReason.COLLECTOR_RESTARTED, "the agent did not come back")


def found_open(participants: int = 0, **more: Any) -> Drive:
    """A run that a new collector found, with four events of its owner in it."""
    ledger = Ledger()
    ledger.apply(ledger.producer(1), 1, [log(str(n)) for n in range(4)])
    tokens = {1: TOKEN}
    for number in range(2, 2 + participants):
        ledger.producer(number)
        tokens[number] = OTHER
    return Drive(Absent(tokens, **more), ledger)


def resume(drive: Drive, asker: Any = OWNER, token: bytes = TOKEN) -> inputs.Resume:
    """Somebody comes back."""
    return inputs.Resume(5, asker, drive.request(), token, 42, 1, "boot", "agent")


def state(drive: Drive) -> State:
    """Where the run stands now."""
    return drive.core.state


def codes(drive: Drive, asker: Any = OWNER) -> list[str]:
    """The errors that somebody was told."""
    return [error.code for error in drive.heard(asker, messages.Error)]


def test_the_owner_comes_back_learns_what_comes_next_and_ends_its_run() -> None:
    drive = found_open()
    assert drive.core.outcome is Outcome.RUNNING
    drive.do(resume(drive))
    (opened,) = drive.heard(OWNER, messages.Opened)
    assert (opened.producer, opened.next_sequence, opened.trace_id, opened.run) == (1, 5, b"t" * 16, 1)
    assert opened.resume_token == TOKEN
    assert state(drive) is State.RUNNING
    assert not drive.core.misses_somebody
    drive.do(drive.events(3, log(), log(), log()))
    assert drive.acknowledged() == 5
    assert drive.stored() == [5], "what came again was stored once"
    drive.do(drive.end(last=5))
    drive.rendered()
    assert drive.outcomes() == ["completed"]


def test_nobody_is_told_that_it_is_back_before_that_is_durable() -> None:
    drive = found_open()
    drive.core.handle(resume(drive))
    effects = drive.core.take()
    assert [record.type for record in effects.records] == [RecordType.RESUMED]
    assert effects.say == []
    assert state(drive) is State.RECOVERED
    drive.core.handle(inputs.Synced())
    assert state(drive) is State.RUNNING


def test_a_disk_that_fails_then_refuses_the_return_and_means_nothing_for_the_run() -> None:
    drive = found_open()
    drive.do(resume(drive), fail=True)
    assert codes(drive) == ["disk-failed"]
    assert state(drive) is State.STALLED
    drive.do(resume(drive, "again"))
    assert codes(drive, "again") == ["disk-failed"]
    drive.do(inputs.ResumeExpired(9, DIED))
    assert drive.more_time == [10.0], "nobody could come back: the time begins anew"
    drive.recover()
    assert state(drive) is State.RECOVERED
    drive.do(resume(drive, "third"))
    assert state(drive) is State.RUNNING
    assert len(drive.heard("third", messages.Opened)) == 1


def test_who_was_turned_away_by_the_disk_has_more_time_once_it_works() -> None:
    drive = found_open()
    drive.do(resume(drive), fail=True)
    drive.recover()
    drive.do(inputs.ResumeExpired(9, DIED))
    assert drive.more_time == [10.0]
    assert state(drive) is State.RECOVERED
    drive.do(inputs.ResumeExpired(10, DIED))
    assert drive.outcomes() == ["crashed"], "it did not come again"


def test_nobody_comes_back_and_the_run_has_crashed_with_what_it_had_asked_for() -> None:
    drive = found_open(end_wanted=Outcome.COMPLETED)
    drive.do(inputs.ResumeExpired(9, DIED))
    body = drive.terminal_body()
    assert (body["outcome"], body["reason"], body["end_requested"]) == ("crashed", "collector-restarted", "completed")
    assert state(drive) is State.CRASHED


def test_a_crash_report_in_between_wins_and_who_comes_later_hears_that_it_is_over() -> None:
    drive = found_open()
    drive.do(drive.crash("it broke"))
    assert drive.terminal_body()["reason"] == "reported"
    drive.do(resume(drive))
    assert codes(drive) == ["session-ended"]
    drive.do(inputs.ResumeExpired(9, DIED))
    assert drive.outcomes() == ["crashed"]


def test_a_crash_report_while_the_owner_comes_back_wins_too() -> None:
    drive = found_open()
    drive.core.handle(resume(drive))
    drive.do(drive.crash("it broke"))
    assert drive.terminal_body()["reason"] == "reported"
    drive.do(inputs.Rendered(9, drive.started[-1].number))
    assert [answer.outcome for answer in drive.heard(OWNER, messages.Terminal)] == [Outcome.CRASHED]


@pytest.mark.parametrize("token", [b"", b"x" * 16, TOKEN[:-1]])
def test_a_wrong_token_is_refused_with_its_own_code_and_changes_nothing(token: bytes) -> None:
    drive = found_open()
    drive.do(resume(drive, "stranger", token))
    assert codes(drive, "stranger") == ["resume-token-wrong"]
    drive.do(resume(drive))
    assert state(drive) is State.RUNNING


def test_a_run_that_goes_on_cannot_be_resumed_once_more() -> None:
    drive = found_open()
    drive.do(resume(drive))
    drive.do(resume(drive, "double"))
    assert codes(drive, "double") == ["resume-refused"]
    live = Drive()
    live.do(inputs.Resume(5, "double", live.request(), TOKEN))
    assert codes(live, "double") == ["resume-refused"]


def test_of_two_that_come_with_one_token_the_last_is_the_one() -> None:
    drive = found_open()
    drive.core.handle(resume(drive, "first"))
    drive.do(resume(drive, "second"))
    assert codes(drive, "first") == ["resume-refused"]
    assert len(drive.heard("second", messages.Opened)) == 1


def test_a_participant_that_is_back_first_goes_on_while_the_owner_is_waited_for() -> None:
    drive = found_open(participants=1)
    drive.do(resume(drive, "participant", OTHER))
    assert state(drive) is State.RECOVERED
    drive.do(drive.events(1, log(), producer=2))
    assert [ack.sequence for ack in drive.heard("participant", messages.Ack)] == [1]
    drive.do(resume(drive))
    assert state(drive) is State.RUNNING
    assert not drive.core.misses_somebody


def test_a_participant_that_does_not_come_back_has_left_and_the_run_goes_on() -> None:
    drive = found_open(participants=1)
    drive.do(resume(drive))
    assert drive.core.misses_somebody
    drive.do(inputs.ResumeExpired(9, DIED))
    (left,) = (record for record in drive.durable if record.type is RecordType.LEFT)
    assert left.producer == 2
    assert unpack(left.body)["detached"] is False
    assert state(drive) is State.RUNNING
    assert not drive.core.misses_somebody


def test_who_is_just_coming_when_the_time_is_over_has_come() -> None:
    drive = found_open()
    drive.do(resume(drive), inputs.ResumeExpired(9, DIED))
    assert state(drive) is State.RUNNING
    drive.do(inputs.ResumeExpired(10, DIED))
    assert state(drive) is State.RUNNING
    assert drive.outcomes() == []


def test_a_wish_to_cancel_outlives_the_restart_and_its_grace_begins_when_the_owner_hears_of_it() -> None:
    drive = found_open(cancel_reason="enough")
    assert drive.grace == []
    drive.do(resume(drive))
    assert [push.reason for push in drive.heard(OWNER, messages.CancelRequested)] == ["enough"]
    assert drive.grace == [30.0]
    assert state(drive) is State.CANCEL_REQUESTED
    drive.do(inputs.GraceExpired(9))
    drive.rendered()
    assert drive.outcomes() == ["cancelled"]


def test_a_wish_to_cancel_while_the_owner_is_away_waits_for_it() -> None:
    drive = found_open()
    drive.do(inputs.CancelRequested(5, "somebody", drive.request(), "enough", 7))
    assert len(drive.heard("somebody", messages.CancelAnswer)) == 1
    assert state(drive) is State.RECOVERED
    drive.do(resume(drive))
    assert [push.reason for push in drive.heard(OWNER, messages.CancelRequested)] == ["enough"]


def test_an_end_that_nobody_waits_for_is_carried_out_by_the_next_collector() -> None:
    core = RunCore(facts(), "/p", None, Ledger())
    core.end_as_wanted(EndWanted(Outcome.COMPLETED, None, None, False, 7))
    order = core.take().start
    assert order is not None
    assert order.terminal is not None
    core.handle(inputs.Rendered(9, order.number))
    (record,) = core.take().records
    assert unpack(record.body)["outcome"] == "completed"
    assert core.state is State.COMPLETED
