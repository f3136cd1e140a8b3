"""What waits for a disk is bounded by its size, whatever it is made of."""

from __future__ import annotations

import pytest

from collectord.limits import PENDING_MAX_BYTES
from collectord.model import CrashReason, Outcome, Verdict
from collectord.session import inputs
from collectord.session.inputs import AnyInput
from tests.daemon.bench import World

TEXT = "x" * 60_000
EXCEPTION = {"type": "E", "message": TEXT, "stack": None}


@pytest.mark.parametrize(
    ("event", "at_least"),
    [
        (inputs.Crash(1, None, 1, Verdict(CrashReason.REPORTED, TEXT, None, None, EXCEPTION), 0, None), 120_000),
        (inputs.End(1, None, 1, Outcome.FAILED, TEXT, EXCEPTION, True, 0), 120_000),
        (inputs.Cancel(1, None, 1, TEXT, True, 0), 60_000),
        (inputs.CancelRequested(1, None, 1, TEXT, 7), 60_000),
        (inputs.ParticipantGone(1, 2, error=EXCEPTION), 60_000),
        (inputs.Flush(1, None, 1, 1, 0, False), 100),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, int) else str(value),
)
async def test_every_kind_of_input_counts_with_what_it_holds(event: AnyInput, at_least: int) -> None:
    world = World()
    enough = PENDING_MAX_BYTES // at_least + 1
    for _ in range(enough):
        world.owner.post(event)
    assert world.owner.is_behind, "its connections are not read on"
