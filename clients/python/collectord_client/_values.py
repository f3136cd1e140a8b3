"""Any Python value as one that the collector takes. What had to be changed is marked beside it; nothing here raises.

The mark is a sibling attribute ``collectord.encoded.<key>``: ``int`` for an integer beyond 64 bits written in decimal, ``repr``
for an object of an unknown kind, ``cut`` for a text that was too long.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from collectord_client._limits import ATTRIBUTES_MAX, REPR_MAX, VALUE_DEPTH_MAX, VALUE_ITEMS_MAX

ENCODED_PREFIX: Final = "collectord.encoded."
_PLAIN: Final = frozenset((str, bool, float, bytes, type(None)))


def fit_attributes(attributes: Mapping[Any, Any] | None, longest: int | None = None) -> dict[str, Any]:
    """A map of attributes that the collector takes, with marks beside what was changed.

    Args:
        attributes: any mapping.
        longest: cut texts longer than this; None keeps them whole.
    """
    if not attributes:
        return {}
    fitted: dict[str, Any] = {}
    marks: dict[str, str] = {}
    left_out = 0
    try:
        items = list(attributes.items())
    except Exception:  # noqa: BLE001 — whatever a host's mapping does, it is not allowed to end the host
        return {"collectord.attributes": _safe_repr(attributes), f"{ENCODED_PREFIX}collectord.attributes": "repr"}
    for key, value in items:
        if len(fitted) >= ATTRIBUTES_MAX // 2:
            left_out += 1
            continue
        name = key if type(key) is str else as_text(key)
        kind = type(value)
        short = longest is None or kind not in (str, bytes) or len(value) <= longest
        if (kind in _PLAIN and short) or (kind is int and -(1 << 63) <= value < 1 << 63):
            fitted[name] = value
        else:
            seen: set[str] = set()
            fitted[name] = fit(value, seen, longest)
            if seen:
                marks[ENCODED_PREFIX + name] = ",".join(sorted(seen))
    for mark, word in marks.items():
        fitted.setdefault(mark, word)
    if left_out:
        fitted["collectord.attributes.left_out"] = left_out
    return fitted


def fit(value: Any, marks: set[str], longest: int | None = None, depth: int = 0, room: list[int] | None = None) -> Any:
    """One value of any kind; what was done to it is added to ``marks``, and ``room`` holds how many items it may still have."""
    if room is None:
        room = [VALUE_ITEMS_MAX]
    kind = type(value)
    if kind in (str, bytes):
        return value if longest is None or len(value) <= longest else _cut(value, marks, longest)
    if kind in _PLAIN:
        return value
    if kind is int:
        if -(1 << 63) <= value < 1 << 64:
            return value
        marks.add("int")
        return _decimal(value)
    if depth >= VALUE_DEPTH_MAX:
        marks.add("repr")
        return _safe_repr(value)
    try:
        return _fit_other(value, marks, longest, depth, room)
    except Exception:  # noqa: BLE001 — as above: a value's own code may do anything
        marks.add("repr")
        return _safe_repr(value)


def _fit_other(value: Any, marks: set[str], longest: int | None, depth: int, room: list[int]) -> Any:
    """Containers, subclasses of plain types, and everything else."""
    if isinstance(value, Mapping):
        return {
            as_text(key): fit(item, marks, longest, depth + 1, room) for key, item in _taken(list(value.items()), marks, room)
        }
    if isinstance(value, list | tuple):
        return [fit(item, marks, longest, depth + 1, room) for item in _taken(list(value), marks, room)]
    if isinstance(value, AbstractSet):
        return sorted((fit(item, marks, longest, depth + 1, room) for item in _taken(list(value), marks, room)), key=repr)
    for plain in (bool, int, float, str):
        if isinstance(value, plain):
            return fit(plain(value), marks, longest, depth)
    if isinstance(value, bytes | bytearray | memoryview):
        return fit(bytes(value), marks, longest, depth)
    marks.add("repr")
    return _safe_repr(value)


def _taken(items: list[Any], marks: set[str], room: list[int]) -> list[Any]:
    """As many of the items as there is room for."""
    kept = items[: room[0]]
    room[0] -= len(kept)
    if len(kept) < len(items):
        marks.add("cut")
    return kept


def _decimal(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # more digits than the interpreter is willing to write
        return hex(value)


def as_text(key: Any) -> str:
    """Any value as text; never raises."""
    if type(key) is str:
        return key
    try:
        return str(key)
    except Exception:  # noqa: BLE001 — as above
        return _safe_repr(key)


def _safe_repr(value: Any) -> str:
    try:
        if isinstance(value, list | tuple | Mapping | AbstractSet):
            return f"<{type(value).__name__} of {len(value)}>"  # it may hold anything any number of times, itself too
        text = repr(value)
    except Exception as error:  # noqa: BLE001 — as above
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= REPR_MAX else f"{text[:REPR_MAX]}… ({len(text)} characters)"


def _cut(value: str | bytes, marks: set[str], longest: int) -> str | bytes:
    marks.add("cut")
    half = longest // 2
    if isinstance(value, bytes):
        return value[:half] + f"…{len(value) - 2 * half} bytes left out…".encode() + value[-half:]
    return f"{value[:half]}…{len(value) - 2 * half} characters left out…{value[-half:]}"
