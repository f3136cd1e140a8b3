"""The fuzzer, for a bounded number of cases; `make fuzz` has more, and a new seed each time."""

from __future__ import annotations

import os

import pytest

from tests.process import fuzz
from tests.process.mutations import Conversation, conversation

pytestmark = pytest.mark.process

CASES = int(os.environ.get("FUZZ_CASES", "400"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))


def test_hostile_input_is_answered_with_a_stated_error_and_harms_nobody() -> None:
    report = fuzz.fuzz(CASES, SEED)
    print(report)
    assert report.checked > CASES // 2
    assert len(report.codes) > 10, "the cases have gone blunt"


def test_a_seed_and_a_number_are_a_case() -> None:
    made = [(case.kind, case.stream, case.due) for case in (conversation(7, number) for number in range(50))]
    again = [(case.kind, case.stream, case.due) for case in (conversation(7, number) for number in range(50))]
    assert made == again


def test_the_fuzzer_notices_an_answer_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    hello = conversation(1, 0).stream[:4]  # a frame that never becomes whole
    monkeypatch.setattr(fuzz, "PATIENCE_S", 0.3)
    monkeypatch.setattr(fuzz, "conversation", lambda seed, number: Conversation("cut", hello, due=[1]))
    with pytest.raises(fuzz.Found, match=r"case 0 \(cut, wait\): requests \[1\] get no answer"):
        fuzz.fuzz(1, 1)
