"""One connection: decodes what comes, posts it to the run's owner, says what the owner wants said.

Owns the socket, its backlog of answers, and the moment at which a death is noticed. Never waits for a run's disk: where a run
is behind, its connection is simply not read, while its death is watched all the same. What a run makes of an input is not
known here.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import socket
import struct
import termios
from enum import Enum
from typing import Final, Protocol

import trio

from collectord.daemon.outbox import Outbox
from collectord.daemon.owner import RunOwner
from collectord.daemon.processes import DeathWatch, PeerProcess, command_line, verdict_on
from collectord.errors import PeerError, RefusedError
from collectord.limits import HELLO_TIMEOUT_S
from collectord.model import OWNER_PRODUCER, CrashReason, Outcome, Verdict
from collectord.session import inputs
from collectord.session.reports import within_limits
from collectord.wire import messages
from collectord.wire.connection import ServerConnection, Stage
from collectord.wire.messages import Answer, Request

_log = logging.getLogger(__name__)

RECEIVE_SIZE_BYTES: Final = 128 << 10
"""How much is read at once: a good batch, and decoded in a millisecond or two, so that nobody waits long for the loop."""


class Role(Enum):
    """What a connection is to its run."""

    READER = "reader"
    OWNER = "owner"
    PARTICIPANT = "participant"
    LEFT = "left"


class Desk(Protocol):
    """What a connection asks of the collector beyond its own run."""

    async def open(self, peer: Peer, request: messages.Open) -> RunOwner | None:
        """The run to write to, opened or joined; None where the run itself refused, raises ``RefusedError`` else."""

    async def crash(self, peer: Peer, request: messages.Crash) -> None:
        """A report about a run by its name."""

    async def cancel(self, peer: Peer, request: messages.Cancel) -> None:
        """A wish about a run by its name."""

    def status(self, request_id: int, peer: Peer) -> messages.StatusAnswer:
        """How the collector stands."""

    def welcome(self, request_id: int) -> messages.Welcome:
        """The answer to a hello."""

    def refused_late(self, count: int) -> None:
        """Events came for a run that is over."""

    def now_ns(self) -> int:
        """Unix nanoseconds."""


class Peer:
    """One connection.

    Args:
        connection: accepted, non-blocking.
        process: at the other end.
        desk: of the collector.
        deaths: where its death is watched.
        nursery: for the task that sends when the socket is full.
    """

    def __init__(
        self,
        connection: socket.socket,
        process: PeerProcess,
        desk: Desk,
        deaths: DeathWatch,
        nursery: trio.Nursery,
    ) -> None:
        self.process = process
        self.hello: messages.Hello | None = None
        self.producer = 0
        self._socket = connection
        self._desk = desk
        self._deaths = deaths
        self._outbox = Outbox(connection, nursery)
        self._machine = ServerConnection()
        self._role = Role.READER
        self._owner: RunOwner | None = None
        self._open_request: messages.Open | None = None
        self._gone = False
        self._unread_bytes: int | None = None
        self._waiting: trio.CancelScope | None = None
        self._answered: trio.Event | None = None

    # ------------------------------------------------------------ what others call

    def say(self, message: Answer) -> None:
        """Send an answer when the other side takes it; to a connection that is gone it is not said."""
        if self._answered is not None and isinstance(message, messages.Opened | messages.Error):
            if isinstance(message, messages.Opened):
                self.producer = message.producer
            self._answered.set()
        self._outbox.put(message)

    async def wait_answered(self) -> bool:
        """Return when the answer to an ``open`` has been said: whether it was granted. Cancellation: at any point."""
        self._answered = trio.Event()
        await self._answered.wait()
        self._answered = None
        return self.producer > 0

    @property
    def uid(self) -> int:
        """Whose connection this is, as the kernel says."""
        return self.process.uid

    @property
    def is_gone(self) -> bool:
        """Whether the other end is known to be closed or dead."""
        return self._gone

    @property
    def counts_as_agent(self) -> bool:
        """Whether the death of the process is the death of the agent."""
        return self.hello is not None and self.hello.liveness == "process"

    # ------------------------------------------------------------ the task

    async def run(self) -> None:
        """Serve the connection until it ends; then see to what its end means for the run.

        Cancellation: a drain. The run is left as it is, to be resumed: a connection that we close is no end-of-file.
        """
        fault: PeerError | None = None
        try:
            try:
                await self._greet()
                self._deaths.watch_connection(self._socket.fileno(), self._notice_death)
                await self._converse()
            except PeerError as error:
                fault = error.with_traceback(None)  # which leads to the frame that we keep it in, and to all it was made of
                self.say(messages.Error(error.code, error.message, error.retryable))
            await self._part(fault)
        except trio.Cancelled:
            if self._gone:
                await self._finish_last_drain()
            self.say(messages.Error("collector-draining", "the collector is stopping", True))
            raise
        except Exception:  # noqa: BLE001 — the peer's boundary: one connection's fault stays its own
            _log.exception("connection of pid %d: internal error", self.process.pid)
            self.say(messages.Error("internal-error", "this connection failed inside the collector", False))
            self._post_departure(Verdict(CrashReason.CONNECTION_CLOSED, "the collector closed the agent's connection"), 0)
        finally:
            self._close()

    async def _greet(self) -> None:
        """The hello, within its time."""
        with trio.move_on_after(HELLO_TIMEOUT_S):
            request = await self._next_request()
            if request is None:
                return
            assert isinstance(request, messages.Hello)
            self.hello = request
            self.say(self._desk.welcome(request.id))
            return
        raise PeerError("hello-timeout", f"no hello within {HELLO_TIMEOUT_S:g} s")

    async def _converse(self) -> None:
        """Request after request, until the connection ends."""
        if self.hello is None:
            return
        while True:
            request = await self._next_request()
            if request is None:
                return
            await self._serve(within_limits(request))
            if not self._gone:
                await self._wait_for_room()

    async def _part(self, fault: PeerError | None) -> None:
        """The connection is over: say what that means, once everything it had sent is posted."""
        owner = self._owner
        if owner is None or owner.core.closed or owner.is_over or self._role not in (Role.OWNER, Role.PARTICIPANT):
            return
        torn = self._machine.torn_bytes if fault is None else 0
        if fault is not None:
            self._mark()
            verdict = Verdict(CrashReason.PROTOCOL_ERROR, f"the agent broke the protocol: {fault.message}")
        elif self._role is Role.OWNER:
            verdict = await verdict_on(self.process, counts=self.counts_as_agent)
        else:
            verdict = Verdict(CrashReason.CONNECTION_CLOSED, "")
        self._post_departure(verdict, torn)

    async def _finish_last_drain(self) -> None:
        """The drain of the collector came in the middle of our own last one: see it through, or the run never ends.

        Cancellation: shielded; what was unread is there already, and the verdict has its own bound.
        """
        with trio.CancelScope(shield=True):
            try:
                await self._converse()
                await self._part(None)
            except PeerError as error:
                await self._part(error)

    def _post_departure(self, verdict: Verdict, torn_bytes: int) -> None:
        owner, now = self._owner, self._desk.now_ns()
        if owner is None or owner.core.closed:
            return
        if self._role is Role.OWNER:
            self._mark()
            owner.post(inputs.ExitInfo(now, verdict, torn_bytes))
        elif self._role is Role.PARTICIPANT:
            owner.post(inputs.ParticipantGone(now, self.producer, torn_bytes=torn_bytes))
        self._role = Role.LEFT

    # ------------------------------------------------------------ death

    def _notice_death(self) -> None:
        """The process died, or the connection was closed at its end: mark at once, then read what was unread."""
        if self._gone:
            return
        self._gone = True
        self._mark()
        if self._waiting is not None:
            self._waiting.cancel()
        try:
            self._unread_bytes = struct.unpack("i", fcntl.ioctl(self._socket.fileno(), termios.FIONREAD, bytes(4)))[0]
        except OSError:
            self._unread_bytes = None  # closed in the same moment: end-of-file says how much there was

    def _mark(self) -> None:
        if self._owner is not None and self._role is Role.OWNER and not self._owner.core.closed:
            self._owner.mark_owner_gone()

    # ------------------------------------------------------------ receiving

    async def _next_request(self) -> Request | None:
        """The next request, or None when the connection has ended."""
        while True:
            request = self._machine.next_request()
            if request is not None:
                return request
            if not await self._receive():
                return None

    async def _receive(self) -> bool:
        """Take in some bytes; False at the end of what there is."""
        while True:
            if self._unread_bytes == 0:
                return False
            size = RECEIVE_SIZE_BYTES if self._unread_bytes is None else min(self._unread_bytes, RECEIVE_SIZE_BYTES)
            try:
                chunk = self._socket.recv(size)
            except BlockingIOError:
                if self._gone:
                    return False
                await self._wait_readable()
                continue
            except OSError as error:
                if error.errno not in (errno.ECONNRESET, errno.EPIPE):
                    _log.warning("connection of pid %d: %s", self.process.pid, error)
                chunk = b""  # answers the dead never read turn its end-of-file into a reset, behind all it had sent
            if not chunk:
                self._unread_bytes = 0
                self._gone = True
                self._mark()
                return False
            if self._unread_bytes is not None:
                self._unread_bytes -= len(chunk)
            self._machine.receive(chunk)
            await trio.lowlevel.checkpoint()
            return True

    async def _wait_readable(self) -> None:
        with trio.CancelScope() as self._waiting:
            await trio.lowlevel.wait_readable(self._socket)
        self._waiting = None

    async def _wait_for_room(self) -> None:
        """Do not read on while the run is behind, or our answers are not taken. A death ends the wait."""
        owner = self._owner
        while (owner is not None and owner.is_behind and not owner.is_over) or self._outbox.is_full:
            if self._gone:
                return
            with trio.CancelScope() as self._waiting:
                if self._outbox.is_full:
                    await self._outbox.wait_for_room()
                elif owner is not None:
                    await owner.wait_for_room()
            self._waiting = None

    # ------------------------------------------------------------ serving

    async def _serve(self, request: Request) -> None:
        try:
            match request:
                case messages.Events():
                    self._take_events(request)
                case messages.Open():
                    await self._open(request)
                case messages.Flush():
                    self._flush(request)
                case messages.End():
                    self._end(request)
                case messages.Crash():
                    await self._crash(request)
                case messages.Cancel():
                    await self._cancel(request)
                case messages.Detach():
                    self._detach(request)
                case messages.Status():
                    self.say(self._desk.status(request.id, self))
                case messages.Hello():
                    raise PeerError("message-unexpected", "hello was said already")
        except RefusedError as error:
            request_id = getattr(request, "id", None)
            self.say(messages.Error(error.code, error.message, error.retryable, request_id))

    async def _open(self, request: messages.Open) -> None:
        if self._owner is not None:
            self._open_again(request)
            return
        self._open_request = request
        owner = await self._desk.open(self, request)
        if owner is None:
            return
        self._owner = owner
        self._machine.opened()
        if request.resume_token is None and not request.join:
            self.producer = OWNER_PRODUCER
        self._role = Role.OWNER if self.producer == OWNER_PRODUCER else Role.PARTICIPANT
        if self._gone or (self.counts_as_agent and self.process.is_dead):
            self._gone = True
            self._mark()
        elif self.counts_as_agent and self.process.pidfd is not None:
            self._deaths.watch_process(self.process.pidfd, self._notice_death)

    def _open_again(self, request: messages.Open) -> None:
        """The same once more has no effect and the same answer; anything else needs a connection of its own."""
        owner, first = self._owner, self._open_request
        assert owner is not None
        assert first is not None
        if request.session_id != first.session_id or request.join != first.join or owner.core.closed:
            raise RefusedError("connection-used", "this connection has served a run: open another one")
        owner.post(inputs.Flush(self._desk.now_ns(), _Reopened(self, owner), request.id, self.producer, 0, False))

    def _run(self) -> RunOwner:
        assert self._owner is not None
        return self._owner

    def _take_events(self, request: messages.Events) -> None:
        owner, batch = self._run(), request.batch
        if owner.is_over or self._role is Role.LEFT:
            count = len(batch.events)
            self._desk.refused_late(count)
            fault = self._fault()
            stretch = [batch.first_sequence, count, "session-ended" if fault is None else fault.code]
            self.say(messages.Ack(batch.first_sequence + count - 1, [stretch] if count else []))
            return
        owner.post(inputs.Events(self._desk.now_ns(), self.producer, batch))

    def _flush(self, request: messages.Flush) -> None:
        owner = self._run()
        self._check_not_failed()
        if owner.is_over:
            producer = owner.core.ledger.producer(self.producer)
            self.say(messages.Flushed(request.id, producer.next_sequence - 1, producer.refused))
            return
        owner.post(inputs.Flush(self._desk.now_ns(), self, request.id, self.producer, request.last_sequence, request.export))

    def _end(self, request: messages.End) -> None:
        self._check_owner("end")
        self._check_not_failed()
        owner = self._run()
        if owner.is_over:
            self.say(owner.core.terminal_answer(request.id))
            return
        outcome = Outcome(request.outcome)
        owner.post(
            inputs.End(
                self._desk.now_ns(), self, request.id, outcome, request.message, request.exception, request.wait,
                request.last_sequence,
            )
        )  # fmt: skip

    async def _crash(self, request: messages.Crash) -> None:
        if self._owner is None or request.session_id is not None:
            await self._desk.crash(self, request)
            return
        self._check_owner("crash")
        self._check_not_failed()
        owner = self._run()
        if owner.is_over:
            await self._desk.crash(self, request)
            return
        verdict = Verdict(CrashReason.REPORTED, request.reason, None, None, request.exception)
        owner.post(inputs.Crash(self._desk.now_ns(), self, request.id, verdict, self.producer, request.last_sequence))

    async def _cancel(self, request: messages.Cancel) -> None:
        if self._owner is None or request.session_id is not None:
            await self._desk.cancel(self, request)
            return
        self._check_not_failed()
        owner, now = self._run(), self._desk.now_ns()
        if owner.is_over:
            self.say(owner.core.terminal_answer(request.id))
            return
        if self._role is not Role.OWNER:
            owner.post(inputs.CancelRequested(now, self, request.id, request.reason, self.process.pid))
            return
        owner.post(inputs.Cancel(self._desk.now_ns(), self, request.id, request.reason, request.wait, request.last_sequence))

    def _detach(self, request: messages.Detach) -> None:
        if self._role is Role.OWNER:
            raise RefusedError("not-owner", "the owner of a run ends it; only participants detach")
        self._check_not_failed()
        owner = self._run()
        if owner.is_over or self._role is Role.LEFT:
            sequence = owner.core.ledger.producer(self.producer).next_sequence - 1
            self.say(messages.Detached(request.id, sequence, owner.core.path))
        else:
            owner.post(
                inputs.ParticipantGone(self._desk.now_ns(), self.producer, request.last_sequence, self, request.id, request.error)
            )
        self._role = Role.LEFT

    def _fault(self) -> RefusedError | None:
        """Why nobody is left to answer for a run that is not over either: it was given up, or its task failed."""
        owner = self._owner
        if owner is None or not owner.is_over or owner.core.outcome.is_terminal:
            return None
        if owner.core.closed:
            return RefusedError("disk-failed", "the run could not be opened: open the session again, on another connection")
        return RefusedError("internal-error", "this run's task failed; its journal is kept")

    def _check_not_failed(self) -> None:
        fault = self._fault()
        if fault is not None:
            raise fault

    def _check_owner(self, what: str) -> None:
        if self._role is not Role.OWNER:
            raise RefusedError("not-owner", f"a participant cannot {what} the run it joined: detach, with the error")

    # ------------------------------------------------------------ the end

    @property
    def owner(self) -> RunOwner | None:
        """The run this connection writes to, if any."""
        return self._owner

    def command(self) -> str:
        """The command line of the process, for display."""
        return command_line(self.process.pid)

    def _close(self) -> None:
        self._machine.stage = Stage.FAILED
        self._deaths.forget(self._socket.fileno())
        if self.process.pidfd is not None:
            self._deaths.forget(self.process.pidfd)
        self.process.close()
        self._outbox.close()
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()


class _Reopened:
    """Stands in for a peer that opened again: what it hears is the answer it got the first time."""

    def __init__(self, peer: Peer, owner: RunOwner) -> None:
        self._peer = peer
        self._owner = owner

    def say(self, message: Answer) -> None:
        """Turn the flush that kept the order into the answer to an open."""
        assert isinstance(message, messages.Flushed)
        self._peer.say(self._owner.core.opened_answer(message.id, self._peer.producer))
