"""The daemon is killed while it answers an `open`: the run is there, and its agent, which never heard of it, opens it again."""

from __future__ import annotations

import signal

import pytest

from collectord.model import Outcome
from tests.process.client import Refused, log
from tests.process.daemon import running
from tests.scenarios.support import agent, finish, wait_for

pytestmark = pytest.mark.process


def test_an_agent_that_never_heard_of_its_run_gets_it_when_it_opens_it_again() -> None:
    with running() as daemon:
        with daemon.client() as deaf:
            trace_id = deaf.open("s").trace_id
            daemon.stop(signal.SIGKILL)
        daemon.start()
        with daemon.client() as client:
            opened = client.open("s")
            assert (opened.run, opened.next_sequence, opened.trace_id) == (1, 1, trace_id)
            client.send_events([log("heard")])
            assert client.end().outcome is Outcome.COMPLETED
        assert daemon.trace("s")["session"]["counts"]["logs"] == 1


def test_nobody_else_gets_it_and_nobody_who_had_heard() -> None:
    with running() as daemon:
        with daemon.client() as deaf, daemon.client() as heard:
            deaf.open("deaf")
            heard.open("heard")
            heard.send_events([log("x")])
            heard.flush()
            daemon.stop(signal.SIGKILL)
        daemon.start()
        other = agent(daemon, "try:\n    client.open('deaf')\nexcept Refused as error:\n    reached(error.code)\n")
        wait_for(other, "session-busy")
        finish(other)
        with daemon.client() as client:
            with pytest.raises(Refused, match="session-busy"):
                client.open("heard")
