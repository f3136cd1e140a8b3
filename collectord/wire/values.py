"""What a value may be: the exact msgpack types, how deep, how many, and text that is text.

The daemon keeps values exactly and never converts them; what is not among them is refused with a code of ``errors``.
"""

from __future__ import annotations

from typing import Any, Final

from collectord.limits import ATTRIBUTES_MAX, VALUE_DEPTH_MAX

SCALARS: Final = frozenset((str, int, float, bool, bytes, type(None)))
TIME_MAX: Final = (1 << 64) - 1


def fault_of_value(value: Any) -> str | None:
    """The code that says what is wrong with a value, or None where nothing is.

    Iterative on purpose: a value that nests without end must not end our stack.
    """
    level = [value]
    for _ in range(VALUE_DEPTH_MAX):
        deeper: list[Any] = []
        for item in level:
            kind = type(item)
            if kind in SCALARS:
                continue
            if kind is list:
                deeper.extend(item)
            elif kind is dict:
                for key in item:
                    if type(key) is not str:
                        return "value-invalid"
                deeper.extend(item.values())
            else:
                return "value-invalid"
        if not deeper:
            return None
        level = deeper
    return "value-too-deep"


def fault_of_attributes(attributes: dict[Any, Any]) -> str | None:
    """The code that says what is wrong with a map of attributes, or None where nothing is."""
    if len(attributes) > ATTRIBUTES_MAX:
        return "attributes-too-many"
    for key, value in attributes.items():
        if type(key) is not str:
            return "value-invalid"
        if type(value) not in SCALARS:
            fault = fault_of_value(value)
            if fault is not None:
                return fault
    return None


def is_time(value: Any) -> bool:
    """Whether a value is Unix nanoseconds that fit OTLP's uint64."""
    return type(value) is int and 0 <= value <= TIME_MAX


def is_id(value: Any, size: int) -> bool:
    """Whether a value is a span id (8 bytes) or trace id (16) that is not all zero."""
    return type(value) is bytes and len(value) == size and value.count(0) != size
