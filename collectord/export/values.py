"""Any value that was traced, as OTLP/JSON writes it, and as plain JSON does.

Pure. Values are kept exactly where the form has room for them. Where it has none, the value takes the nearest form that all
readers accept, and a sibling attribute ``collectord.encoded.<key>`` says what it was, in one word or several:

=============  ==========================================================================
``int``        an integer beyond 64 bits, as decimal text
``json``       containers that nest deeper than OTLP's readers follow, as JSON text
``surrogates`` text that is not Unicode, with U+FFFD for each lone surrogate
``bytes``      in plain JSON alone: bytes, as base64
``double``     in plain JSON alone: a number that is not finite, as ``NaN`` or ``Infinity``
=============  ==========================================================================

One value that a reader cannot take makes the whole document unreadable to it: hence all this. A mark that the client itself
set under such a key stands, and ours is left out.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from math import isfinite
from typing import Any, Final

import orjson

from collectord.limits import OTLP_DEPTH_MAX
from collectord.model import Attributes

INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1
ENCODED_PREFIX: Final = "collectord.encoded."

OtlpValue = dict[str, Any]


# ---------------------------------------------------------------- OTLP


def any_value(value: Any, levels: int = OTLP_DEPTH_MAX) -> OtlpValue:
    """The ``AnyValue`` of a value, with containers in containers ``levels`` deep. Lone surrogates are left in place."""
    kind = type(value)
    if kind is str:
        return {"stringValue": value}
    if kind is bool:
        return {"boolValue": value}
    if kind is int:
        if INT64_MIN <= value <= INT64_MAX:
            return {"intValue": str(value)}
        return {"stringValue": str(value)}
    if kind is float:
        return {"doubleValue": value if isfinite(value) else _non_finite(value)}
    if value is None:
        return {}
    if kind is bytes:
        return {"bytesValue": _base64(value)}
    if not levels:
        return {"stringValue": orjson.dumps(plain(value)).decode()}
    if kind is list:
        return {"arrayValue": {"values": [any_value(item, levels - 1) for item in value]}}
    return {"kvlistValue": {"values": [{"key": key, "value": any_value(item, levels - 1)} for key, item in value.items()]}}


def attribute_list(attributes: Attributes) -> list[OtlpValue]:
    """A map of attributes as a list of keys and values, each key once, with what had to be encoded marked.

    The hottest loop of the export, and written out for that: text and ordinary integers are most of what is traced.
    """
    listed: list[OtlpValue] = []
    marks: Attributes | None = None
    for key, value in attributes.items():
        kind = type(value)
        if kind is str:
            listed.append({"key": key, "value": {"stringValue": value}})
        elif kind is int and INT64_MIN <= value <= INT64_MAX:
            listed.append({"key": key, "value": {"intValue": str(value)}})
        else:
            listed.append({"key": key, "value": any_value(value)})
            if kind is list or kind is dict or kind is int:
                mark = mark_of(value)
                if mark is not None and ENCODED_PREFIX + key not in attributes:
                    marks = marks or {}
                    marks[ENCODED_PREFIX + key] = mark
    if marks:
        listed += [{"key": key, "value": {"stringValue": mark}} for key, mark in marks.items()]
    return listed


def mark_of(value: Any) -> str | None:
    """What of a value ``any_value`` had to encode, as the mark says it; text is not looked at."""
    found: set[str] = set()
    _collect(value, OTLP_DEPTH_MAX, found)
    return " ".join(sorted(found)) if found else None


def _collect(value: Any, levels: int, found: set[str]) -> None:
    kind = type(value)
    if kind is int:
        if not INT64_MIN <= value <= INT64_MAX:
            found.add("int")
    elif kind is list or kind is dict:
        if not levels:
            found.add("json")
            _collect_plain(value, found)
            return
        for item in value if kind is list else value.values():
            _collect(item, levels - 1, found)


def _non_finite(value: float) -> str:
    if value != value:  # noqa: PLR0124 — the one value that is not itself
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _base64(value: bytes) -> str:
    return b64encode(value).decode("ascii")


# ---------------------------------------------------------------- plain JSON


def plain(value: Any) -> Any:
    """A value for plain JSON: the state of the spaces, say. Lone surrogates are left in place."""
    kind = type(value)
    if kind is str:
        return value
    if kind is int:
        return value if INT64_MIN <= value <= INT64_MAX else str(value)
    if kind is float:
        return value if isfinite(value) else _non_finite(value)
    if kind is bytes:
        return _base64(value)
    if kind is list:
        return [plain(item) for item in value]
    if kind is dict:
        return {key: plain(item) for key, item in value.items()}
    return value


def plain_attributes(attributes: Attributes) -> Attributes:
    """A map for plain JSON, its text cleaned, with what had to be encoded marked."""
    if not _is_sound_text(attributes):
        attributes = clean_attributes(attributes, plain_mark_of)
    told: Attributes = {key: plain(value) for key, value in attributes.items()}
    for key, value in attributes.items():
        mark = plain_mark_of(value)
        if mark is not None:
            told.setdefault(ENCODED_PREFIX + key, mark)
    return told


def plain_mark_of(value: Any) -> str | None:
    """What of a value ``plain`` had to encode, as the mark says it; text is not looked at."""
    found: set[str] = set()
    _collect_plain(value, found)
    return " ".join(sorted(found)) if found else None


def _collect_plain(value: Any, found: set[str]) -> None:
    kind = type(value)
    if kind is int:
        if not INT64_MIN <= value <= INT64_MAX:
            found.add("int")
    elif kind is float:
        if not isfinite(value):
            found.add("double")
    elif kind is bytes:
        found.add("bytes")
    elif kind is list or kind is dict:
        for item in value if kind is list else value.values():
            _collect_plain(item, found)


# ---------------------------------------------------------------- text that is not Unicode


def clean_text(text: str) -> str:
    """A text with U+FFFD for each lone surrogate."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if _is_broken(text) else text


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _is_sound_text(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return not _is_broken(value)
    if kind is list:
        return all(map(_is_sound_text, value))
    if kind is dict:
        return all(map(_is_sound_text, value)) and all(map(_is_sound_text, value.values()))
    return True


def clean(value: Any) -> Any:
    """A value of whatever depth, with all its text cleaned."""
    kind = type(value)
    if kind is str:
        return clean_text(value)
    if kind is list:
        return [clean(item) for item in value]
    if kind is dict:
        names = clean_names(value)
        return {names[key]: clean(item) for key, item in value.items()}
    return value


def clean_names(keys: Attributes) -> dict[str, str]:
    """For each key of a map its cleaned form. None is lost: two that become the same are told apart by a number."""
    names: dict[str, str] = {}
    taken = set(keys)
    for key in keys:
        name = cleaned = clean_text(key)
        number = 2
        while name != key and name in taken:
            name, number = f"{cleaned}#{number}", number + 1
        taken.add(name)
        names[key] = name
    return names


def clean_attributes(attributes: Attributes, mark: Callable[[Any], str | None] = mark_of) -> Attributes:
    """Attributes with all text cleaned, and each one where that changed anything marked ``surrogates``.

    Args:
        attributes: left as they are.
        mark: what else is to be said of such a value.
    """
    names = clean_names(attributes)
    cleaned: Attributes = {names[key]: clean(value) for key, value in attributes.items()}
    for key, value in attributes.items():
        name = names[key]
        if name != key or not _is_sound_text(value):
            more = mark(value)
            cleaned.setdefault(ENCODED_PREFIX + name, "surrogates" if more is None else f"{more} surrogates")
    return cleaned
