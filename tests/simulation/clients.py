"""Agents: processes that open or join a session, send events, keep what is not acknowledged, come back after a restart, and end.

Own one connection at a time and the client's half of the contract: an event is kept until it is acknowledged, a lost connection
is tried again with the resume token, and what the collector does not have is sent again. What they are told goes into the
``Book``.
"""

from __future__ import annotations

import random
import socket
from typing import Any

import msgpack
import trio

from collectord.errors import PeerError
from collectord.wire import messages
from collectord.wire.connection import ClientConnection
from collectord.wire.events import batch_from
from collectord.wire.messages import Answer, encode_message
from tests.simulation.kernel import Process
from tests.simulation.rules import DROPPED, Book, Story, Told
from tests.simulation.world import EPOCH_NS, Machine

UNACKNOWLEDGED_MAX = 200
PAUSE_MAX_S = 2.0
KEEP_TRYING_S = 900.0

ENDINGS = ("completed", "completed", "completed", "failed", "not waiting", "cancelled", "crashed", "exits")
ENDING_OF_PARTICIPANT = ("detaches", "exits")


class Agent:
    """One agent.

    Args:
        machine: it runs on.
        book: for what it is told.
        uid: as whom.
        session_id: of the session that it opens, or joins.
        joins: whether it is a participant.
    """

    def __init__(self, machine: Machine, book: Book, uid: int, session_id: str, *, joins: bool = False) -> None:
        dice = machine.dice
        self.machine = machine
        self.book = book
        self.uid = uid
        self.session_id = session_id
        self.joins = joins
        self.process: Process = machine.kernel.start()
        self.name = f"agent {self.process.pid % 1_000}"
        self.story: Story | None = None
        self.is_over = False
        self.ending = dice.choice(ENDING_OF_PARTICIPANT if joins else ENDINGS)
        self._dice = random.Random(dice.getrandbits(64))
        self._liveness: Any = dice.choice(("process", "process", "process", "connection"))
        self._to_make = dice.choice((0, 1, 5, 20, 60))
        self._size = dice.choice((10, 10, 300, 3_000))
        self._producer = 0
        self._token: bytes | None = None
        self._made: dict[int, list[Any]] = {}
        self._unacknowledged: dict[int, list[Any]] = {}
        self._sent = 0
        self._open_spans: list[int] = []
        self._all_made = False
        self._was_refused = False
        self._final: messages.Request | None = None
        self._next_id = 0
        self._socket: socket.socket | None = None
        self._news = trio.Event()
        self._scope = trio.CancelScope()

    @property
    def told(self) -> Told:
        """What this producer was told."""
        assert self.story is not None
        return self.story.producers[self._producer]

    # ------------------------------------------------------------ its life

    async def run(self) -> None:
        """From its first to its last moment."""
        self.machine.note(f"{self.name} {'joins' if self.joins else 'opens'} {self.session_id!r}, {self.ending}")
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._work)
                with trio.move_on_after(KEEP_TRYING_S) as patience:
                    await self._keep_connected()
                if patience.cancelled_caught:
                    self.machine.count("agent gave up")
                    await self._blame("owner gave up")
                nursery.cancel_scope.cancel()
        self.is_over = True
        self.process.die(None)
        self._close()
        self.machine.note(f"{self.name} is gone")

    async def kill(self, how: str) -> None:
        """It dies in the middle of what it does.

        Args:
            how: ``process`` first, ``connection`` first, in the middle of a ``frame``, or with a ``fork`` that holds the
                connection.
        """
        if self.is_over:
            return
        self.machine.count(f"agent killed: {how}")
        self.is_over = True
        self._scope.cancel()
        connection, self._socket = self._socket, None
        if how == "frame" and connection is not None:
            self._send_half_a_frame(connection)
        if how == "connection" and connection is not None:
            _hang_up(connection)
        self.process.die("SIGKILL")
        if how in ("process", "frame") and connection is not None:
            _hang_up(connection)
        if self._liveness == "connection" and how == "fork" and connection is not None:
            _hang_up(connection)  # or nobody would ever learn of it
        await self._blame("owner died")
        if how == "fork" and connection is not None:
            await trio.sleep(self._dice.random() * 3)
            _hang_up(connection)

    def lose_power(self) -> None:
        """It is gone with everything else."""
        self.is_over = True
        self._scope.cancel()
        self._close()

    async def drop(self) -> None:
        """Its connection is closed, and it lives: in a daemon that lives too, that is the end of its run."""
        if self._socket is not None and not self.is_over and self.story is not None:
            self.machine.count("connection dropped")
            self._socket.shutdown(socket.SHUT_RDWR)
            if self.machine.life is not None and not self.machine.life.dead:
                await self._blame(DROPPED)

    async def _blame(self, what: str) -> None:
        """Once everybody who could know it does."""
        await trio.testing.wait_all_tasks_blocked()
        if self.story is not None and not self.joins:
            self.book.blame(self.story, what)

    def _send_half_a_frame(self, connection: socket.socket) -> None:
        try:
            connection.send(b"\0\0\1\0half a frame", socket.MSG_DONTWAIT)
        except OSError:
            return

    def _close(self) -> None:
        if self._socket is not None:
            _hang_up(self._socket)
            self._socket = None

    # ------------------------------------------------------------ its work

    async def _work(self) -> None:
        """Make events at its own pace, then say how it ends."""
        pace = self._dice.choice((0.0, 0.01, 0.1, 0.5))
        while self._to_make > 0:
            while len(self._unacknowledged) >= UNACKNOWLEDGED_MAX:
                await self._wait_for_news()
            for _ in range(min(self._to_make, self._dice.choice((1, 1, 2, 8)))):
                self._to_make -= 1
                self._make()
            self._tell_news()
            await trio.sleep(self._dice.expovariate(1.0) * pace)
        self._all_made = True
        self._tell_news()

    def _make(self) -> None:
        sequence = len(self._made) + 1
        event = self._event(sequence)
        self._made[sequence] = self._unacknowledged[sequence] = event

    def _event(self, sequence: int) -> list[Any]:
        at = EPOCH_NS + sequence
        mark = f"{self.name} {sequence}"
        filler = "x" * self._dice.randrange(self._size)
        kind = self._dice.randrange(8)
        if kind == 0 or (kind == 1 and not self._open_spans):
            self._open_spans.append(sequence)
            return [1, at, sequence.to_bytes(8, "big"), None, mark, 1, {"filler": filler}]
        if kind == 1:
            reference = self._open_spans.pop(self._dice.randrange(len(self._open_spans)))
            return [4, at, reference, 1, None, {"mark": mark}]
        if kind == 2:
            return [7, at, "space", mark, filler]
        if kind == 3 and self._dice.random() < 0.2:
            return [4, at, sequence + 1_000, 0, None, {"mark": mark}]  # a span that never was: refused
        return [5, at, 9, mark + filler, {}, None]

    def _ended_request(self) -> messages.Request | None:
        last = len(self._made)
        if self.ending in ("completed", "failed"):
            return messages.End(self._id(), self.ending, last)  # type: ignore[arg-type]
        if self.ending == "not waiting":
            return messages.End(self._id(), "completed", last, wait=False)
        if self.ending == "cancelled":
            return messages.Cancel(self._id(), "enough", last)
        if self.ending == "crashed":
            return messages.Crash(self._id(), "I give up", last)
        if self.ending == "detaches":
            return messages.Detach(self._id(), last)
        return None

    def _id(self) -> int:
        self._next_id += 1
        return self._next_id

    # ------------------------------------------------------------ its connection

    async def _keep_connected(self) -> None:
        pause = 0.05
        while not self.is_over:
            connection = self.machine.connect(self.process, self.uid)
            if connection is not None:
                self._socket = connection
                connection.setblocking(False)
                before = self._token
                await self._converse(connection)
                self._close()
                if self._token is not before:
                    pause = 0.05
            if not self.is_over:
                await trio.sleep(pause * (0.5 + self._dice.random()))
                pause = min(2 * pause, PAUSE_MAX_S)

    async def _converse(self, connection: socket.socket) -> None:
        """Speak and listen until the connection ends."""
        opened = trio.Event()
        self._sent = 0
        self._was_refused = False
        async with trio.open_nursery() as both:
            both.start_soon(self._listen, connection, opened, both.cancel_scope)
            both.start_soon(self._speak, connection, opened, both.cancel_scope)

    async def _speak(self, connection: socket.socket, opened: trio.Event, scope: trio.CancelScope) -> None:
        try:
            await _send(connection, messages.Hello(self._id(), 1, "simulated", self.process.pid, self._liveness))
            request = messages.Open(
                self._id(), self.session_id, join=self.joins and self._token is None, resume_token=self._token
            )
            await _send(connection, request)
            await opened.wait()
            while True:
                if self._sent < len(self._made):
                    await self._send_events(connection)
                elif self._all_made:
                    break
                else:
                    await self._wait_for_news()
            await self._say_how_it_ends(connection)
        except (OSError, ValueError, trio.ClosedResourceError):
            scope.cancel()

    async def _send_events(self, connection: socket.socket) -> None:
        first = self._sent + 1
        last = min(len(self._made), first + 19)
        batch = [self._made[sequence] for sequence in range(first, last + 1)]
        self._sent = last
        await _send(connection, messages.Events(batch_from(first, batch, msgpack.packb(batch))))
        if self._dice.random() < 0.1:
            await _send(connection, messages.Flush(self._id(), last, self._dice.random() < 0.5))

    async def _say_how_it_ends(self, connection: socket.socket) -> None:
        self._final = self._ended_request()
        if self._final is None:
            self.machine.count("agent exits without an end")
            self.is_over = True
            self.process.die(None)
            self._close()
            await self._blame("owner died")
            self._scope.cancel()
            await trio.sleep_forever()
        if self.story is not None and not self.joins:
            self._note_wish(self.story)
        assert self._final is not None
        await _send(connection, self._final)
        if self.ending == "not waiting":
            await trio.sleep(self._dice.choice((0.0, 0.001, 1.0)))
            self.is_over = True
            self.process.die(None)
            if self.story is not None and (self.machine.life is None or self.machine.life.dead):
                self.story.excuses.add("nobody read its last words")
            self._scope.cancel()

    def _note_wish(self, story: Story) -> None:
        wish = "completed" if self.ending == "not waiting" else self.ending
        if wish not in story.asked:
            story.asked.append(wish)
        story.waits = story.waits and self.ending != "not waiting"

    # ------------------------------------------------------------ what it hears

    async def _listen(self, connection: socket.socket, opened: trio.Event, scope: trio.CancelScope) -> None:
        machine = ClientConnection()
        while True:
            try:
                await trio.lowlevel.wait_readable(connection)
                chunk = connection.recv(65_536)
            except BlockingIOError:
                continue
            except (OSError, ValueError, trio.ClosedResourceError):
                break
            if not chunk:
                break
            machine.receive(chunk)
            try:
                while (answer := machine.next_answer()) is not None:
                    self._hear(answer, opened)
            except PeerError as error:
                raise AssertionError(f"{self.name} was sent nonsense: {error}") from None
            if self.is_over or self._was_refused:
                break
        scope.cancel()

    def _hear(self, answer: Answer, opened: trio.Event) -> None:
        if isinstance(answer, messages.Opened):
            self._take_up(answer)
            opened.set()
        elif isinstance(answer, messages.Error):
            self._take_error(answer, opened)
        elif self.story is not None:
            self.book.heard(self.story, self._producer, answer)
            for sequence in [sequence for sequence in self._unacknowledged if sequence <= self.told.acknowledged]:
                del self._unacknowledged[sequence]
            if isinstance(answer, messages.Stalled):
                self.machine.count("told stalled")
            if isinstance(answer, messages.CancelRequested) and self._dice.random() < 0.7:
                self._to_make, self.ending = 0, "cancelled"
            self.is_over = self.is_over or isinstance(answer, messages.Terminal | messages.Detached)
        self._tell_news()

    def _take_up(self, answer: messages.Opened) -> None:
        known = (self.story.key[2], self._producer) if self.story is not None else None
        if known is not None:
            assert known == (answer.run, answer.producer), f"{self.name} resumed {answer.run}, {answer.producer}, and was {known}"
            self.machine.count("participant resumed" if self.joins else "owner resumed")
        self._producer, self._token = answer.producer, answer.resume_token
        self.story = self.book.opened(self.uid, self.session_id, answer, None if self.joins else self.process)
        self.told.made = self._made
        if self.ending == "exits" and not self.joins:
            self.story.excuses.add("exits")
        self._sent = answer.next_sequence - 1
        self.machine.note(f"{self.name} is producer {answer.producer} of run {answer.run} from {answer.next_sequence}")

    def _take_error(self, answer: messages.Error, opened: trio.Event) -> None:
        self.machine.happened[f"refused {answer.code}"] += 1
        self.machine.note(f"{self.name} is refused {answer.code}: {answer.message:.100}")
        if answer.code == "internal-error":
            raise AssertionError(f"{self.name} was told of an internal error: {answer.message}")
        if not opened.is_set():
            self._was_refused = True
            self.is_over = not answer.retryable

    # ------------------------------------------------------------ small things

    def _tell_news(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _wait_for_news(self) -> None:
        await self._news.wait()


def _hang_up(connection: socket.socket) -> None:
    if connection.fileno() >= 0:
        trio.lowlevel.notify_closing(connection)
        connection.close()


async def _send(connection: socket.socket, message: messages.Message) -> None:
    frame = memoryview(encode_message(message))
    while frame:
        try:
            sent = connection.send(frame, socket.MSG_NOSIGNAL)
            frame = frame[sent:]
            await trio.lowlevel.checkpoint()
        except BlockingIOError:
            await trio.lowlevel.wait_writable(connection)


class Stranger:
    """Somebody of the same user who reports a crash of a session, or asks it to stop, by its name."""

    def __init__(self, machine: Machine, story: Story, book: Book) -> None:
        self.machine = machine
        self.story = story
        self.book = book

    async def speak(self, what: str) -> None:
        """``crash`` or ``cancel`` the run, and hear what stands; once, if there is a daemon."""
        uid, session_id, run = self.story.key
        process = self.machine.kernel.start()
        connection = self.machine.connect(process, uid)
        if connection is None:
            return
        self.machine.count(f"stranger: {what}")
        self.story.excuses.add(what)
        connection.setblocking(False)
        try:
            await _send(connection, messages.Hello(1, 1, "stranger", process.pid))
            if what == "crash":
                await _send(connection, messages.Crash(2, "a watchdog says so", session_id=session_id, run=run))
            else:
                await _send(connection, messages.Cancel(2, "stop it", session_id=session_id, run=run))
            await self._hear(connection)
        except OSError:
            return
        finally:
            _hang_up(connection)
            process.die(None)

    async def _hear(self, connection: socket.socket) -> None:
        machine = ClientConnection()
        with trio.move_on_after(120):
            while True:
                await trio.lowlevel.wait_readable(connection)
                chunk = connection.recv(65_536)
                if not chunk:
                    return
                machine.receive(chunk)
                while (answer := machine.next_answer()) is not None:
                    if isinstance(answer, messages.Terminal):
                        self.book.ended(self.story, answer)
                    if isinstance(answer, messages.Terminal | messages.CancelAnswer | messages.Error):
                        return
