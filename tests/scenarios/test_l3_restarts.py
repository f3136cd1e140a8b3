"""Scenario L3: the daemon is restarted, told to and killed, with fifty live sessions of the real client streaming.

Same trace ids, every event once, no false crash, all end `completed`. Some sessions have a participant in another process.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.export.otlp import logs_of, spans_of, value_of
from tests.faults import figures
from tests.process.daemon import Daemon, running
from tests.scenarios.journals import stored_of, terminals_of
from tests.scenarios.streams import check_verifies
from tests.scenarios.support import until

pytestmark = pytest.mark.process

BED = "restarts under load (L3)"

ROOT = Path(__file__).resolve().parents[2]

AGENT = """
import json, sys, threading
import collectord_client as collectord

socket, names, join = sys.argv[1], sys.argv[2].split(","), sys.argv[3] == "join"
stop, lock = threading.Event(), threading.Lock()

def say(**what):
    with lock:
        print(json.dumps(what), flush=True)

def stream(name):
    session = collectord.session(name, socket_path=socket, join=join)
    said, trace_id = 0, session.trace_id
    mark = "joined" if join else "own"
    say(name=name, reached="open")
    while not stop.wait(0.02):
        with session.span(f"{mark} span {said}"):
            session.log(f"{mark} {said}")
        said += 1
        if said == 5:
            say(name=name, reached="flow")
    whole = session.flush(timeout=60)
    ended = session.detach(timeout=60) if join else session.end(timeout=60)
    say(name=name, reached="end", said=said, whole=whole, trace_ids=[trace_id, session.trace_id], outcome=ended.outcome,
        path=ended.path, statistics=session.statistics())

threads = [threading.Thread(target=stream, args=(name,)) for name in names]
for thread in threads:
    thread.start()
sys.stdin.readline()
stop.set()
for thread in threads:
    thread.join()
"""


class Agent:
    """A process in which several sessions stream, each in a thread, until it is told to end them.

    Args:
        daemon: theirs.
        names: of the sessions.
        join: whether it takes part in them, and does not own them.
        directory: for what it says.
    """

    def __init__(self, daemon: Daemon, names: list[str], join: bool, directory: Path) -> None:
        self.names = names
        self._said = directory / f"{names[0]}-{'join' if join else 'own'}"
        with self._said.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", AGENT, str(daemon.socket), ",".join(names), "join" if join else "own"],
                stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT,
            )  # fmt: skip

    def said(self, reached: str) -> list[dict[str, Any]]:
        """What its sessions said when they had reached that point."""
        lines = [line for line in self._said.read_bytes().splitlines() if line.startswith(b"{")]
        return [found for found in map(orjson.loads, lines) if found["reached"] == reached]

    def have_all(self, reached: str) -> bool:
        """Whether all have reached it; raises where the process has died."""
        if self.process.poll():
            raise AssertionError(self._said.read_text())
        return len(self.said(reached)) == len(self.names)

    def tell_to_end(self) -> None:
        """It is to end its sessions now."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def wait_ended(self) -> None:
        """Until it has."""
        self.process.communicate(timeout=120)
        assert self.process.returncode == 0, self._said.read_text()


@contextmanager
def agents(daemon: Daemon, groups: list[list[str]], join: bool) -> Iterator[list[Agent]]:
    """A process for each group of sessions."""
    started = [Agent(daemon, names, join, daemon.directory) for names in groups]
    try:
        yield started
    finally:
        for agent in started:
            if agent.process.poll() is None:
                agent.process.kill()
            agent.process.communicate()


def _flow(daemon: Daemon, names: list[str]) -> None:
    """Until each session has new events acknowledged: they are in full flow."""
    seen = {row["id"]: row["events"] for row in daemon.status().sessions}

    def flows() -> bool:
        now = {row["id"]: row["events"] for row in daemon.status().sessions if row["outcome"] == "running"}
        return all(now.get(name, 0) >= seen.get(name, 0) + 4 for name in names)

    until(flows, "they do not all flow")


def _restart_under(sessions: int, joined: int, processes: int, stops: list[int]) -> None:
    names = [f"l3-{number}" for number in range(sessions)]
    with running() as daemon:
        groups = [names[number::processes] for number in range(processes)]
        with agents(daemon, groups, False) as owners:
            until(lambda: all(agent.have_all("open") for agent in owners))
            with agents(daemon, [names[:joined]] if joined else [], True) as helpers:
                until(lambda: all(agent.have_all("flow") for agent in [*owners, *helpers]))
                for number in stops:
                    daemon.stop(number)
                    daemon.start()
                    _flow(daemon, names)
                for agent in helpers:
                    agent.tell_to_end()
                    agent.wait_ended()
                for agent in owners:
                    agent.tell_to_end()
                until(lambda: any(agent.said("end") for agent in owners))
                daemon.stop(signal.SIGKILL)  # some have ended, some wait for the answer, some have not asked yet
                daemon.start()
                for agent in owners:
                    agent.wait_ended()
                events = _check(daemon, owners, helpers)
        check_verifies(daemon)
        assert not [row for row in daemon.status().sessions if row["outcome"] == "crashed"]
    print(f"{sessions} sessions, {joined} with participants, {len(stops) + 1} restarts: {events} events, each once")
    figures.record(BED, "sessions", sessions)
    figures.record(BED, "restarts", len(stops) + 1)
    figures.record(BED, "events", events)


def _check(daemon: Daemon, owners: list[Agent], helpers: list[Agent]) -> int:
    """Everything said is stored once, in the run that it was said to; returns how much that was."""
    said: dict[str, Counter[str]] = {}
    for agent, mark in [*((agent, "own") for agent in owners), *((agent, "joined") for agent in helpers)]:
        ends = agent.said("end")
        assert len(ends) == len(agent.names)
        for end in ends:
            assert end["whole"], f"{end['name']} was not told that all is durable: {end['statistics']}"
            assert end["said"] >= 5
            expected = said.setdefault(end["name"], Counter())
            expected.update(f"{mark} {number}" for number in range(end["said"]))
            document = daemon.trace(end["name"])
            assert end["trace_ids"] == [document["session"]["trace_id"]] * 2, "the trace id is not the same"
            assert mark == "joined" or (end["outcome"], end["path"]) == ("completed", str(daemon.trace_path(end["name"])))
    for name, expected in said.items():
        document = daemon.trace(name)
        shown = Counter(value_of(record["body"]) for record in logs_of(document))
        figures.record(BED, "acknowledged events lost", (expected - shown).total())
        figures.record(BED, "duplicates", (shown - expected).total())
        figures.record(BED, "false crashes", document["session"]["outcome"] == "crashed")
        assert document["session"]["outcome"] == "completed", f"{name}: a false crash: {document['session']['crash']}"
        assert [terminal["outcome"] for terminal in terminals_of(daemon, name)] == ["completed"]
        assert shown == expected
        spans = Counter(span["name"].replace(" span", "") for span in spans_of(document))
        assert spans == expected
        assert document["session"]["counts"]["unfinished"] == 0
        assert document["session"]["integrity"]["client_lost"] == 0
        assert sum(map(len, stored_of(daemon, name).values())) == 3 * expected.total()
    return 3 * sum(expected.total() for expected in said.values())


def test_l3_four_sessions_stream_on_through_a_stop_and_a_kill_of_the_daemon() -> None:
    _restart_under(4, 1, 1, [signal.SIGTERM])


@pytest.mark.bed
def test_l3_fifty_sessions_stream_on_through_stops_and_kills_of_the_daemon() -> None:
    _restart_under(50, 10, 5, [signal.SIGTERM, signal.SIGKILL] * (5 if figures.is_full() else 1))
