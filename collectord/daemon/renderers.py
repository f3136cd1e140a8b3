"""The renderer processes: warm, few, replaced when they die.

Owns the processes and the queue before them. Urgent orders (of runs that end) go first, and one renderer is always kept free of
the others, so that the end of a run never waits behind a running document. Knows nothing of what a document holds.

Nothing here polls: a renderer that dies while it is idle is noticed when the next order comes, and replaced before it is given
one; one that cannot be started is tried again with the next order.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections import deque
from functools import partial

import trio
from attrs import frozen

import collectord
from collectord.errors import DiskError
from collectord.export.request import RenderRequest, RenderResult
from collectord.export.worker import encode_request, unframe
from collectord.limits import RENDER_TIMEOUT_S, RENDERERS

_log = logging.getLogger(__name__)

_RECEIVE_SIZE_BYTES = 4_096
_TRIES = RENDERERS + 1
"""Why: all renderers may be killed from outside at once; a document that outlives none of them and one more kills them."""

_LAST_WORDS_S = 5.0
"""Why: a renderer whose input was closed ends at once; one that does not has hung, and is killed."""

_NOT_FOR_RENDERERS = ("NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_", "COLLECTORD_")
"""What speaks of the daemon alone: a renderer must not be taken for it."""


class RendererDied(Exception):
    """A renderer went away, or did not answer in time."""


@frozen
class RendererStatistics:
    """What the renderers have done and are doing.

    Attributes:
        processes: how many there are.
        rendered: documents, those that failed among them.
        replaced: renderers that died or hung.
        waiting_urgent: orders of runs that end, not begun.
        waiting_patient: the others, not begun.
    """

    processes: int
    rendered: int
    replaced: int
    waiting_urgent: int
    waiting_patient: int


class _Order:
    """One document to be rendered, and who waits for it."""

    def __init__(self, request: RenderRequest, number: int) -> None:
        self.request = request
        self.number = number
        self.over = trio.Event()
        self.result: RenderResult | None = None
        self.error = "the renderer was stopped"
        self.unwanted = False
        self.tries = 0

    def fail(self, why: str) -> None:
        """Nothing will come of it."""
        self.error = why
        self.over.set()


class RendererPool:
    """The renderers of one daemon.

    Args:
        size: how many; at least two, since one is kept free for urgent orders.
        timeout_s: how long one document may take.
    """

    def __init__(self, size: int = RENDERERS, timeout_s: float = RENDER_TIMEOUT_S) -> None:
        assert size >= 2, size
        self._size = size
        self._timeout_s = timeout_s
        self._urgent: deque[_Order] = deque()
        self._patient: deque[_Order] = deque()
        self._idle: list[trio.Event] = []
        self._busy_patient = 0
        self._placed = 0
        self._processes = 0
        self._starting = 0
        self._closing = False
        self._stopped: list[trio.Event] = []
        self.rendered = 0
        self.replaced = 0

    async def start(self, nursery: trio.Nursery) -> None:
        """Start the renderers; they live in the nursery until ``aclose``."""
        for _ in range(self._size):
            stopped = trio.Event()
            self._stopped.append(stopped)
            nursery.start_soon(self._keep_one, stopped)

    async def aclose(self) -> None:
        """End the renderers and wait until they are gone. What still waits for one is told that it failed."""
        self._closing = True
        self._wake()
        for stopped in self._stopped:
            await stopped.wait()
        self._fail_until(self._placed, "the renderer was stopped")

    def statistics(self) -> RendererStatistics:
        """How things stand."""
        return RendererStatistics(self._processes, self.rendered, self.replaced, len(self._urgent), len(self._patient))

    async def render(self, request: RenderRequest, urgent: bool) -> RenderResult:
        """Render one document.

        Raises:
            DiskError: ``export-failed``, with what the renderer says.

        Cancellation: at any point; what is being rendered is finished, and its file removed.
        """
        if self._closing:
            raise DiskError("export-failed", "the renderer was stopped")
        self._placed += 1
        order = _Order(request, self._placed)
        (self._urgent if urgent else self._patient).append(order)
        self._wake()
        try:
            await order.over.wait()
        except trio.Cancelled:
            order.unwanted = True
            raise
        if order.result is None:
            raise DiskError("export-failed", order.error)
        return order.result

    def _wake(self) -> None:
        for event in self._idle:
            event.set()
        self._idle.clear()

    async def _wait_for_news(self) -> None:
        event = trio.Event()
        self._idle.append(event)
        await event.wait()

    def _next(self) -> tuple[_Order, bool] | None:
        if self._urgent:
            return self._urgent.popleft(), True
        if self._patient and self._busy_patient < self._size - 1:
            return self._patient.popleft(), False
        return None

    def _fail_until(self, number: int, why: str) -> None:
        for queue in (self._urgent, self._patient):
            for order in [order for order in queue if order.number <= number]:
                queue.remove(order)
                order.fail(why)

    # ------------------------------------------------------------ one renderer

    async def _keep_one(self, stopped: trio.Event) -> None:
        """One renderer process at a time, as long as the pool is open."""
        try:
            while not self._closing:
                process = await self._open()
                if process is not None:
                    await self._use(process)
        finally:
            stopped.set()

    async def _open(self) -> trio.Process | None:
        """A new renderer. Where none can be started and none is left, whoever has waited for it is told.

        The next order tries again, and one that came meanwhile tries at once.
        """
        tried_for = self._placed
        self._starting += 1
        try:
            return await _start_process()
        except OSError as error:
            cause = f"no renderer can be started: {error.strerror or error}"
        finally:
            self._starting -= 1
        _log.error("%s", cause)
        if not (self._processes or self._starting):
            self._fail_until(tried_for, cause)
        if not self._closing and (self._processes or self._starting or self._placed == tried_for):
            await self._wait_for_news()
        return None

    async def _use(self, process: trio.Process) -> None:
        """Give a renderer orders until it dies or the pool is closed, and see it gone."""
        self._processes += 1
        patience_s = 0.0
        try:
            await self._serve_with(process)
            patience_s = _LAST_WORDS_S
        except RendererDied:
            self.replaced += 1
        finally:
            self._processes -= 1
            with trio.CancelScope(shield=True):
                await _end(process, patience_s)

    async def _serve_with(self, process: trio.Process) -> None:
        while not self._closing:
            found = self._next()
            if found is None:
                await self._wait_for_news()
                if process.returncode is not None:  # killed while it was idle: no order's fault, so it costs none a try
                    raise RendererDied("it ended while it was idle")
                continue
            order, urgent = found
            self._busy_patient += not urgent
            try:
                await self._carry_out(process, order, urgent)
            finally:
                self._busy_patient -= not urgent
                self._wake()

    async def _carry_out(self, process: trio.Process, order: _Order, urgent: bool) -> None:
        """Have one document rendered. Where the renderer dies of it, it goes back to the head of its queue."""
        if order.unwanted:
            return
        order.tries += 1
        try:
            order.result, order.error = await _ask(process, order.request, self._timeout_s)
        except RendererDied as died:
            _log.error("a renderer died: %s (%s)", died, order.request.out)
            if order.tries < _TRIES:
                (self._urgent if urgent else self._patient).appendleft(order)
            else:
                order.fail(str(died))
            raise
        except trio.Cancelled:
            order.fail("the renderer was stopped")
            raise
        self.rendered += 1
        if order.unwanted:
            await _remove(order.request.out)  # type: ignore[unreachable]  # it changes while we wait
        order.over.set()


def _environment() -> dict[str, str]:
    """Ours, without what is for the daemon alone.

    A renderer finds its modules where we found ours: never in the directory that the daemon happens to be started in (``-P``
    sees to that), unless that is where ours came from.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_FOR_RENDERERS)}
    root = os.path.dirname(os.path.dirname(os.path.abspath(collectord.__file__)))
    if sys.path and os.path.abspath(sys.path[0]) == root:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
    return environment


async def _start_process() -> trio.Process:
    """A renderer with pipes to it, in a session of its own: a Ctrl-C in the daemon's terminal is the daemon's alone."""
    open_process = partial(
        trio.lowlevel.open_process,
        [sys.executable, "-P", "-m", "collectord.export.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(),
    )
    process: trio.Process = await open_process(start_new_session=True)
    return process


async def _ask(process: trio.Process, request: RenderRequest, timeout_s: float) -> tuple[RenderResult | None, str]:
    """One request to one renderer; raises ``RendererDied``."""
    assert process.stdin is not None
    assert process.stdout is not None
    with trio.move_on_after(timeout_s):
        try:
            await process.stdin.send_all(encode_request(request))
            received = bytearray()
            while len(received) < 4 or len(received) < 4 + int.from_bytes(received[:4], "big"):
                chunk = await process.stdout.receive_some(_RECEIVE_SIZE_BYTES)
                if not chunk:
                    raise RendererDied("it ended without an answer")
                received += chunk
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise RendererDied("it does not take requests") from None
        done, first, second = unframe(bytes(received[4:]))
        return (RenderResult(first, second), "") if done else (None, str(first))
    raise RendererDied(f"it did not answer within {timeout_s:g} s")


async def _end(process: trio.Process, patience_s: float) -> None:
    """Close a renderer's input, and see it end; one that does not in time is killed."""
    if process.stdin is not None:
        await process.stdin.aclose()
    with trio.move_on_after(patience_s):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
    if process.stdout is not None:
        await process.stdout.aclose()


async def _remove(path: str) -> None:
    """In a thread: a directory may be held for as long as somebody's rename takes. Cancellation: what has begun is done."""
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(_unlink, path)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # swept at the next start
