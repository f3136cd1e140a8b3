"""The renderer processes: warm, few, replaced when they die.

Owns the processes and the queue before them. Urgent orders (of runs that end) go first, and one renderer is always kept free of
the others, so that the end of a run never waits behind a running document. Knows nothing of what a document holds.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections import deque
from functools import partial

import trio

from collectord.errors import DiskError
from collectord.export.request import RenderRequest, RenderResult
from collectord.export.worker import encode_request, unframe
from collectord.limits import RENDER_TIMEOUT_S, RENDERERS

_log = logging.getLogger(__name__)

_RECEIVE_SIZE_BYTES = 4_096
_TRIES = 2
"""Why: a renderer may be killed from outside in the middle of a document; one that dies of it twice dies of the document."""


_REFUSALS_MAX = 5
"""Why: an idle renderer may have been killed too, and that is no fault of the order that finds it dead; but renderers that
cannot even start must not be started for ever."""


class RendererDied(Exception):
    """A renderer went away, or did not answer in time, while it had an order; ``took`` says whether it had taken it."""

    def __init__(self, why: str, took: bool = True) -> None:
        super().__init__(why)
        self.took = took


class _Order:
    """One document to be rendered, and who waits for it."""

    def __init__(self, request: RenderRequest) -> None:
        self.request = request
        self.over = trio.Event()
        self.result: RenderResult | None = None
        self.error = "the renderer was stopped"
        self.unwanted = False
        self.tries = 0
        self.refusals = 0


class RendererPool:
    """The renderers of one daemon.

    Args:
        size: how many; at least two, since one is kept free for urgent orders.
    """

    def __init__(self, size: int = RENDERERS) -> None:
        self._size = size
        self._urgent: deque[_Order] = deque()
        self._patient: deque[_Order] = deque()
        self._idle: list[trio.Event] = []
        self._busy_patient = 0
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
        for order in (*self._urgent, *self._patient):
            order.over.set()

    async def render(self, request: RenderRequest, urgent: bool) -> RenderResult:
        """Render one document.

        Raises:
            DiskError: ``export-failed``, with what the renderer says.

        Cancellation: at any point; what is being rendered is finished, and its file removed.
        """
        order = _Order(request)
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

    def _next(self) -> tuple[_Order, bool] | None:
        if self._urgent:
            return self._urgent.popleft(), True
        if self._patient and self._busy_patient < self._size - 1:
            return self._patient.popleft(), False
        return None

    async def _keep_one(self, stopped: trio.Event) -> None:
        """One renderer process at a time, as long as the pool is open."""
        try:
            while not self._closing:
                process = await self._open()
                try:
                    await self._serve_with(process)
                except RendererDied:
                    self.replaced += 1
                finally:
                    with trio.CancelScope(shield=True):
                        await _end(process)
        finally:
            stopped.set()

    async def _open(self) -> trio.Process:
        open_process = partial(
            trio.lowlevel.open_process,
            [sys.executable, "-m", "collectord.export.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        process: trio.Process = await open_process(start_new_session=True)
        return process

    async def _serve_with(self, process: trio.Process) -> None:
        while not self._closing:
            found = self._next()
            if found is None:
                event = trio.Event()
                self._idle.append(event)
                await event.wait()
                continue
            order, urgent = found
            self._busy_patient += not urgent
            try:
                await self._carry_out(process, order, urgent)
            finally:
                self._busy_patient -= not urgent
                self._wake()

    async def _carry_out(self, process: trio.Process, order: _Order, urgent: bool) -> None:
        """Have one document rendered. Where the renderer dies of it, it goes back to the head of its queue, once."""
        if order.unwanted:
            return
        try:
            order.result, order.error = await _ask(process, order.request)
        except RendererDied as died:
            _log.error("a renderer died: %s (%s)", died, order.request.out)
            order.error = str(died)
            order.tries += died.took
            order.refusals += not died.took
            if order.tries < _TRIES and order.refusals < _REFUSALS_MAX:
                (self._urgent if urgent else self._patient).appendleft(order)
            else:
                order.over.set()
            raise
        self.rendered += 1
        if order.unwanted:
            _remove(order.request.out)  # type: ignore[unreachable]  # it changes while we wait
        order.over.set()


async def _ask(process: trio.Process, request: RenderRequest) -> tuple[RenderResult | None, str]:
    """One request to one renderer; raises ``RendererDied``."""
    assert process.stdin is not None
    assert process.stdout is not None
    with trio.move_on_after(RENDER_TIMEOUT_S):
        try:
            await process.stdin.send_all(encode_request(request))
            received = bytearray()
            while len(received) < 4 or len(received) < 4 + int.from_bytes(received[:4], "big"):
                chunk = await process.stdout.receive_some(_RECEIVE_SIZE_BYTES)
                if not chunk:
                    raise RendererDied("it ended without an answer")
                received += chunk
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise RendererDied("it does not take requests", took=False) from None
        done, first, second = unframe(bytes(received[4:]))
        return (RenderResult(first, second), "") if done else (None, str(first))
    raise RendererDied(f"it did not answer within {RENDER_TIMEOUT_S:g} s")


async def _end(process: trio.Process) -> None:
    """Close a renderer's input, and see it end; one that does not is killed."""
    if process.stdin is not None:
        await process.stdin.aclose()
    with trio.move_on_after(5.0):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
    if process.stdout is not None:
        await process.stdout.aclose()


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # swept at the next start
