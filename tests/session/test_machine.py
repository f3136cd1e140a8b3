"""Random lives: hypothesis drives a run's core with whatever may happen, on a disk that may fail."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from collectord.model import RecordType
from collectord.session import inputs
from collectord.wire import messages
from tests.session.runs import OWNER, Drive, end, log, start


class Lives(RuleBasedStateMachine):
    """One run, and what must hold of it at every moment."""

    def __init__(self) -> None:
        super().__init__()
        self.drive = Drive()
        self.sequence = 0
        self.asked: list[tuple[Any, int]] = []
        self.outcome: str | None = None

    def _may(self) -> bool:
        return not self.drive.core.closed

    @precondition(_may)
    @rule(count=st.integers(1, 5), skip=st.integers(0, 2), again=st.booleans(), fail=st.booleans())
    def events(self, count: int, skip: int, again: bool, fail: bool) -> None:
        first = max(1, self.sequence - 1) if again else self.sequence + 1 + skip
        batch = [start(first), *[log() for _ in range(count - 1)]]
        self.sequence = max(self.sequence, first + count - 1)
        self.drive.do(self.drive.events(first, *batch), fail=fail)

    @precondition(_may)
    @rule(reference=st.integers(1, 30))
    def end_a_span(self, reference: int) -> None:
        self.sequence += 1
        self.drive.do(self.drive.events(self.sequence, end(reference)))

    @precondition(_may)
    @rule(wait=st.booleans(), fail=st.booleans())
    def end(self, wait: bool, fail: bool) -> None:
        wanted = self.drive.end(self.sequence, wait)
        self.asked.append((OWNER, wanted.request_id))
        self.drive.do(wanted, fail=fail)

    @precondition(_may)
    @rule(fail=st.booleans())
    def crash(self, fail: bool) -> None:
        report = self.drive.crash(asker=f"reporter {self.drive.ids}")
        self.asked.append((report.asker, report.request_id))
        self.drive.do(report, fail=fail)

    @precondition(_may)
    @rule()
    def vanish(self) -> None:
        self.drive.gone()
        self.drive.do(self.drive.verdict())

    @precondition(_may)
    @rule()
    def grace(self) -> None:
        self.drive.do(inputs.CancelRequested(2, "cli", self.drive.request(), "stop", 1), inputs.GraceExpired(3))

    @precondition(lambda self: self.drive.core.closed)
    @rule()
    def ask_what_stands(self) -> None:
        request = self.drive.end(self.sequence)
        self.drive.do(request)
        self.asked.append((OWNER, request.request_id))

    @precondition(_may)
    @rule()
    def export(self) -> None:
        self.drive.do(inputs.ExportDue())

    @precondition(lambda self: bool(self.drive.started) and not self.drive.core.closed)
    @rule(fails=st.booleans())
    def rendered(self, fails: bool) -> None:
        number = self.drive.started[-1].number
        self.drive.do(inputs.ExportFailed(9, number, "no") if fails else inputs.Rendered(9, number))

    @precondition(lambda self: bool(self.drive.pending))
    @rule()
    def the_disk_works_again(self) -> None:
        self.drive.recover()

    @invariant()
    def there_is_one_outcome(self) -> None:
        outcomes = self.drive.outcomes()
        assert len(outcomes) <= 1
        if self.outcome is not None and outcomes:
            assert outcomes == [self.outcome]
        if outcomes:
            self.outcome = outcomes[0]
        for say in self.drive.said:
            if isinstance(say.message, messages.Terminal) and say.message.outcome.is_terminal:
                assert say.message.outcome.value == self.outcome

    @invariant()
    def positions_are_dense_and_nothing_is_stored_twice(self) -> None:
        position = 0
        for record in self.drive.durable:
            if record.type is RecordType.EVENTS:
                assert record.first_position == position + 1
                position += record.count
        stored = self.drive.stored()
        assert len(stored) == len(set(stored))

    @invariant()
    def whoever_asked_is_answered_once_when_it_is_over(self) -> None:
        if self.drive.core.closed and not self.drive.pending:
            for asker, request_id in self.asked:
                answers = [m for m in self.drive.heard(asker, messages.Terminal) if m.id == request_id]
                assert len(answers) == 1


Lives.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestLives = Lives.TestCase
