"""Scenarios D15 and D16: the daemon is stopped in the midst of everything; nothing accepted is lost, and the runs stay open."""

from __future__ import annotations

import random
import signal
import threading
import time
from typing import Any

import pytest

from collectord.wire import messages
from tests.export.otlp import logs_of, value_of
from tests.process.client import RawClient, Refused, log, span_start
from tests.process.daemon import Daemon, running
from tests.scenarios.journals import stored_of, terminals_of

pytestmark = pytest.mark.process


class Stream(threading.Thread):
    """A client that writes as fast as it is let, until its connection ends; it remembers what it was told.

    Args:
        client: connected.
        name: of its session.
        size: events in a batch.
    """

    def __init__(self, client: RawClient, name: str, size: int) -> None:
        super().__init__(name=name)
        self.client = client
        self.opened = threading.Event()
        self.was_opened = False
        self._size = size

    def run(self) -> None:
        with self.client:
            try:
                self.client.open(self.name)
                self.was_opened = True
            except (OSError, Refused):
                return
            finally:
                self.opened.set()
            try:
                self._write()
            except OSError:
                pass  # the daemon is gone; what it said before is still to be heard
            try:
                while self.client.receive() is not None:
                    pass
            except OSError:
                pass

    def _write(self) -> None:
        """At most five batches ahead of what is acknowledged."""
        while True:
            first = self.client.sequence + 1
            self.client.send_events([log(f"{self.name} {first + n}") for n in range(self._size)])
            self.client.wait_acknowledged(max(0, self.client.sequence - 5 * self._size))


def streams(daemon: Daemon, names: list[str], rng: random.Random) -> list[Stream]:
    """Clients that have begun to write."""
    started = [Stream(daemon.client(liveness="connection"), name, rng.choice((1, 7, 60))) for name in names]
    for stream in started:
        stream.start()
    return started


def check_kept(daemon: Daemon, stream: Stream) -> dict[str, Any]:
    """Everything acknowledged is stored, nothing twice, nothing half, no hole; the file and the journal agree."""
    assert stream.client.refused == []
    stored = stored_of(daemon, stream.name).get(1, set())
    assert stored == set(range(1, len(stored) + 1)), "no holes"
    assert len(stored) >= stream.client.acknowledged, f"{stream.client.acknowledged} were acknowledged, {len(stored)} are stored"
    document = daemon.trace(stream.name)  # that it is sound OTLP is looked at once, when the daemon of the test is stopped
    bodies = [value_of(record["body"]) for record in logs_of(document)]
    assert bodies == [f"{stream.name} {n}" for n in range(1, len(stored) + 1)]
    session: dict[str, Any] = document["session"]
    assert session["integrity"]["duplicates"] == 0
    return session


def test_d15_a_stop_in_the_midst_of_twenty_streams_stores_what_was_accepted_and_leaves_the_runs_open() -> None:
    rng = random.Random(15)
    with running() as daemon:
        group = streams(daemon, [f"d15-{number}" for number in range(20)], rng)
        for stream in group:
            stream.opened.wait()
            assert stream.was_opened
        time.sleep(0.2)  # the scenario's: they are in full flow
        began = time.monotonic()
        assert daemon.stop(signal.SIGTERM) == 0
        took = time.monotonic() - began
        said = daemon.said()
        assert "not drained in time" not in said
        assert "Traceback" not in said
        for stream in group:
            stream.join(60)
            session = check_kept(daemon, stream)
            assert session["outcome"] == "running", "a stop of the daemon is no end of a session"
            assert terminals_of(daemon, stream.name) == []
            told = [message for message in stream.client.pushed if isinstance(message, messages.Error)]
            assert all(error.code == "collector-draining" and error.retryable for error in told)
        print(f"stopped in {took:.2f} s, {sum(stream.client.acknowledged for stream in group)} events acknowledged")
        assert took < 15, "well within the time after which the process would have left by force"
        assert not daemon.socket.exists()
        daemon.start()
        for stream in group:
            assert check_kept(daemon, stream)["outcome"] == "running", "its agent lives, and may come back"


def test_d16_whatever_was_accepted_is_in_the_file_after_a_stop_however_soon_it_comes() -> None:
    with running() as daemon:
        clients = [daemon.client() for _ in range(5)]
        for number, client in enumerate(clients):
            client.open(f"d16-{number}")
            client.send_events([log("shown")])
        for client in clients[:4]:
            client.flush(export=True)
        clients[1].send_events([span_start("one more")])
        clients[1].wait_acknowledged()
        clients[2].send_events([span_start("being written")])
        exporting = clients[2].sequence
        clients[2].tell(messages.Flush(91, exporting, export=True))
        clients[3].send_events([span_start("ending")])
        clients[3].send_end(wait=False)
        clients[4].wait_acknowledged()
        daemon.session("d16-3")  # an answer from behind all of that: it has been read
        assert daemon.stop(signal.SIGINT) == 0
        found = [daemon.trace(f"d16-{number}")["session"] for number in range(5)]
        assert [session["counts"]["events"] for session in found] == [1, 2, 2, 2, 1]
        assert [session["outcome"] for session in found] == ["running", "running", "running", "completed", "running"]
        assert list((daemon.state_dir / "traces").glob(".*")) == [], "no temporary file is left"
        for client in clients:
            client.close()


def test_a_client_that_connects_while_the_daemon_stops_is_told_or_finds_nobody() -> None:
    with running() as daemon:
        streams_ = streams(daemon, [f"late-{number}" for number in range(5)], random.Random(1))
        for stream in streams_:
            stream.opened.wait()
        process = daemon.process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        outcomes = set()
        while process.poll() is None:
            try:
                with daemon.client() as client:
                    client.open(f"too-late-{time.monotonic_ns()}")
                    outcomes.add("opened")
            except Refused as refused:
                outcomes.add(refused.code)
            except (OSError, AssertionError):
                outcomes.add("nobody")
        assert process.returncode == 0
        assert outcomes <= {"opened", "collector-draining", "nobody"}
        for stream in streams_:
            stream.join(60)
            check_kept(daemon, stream)
