"""Restarts, of a real daemon and of the fake alike: what the fake pretends in ``test_resume.py`` is what a daemon does.

The daemon is stopped by SIGTERM and killed by SIGKILL under sessions that stream from many threads, while calls wait.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import collectord_client as collectord
import pytest
from collectord_client import _transport

from collectord.model import Outcome
from collectord.wire import messages
from tests.client.agents import ROOT
from tests.client.collectors import FakeSeen, RealCollector
from tests.client.fake_collector import listening
from tests.process.daemon import running
from tests.scenarios.support import until

PATIENCE_S = 60.0
HOW = ["SIGTERM", "SIGKILL", "fake"]


class Restartable(Protocol):
    """A collector that can go away and come back."""

    socket: Path

    def see(self, session_id: str) -> dict[str, Any]:
        """The session, however the collector keeps it."""

    def go_away(self) -> None:
        """Be gone."""

    def come_back(self) -> None:
        """Be there again, with the runs that were open."""


class RestartableDaemon(RealCollector):
    """A real one, and the signal that ends it."""

    how: signal.Signals

    def go_away(self) -> None:
        """By its signal."""
        status = self.daemon.stop(self.how)
        assert status == (0 if self.how == signal.SIGTERM else -self.how)

    def come_back(self) -> None:
        """As a new process."""
        self.daemon.start()


class RestartableFake(FakeSeen):
    """The fake, which forgets what it had not acknowledged."""

    def go_away(self) -> None:
        """Listen no more."""
        with self.fake.lock:
            self.fake.go_away()
            for run in self.fake.runs.values():
                run.forget_unacknowledged(lambda acknowledged, _: acknowledged)

    def come_back(self) -> None:
        """Listen."""
        self.fake.listen()


@contextmanager
def collector_of(how: str) -> Iterator[Restartable]:
    """A collector of its own for a test."""
    if how == "fake":
        with tempfile.TemporaryDirectory(prefix="cf-") as directory, listening(Path(directory)) as fake:
            fake.restarts = True
            yield RestartableFake(fake)
    else:
        with running() as daemon:
            found = RestartableDaemon(daemon)
            found.how = signal.Signals[how]
            yield found


@pytest.fixture(params=HOW)
def collector(request: pytest.FixtureRequest) -> Iterator[Restartable]:
    with collector_of(request.param) as found:
        yield found


def opened(collector: Restartable, name: str, join: bool = False) -> collectord.Session:
    """A session with that collector."""
    session = collectord.session(name, socket_path=str(collector.socket), join=join, timeout=PATIENCE_S)
    assert session.outcome == "running", session.statistics()
    return session


def bodies_of(seen: dict[str, Any]) -> list[Any]:
    """What was logged, in its order."""
    return [log["body"] for log in seen["logs"]]


class Stream:
    """Threads that log without pause, each its own numbers in order, until they are told to stop."""

    def __init__(self, sessions: list[collectord.Session]) -> None:
        self._stop = threading.Event()
        self.counts = [0] * len(sessions)
        self._threads = [threading.Thread(target=self._work, args=(index, one)) for index, one in enumerate(sessions)]
        for thread in self._threads:
            thread.start()

    def _work(self, index: int, session: collectord.Session) -> None:
        while not self._stop.is_set() and self.counts[index] < 20_000:
            session.log([index, self.counts[index]])
            self.counts[index] += 1
            if self.counts[index] % 50 == 0:
                assert session.flush(PATIENCE_S)

    def stop(self) -> None:
        """Stop, and wait until they have."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def go_on(self, more: int) -> None:
        """Wait until every thread has logged so many more."""
        wanted = [count + more for count in self.counts]
        until(lambda: all(count >= goal for count, goal in zip(self.counts, wanted, strict=True)))


def test_a_restart_in_mid_stream_loses_nothing_and_stores_nothing_twice(collector: Restartable, name: str) -> None:
    session = opened(collector, name)
    guests = [opened(collector, name, join=True) for _ in range(2)]
    before = (session.run, session.trace_id, session.path)
    stream = Stream([session, session, session, *guests])
    for _ in range(3):
        stream.go_on(100)
        collector.go_away()
        collector.come_back()
    stream.go_on(100)
    stream.stop()
    for guest in guests:
        assert guest.detach(timeout=PATIENCE_S).outcome == "running"
    ended = session.end(timeout=PATIENCE_S)
    assert (ended.outcome, ended.path) == ("completed", session.path)
    assert (session.run, session.trace_id, session.path) == before
    seen = collector.see(name)
    assert (seen["outcome"], seen["client_lost"], seen["refused"], seen["stored"]) == ("completed", 0, 0, sum(stream.counts))
    for index, count in enumerate(stream.counts):
        assert [number for writer, number in bodies_of(seen) if writer == index] == [*range(count)]
    for one in (session, *guests):
        statistics = one.statistics()
        assert (statistics["reconnects"], statistics["lost"], statistics["refused"]) == (3, 0, {})
        assert statistics["acknowledged"] == statistics["accepted"]


def test_calls_that_wait_are_answered_by_the_next_collector(collector: Restartable, name: str) -> None:
    session = opened(collector, name)
    collector.go_away()
    answers: dict[str, Any] = {}
    session.log("kept")

    def flush() -> None:
        answers["flush"] = session.flush(PATIENCE_S)

    def end() -> None:
        answers["end"] = session.end(outcome="failed", message="on purpose", timeout=PATIENCE_S).outcome

    threads = []
    for call in (flush, end):
        threads.append(threading.Thread(target=call))
        threads[-1].start()
        until(lambda: session.statistics()["queued"] >= 1 + len(threads))
    collector.come_back()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert answers == {"flush": True, "end": "failed"}
    seen = collector.see(name)
    assert (seen["outcome"], seen["message"], bodies_of(seen)) == ("failed", "on purpose", ["kept"])


@pytest.mark.parametrize("events", [0, 200])
@pytest.mark.parametrize("how", HOW)
def test_ends_that_are_said_at_any_moment_of_a_restart_are_answered_with_what_stands(name: str, how: str, events: int) -> None:
    with collector_of(how) as collector:
        sessions = [opened(collector, f"{name}-{number}") for number in range(8)]
        ended: dict[int, collectord.Ended] = {}
        begin = threading.Barrier(len(sessions) + 1)

        def end(number: int) -> None:
            begin.wait(PATIENCE_S)
            for event in range(events * number):
                sessions[number].log(event)
            ended[number] = sessions[number].end(timeout=PATIENCE_S)

        threads = [threading.Thread(target=end, args=(number,)) for number in range(len(sessions))]
        for thread in threads:
            thread.start()
        begin.wait(PATIENCE_S)
        collector.go_away()
        collector.come_back()
        for thread in threads:
            thread.join(PATIENCE_S)
        for number, session in enumerate(sessions):
            seen = collector.see(f"{name}-{number}")
            assert (ended[number].outcome, session.outcome, seen["outcome"]) == ("completed",) * 3
            assert ended[number].path == session.path
            assert bodies_of(seen) == [*range(events * number)]
            assert seen["client_lost"] == 0


def test_an_agent_that_leaves_its_block_while_nobody_is_there_waits_for_the_next_collector(
    collector: Restartable, name: str
) -> None:
    script = """
import collectord_client as collectord, sys
with collectord.session(sys.argv[1]) as session:
    print("open", flush=True)
    input()
    session.log("in the outage")
    print("leaving", flush=True)
print(session.outcome, flush=True)
"""
    command = [sys.executable, "-c", script, name]
    environment = {**os.environ, "COLLECTORD_SOCKET": str(collector.socket)}
    with subprocess.Popen(
        command, env=environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        assert agent.stdout.readline() == "open\n"
        collector.go_away()
        agent.stdin.write("\n")
        agent.stdin.flush()
        assert agent.stdout.readline() == "leaving\n"
        collector.come_back()
        said, error = agent.communicate(timeout=PATIENCE_S)
    assert (said, error, agent.returncode) == ("completed\n", "", 0)
    seen = collector.see(name)
    assert (seen["outcome"], bodies_of(seen)) == ("completed", ["in the outage"])


def test_an_owner_that_is_late_learns_what_became_of_its_run(collector: Restartable, name: str) -> None:
    session = opened(collector, name)
    session.log("kept")
    assert session.flush(PATIENCE_S)
    session._transport._path = str(collector.socket) + "-elsewhere"  # type: ignore[attr-defined]
    collector.go_away()
    collector.come_back()
    end_by_a_report(collector, name)
    session._transport._path = str(collector.socket)  # type: ignore[attr-defined]
    until(lambda: session.statistics()["state"] == "quiet")
    assert "session-ended" in session.statistics()["last_error"]
    assert session.outcome == "crashed"
    ended = session.end(timeout=PATIENCE_S)
    assert (ended.outcome, ended.path) == ("crashed", session.path)
    assert collector.see(name)["outcome"] == "crashed"


def end_by_a_report(collector: Restartable, name: str) -> None:
    """Somebody reports the crash of a run whose owner is not back yet."""
    if isinstance(collector, RestartableFake):
        collector.fake.runs[name].outcome = Outcome.CRASHED
        return
    assert isinstance(collector, RestartableDaemon)
    with collector.daemon.client() as reporter:
        answer = reporter.ask(messages.Crash(7, "it hangs", session_id=name))
    assert isinstance(answer, messages.Terminal)
    assert answer.outcome.value == "crashed"


def test_a_token_that_is_wrong_makes_the_session_quiet_and_leaves_the_run_to_who_has_it(
    collector: Restartable, name: str
) -> None:
    owner = opened(collector, name)
    thief = opened(collector, name, join=True)
    thief._transport.opened["resume_token"] = b"guessed"  # type: ignore[attr-defined]
    collector.go_away()
    collector.come_back()
    owner.log("kept")
    until(lambda: thief.statistics()["state"] == "quiet")
    assert thief.outcome == "unknown"
    assert owner.end(timeout=PATIENCE_S).outcome == "completed"
    assert bodies_of(collector.see(name)) == ["kept"]


def test_a_memory_that_was_full_during_a_restart_shows_as_a_gap_of_exactly_that_size(
    collector: Restartable, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transport.SocketTransport.__init__, "__defaults__", (128 << 10,))
    session = opened(collector, name)
    collector.go_away()
    for number in range(1_000):
        session.log([number, "x" * 1_000])
    lost = session.statistics()["lost"]
    assert 500 < lost < 1_000
    collector.come_back()
    until(lambda: session.statistics()["unacknowledged_bytes"] == session.statistics()["queued"] == 0)
    session.log([1_000, ""])
    assert session.end(timeout=PATIENCE_S).outcome == "completed"
    seen = collector.see(name)
    assert seen["client_lost"] == lost
    assert [number for number, _ in bodies_of(seen)] == [*range(1_000 - lost), 1_000]
