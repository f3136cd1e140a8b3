"""How an agent's death is noticed, and what is said of it: scenario M8 in all its forms, and C9."""

from __future__ import annotations

import os
import signal
from functools import partial

import pytest

from collectord.model import Outcome
from tests.process.client import log, span_start
from tests.process.daemon import Daemon, running
from tests.scenarios.support import agent, crashed_row, finish, until, wait_for

pytestmark = pytest.mark.process

OPEN_AND_WAIT = """
client.open("s")
client.send_events([span_start("execute_tool bash")])
client.wait_acknowledged()
reached("there")
sys.stdin.readline()
"""


def test_m8_a_fork_that_holds_the_socket_does_not_hide_the_death_of_the_agent() -> None:
    script = """
client.open("s")
client.send_events([span_start("execute_tool bash")])
client.wait_acknowledged()
child = os.fork()
if child == 0:
    time.sleep(600)
    os._exit(0)
reached(f"child {child}")
reached("there")
time.sleep(600)
"""
    with running() as daemon:
        process = agent(daemon, script)
        assert process.stdout is not None
        child = int(process.stdout.readline().split()[1])
        wait_for(process, "there")
        process.kill()
        finish(process)
        row = crashed_row(daemon, "s")
        os.kill(child, signal.SIGKILL)
        assert row["crash"]["reason"] == "process-died"
        assert row["unfinished"] == 1


def test_m8_an_agent_that_exits_without_an_end_is_crashed_with_its_exit_code() -> None:
    with running() as daemon:
        process = agent(daemon, OPEN_AND_WAIT + "os._exit(7)")
        wait_for(process, "there")
        process.communicate("go\n")
        row = crashed_row(daemon, "s")
        assert row["crash"]["reason"] == "process-died"
        assert row["crash"]["exit_code"] in (7, None), "None where the kernel does not tell"


def test_m8_a_connection_that_is_closed_while_the_agent_lives_is_said_to_be_that() -> None:
    with running() as daemon:
        client = daemon.client()
        client.open("s")
        client.send_events([log("x")])
        client.wait_acknowledged()
        client.close()
        assert crashed_row(daemon, "s")["crash"]["reason"] == "connection-closed"


def test_m8_an_agent_killed_with_unread_answers_loses_nothing_that_it_sent() -> None:
    script = """
client.open("s")
for number in range(2000):
    client.send_events([log(f"event {number}")])
reached("there")
time.sleep(600)
"""
    with running() as daemon:
        process = agent(daemon, script)
        wait_for(process, "there")
        process.kill()
        finish(process)
        row = crashed_row(daemon, "s")
        assert row["events"] == 2000, "its end-of-file is a reset, behind everything it had sent"
        assert daemon.trace("s")["session"]["counts"]["logs"] == 2000


def test_m8_an_end_that_is_not_waited_for_is_no_crash_when_its_sender_goes_at_once() -> None:
    script = """
client.open("s")
client.send_events([log("last words")])
client.send_end(wait=False)
os._exit(0)
"""
    with running() as daemon:
        for number in range(5):
            process = agent(daemon, script.replace('"s"', f'"s{number}"'))
            finish(process)
            until(partial(_ended_at, daemon, f"s{number}"), "the run did not end")
            session = daemon.trace(f"s{number}")["session"]
            assert session["outcome"] == "completed"
            assert session["counts"]["logs"] == 1


def _ended_at(daemon: Daemon, name: str) -> str | None:
    found: str | None = daemon.session(name)["ended_at"]
    return found


def test_a_client_that_says_everything_at_once_and_goes_is_taken_at_its_word() -> None:
    script = """
from collectord.wire import messages
frames = [
    messages.Open(90, "s"),
    messages.End(91, "completed", 0, None, None, False),
]
client.socket.sendall(b"".join(map(encode_message, frames)))
os._exit(0)
"""
    with running() as daemon:
        finish(agent(daemon, script))
        until(lambda: [row for row in daemon.status().sessions if row["ended_at"]], "the run did not end")
        assert daemon.session("s")["outcome"] == "completed"


def test_a_torn_last_frame_is_dropped_and_counted() -> None:
    with running() as daemon:
        client = daemon.client()
        client.open("s")
        client.send_events([log("whole")])
        client.socket.sendall(b"\0\0\1\0half of a frame")
        client.close()
        crashed_row(daemon, "s")
        integrity = daemon.trace("s")["session"]["integrity"]
        assert integrity["torn_bytes"] == len(b"\0\0\1\0half of a frame")
        assert integrity["stored"] == 1


def test_c9_status_is_true_right_after_an_acknowledgement() -> None:
    with running() as daemon, daemon.client() as client:
        client.open("c9")
        for number in range(1, 51):
            client.send_events([span_start(f"span {number}")])
            client.wait_acknowledged()
            row = daemon.session("c9")
            assert (row["events"], row["unfinished"]) == (number, number)
            assert row["activity"]["name"] == f"span {number}"


def test_m2c_a_run_whose_daemon_is_killed_is_taken_up_again_and_nothing_acknowledged_is_lost() -> None:
    with running() as daemon:
        for number in range(int(os.environ.get("COLLECTORD_KILLS", "8"))):
            client = daemon.client()
            token = client.open(f"m2c-{number}").resume_token
            client.send_events([log(f"event {n}") for n in range(100)])
            client.wait_acknowledged(client.sequence)
            client.send_events([log("not acknowledged") for _ in range(50)])
            daemon.stop(signal.SIGKILL)
            client.close()
            daemon.start()
            with daemon.client() as back:
                back.sequence = back.open(f"m2c-{number}", resume_token=token).next_sequence - 1
                assert 100 <= back.sequence <= 150
                assert back.end().outcome is Outcome.COMPLETED
            session = daemon.trace(f"m2c-{number}")["session"]
            assert session["outcome"] == "completed"
            assert session["counts"]["logs"] >= 100
            assert session["integrity"]["duplicates"] == 0
            _each_once(daemon, f"m2c-{number}")


def _each_once(daemon: Daemon, stem: str) -> None:
    records = daemon.trace(stem)["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    bodies = [record["body"]["stringValue"] for record in records]
    assert bodies[:100] == [f"event {n}" for n in range(100)]


def test_a_death_in_the_moment_of_a_drain_does_not_hold_the_drain_up() -> None:
    for _ in range(3):
        with running() as daemon:
            clients = [daemon.client() for _ in range(20)]
            for number, client in enumerate(clients):
                client.open(f"s{number}")
                client.send_events([log("x")])
                client.wait_acknowledged()
            for client in clients:
                client.close()
            assert daemon.stop() == 0
            assert "not drained in time" not in daemon.said()
            for number in range(20):
                session = daemon.trace(f"s{number}")["session"]
                assert session["outcome"] == "crashed"
                assert session["counts"]["logs"] == 1
