"""How much is kept of what people and programs write about an end: messages, stacks, reasons.

Pure. Events are stored exactly, in the journal alone; the text of a report is held in memory as well, repeated in answers and
shown in `status`, so it has a limit: its head and its tail are kept, where the cause and the place mostly stand.
"""

from __future__ import annotations

from typing import Final

from attrs import evolve

from collectord.limits import REPORT_TEXT_MAX_BYTES
from collectord.model import Attributes
from collectord.wire.messages import Cancel, Crash, Detach, End, Request

_HALF: Final = REPORT_TEXT_MAX_BYTES // 2
_UTF8_WIDTH_MAX: Final = 4


def within_limits(request: Request) -> Request:
    """A request with its report cut to what is kept; most requests come back as they are."""
    match request:
        case End():
            return evolve(request, message=_kept(request.message), exception=_kept_exception(request.exception))
        case Crash():
            return evolve(request, reason=kept(request.reason), exception=_kept_exception(request.exception))
        case Cancel():
            return evolve(request, reason=kept(request.reason))
        case Detach():
            return evolve(request, error=_kept_exception(request.error))
        case _:
            return request


def kept(text: str) -> str:
    """A text, or its head and tail around a note of how many bytes are left out."""
    if len(text) <= REPORT_TEXT_MAX_BYTES // _UTF8_WIDTH_MAX:
        return text
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) <= REPORT_TEXT_MAX_BYTES:
        return text
    head, tail = _border(raw, _HALF), _border(raw, len(raw) - _HALF)
    left_out = f"\n… {tail - head} bytes left out …\n"
    return raw[:head].decode("utf-8", "surrogatepass") + left_out + raw[tail:].decode("utf-8", "surrogatepass")


def _border(raw: bytes, offset: int) -> int:
    """Where a character begins, at ``offset`` or before."""
    while raw[offset] & 0xC0 == 0x80:
        offset -= 1
    return offset


def _kept(text: str | None) -> str | None:
    return None if text is None else kept(text)


def _kept_exception(exception: Attributes | None) -> Attributes | None:
    return None if exception is None else {name: _kept(text) for name, text in exception.items()}
