"""The transition table: complete, closed, and told the same way by the documents."""

from __future__ import annotations

import itertools

import pytest

from collectord.session.core import RunCore
from collectord.session.state import TABLE, TERMINAL, Action, Input, State


def test_every_state_has_a_row_for_every_input() -> None:
    assert set(TABLE) == set(itertools.product(State, Input))


def test_every_action_is_used_and_is_a_method_of_the_core() -> None:
    assert {row.action for row in TABLE.values()} == set(Action)
    for action in Action:
        assert callable(getattr(RunCore, f"_{action.value}"))


@pytest.mark.parametrize("state", [state for state in State if state in TERMINAL])
def test_nothing_leads_out_of_a_terminal_state(state: State) -> None:
    for cause in Input:
        assert TABLE[state, cause].next == {state}


def test_a_crash_report_leads_to_crashed_from_everywhere_that_is_not_terminal() -> None:
    for state in set(State) - TERMINAL:
        following = TABLE[state, Input.CRASH].next
        assert following <= {State.CRASHING, State.CRASHED, State.STALLED}


def test_only_the_hand_over_and_the_commit_lead_to_a_terminal_state() -> None:
    into = {(state, cause) for (state, cause), row in TABLE.items() if row.next & TERMINAL and state not in TERMINAL}
    assert into == {
        (State.ENDING, Input.RENDERED),
        (State.ENDING, Input.EXPORT_FAILED),
        (State.CRASHING, Input.CRASH),
        (State.CRASHING, Input.EXIT_INFO),
    }


def test_every_state_can_be_reached_and_every_live_one_can_end() -> None:
    edges: dict[State, set[State]] = {state: set() for state in State}
    for (state, _), row in TABLE.items():
        edges[state] |= row.next
    reached, frontier = {State.OPENING, State.RECOVERED}, [State.OPENING, State.RECOVERED]
    while frontier:
        for following in edges[frontier.pop()] - reached:
            reached.add(following)
            frontier.append(following)
    assert reached == set(State)
