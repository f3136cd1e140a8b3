"""Any value that was traced, as OTLP/JSON writes it.

Pure. Values are kept exactly where OTLP has a form for them. Where it has none (an integer beyond 64 bits, a lone surrogate) the
value takes the nearest form that its readers accept, and a sibling attribute ``collectord.encoded.<key>`` says what it was:
one value that a reader cannot take makes the whole document unreadable to it.
"""

from __future__ import annotations

from base64 import b64encode
from math import isfinite
from typing import Any, Final

from collectord.model import Attributes

INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1
ENCODED_PREFIX: Final = "collectord.encoded."
_MAY_BE_BIG: Final = frozenset((int, list, dict))

OtlpValue = dict[str, Any]


def any_value(value: Any) -> OtlpValue:
    """The ``AnyValue`` of a value. Lone surrogates are left in place: see ``clean``."""
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
        return {"bytesValue": b64encode(value).decode("ascii")}
    if kind is list:
        return {"arrayValue": {"values": [any_value(item) for item in value]}}
    return {"kvlistValue": {"values": [{"key": key, "value": any_value(item)} for key, item in value.items()]}}


def _non_finite(value: float) -> str:
    if value != value:  # noqa: PLR0124 — the one value that is not itself
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def attribute_list(attributes: Attributes) -> list[OtlpValue]:
    """A map of attributes as a list of keys and values, each key once, with what had to be encoded marked."""
    listed = [{"key": key, "value": any_value(value)} for key, value in attributes.items()]
    for key, value in attributes.items():
        marked = type(value) in _MAY_BE_BIG and _holds_big_int(value)
        if marked and (mark := ENCODED_PREFIX + key) not in attributes:
            listed.append({"key": mark, "value": {"stringValue": "int"}})
    return listed


def _holds_big_int(value: Any) -> bool:
    kind = type(value)
    if kind is int:
        return not INT64_MIN <= value <= INT64_MAX
    if kind is list:
        return any(_holds_big_int(item) for item in value)
    if kind is dict:
        return any(_holds_big_int(item) for item in value.values())
    return False


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


def clean(value: Any) -> Any:
    """A value of whatever depth, with all its text cleaned."""
    kind = type(value)
    if kind is str:
        return clean_text(value)
    if kind is list:
        return [clean(item) for item in value]
    if kind is dict:
        return {clean_text(key): clean(item) for key, item in value.items()}
    return value


def clean_attributes(attributes: Attributes) -> Attributes:
    """Attributes with all text cleaned, and each one that had to be marked ``surrogates``.

    Two keys that become the same are told apart by a number behind the later one.
    """
    cleaned: Attributes = {}
    for key, value in attributes.items():
        key_cleaned, value_cleaned = clean_text(key), clean(value)
        name, number = key_cleaned, 2
        while name in cleaned:
            name, number = f"{key_cleaned}#{number}", number + 1
        cleaned[name] = value_cleaned
        if key_cleaned != key or (value_cleaned != value and value == value):  # noqa: PLR0124 — NaN is no text
            cleaned.setdefault(ENCODED_PREFIX + name, "surrogates")
    return cleaned
