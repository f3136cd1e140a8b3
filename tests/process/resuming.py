"""A client that outlives the collector: it keeps what it sent, comes back with its token and sends the rest. For tests.

It is written from docs/protocol.md on the raw client, so that nothing of the client that agents import is taken on trust. It
compares what it was told with what it is told later, at every resume: what was acknowledged is never asked for again.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from attrs import Factory, define

from collectord.model import Outcome
from collectord.wire import messages
from tests.process.client import Event, RawClient, Refused, log

PATIENCE_S = 60.0


@define
class Known:
    """What a client knows of its session, without its connection: enough to come back, and to be compared with what is stored.

    Attributes:
        session_id: of the session.
        join: whether it is a participant.
        run: 0 before it was told.
        producer: 0 before it was told.
        events: every event it ever sent, the first one being sequence 1.
        acknowledged: up to where it was told that they are durable.
        asked: the outcome it has asked for, if any.
        told: the outcome that it was told.
        leaves: whether it has asked to be detached.
        left: whether it was told that it is.
    """

    session_id: str
    join: bool = False
    run: int = 0
    producer: int = 0
    token: bytes = b""
    trace_id: bytes = b""
    events: list[Event] = Factory(list)
    acknowledged: int = 0
    asked: Outcome | None = None
    told: Outcome | None = None
    leaves: bool = False
    left: bool = False

    @property
    def was_opened(self) -> bool:
        """Whether it was ever answered: before that, nothing was promised."""
        return bool(self.run)

    @property
    def is_over(self) -> bool:
        """Whether it has nothing more to ask for."""
        return self.told is not None or self.left

    def copy(self) -> Known:
        """As it stands now."""
        return copy.deepcopy(self)


class ResumingClient:
    """One session, or one participant of it, over as many connections as it takes.

    Args:
        connect: gives a connection that has said hello; may be called again after every restart.
        known: what it knows of the session.
        patience_s: how long it tries to come back.
    """

    def __init__(self, connect: Callable[[], RawClient], known: Known, patience_s: float = PATIENCE_S) -> None:
        self._connect = connect
        self._patience_s = patience_s
        self.known = known
        self._raw: RawClient | None = None
        self.errors: list[messages.Error] = []
        """What it was told on connections that it has heard out, without having asked."""

    @property
    def raw(self) -> RawClient:
        """The connection that there is now."""
        assert self._raw is not None, "it is not connected"
        return self._raw

    # ------------------------------------------------------------ what may end in a ConnectionError

    def open(self) -> None:
        """Begin the session, or join it."""
        self.close()
        self._raw = self._connect()
        self._take(self._raw.open(self.known.session_id, join=True) if self.known.join else self._raw.open(self.known.session_id))

    def _take(self, opened: messages.Opened) -> None:
        known = self.known
        known.run, known.producer, known.token, known.trace_id = (
            opened.run, opened.producer, opened.resume_token, opened.trace_id,
        )  # fmt: skip

    def write(self, events: Sequence[Event]) -> None:
        """Send events; they are kept."""
        self.known.events.extend(events)
        self.raw.send_events(list(events))

    def log(self, count: int, size: int = 0) -> None:
        """Send that many logs, each with a text that no other event of the session has."""
        first = len(self.known.events) + 1
        self.write([log(text_of(self.known, first + number) + "." * size) for number in range(count)])

    def settle(self, sequence: int | None = None) -> None:
        """Hear the acknowledgement of what was sent."""
        try:
            self.raw.wait_acknowledged(sequence)
        finally:
            self._note()

    def flush(self, export: bool = False) -> None:
        """Hear that all is durable."""
        assert self.raw.flush(export).sequence == len(self.known.events)
        self._note(len(self.known.events))

    def end(self, outcome: Outcome = Outcome.COMPLETED) -> Outcome:
        """Ask for the end and hear the outcome that stands."""
        self.known.asked = outcome
        return self._told(self.raw.end(outcome.value))

    def crash(self, reason: str) -> Outcome:
        """Report a crash and hear the outcome that stands."""
        self.known.asked = Outcome.CRASHED
        return self._told(self.raw.crash(reason))

    def detach(self) -> None:
        """Leave a session that was joined."""
        self.known.leaves = True
        self.raw.detach()
        self._note(len(self.known.events))
        self.known.left = True

    def _told(self, terminal: messages.Terminal) -> Outcome:
        self._note(len(self.known.events))  # an end takes effect after everything that was sent before it
        assert self.known.told in (None, terminal.outcome), "an outcome that was told stands"
        self.known.told = terminal.outcome
        return terminal.outcome

    def _note(self, at_least: int = 0) -> None:
        if self._raw is not None:
            assert self._raw.refused == [], "nothing that it sends may be refused"
            self.known.acknowledged = max(self.known.acknowledged, self._raw.acknowledged, at_least)

    def hear_out(self) -> None:
        """Read what the collector had said before the connection ended, and hang up."""
        if self._raw is not None:
            try:
                while self._raw.receive() is not None:
                    pass
            except OSError:
                pass
            self._note()
            self.errors += [message for message in self._raw.pushed if isinstance(message, messages.Error)]
        self.close()

    # ------------------------------------------------------------ coming back

    def resume(self) -> messages.Opened:
        """Connect as soon as there is a collector, present the token, send again what it asks for.

        Raises:
            Refused: for good; what may succeed later is tried again.
        """
        self.hear_out()
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                self._raw = self._connect()
                opened = self._raw.open(self.known.session_id, resume_token=self.known.token)
                break
            except Refused as refused:
                self.close()
                if not refused.error.retryable or time.monotonic() > deadline:
                    raise
            except OSError:
                self.close()
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.01)
        self._check(opened)
        self.known.token = opened.resume_token
        self._raw.sequence = opened.next_sequence - 1
        self._raw.acknowledged = max(self.known.acknowledged, opened.next_sequence - 1)
        rest = self.known.events[opened.next_sequence - 1 :]
        if rest:
            self._raw.send_events(rest)
        return opened

    def _check(self, opened: messages.Opened) -> None:
        known = self.known
        assert (opened.run, opened.producer, opened.trace_id) == (known.run, known.producer, known.trace_id)
        assert opened.next_sequence > known.acknowledged, (
            f"{known.session_id}: {known.acknowledged} were acknowledged, and it asks for {opened.next_sequence}"
        )
        assert opened.next_sequence <= len(known.events) + 1, "it has events that were never sent"

    def through(self, what: Callable[[Self], Any]) -> Any:
        """Do something, over as many connections as it takes; returns what it gave."""
        while True:
            try:
                return what(self)
            except OSError:
                self.resume()

    def close(self) -> None:
        """Hang up."""
        if self._raw is not None:
            self._raw.close()
            self._raw = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def text_of(known: Known, sequence: int) -> str:
    """What the log with that sequence says: no two in a session are alike."""
    return f"{known.session_id}/{known.producer} {sequence} "
