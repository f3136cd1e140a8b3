"""What a session says to the collector, in order: from the queue that the host fills to the frames that the sender sends.

Owns the order, the sequences, the bound of the memory, and which requests wait for an answer. The host's threads append under
a lock; everything else is called by the sender's thread alone, which never takes that lock while it works.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from typing import Any

from collectord_client import _codec
from collectord_client._entries import Event, Lost, Request
from collectord_client._limits import BATCH_EVENTS_MAX, BATCH_SIZE_MAX_BYTES, REQUESTS_MAX
from collectord_client._unacknowledged import Frame, Unacknowledged


class Outbox:
    """The queue, the frames made of it that are not sent whole, and those that are not acknowledged.

    Args:
        memory_max_bytes: how much events may take until they are acknowledged.

    Attributes:
        lock: held by those who append.
        counts: what became of the events, by word.
        refused: events that the collector did not store, by code.
    """

    def __init__(self, memory_max_bytes: int) -> None:
        self.lock = threading.RLock()  # a signal handler or a finaliser may submit in the middle of a submit
        self.counts = {"accepted": 0, "sent": 0, "acknowledged": 0, "lost": 0}
        self.refused: dict[str, int] = {}
        self._memory_max_bytes = memory_max_bytes
        self._queue: deque[Event | Lost | Request] = deque()
        self._queued_bytes = 0  # all that was ever put in: written under the lock, which the sender never takes
        self._taken_bytes = 0  # all that was ever taken out: written by the sender alone
        self._requests_asked = 0  # as above
        self._requests_over = 0
        self._lost_untold = 0
        self._lost_inside = 0
        self._sequence = 0
        self._ids = itertools.count(1)
        self._waiting: dict[int, Request] = {}
        self._outgoing: deque[bytes] = deque()
        self._offset = 0  # how much of the first of them is sent
        self._kept = Unacknowledged()

    # ------------------------------------------------------------ under the lock

    def put(self, event: Event) -> bool:
        """Take in an event; False where the memory has no room, and it is lost."""
        size = event.size_bytes
        if self._queued_bytes - self._taken_bytes + self._kept.size_bytes + size > self._memory_max_bytes:
            self.counts["lost"] += 1
            self._lost_untold += 1
            return False
        self.counts["accepted"] += 1
        self._queued_bytes += size
        self._tell_lost()
        self._queue.append(event)
        return True

    def ask(self, request: Request) -> bool:
        """Take in a request; False where too many wait already."""
        if not request.is_last and self._requests_asked - self._requests_over >= REQUESTS_MAX:
            return False
        self._requests_asked += 1
        self._tell_lost()
        self._queue.append(request)
        return True

    def tell_what_was_lost(self) -> bool:
        """Let the collector know of losses behind which nothing came; whether there are any."""
        return self._lost_untold > 0 and self.ask(Request({"type": "flush"}))

    def _tell_lost(self) -> None:
        """What was lost since the last entry goes in front of the next one: the gap is where it happened."""
        count, self._lost_untold = self._lost_untold, 0
        if count:
            self._queue.append(Lost(count))

    # ------------------------------------------------------------ how it stands, from any thread

    @property
    def is_empty(self) -> bool:
        """Whether everything was sent that there is to send."""
        return not self._queue and not self._outgoing

    @property
    def has_waiting(self) -> bool:
        """Whether something unanswered or unacknowledged would have to be sent again to another collector."""
        return bool(len(self._kept) or self._waiting)

    @property
    def waits_for_the_last_word(self) -> bool:
        """Whether an end or a departure is asked for and not answered."""
        return any(request.is_last for request in list(self._waiting.values()))

    def next_id(self) -> int:
        """A number that no request has."""
        return next(self._ids)

    def statistics(self) -> dict[str, Any]:
        """The counts, for the host."""
        return {
            **self.counts,
            "lost": self.counts["lost"] + self._lost_inside,
            "queued": len(self._queue),
            "unacknowledged": self._kept.events,
            "unacknowledged_bytes": self._kept.size_bytes,
            "refused": dict(self.refused),
        }

    # ------------------------------------------------------------ sending

    @property
    def unsent(self) -> memoryview | None:
        """The next bytes to send; None where the queue is empty too."""
        while not self._outgoing and self._queue:
            frame = self._next_frame()
            if frame:
                self._outgoing.append(frame)
        return memoryview(self._outgoing[0])[self._offset :] if self._outgoing else None

    def sent(self, count: int) -> None:
        """So many of the bytes are sent."""
        self._offset += count
        if self._offset == len(self._outgoing[0]):
            self._outgoing.popleft()
            self._offset = 0

    @property
    def is_half_sent(self) -> bool:
        """Whether a frame is made and not sent whole."""
        return bool(self._outgoing)

    def _next_frame(self) -> bytes:
        """The frame of the next request, or of as many events as stand in a row."""
        first = self._queue[0]
        if isinstance(first, Request):
            self._queue.popleft()
            if not first.is_wanted:
                self._over(first)
                return b""
            number = self.next_id()
            self._waiting[number] = first
            first.last_sequence = self._sequence
            return _frame_of(number, first)
        if isinstance(first, Lost):
            self._queue.popleft()
            self._sequence += first.count
            return b""
        return self._frame_of_events()

    def _frame_of_events(self) -> bytes:
        events: list[bytes] = []
        size = taken = 0
        start = self._sequence + 1
        while self._queue and len(events) < BATCH_EVENTS_MAX:
            event = self._queue[0]
            if not isinstance(event, Event):
                break
            raw = event.encoded()
            if events and (raw is None or size + len(raw) > BATCH_SIZE_MAX_BYTES):
                break  # a hole in the sequence begins another frame, and so does what makes this one too long
            self._queue.popleft()
            taken += event.size_bytes
            if raw is None:
                self._lost_inside += 1  # it refers to a span whose start was lost: it leaves its number behind as a gap
                self._sequence += 1
                start = self._sequence + 1
                continue
            self._sequence += 1
            if event.starts is not None:
                event.starts.sequence = self._sequence
            events.append(raw)
            size += len(raw)
        frame = b""
        if events:
            frame = _codec.encode_events(start, events)
            self._kept.keep(Frame(start, self._sequence, frame))
            self.counts["sent"] += len(events)
        self._taken_bytes += taken  # last: what is taken out is kept by now, so that the sum is never too small
        return frame

    # ------------------------------------------------------------ what the collector says

    def answer(self, message: dict[str, Any]) -> Request | None:
        """An answer to a request, which is then over; None where it answers none."""
        number = message.get("id")
        request = self._waiting.pop(number, None) if isinstance(number, int) else None
        if request is not None:
            if message["type"] == "flushed":
                self._count_refused(message.get("refused", 0) - sum(self.refused.values()))
            request.answer = message
            self._over(request)
        return request

    def acknowledge(self, message: dict[str, Any]) -> None:
        """An ``ack``: what it covers need not be kept, and what it refuses was not stored."""
        self.counts["acknowledged"] += self._kept.acknowledge(min(message["sequence"], self._sequence))
        for _, count, code in message.get("refused", ()):
            self._count_refused(count, code)
        self._count_refused(message.get("refused_more", 0))

    def _count_refused(self, count: int, code: str = "not-listed") -> None:
        """Refused, and so not acknowledged as stored. What an ``ack`` listed that was lost on the way, a later flush counts."""
        if count > 0:
            self.refused[code] = self.refused.get(code, 0) + count
            self.counts["acknowledged"] -= count

    def resume(self, next_sequence: int) -> int:
        """Begin again on a new connection, to a collector that goes on at a sequence.

        What it lacks is sent again, and the requests that it has not answered between the events where they were asked, with
        the ids that they had.

        Returns:
            How many events the collector had acknowledged and does not have.

        Raises:
            ValueError: it claims to have what was never sent.
        """
        if not 1 <= next_sequence <= self._sequence + 1:
            raise ValueError(f"the collector goes on at {next_sequence}, and {self._sequence} were sent")
        newly, missing = self._kept.resume(next_sequence)
        self.counts["acknowledged"] += newly
        self._outgoing.clear()
        self._offset = 0
        for number, request in list(self._waiting.items()):
            if not request.is_wanted:
                del self._waiting[number]
                self._over(request)
        waiting = deque(self._waiting.items())
        for frame in self._kept:
            while waiting and waiting[0][1].last_sequence < frame.first:
                self._outgoing.append(_frame_of(*waiting.popleft()))
            self._outgoing.append(frame.raw)
        self._outgoing.extend(_frame_of(number, request) for number, request in waiting)
        return missing

    # ------------------------------------------------------------ the end

    def let_go(self) -> None:
        """Nothing is sent any more: nobody waits for an answer, and what was not sent is counted."""
        while self._queue:
            entry = self._queue.popleft()
            if isinstance(entry, Request):
                self._over(entry)
            elif isinstance(entry, Event):
                self._lost_inside += 1
                self._taken_bytes += entry.size_bytes
        for request in list(self._waiting.values()):
            self._over(request)
        self._waiting.clear()
        self._outgoing.clear()
        self._offset = 0
        self._kept.let_go()

    def forget_after_fork(self) -> None:
        """In a child: the parent's lock may be held by a thread that is not here, and its requests are not ours."""
        self.lock = threading.RLock()
        waiting, self._waiting = [*self._waiting.values(), *(r for r in self._queue if isinstance(r, Request))], {}
        self._queue.clear()
        for request in waiting:
            request.abandon_after_fork()

    def _over(self, request: Request) -> None:
        self._requests_over += 1
        request.over.set()


def _frame_of(number: int, request: Request) -> bytes:
    return _codec.encode_message({**request.fields, "id": number, "last_sequence": request.last_sequence})
