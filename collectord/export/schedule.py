"""When the running trace file is due: soon after quiet, and paid for by growth under a stream (design rule 11).

Pure: times are seconds of any one clock, given by the caller. docs/decisions/0006 argues the numbers.

Rewriting a document for every event costs the square of its size. So an export that comes while events keep coming must be
paid for: all running exports together may cost twice the size of the document. One that comes after quiet is owed.
"""

from __future__ import annotations

from typing import Final

from collectord.limits import (
    EXPORT_QUIET_MIN_S,
    EXPORT_RATE_BYTES_PER_S,
    EXPORT_STALE_MAX_S,
    EXPORT_STALE_RATE_BYTES_PER_S,
)

_RATIO_AT_FIRST: Final = 2.0
"""Bytes of document for one of journal, until a real export says better."""


class ExportSchedule:
    """One run's."""

    __slots__ = ("_dirty_since", "_exported_bytes", "_journal_bytes", "_last_event", "_ratio", "_spent")

    def __init__(self) -> None:
        self._journal_bytes = 0
        self._exported_bytes = 0
        self._ratio = _RATIO_AT_FIRST
        self._spent = 0.0
        self._dirty_since: float | None = None
        self._last_event = 0.0

    def stored(self, now: float, size_bytes: int) -> None:
        """Events of that many journal bytes were stored."""
        self._journal_bytes += size_bytes
        self._last_event = now
        if self._dirty_since is None:
            self._dirty_since = now

    def started(self) -> None:
        """An export of everything stored so far was started."""
        self._exported_bytes = self._journal_bytes
        self._dirty_since = None

    def failed(self, now: float) -> None:
        """It came to nothing: it is still owed."""
        if self._dirty_since is None:
            self._dirty_since = now
            self._last_event = now

    def written(self, size_bytes: int) -> None:
        """It was written, and is that long."""
        self._spent += size_bytes
        if self._exported_bytes:
            self._ratio = size_bytes / self._exported_bytes

    @property
    def size_bytes(self) -> float:
        """How long the document would be now, about."""
        return self._journal_bytes * self._ratio

    def due(self) -> float | None:
        """When the next export is due; None while there is nothing to show."""
        if self._dirty_since is None:
            return None
        size = self.size_bytes
        within = max(EXPORT_QUIET_MIN_S, size / EXPORT_RATE_BYTES_PER_S)
        if self._spent <= size:
            return self._dirty_since + within
        stale = max(EXPORT_STALE_MAX_S, size / EXPORT_STALE_RATE_BYTES_PER_S)
        return min(self._last_event + within, self._dirty_since + stale)
