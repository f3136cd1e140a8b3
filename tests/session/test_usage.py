"""Tokens and cost: whatever an agent writes into its attributes, the sums are of numbers, and memory is bounded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectord.limits import RESPONSE_IDS_REMEMBERED_MAX
from collectord.session.ledger import USAGE
from collectord.session.usage import KEYS, Usage, relevant
from tests.session.runs import Drive, end, start

ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text(max_size=200) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(KEYS)), ANYTHING), st.dictionaries(st.sampled_from(sorted(KEYS)), ANYTHING))
def test_nothing_that_an_agent_calls_usage_can_harm_its_run(at_start: dict[str, Any], at_end: dict[str, Any]) -> None:
    drive = Drive()
    drive.do(drive.events(1, start(1, attributes=at_start), end(1, at_end)))
    usage = drive.core.ledger.usage
    assert drive.stored() == [1, 2]
    assert usage.input_tokens >= 0
    assert usage.output_tokens >= 0
    assert usage.cost is None or 0 <= usage.cost < float("inf")


@pytest.mark.parametrize("operation", [["invoke_agent"], {"invoke_agent": 1}, b"invoke_agent", 7, None])
def test_an_operation_that_is_no_text_is_no_roll_up(operation: Any) -> None:
    usage = Usage()
    assert usage.count({"gen_ai.operation.name": operation, "gen_ai.usage.input_tokens": 3})
    assert usage.input_tokens == 3


def test_a_response_that_is_told_by_several_spans_is_counted_once_however_long_its_id() -> None:
    for response in ("r", "r" * 1_000_000):
        drive = Drive()
        told = {"gen_ai.usage.output_tokens": 4, "gen_ai.response.id": response}
        drive.do(drive.events(1, start(1), end(1, told), start(2), end(3, told)))
        assert drive.core.ledger.usage.output_tokens == 4


def test_two_long_ids_with_one_beginning_are_two_responses() -> None:
    drive = Drive()
    told = [{"gen_ai.usage.output_tokens": 4, "gen_ai.response.id": "r" * 5_000 + last} for last in "ab"]
    drive.do(drive.events(1, start(1), end(1, told[0]), start(2), end(3, told[1])))
    assert drive.core.ledger.usage.output_tokens == 8


def test_only_so_many_responses_are_remembered() -> None:
    usage = Usage()
    for number in range(RESPONSE_IDS_REMEMBERED_MAX + 1):
        usage.count({"gen_ai.usage.input_tokens": 1, "gen_ai.response.id": str(number)})
    usage.count({"gen_ai.usage.input_tokens": 1, "gen_ai.response.id": str(RESPONSE_IDS_REMEMBERED_MAX)})
    assert usage.input_tokens == RESPONSE_IDS_REMEMBERED_MAX + 1
    usage.count({"gen_ai.usage.input_tokens": 1, "gen_ai.response.id": "0"})
    assert usage.input_tokens == RESPONSE_IDS_REMEMBERED_MAX + 2


def test_an_open_span_keeps_numbers_and_short_text_of_what_it_was_given() -> None:
    drive = Drive()
    given_at_start = {"gen_ai.response.id": "x" * 1_000_000, "gen_ai.operation.name": ["y" * 1_000_000], "other": "z" * 1_000_000}
    drive.do(drive.events(1, start(1, attributes=given_at_start)))
    kept = drive.core.ledger.producers[1].open[1][USAGE]
    assert set(kept) == {"gen_ai.response.id", "gen_ai.operation.name"}
    assert len(str(kept)) < 200
    assert relevant({"gen_ai.usage.input_tokens": 5, "gen_ai.usage.cost": 0.5}) == {
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.cost": 0.5,
    }


def test_the_later_word_about_usage_wins_also_where_it_says_nothing_countable() -> None:
    drive = Drive()
    drive.do(
        drive.events(
            1,
            start(1, attributes={"gen_ai.usage.input_tokens": 5}),
            [2, 2, 1, {"gen_ai.usage.input_tokens": 7}, None],
            end(1),
            start(4, attributes={"gen_ai.usage.input_tokens": 5}),
            end(4, {"gen_ai.usage.input_tokens": "many"}),
        )
    )
    assert drive.core.ledger.usage.input_tokens == 7
