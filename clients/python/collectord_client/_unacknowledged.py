"""The frames of events that the collector has not acknowledged: what is sent again when it comes back.

Owns the counting of acknowledgements. Written by the sender's thread alone; ``size_bytes`` is read by all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from collectord_client import _codec
from collectord_client._entries import OVERHEAD_BYTES


class Frame:
    """One frame of events that stand in a row: there is no hole inside."""

    __slots__ = ("first", "last", "raw")

    def __init__(self, first: int, last: int, raw: bytes) -> None:
        self.first = first
        self.last = last
        self.raw = raw

    @property
    def size_bytes(self) -> int:
        """What it costs to keep it."""
        return len(self.raw) + OVERHEAD_BYTES


class Unacknowledged:
    """Frames in the order of their sequences.

    Attributes:
        size_bytes: what they cost.
        events: how many events in them are not acknowledged.
    """

    def __init__(self) -> None:
        self._frames: deque[Frame] = deque()
        self._acknowledged_to = 0
        self.size_bytes = 0
        self.events = 0

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames)

    def __len__(self) -> int:
        return len(self._frames)

    def keep(self, frame: Frame) -> None:
        """Keep a frame that is about to be sent."""
        self._frames.append(frame)
        self.size_bytes += frame.size_bytes
        self.events += frame.last - frame.first + 1

    def acknowledge(self, sequence: int) -> int:
        """Everything up to a sequence is durable or refused.

        Returns:
            How many events that is more than before. Numbers that were lost are no events, and are not counted.
        """
        newly = 0
        while self._frames and self._frames[0].last <= sequence:
            frame = self._frames.popleft()
            self.size_bytes -= frame.size_bytes
            newly += self._count(frame, frame.last)
        if self._frames:
            newly += self._count(self._frames[0], sequence)
        self._acknowledged_to = max(self._acknowledged_to, sequence)
        self.events -= newly
        return newly

    def _count(self, frame: Frame, sequence: int) -> int:
        return max(0, sequence - max(frame.first - 1, self._acknowledged_to))

    def resume(self, next_sequence: int) -> tuple[int, int]:
        """The collector goes on at a sequence: let go of what it has, and cut what it has in part.

        Returns:
            How many events it has beyond those that it had acknowledged; and how many numbers it had acknowledged and goes back
            behind although nobody has their events any more.
        """
        before = self._acknowledged_to
        newly = self.acknowledge(next_sequence - 1)
        missing = min(before, self._frames[0].first - 1 if self._frames else before) - next_sequence + 1
        if self._frames and self._frames[0].first < next_sequence:
            frame = self._frames[0]
            count, skipped = frame.last - frame.first + 1, next_sequence - frame.first
            self._frames[0] = Frame(next_sequence, frame.last, _codec.without_first(frame.raw, frame.first, count, skipped))
            self.size_bytes += self._frames[0].size_bytes - frame.size_bytes
        return newly, max(0, missing)

    def let_go(self) -> None:
        """Nobody will ask for them: the memory is the host's again. How many events were in them is kept."""
        self._frames.clear()
        self.size_bytes = 0
