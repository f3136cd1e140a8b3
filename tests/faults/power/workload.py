"""The work whose promises are held against every crash state: real daemons on the mount, clients that note what they are told.

Each thing told becomes a mark the moment it is heard, so that in the log of the disk it stands behind all that was written
before it was said. ``Told`` adds the marks up again.
"""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import orjson
from attrs import Factory, define

from tests.process.client import Event, RawClient, log, span_end, span_start
from tests.process.daemon import Daemon

GROUPS = 60
"""How many groups are acknowledged one after the other; the issue asks for 50."""

_SESSIONS = 4
"""That many at once."""

_RESTARTS = {GROUPS // 3: signal.SIGKILL, GROUPS * 2 // 3: signal.SIGTERM}
"""Before which groups the daemon is killed, or stopped, and started again."""


@define
class Producer:
    """What one writing connection of a run was told.

    Attributes:
        acknowledged: every event up to this sequence is durable.
    """

    acknowledged: int = 0


@define
class ToldRun:
    """What was told of one run.

    Attributes:
        path: of its trace file.
        producers: by number.
        asked: the end that its owner is about to ask for.
        outcome: the end that it was told.
        finished_path: of the finished file, as it was told.
    """

    path: str
    producers: dict[int, Producer] = Factory(dict)
    asked: str | None = None
    outcome: str | None = None
    finished_path: str | None = None


@define
class Told:
    """Everything that was told, by file name stem and run."""

    runs: dict[tuple[str, int], ToldRun] = Factory(dict)
    groups: int = 0

    def add(self, mark: dict[str, Any]) -> None:
        """Take in one mark."""
        key = (mark["session"], mark["run"])
        if "asked" in mark:
            self.runs[key].asked = mark["asked"]
        elif mark["told"] == "opened":
            run = self.runs.setdefault(key, ToldRun(mark["path"]))
            run.producers.setdefault(mark["producer"], Producer())
        elif mark["told"] == "acknowledged":
            producer = self.runs[key].producers[mark["producer"]]
            assert mark["sequence"] >= producer.acknowledged
            producer.acknowledged = mark["sequence"]
            self.groups += 1
        else:
            self.runs[key].outcome = mark["outcome"]
            self.runs[key].finished_path = mark["path"]


def text_of(session: str, run: int, producer: int, sequence: int) -> str:
    """What an event says of itself: an event that is stored in the wrong place is found by it."""
    return f"{session}~{run}/{producer}/{sequence}"


class Marks:
    """Writes marks into the log of the disk."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    def put(self, session: str, run: int, **what: Any) -> None:
        """Note what was told, or asked; it is in the log when this returns."""
        content = orjson.dumps({"session": session, "run": run, **what})
        assert os.write(self._fd, content) == len(content)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)


class Writer:
    """One producer of one run that notes what it is told, and keeps what it sent, to send it again after a restart."""

    def __init__(self, daemon: Daemon, marks: Marks, session: str, join: bool = False) -> None:
        self._marks = marks
        self._sent: list[Event] = []
        self.session = session
        self.client: RawClient = daemon.client()
        opened = self.client.open(session, join=join)
        self.run = opened.run
        self.producer = opened.producer
        self.path = opened.path
        self._token = opened.resume_token
        self._trace_id = opened.trace_id
        marks.put(session, self.run, told="opened", producer=self.producer, path=self.path)

    def write_group(self, count: int, padding: int, token: str = "") -> None:
        """Send some events and wait until they are acknowledged."""
        self.send_group(count, padding, token)
        self.hear_acknowledged()

    def send_group(self, count: int, padding: int, token: str = "") -> int:
        """Send some events, the first with a token at both ends (one may lie across two writes); returns the last sequence."""
        events: list[Event] = []
        for number in range(count):
            sequence = self.client.sequence + 1 + number
            text = text_of(self.session, self.run, self.producer, sequence)
            if number and number % 3 == 2:
                events.append(span_end(sequence - 1, {"text": text}))
            elif number % 3 == 1:
                events.append(span_start(text, {"input": "x" * padding}))
            else:
                events.append(log(f"{text} {token}" + "y" * padding + token))
        self._sent += events
        self.client.send_events(events)
        return self.client.sequence

    def hear_acknowledged(self) -> None:
        """Wait until all that was sent is acknowledged, and note it."""
        self.client.wait_acknowledged()
        assert not self.client.refused
        self._note_durable(self.client.acknowledged)

    def _note_durable(self, sequence: int) -> None:
        self._marks.put(self.session, self.run, told="acknowledged", producer=self.producer, sequence=sequence)

    def hear_last_words(self) -> None:
        """Read what the daemon had still said before it was gone, and note it."""
        before = self.client.acknowledged
        try:
            while True:
                self.client.read_more()
        except ConnectionError:
            self.client.close()
        if self.client.acknowledged > before:
            self._note_durable(self.client.acknowledged)

    def come_back(self, daemon: Daemon) -> None:
        """To the next daemon, with the token. Everything before the sequence that it asks for is durable: it is noted as told."""
        acknowledged = self.client.acknowledged
        self.client = daemon.client()
        opened = self.client.open(self.session, resume_token=self._token)
        assert (opened.run, opened.producer, opened.path) == (self.run, self.producer, self.path)
        assert opened.trace_id == self._trace_id
        durable = opened.next_sequence - 1
        assert acknowledged <= durable <= len(self._sent)
        if durable:
            self._note_durable(durable)
        again = self._sent[durable:]
        self.client.sequence = self.client.acknowledged = durable
        if again:
            self.client.send_events(again)
            self.hear_acknowledged()

    def finish(self, how: str) -> None:
        """End, cancel or crash the run, and note the answer."""
        self._marks.put(self.session, self.run, asked=how)
        if how == "cancelled":
            answer: Any = self.client.cancel("enough")
        elif how == "crashed":
            answer = self.client.crash("the bed says so")
        else:
            answer = self.client.end(how)
        assert answer.outcome.value == how, answer
        assert answer.path == self.path, answer
        self._marks.put(self.session, self.run, told="terminal", outcome=how, path=answer.path)
        self.client.close()


def do_work(directory: Path, state_dir: Path, marks_path: str, seed: int, environment: dict[str, str]) -> None:
    """All of it: sessions that open, write, end in every way, and live on over daemons that are killed and stopped.

    Args:
        directory: for the socket and the daemon's words; not on the disk under test.
        state_dir: on the disk under test.
        marks_path: of the mark file.
        seed: of what happens when.
        environment: of the daemon.
    """
    choose = random.Random(seed)
    marks = Marks(marks_path)
    daemon = Daemon(directory, environment=environment)
    daemon.state_dir = state_dir
    daemon.start()
    work = _Work(daemon, marks, choose)
    try:
        for number in range(GROUPS):
            if number in _RESTARTS:
                work.restart(_RESTARTS[number])
            work.one_group()
        daemon.stop()
    finally:
        work.forget()
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.stop(signal.SIGKILL)
        marks.close()


class _Work:
    """Who writes at the moment, and what comes next."""

    def __init__(self, daemon: Daemon, marks: Marks, choose: random.Random) -> None:
        self._daemon = daemon
        self._marks = marks
        self._choose = choose
        self._owners: list[Writer] = []
        self._participants: list[Writer] = []
        self._names = 0
        self._endings = 0

    def one_group(self) -> None:
        """A few acknowledged events; before it perhaps a run begins, after it perhaps one ends."""
        choose = self._choose
        if len(self._owners) < _SESSIONS:
            self._begin()
        writer = choose.choice(self._owners + self._participants)
        writer.write_group(choose.choice((1, 2, 3, 9)), choose.choice((0, 10, 700, 3_000, 9_000)))
        if len(self._owners) == _SESSIONS and choose.random() < 0.25:
            self._end(choose.choice(self._owners))

    def _begin(self) -> None:
        """Every third run is one of a session that was there before."""
        self._names += 1
        session = f"session-{self._names}" if self._names % 3 else f"session-{self._names - 2}"
        if session in [owner.session for owner in self._owners]:
            session = f"session-{self._names}"
        owner = Writer(self._daemon, self._marks, session)
        self._owners.append(owner)
        if self._names % 2:
            self._participants.append(Writer(self._daemon, self._marks, session, join=True))

    def _end(self, owner: Writer) -> None:
        for participant in [one for one in self._participants if one.session == owner.session]:
            participant.client.close()
            self._participants.remove(participant)
        self._owners.remove(owner)
        owner.finish(("completed", "failed", "cancelled", "crashed")[self._endings % 4])
        self._endings += 1

    def restart(self, number: signal.Signals) -> None:
        """The daemon goes while everybody has just sent something, and another comes."""
        writers = self._owners + self._participants
        for writer in writers:
            writer.send_group(2, 300)
        self._daemon.stop(number)
        for writer in writers:
            writer.hear_last_words()
        self._daemon.start()
        for writer in writers:
            writer.come_back(self._daemon)

    def forget(self) -> None:
        """Every connection is closed: the daemon is gone."""
        for writer in self._owners + self._participants:
            writer.client.close()
        self._owners.clear()
        self._participants.clear()
