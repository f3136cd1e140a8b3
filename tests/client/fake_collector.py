"""A collector in a thread, for what a real one cannot be made to do: say nothing, say nonsense, take nothing.

It stores events in a list and promises no durability. The contract tests run on it and on a real daemon alike, so that what it
pretends is what a daemon does.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collectord.errors import PeerError
from collectord.limits import FRAME_SIZE_MAX_BYTES, PROTOCOL_VERSION
from collectord.model import Outcome
from collectord.wire import messages
from collectord.wire.connection import ServerConnection
from collectord.wire.messages import Answer, encode_message

TRACE_ID = bytes(range(1, 17))
TOKEN = bytes(16)


class Run:
    """One run, as it was told."""

    def __init__(self, session_id: str, opening: messages.Open) -> None:
        self.id = session_id
        self.opening = opening
        self.outcome = Outcome.RUNNING
        self.end: messages.End | messages.Crash | messages.Cancel | None = None
        self.producers = 0
        self.events: list[tuple[int, int, list[Any]]] = []
        self.client_lost = 0
        self.detached: list[messages.Detach] = []
        self.connections: list[Connection] = []


class Connection:
    """One client."""

    def __init__(self, collector: FakeCollector, accepted: socket.socket) -> None:
        self._collector = collector
        self._socket = accepted
        self._machine = ServerConnection()
        self._run: Run | None = None
        self._producer = 0
        self._next = 1
        self.refused = 0
        self._left = False

    def serve(self) -> None:
        """Until the client is gone."""
        with self._socket:
            try:
                while chunk := self._socket.recv(1 << 16):
                    self._machine.receive(chunk)
                    while (request := self._machine.next_request()) is not None:
                        self._take(request)
            except PeerError as error:
                self.say(messages.Error(error.code, error.message, error.retryable))
            except OSError:
                pass  # the client is gone, or we are
            self._gone()

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
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _gone(self) -> None:
        with self._collector.lock:
            run = self._run
            if run is not None and self._producer == 1 and run.outcome is Outcome.RUNNING and not self._collector.stopping:
                self._finish(run, Outcome.CRASHED)

    def _take(self, request: messages.Request) -> None:
        with self._collector.lock:
            self._collector.heard.append(request)
            react = self._collector.on_request
            if react is not None and react(self, request):
                return
            match request:
                case messages.Hello():
                    limits = {"frame_size_max_bytes": FRAME_SIZE_MAX_BYTES}
                    self.say(messages.Welcome(request.id, PROTOCOL_VERSION, "fake", "boot", limits))
                case messages.Open():
                    self._open(request)
                case messages.Events():
                    self._events(request)
                case messages.Flush():
                    self._skip_to(request.last_sequence + 1)
                    self.say(messages.Flushed(request.id, self._next - 1, self.refused))
                case messages.Detach():
                    self._left = True
                    self._my_run().detached.append(request)
                    self.say(messages.Detached(request.id, self._next - 1, self._path()))
                case messages.End() | messages.Crash() | messages.Cancel():
                    self._end(request)
                case messages.Status():
                    self.say(messages.StatusAnswer(request.id, {}, []))

    def _open(self, request: messages.Open) -> None:
        run = self._collector.runs.get(request.session_id)
        if request.resume_token is not None:
            self.say(messages.Error("resume-refused", "nothing to resume", False, request.id))
            return
        running = run is not None and run.outcome is Outcome.RUNNING
        if running != request.join:
            code = "session-busy" if running else "session-unknown"
            self.say(messages.Error(code, "no", running, request.id))
            return
        if run is None or not running:
            run = self._collector.runs[request.session_id] = Run(request.session_id, request)
        run.producers += 1
        run.connections.append(self)
        self._run, self._producer = run, run.producers
        self._machine.opened()
        trace_id = run.opening.trace_id or TRACE_ID
        self.say(messages.Opened(request.id, 1, self._producer, trace_id, 1, TOKEN, self._path()))

    def _events(self, request: messages.Events) -> None:
        run, batch = self._my_run(), request.batch
        if run.outcome is not Outcome.RUNNING or self._left:
            stretches: list[list[Any]] = [[batch.first_sequence, len(batch.events), "session-ended"]]
        else:
            self._skip_to(batch.first_sequence)
            bad = {refusal.index: refusal.code for refusal in batch.refused}
            stretches = [[batch.first_sequence + index, 1, code] for index, code in bad.items()]
            for index, event in enumerate(batch.events):
                if index not in bad:
                    run.events.append((self._producer, batch.first_sequence + index, event))
        self._next = batch.first_sequence + len(batch.events)
        self.refused += sum(stretch[1] for stretch in stretches)
        self.say(messages.Ack(self._next - 1, stretches))

    def _skip_to(self, sequence: int) -> None:
        self._my_run().client_lost += sequence - self._next
        self._next = sequence

    def _end(self, request: messages.End | messages.Crash | messages.Cancel) -> None:
        run = self._my_run()
        if self._producer != 1:
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
        self.say(messages.Terminal(run.outcome, 1, self._path(), request.id))

    def _finish(self, run: Run, outcome: Outcome) -> None:
        run.outcome = outcome
        for other in run.connections:
            if other is not self:
                other.say(messages.Terminal(outcome, 1, self._path()))

    def _my_run(self) -> Run:
        assert self._run is not None
        return self._run

    def _path(self) -> str:
        return f"/traces/{self._my_run().id}.json"


class FakeCollector:
    """Listens in a thread.

    Attributes:
        runs: by session id.
        heard: every request that came.
        on_request: called first with each request, under the lock; True where that was all there is to do.
    """

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "s"
        self.lock = threading.RLock()
        self.runs: dict[str, Run] = {}
        self.heard: list[messages.Request] = []
        self.on_request: Callable[[Connection, messages.Request], bool] | None = None
        self.stopping = False
        self._connections: list[Connection] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.socket))
        self._listener.listen()
        self._start(self._accept)

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            connection = Connection(self, accepted)
            self._connections.append(connection)
            self._start(connection.serve)

    def stop(self) -> None:
        """Hang up on everybody, and listen no more."""
        self.stopping = True
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        for connection in self._connections:
            connection.hang_up()
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
