"""Unix nanoseconds as people and files read them. Pure: no clock is looked at here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_SECOND_NS: Final = 1_000_000_000
_LAST_SECOND: Final = 253_402_300_799  # the end of the year 9999, which RFC 3339 cannot pass


def rfc3339(at_ns: int) -> str:
    """``2026-01-31T23:59:59.123456789Z``; a time past the year 9999 is shown as its last nanosecond."""
    seconds, rest = divmod(at_ns, _SECOND_NS)
    if seconds > _LAST_SECOND:
        seconds, rest = _LAST_SECOND, _SECOND_NS - 1
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
