"""Scenario D15: SIGTERM with a hundred running sessions: within the bound, nothing acknowledged lost, all resumable."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.faults import figures
from tests.process.daemon import running
from tests.scenarios.journals import stored_of, terminals_of
from tests.scenarios.streams import check_verifies, end_all, start_streams

pytestmark = pytest.mark.process

BED = "SIGTERM under load (D15)"


def _stop_in_the_midst_of(number: int) -> None:
    with running() as daemon:
        group = start_streams(daemon, [f"d15-{n}" for n in range(number)], random.Random(15))
        began = time.monotonic()
        assert daemon.stop(signal.SIGTERM) == 0
        took = time.monotonic() - began
        assert took < 15, "well within the time after which the process would have left by force"
        said = daemon.said()
        assert "not drained in time" not in said
        assert "Traceback" not in said
        assert not daemon.socket.exists()
        for stream in group:
            stream.join(60)
            assert all(error.code == "collector-draining" and error.retryable for error in stream.client.errors)
            assert terminals_of(daemon, stream.name) == [], "a stop of the daemon is no end of a session"
            stored = stored_of(daemon, stream.name)[1]
            assert stored == set(range(1, len(stored) + 1))
            assert len(stored) >= stream.known.acknowledged
            session = daemon.trace(stream.name)["session"]
            assert (session["outcome"], session["counts"]["logs"]) == ("running", len(stored)), "the file has it all too"
        acknowledged = sum(stream.known.acknowledged for stream in group)
        daemon.start()
        end_all(BED, daemon, group)
        check_verifies(daemon)
    print(f"{number} sessions stopped in {took:.2f} s, {acknowledged} events acknowledged before it, all went on")
    figures.record(BED, "sessions stopped and resumed", number)


def test_d15_ten_running_sessions_are_stopped_and_all_go_on_with_the_next_daemon() -> None:
    _stop_in_the_midst_of(10)


@pytest.mark.bed
def test_d15_a_hundred_running_sessions_are_stopped_and_all_go_on_with_the_next_daemon() -> None:
    _stop_in_the_midst_of(100)
