"""A collector in a thread, for what a real one cannot be made to do: say nothing, say nonsense, take nothing, go at a moment.

It stores events in a list and promises no durability. The contract tests run on it and on a real daemon alike, so that what it
pretends is what a daemon does. Its restarts are pretended too: connections are cut, what was stored and not acknowledged may be
forgotten, and owners come back with their tokens.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

from collectord.errors import PeerError
from collectord.limits import FRAME_SIZE_MAX_BYTES, PROTOCOL_VERSION
from collectord.model import Outcome
from collectord.wire import messages
from collectord.wire.connection import ServerConnection
from collectord.wire.messages import Answer, encode_message

TRACE_ID = bytes(range(1, 17))


class Point(Enum):
    """Where a connection can break."""

    ACCEPTED = "before hello is read"
    HELLO = "after hello is read"
    WELCOMED = "after welcome is sent"
    OPEN = "after open is read"
    OPENED = "after opened is sent"
    EVENTS = "after events are read"
    STORED = "after events are stored"
    ACKNOWLEDGED = "after they are acknowledged"
    ASKED = "after a request is read"
    DONE = "after a request is done"
    ANSWERED = "after it is answered"


class Cut(Exception):
    """The connection breaks here."""


class Producer:
    """One writer of a run, over all its connections."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.token = bytes([number]) * 16
        self.next = 1
        self.acknowledged = 0
        self.refused = 0
        self.duplicates = 0
        self.client_lost = 0
        self.has_left = False


class Run:
    """One run, as it was told."""

    def __init__(self, session_id: str, opening: messages.Open) -> None:
        self.id = session_id
        self.opening = opening
        self.outcome = Outcome.RUNNING
        self.end: messages.End | messages.Crash | messages.Cancel | None = None
        self.producers: list[Producer] = []
        self.events: list[tuple[int, int, list[Any]]] = []
        self.detached: list[messages.Detach] = []
        self.connections: list[Connection] = []

    @property
    def client_lost(self) -> int:
        """How many events its writers said that they had lost."""
        return sum(producer.client_lost for producer in self.producers)

    def stored(self, producer: int = 1) -> list[Any]:
        """The events of one writer, in the order in which they were stored."""
        return [event for number, _, event in self.events if number == producer]

    def forget_unacknowledged(self, chosen: Callable[[int, int], int]) -> None:
        """What a power cut may do; ``chosen`` says, of the last sequence acknowledged and the last stored, where to cut."""
        for producer in self.producers:
            last = chosen(producer.acknowledged, producer.next - 1)
            assert producer.acknowledged <= last < producer.next
            self.events = [event for event in self.events if event[0] != producer.number or event[1] <= last]
            producer.next = last + 1


class Connection:
    """One client."""

    def __init__(self, collector: FakeCollector, accepted: socket.socket) -> None:
        self._collector = collector
        self._socket = accepted
        self._machine = ServerConnection()
        self._run: Run | None = None
        self._producer: Producer | None = None
        self.is_gone = False

    def serve(self) -> None:
        """Until the client is gone."""
        with self._socket:
            try:
                self._reach(Point.ACCEPTED)
                while chunk := self._receive():
                    self._machine.receive(chunk)
                    while (request := self._machine.next_request()) is not None:
                        self._take(request)
            except PeerError as error:
                self.say(messages.Error(error.code, error.message, error.retryable))
            except (OSError, Cut):
                pass  # the client is gone, or we are
            self._gone()

    def _receive(self) -> bytes:
        """Some bytes; none behind the byte at which the connection is to break."""
        budget = self._collector.byte_budget
        if budget is None:
            return self._socket.recv(1 << 16)
        chunk = self._socket.recv(min(1 << 16, budget)) if budget else b""
        self._collector.byte_budget = budget - len(chunk) if budget else None
        return chunk

    def _reach(self, point: Point) -> None:
        with self._collector.lock:
            cut = self._collector.cut_at
            if self.is_gone or (cut is not None and cut(point)):
                raise Cut

    def say(self, answer: Answer) -> None:
        """Send an answer."""
        self.say_bytes(encode_message(answer))

    def say_bytes(self, raw: bytes) -> None:
        """Send anything."""
        try:
            self._socket.sendall(raw)
        except OSError:
            pass

    def hang_up(self) -> None:
        """Close the connection from this side."""
        self.is_gone = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _gone(self) -> None:
        with self._collector.lock:
            run, producer = self._run, self._producer
            if run is not None and self in run.connections:
                run.connections.remove(self)
            is_owner = producer is not None and producer.number == 1
            if run is not None and is_owner and run.outcome is Outcome.RUNNING and not self._collector.restarts:
                self._finish(run, Outcome.CRASHED)

    def _take(self, request: messages.Request) -> None:
        with self._collector.lock:
            if self.is_gone:
                raise Cut
            self._collector.heard.append(request)
            react = self._collector.on_request
            if react is not None and react(self, request):
                return
            match request:
                case messages.Hello():
                    self._reach(Point.HELLO)
                    limits = {"frame_size_max_bytes": FRAME_SIZE_MAX_BYTES}
                    self.say(messages.Welcome(request.id, PROTOCOL_VERSION, "fake", "boot", limits))
                    self._reach(Point.WELCOMED)
                case messages.Open():
                    self._reach(Point.OPEN)
                    self._open(request)
                    self._reach(Point.OPENED)
                case messages.Events():
                    self._reach(Point.EVENTS)
                    self._events(request)
                    self._reach(Point.ACKNOWLEDGED)
                case _:
                    self._reach(Point.ASKED)
                    self._ask(request)
                    self._reach(Point.ANSWERED)

    def _ask(self, request: messages.Request) -> None:
        match request:
            case messages.Flush():
                self._skip_to(request.last_sequence + 1)
                self.acknowledge()
                self._reach(Point.DONE)
                self.say(messages.Flushed(request.id, self._mine().next - 1, self._mine().refused))
            case messages.Detach():
                self._skip_to(request.last_sequence + 1)
                self._mine().has_left = True
                self._my_run().detached.append(request)
                self._reach(Point.DONE)
                self.say(messages.Detached(request.id, self._mine().next - 1, self._path(self._my_run())))
            case messages.Cancel() if request.session_id is not None:
                self._cancel_other(request)
            case messages.End() | messages.Crash() | messages.Cancel():
                self._end(request)
            case messages.Status():
                self.say(messages.StatusAnswer(request.id, {}, []))

    def _open(self, request: messages.Open) -> None:
        run = self._collector.runs.get(request.session_id)
        if request.resume_token is not None:
            self._resume(run, request)
            return
        running = run is not None and run.outcome is Outcome.RUNNING
        if running != request.join:
            code = "session-busy" if running else "session-unknown"
            self.say(messages.Error(code, "no", running, request.id))
            return
        if run is None or not running:
            run = self._collector.runs[request.session_id] = Run(request.session_id, request)
        producer = Producer(len(run.producers) + 1)
        run.producers.append(producer)
        self._opened(run, producer, request)

    def _resume(self, run: Run | None, request: messages.Open) -> None:
        there = [] if run is None else [one for one in run.producers if not one.has_left]
        producers = [one for one in there if one.token == request.resume_token]
        code = ""
        if not self._collector.restarts:
            code = "resume-refused"
        elif run is None:
            code = "session-unknown"
        elif run.outcome is not Outcome.RUNNING:
            code = "session-ended"
        elif not producers:
            code = "resume-token-wrong"
        if code or run is None:
            self.say(messages.Error(code, "no", False, request.id))
        else:
            self._opened(run, producers[0], request)

    def _opened(self, run: Run, producer: Producer, request: messages.Open) -> None:
        run.connections.append(self)
        self._run, self._producer = run, producer
        self._machine.opened()
        trace_id = run.opening.trace_id or TRACE_ID
        opened = messages.Opened(request.id, 1, producer.number, trace_id, producer.next, producer.token, self._path(run))
        producer.acknowledged = producer.next - 1
        self.say(opened)

    def _events(self, request: messages.Events) -> None:
        run, producer, batch = self._my_run(), self._mine(), request.batch
        if run.outcome is not Outcome.RUNNING or producer.has_left:
            stretches: list[list[Any]] = [[batch.first_sequence, len(batch.events), "session-ended"]]
            refused = len(batch.events)
        else:
            self._skip_to(batch.first_sequence)
            bad = {refusal.index: refusal.code for refusal in batch.refused}
            stretches, refused = [], 0
            for index, event in enumerate(batch.events):
                sequence = batch.first_sequence + index
                if sequence < producer.next:
                    producer.duplicates += 1
                    continue
                if index in bad:
                    stretches.append([sequence, 1, bad[index]])
                    refused += 1
                else:
                    run.events.append((producer.number, sequence, event))
                producer.next = sequence + 1
        producer.refused += refused
        self._reach(Point.STORED)
        if not self._collector.withholds:
            self.acknowledge(stretches)

    def acknowledge(self, stretches: list[list[Any]] | None = None) -> None:
        """Say that everything that came is durable."""
        producer = self._mine()
        producer.acknowledged = producer.next - 1
        self.say(messages.Ack(producer.next - 1, stretches or []))

    def _skip_to(self, sequence: int) -> None:
        producer = self._mine()
        producer.client_lost += max(0, sequence - producer.next)
        producer.next = max(producer.next, sequence)

    def _end(self, request: messages.End | messages.Crash | messages.Cancel) -> None:
        run = self._my_run()
        if self._mine().number != 1:
            if isinstance(request, messages.Cancel):
                run.connections[0].say(messages.CancelRequested(request.reason, 30.0))
                self.say(messages.CancelAnswer(request.id, 1))
            else:
                self.say(messages.Error("not-owner", "a participant", False, request.id))
            return
        if run.outcome is Outcome.RUNNING:
            run.end = request
            self._skip_to((request.last_sequence or 0) + 1)
            outcome = Outcome.CRASHED if isinstance(request, messages.Crash) else Outcome.CANCELLED
            self._finish(run, Outcome(request.outcome) if isinstance(request, messages.End) else outcome)
        self._reach(Point.DONE)
        self.say(messages.Terminal(run.outcome, 1, self._path(run), request.id))

    def _cancel_other(self, request: messages.Cancel) -> None:
        run = self._collector.runs.get(request.session_id or "")
        if run is None:
            self.say(messages.Error("session-unknown", "no", False, request.id))
        elif run.outcome is Outcome.RUNNING:
            run.connections[0].say(messages.CancelRequested(request.reason, 30.0))
            self.say(messages.CancelAnswer(request.id, 1))
        else:
            self.say(messages.Terminal(run.outcome, 1, self._path(run), request.id))

    def _finish(self, run: Run, outcome: Outcome) -> None:
        run.outcome = outcome
        for other in run.connections:
            if other is not self:
                other.say(messages.Terminal(outcome, 1, self._path(run)))

    def _my_run(self) -> Run:
        assert self._run is not None
        return self._run

    def _mine(self) -> Producer:
        assert self._producer is not None
        return self._producer

    @staticmethod
    def _path(run: Run) -> str:
        return f"/traces/{run.id}.json"


class FakeCollector:
    """Listens in a thread.

    Attributes:
        runs: by session id.
        heard: every request that came.
        on_request: called first with each request, under the lock; True where that was all there is to do.
        restarts: whether the end of a connection is that of a collector, which then takes its runs up again.
        withholds: whether events are stored and not acknowledged.
        cut_at: asked at each point whether the connection breaks there.
        byte_budget: how many more bytes are read of clients before the connection that sends the last of them breaks.
    """

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "s"
        self.lock = threading.RLock()
        self.runs: dict[str, Run] = {}
        self.heard: list[messages.Request] = []
        self.on_request: Callable[[Connection, messages.Request], bool] | None = None
        self.restarts = False
        self.withholds = False
        self.cut_at: Callable[[Point], bool] | None = None
        self.byte_budget: int | None = None
        self._connections: list[Connection] = []
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.listen()

    def listen(self, backlog: int = 128) -> None:
        """Be there."""
        self.socket.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.socket))
        self._listener.listen(backlog)
        self._start(self._accept, self._listener)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                connection = Connection(self, accepted)
                self._connections.append(connection)
            self._start(connection.serve)

    def go_away(self) -> None:
        """Listen no more, and hang up on everybody: until `listen`, nobody is there."""
        assert self._listener is not None
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Break every connection; what comes on it afterwards is not taken."""
        with self.lock:
            for connection in self._connections:
                connection.hang_up()
            self._connections.clear()

    def stop(self) -> None:
        """Go away for good."""
        self.restarts = True
        self.go_away()
        for thread in self._threads:
            thread.join(30)


@contextmanager
def listening(directory: Path) -> Iterator[FakeCollector]:
    """A fake for the length of a block; ``directory`` must be short enough for a socket's path."""
    collector = FakeCollector(directory)
    try:
        yield collector
    finally:
        collector.stop()
