"""Words on a terminal: what agents wrote made harmless, times and sizes in few letters, and cutting to a width.

Pure. Everything that came from an agent or from a file passes ``plain`` before it is shown: a span's name may hold escape
sequences, and a terminal obeys them.
"""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Final

from rich.cells import cell_len

_NEVER_SHOWN: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
"""Controls, invisible formatting (direction overrides among it), surrogates, what nobody assigned, line separators."""

_MARKS_IN_A_ROW_MAX: Final = 3
"""Why: marks are drawn over the letter before them, without end; three are enough for every script in use."""

_LETTERS_PER_CELL: Final = 4
"""Why: letters without width (marks) would let a short line hold megabytes."""

ELLIPSIS: Final = "…"
_SECOND_NS: Final = 1_000_000_000


def plain(text: str) -> str:
    """Text in which nothing is left that a terminal acts on; what cannot be shown is written as Python writes it."""
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    marks = 0
    for letter in text:
        category = unicodedata.category(letter)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if category in _NEVER_SHOWN or marks > _MARKS_IN_A_ROW_MAX:
            shown.append(ascii(letter)[1:-1])
        else:
            shown.append(letter)
    return "".join(shown)


def cut(text: str, width: int) -> str:
    """Harmless text of at most ``width`` cells; what was left out at its end is shown by an ellipsis."""
    if width <= 0:
        return ""
    text = plain(text[: width * _LETTERS_PER_CELL + 1])
    if cell_len(text) <= width and len(text) <= width * _LETTERS_PER_CELL:
        return text
    return _fitting(text, width - 1) + ELLIPSIS


def cut_middle(text: str, width: int) -> str:
    """Harmless text of at most ``width`` cells, shortened in the middle: ids differ at their ends."""
    if width <= 0:
        return ""
    reach = width * _LETTERS_PER_CELL
    if len(text) <= 2 * reach:
        shown = plain(text)
        if cell_len(shown) <= width and len(shown) <= reach:
            return shown
        head = tail = shown
    else:
        head, tail = plain(text[:reach]), plain(text[-reach:])
    room = width - 1
    ending = _fitting(tail[::-1], room // 2)[::-1]
    return _fitting(head, room - cell_len(ending)) + ELLIPSIS + ending


def _fitting(text: str, width: int) -> str:
    """The longest beginning of a text that takes at most ``width`` cells."""
    used = 0
    for index, letter in enumerate(text[: width * _LETTERS_PER_CELL]):
        used += cell_len(letter)
        if used > width:
            return text[:index]
    return text[: width * _LETTERS_PER_CELL]


# ---------------------------------------------------------------- times and sizes


def duration(ns: int) -> str:
    """A duration in at most six letters: ``250µs 12ms 1.25s 42s 3m05s 2h04m 3d04h``. A negative one is shown as ``0s``."""
    if ns <= 0:
        return "0s"
    if ns < 1_000_000:
        return f"{ns // 1_000}µs"
    if ns < _SECOND_NS:
        return f"{ns // 1_000_000}ms"
    seconds = ns // _SECOND_NS
    if seconds < 10:
        return f"{ns / _SECOND_NS:.2f}s"
    return age(ns)


def age(ns: int) -> str:
    """A duration in whole seconds, for what goes on: ``0s 42s 3m05s 2h04m 3d04h``."""
    seconds = max(ns, 0) // _SECOND_NS
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m{seconds:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02d}h" if days < 1_000 else f"{days}d"


def amount(number: int) -> str:
    """A count in at most six letters: ``9999 81.2k 3.4M``."""
    if number < 10_000:
        return str(number)
    value = float(number)
    for unit in ("k", "M", "G", "T", "P"):
        value /= 1_000
        if value < 999.5:
            return f"{value:.1f}{unit}" if value < 99.95 else f"{value:.0f}{unit}"
    return f"{value:.0f}P"


def size(size_bytes: int) -> str:
    """A size: ``512 B``, ``61 MiB``."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1_024:
            return f"{value:.0f} {unit}"
        value /= 1_024
    return f"{value:.0f} TiB"


def counted(number: int, what: str) -> str:
    """``1 span``, ``2 spans``, ``12,345 events``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def moment(text: object) -> int | None:
    """Unix nanoseconds of an RFC 3339 time with up to nine digits, or None where it is none."""
    if type(text) is not str or not text.endswith("Z"):
        return None
    whole, _, digits = text[:-1].partition(".")
    try:
        seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
        return seconds * _SECOND_NS + int((digits or "0").ljust(9, "0")[:9])
    except (ValueError, OverflowError):
        return None
