"""A plain blocking client on the wire package: what a stranger would write from docs/protocol.md, for tests."""

from __future__ import annotations

import itertools
import os
import socket
import time
from types import TracebackType
from typing import Any, Self

import msgpack

from collectord.limits import PROTOCOL_VERSION
from collectord.wire import messages
from collectord.wire.connection import ClientConnection
from collectord.wire.frames import encode_frame
from collectord.wire.messages import Answer, encode_message

ANSWER_TIMEOUT_S = 60.0

Event = list[Any]
_ids = itertools.count(1)


def new_id(size: int = 8) -> bytes:
    """A random id that is not all zero."""
    return os.urandom(size - 1) + b"\1"


def span_start(
    name: str, attributes: dict[str, Any] | None = None, parent: bytes | None = None, span_id: bytes | None = None
) -> Event:
    """A ``span_start`` event that begins now."""
    return [1, time.time_ns(), span_id or new_id(), parent, name, 1, attributes or {}]


def span_end(sequence: int, attributes: dict[str, Any] | None = None, status: int = 0, message: str | None = None) -> Event:
    """A ``span_end`` event of the span that was started with that sequence."""
    return [4, time.time_ns(), sequence, status, message, attributes or {}]


def log(body: Any, severity: int = 9) -> Event:
    """A ``log`` event."""
    return [5, time.time_ns(), severity, body, {}, None]


class Refused(Exception):
    """The collector answered with an error."""

    def __init__(self, error: messages.Error) -> None:
        super().__init__(f"{error.code}: {error.message}")
        self.error = error
        self.code = error.code


class RawClient:
    """One connection."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(ANSWER_TIMEOUT_S)
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise
        self._machine = ClientConnection()
        self.pushed: list[Answer] = []
        self.acknowledged = 0
        self.refused: list[list[Any]] = []
        self.sequence = 0
        self.run = 0
        self.path = ""
        self.trace_id = b""

    # ------------------------------------------------------------ requests

    def hello(self, liveness: str = "process") -> messages.Welcome:
        """Say hello and hear the welcome."""
        answer = self.ask(messages.Hello(next(_ids), PROTOCOL_VERSION, "test/1", os.getpid(), liveness))  # type: ignore[arg-type]
        assert isinstance(answer, messages.Welcome)
        return answer

    def open(self, session_id: str, **fields: Any) -> messages.Opened:
        """Open, join or resume; raises ``Refused``."""
        answer = self.ask(messages.Open(next(_ids), session_id, **fields))
        assert isinstance(answer, messages.Opened), answer
        self.run, self.path, self.trace_id = answer.run, answer.path, answer.trace_id
        return answer

    def send_events(self, events: list[Event]) -> int:
        """Send a batch without waiting; returns the sequence of its first event."""
        first = self.sequence + 1
        self.sequence += len(events)
        body = {"type": "events", "first_sequence": first, "events": events}
        self.socket.sendall(encode_frame(msgpack.packb(body, unicode_errors="surrogatepass")))
        return first

    def flush(self, export: bool = False) -> messages.Flushed:
        """Wait until everything is durable."""
        answer = self.ask(messages.Flush(next(_ids), self.sequence, export))
        assert isinstance(answer, messages.Flushed), answer
        return answer

    def send_end(self, outcome: str = "completed", wait: bool = True, message: str | None = None) -> int:
        """Ask for the end without waiting for the answer; returns the request's id."""
        request_id = next(_ids)
        self.tell(messages.End(request_id, outcome, self.sequence, message, None, wait))  # type: ignore[arg-type]
        return request_id

    def end(self, outcome: str = "completed", message: str | None = None) -> messages.Terminal:
        """End the run and hear the outcome that stands."""
        return self.terminal(self.send_end(outcome, True, message))

    def send_crash(self, reason: str, **fields: Any) -> int:
        """Report a crash without waiting; returns the request's id."""
        request_id = next(_ids)
        own: dict[str, Any] = {} if "session_id" in fields else {"last_sequence": self.sequence}
        self.tell(messages.Crash(request_id, reason, **own, **fields))
        return request_id

    def crash(self, reason: str, **fields: Any) -> messages.Terminal:
        """Report a crash and hear the outcome that stands."""
        return self.terminal(self.send_crash(reason, **fields))

    def cancel(self, reason: str, **fields: Any) -> Answer:
        """Cancel one's own run, or ask the owner of another."""
        own: dict[str, Any] = {} if "session_id" in fields else {"last_sequence": self.sequence}
        return self.ask(messages.Cancel(next(_ids), reason, **own, **fields))

    def detach(self) -> messages.Detached:
        """Leave a run that was joined."""
        answer = self.ask(messages.Detach(next(_ids), self.sequence))
        assert isinstance(answer, messages.Detached), answer
        return answer

    def status(self) -> messages.StatusAnswer:
        """How the collector stands."""
        answer = self.ask(messages.Status(next(_ids)))
        assert isinstance(answer, messages.StatusAnswer)
        return answer

    # ------------------------------------------------------------ the wire

    def tell(self, message: messages.Request) -> None:
        """Send a message."""
        self.socket.sendall(encode_message(message))

    def ask(self, message: Any) -> Answer:
        """Send a request and wait for its answer; raises ``Refused`` on an error."""
        self.tell(message)
        return self.answer(message.id)

    def answer(self, request_id: int) -> Answer:
        """The answer with that id; what comes before it is kept."""
        for index, message in enumerate(self.pushed):
            if getattr(message, "id", None) == request_id:
                return self._granted(self.pushed.pop(index))
        while True:
            received = self.receive()
            if received is None:
                raise ConnectionError(f"the collector closed the connection; before that it said {self.pushed[-3:]}")
            if getattr(received, "id", None) == request_id:
                return self._granted(received)
            self.pushed.append(received)

    def terminal(self, request_id: int) -> messages.Terminal:
        """The terminal answer with that id."""
        answer = self.answer(request_id)
        assert isinstance(answer, messages.Terminal), answer
        return answer

    @staticmethod
    def _granted(message: Answer) -> Answer:
        if isinstance(message, messages.Error):
            raise Refused(message)
        return message

    def receive(self) -> Answer | None:
        """The next message, or None at the end of the connection. Acknowledgements are folded into the client."""
        while True:
            message = self._machine.next_answer()
            if isinstance(message, messages.Ack):
                self._take_ack(message)
                continue
            if message is not None:
                return message
            try:
                chunk = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not chunk:
                return None
            self._machine.receive(chunk)

    def _take_ack(self, ack: messages.Ack) -> None:
        """Acknowledgements are cumulative, and what was acknowledged is never taken back: a refusal comes with it or before.

        (Only for clients that send each event once, as these do.)
        """
        for first, count, code in ack.refused:
            assert first > self.acknowledged, f"{count} events from {first} are refused ({code}) after {self.acknowledged}"
        self.acknowledged = max(self.acknowledged, ack.sequence)
        self.refused.extend(ack.refused)

    @property
    def stored(self) -> set[int]:
        """The sequences that the collector says are durable."""
        told = set(range(1, self.acknowledged + 1))
        for first, count, _ in self.refused:
            told -= set(range(first, first + count))
        return told

    def wait_acknowledged(self, sequence: int | None = None) -> None:
        """Read until everything up to ``sequence`` (or all that was sent) is acknowledged."""
        wanted = self.sequence if sequence is None else sequence
        while self.acknowledged < wanted:
            self.read_more()

    def read_more(self) -> None:
        """Take the next message: an acknowledgement is folded in, anything else is kept in ``pushed``."""
        while (message := self._machine.next_answer()) is None:
            chunk = self.socket.recv(1 << 16)
            if not chunk:
                raise ConnectionError("the collector closed the connection")
            self._machine.receive(chunk)
        if isinstance(message, messages.Ack):
            self._take_ack(message)
        else:
            self.pushed.append(message)

    def close(self) -> None:
        """Close the connection: to the collector, end-of-file."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None) -> None:
        self.close()
