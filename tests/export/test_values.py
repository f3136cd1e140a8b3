"""Every value that can be traced comes back from the file, exactly or marked, and no value makes the file unreadable."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collectord.limits import OTLP_DEPTH_MAX, VALUE_DEPTH_MAX
from tests.export.journals import SPAN, T0, JournalInMemory, end, facts, start
from tests.export.otlp import attributes_of, logs_of, spans_of, value_of

PREFIX = "collectord.encoded."
HIGH, LOW, CLEANED = "\ud800", "\udfff", "\ufffd"
TEXT = st.text(st.characters(exclude_categories=()), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | TEXT | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ATTRIBUTES = st.dictionaries(TEXT.filter(lambda key: not key.startswith(PREFIX)), VALUES, max_size=5)


def nested(levels: int, kind: str, inmost: Any = 1) -> Any:
    """Containers in containers."""
    value = inmost
    for _ in range(levels):
        value = [value] if kind == "list" else {"k": value}
    return value


# ---------------------------------------------------------------- what a reader does with a mark


class Expected:
    """What a value must come back as, and which marks must stand beside it: written from docs/trace-format.md alone."""

    def __init__(self, value: Any, is_plain: bool = False) -> None:
        self.marks: set[str] = set()
        self._is_plain = is_plain
        self.value = self._of(value, OTLP_DEPTH_MAX)

    def _of(self, value: Any, levels: int) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, float) and self._is_plain and not math.isfinite(value):
            self.marks.add("double")
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        if isinstance(value, bytes) and self._is_plain:
            self.marks.add("bytes")
            return base64.b64encode(value).decode()
        if type(value) is int and value >= 1 << 63:
            self.marks.add("int")
            return str(value)
        if isinstance(value, list | dict) and not levels and not self._is_plain:
            inner = Expected(value, is_plain=True)
            self.marks |= {"json", *inner.marks}
            return InJson(inner.value)
        if isinstance(value, list):
            return [self._of(item, levels - 1) for item in value]
        if isinstance(value, dict):
            return Pairs([(self._text(key), self._of(item, levels - 1)) for key, item in value.items()])
        return value

    def _text(self, text: str) -> str:
        if not any("\ud800" <= character <= "\udfff" for character in text):
            return text
        self.marks.add("surrogates")
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)


class Pairs(list[tuple[str, Any]]):
    """A map, with keys as they are before those that became the same were told apart."""


class InJson:
    """A value that comes as JSON text."""

    def __init__(self, value: Any) -> None:
        self.value = value


def same(found: Any, expected: Any) -> bool:
    """Whether a value came back as it must; NaN is itself, and 1, 1.0 and True are three values."""
    if isinstance(expected, InJson):
        return same(json.loads(found), expected.value)
    if isinstance(expected, Pairs):
        pairs = zip(found.items(), expected, strict=True)
        return all(is_key(name, key) and same(value, other) for (name, value), (key, other) in pairs)
    if type(found) is not type(expected):
        return False
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float):
        return math.isnan(expected) if math.isnan(found) else found == expected
    return bool(found == expected)


def is_key(name: str, key: str) -> bool:
    """Whether a key is the cleaned one, or that with a number that tells it from another."""
    return name == key or ("\ufffd" in key and name.startswith(f"{key}#") and name[len(key) + 1 :].isdigit())


def check_attributes(found: dict[str, Any], traced: dict[str, Any], is_plain: bool = False) -> None:
    """Compare attributes of a file with what was traced; the marks stand behind them."""
    entries = list(found.items())
    for (name, value), (key, original) in zip(entries, traced.items(), strict=False):
        expected, name_expected = Expected(original, is_plain), Expected(key)
        assert is_key(name, name_expected.value)
        assert same(value, expected.value), (key, original, value)
        marks = expected.marks | name_expected.marks
        assert set(found.get(PREFIX + name, "").split()) == marks
    assert len(entries) >= len(traced)
    assert all(name.startswith(PREFIX) for name, _ in entries[len(traced) :])


# ---------------------------------------------------------------- the promises


@settings(max_examples=70, deadline=None)
@given(ATTRIBUTES, ATTRIBUTES, VALUES)
@example({HIGH: 1, LOW: 2, CLEANED: 3}, {"a": {HIGH: 1, LOW: 2}}, [1 << 63, HIGH])
def test_attributes_events_links_and_logs_come_back_exactly_or_marked(
    one: dict[str, Any], other: dict[str, Any], body: Any
) -> None:
    journal = JournalInMemory()
    journal.events(
        start(attributes=dict(one), links=[[bytes(range(1, 17)), SPAN, other]]),
        [3, T0, 1, "event", other],
        end(1),
        [5, T0, 9, body, other, None],
    )
    document = journal.document()
    (span,), (log,) = spans_of(document), logs_of(document)
    check_attributes(attributes_of(span), one)
    check_attributes(attributes_of(span["events"][0]), other)
    check_attributes(attributes_of(span["links"][0]), other)
    expected = Expected(body)
    assert same(value_of(log["body"]), expected.value)
    found = attributes_of(log)
    assert set(found.pop(f"{PREFIX}log.body", "").split()) == expected.marks
    check_attributes(found, other)


@settings(max_examples=70, deadline=None)
@given(ATTRIBUTES, st.dictionaries(TEXT, ATTRIBUTES, max_size=3))
@example({HIGH: [float("nan"), b"x"], "n": float("-inf"), "b": b"\0"}, {HIGH: {"a": 1}, LOW: {"b": 1 << 63}})
def test_session_attributes_and_spaces_come_back_exactly_or_marked(
    attributes: dict[str, Any], spaces: dict[str, dict[str, Any]]
) -> None:
    journal = JournalInMemory(facts(attributes=attributes))
    journal.events([6, T0, {}], *([7, T0, name, key, value] for name, space in spaces.items() for key, value in space.items()))
    document = journal.document()
    check_attributes(document["session"]["attributes"], attributes, is_plain=True)
    wanted = [(Expected(name).value, space) for name, space in spaces.items() if space]
    for (name, found), (key, space) in zip(document["spaces"].items(), wanted, strict=True):
        assert is_key(name, key)
        check_attributes(found, space, is_plain=True)


@pytest.mark.parametrize("kind", ["list", "map"])
@pytest.mark.parametrize("levels", [OTLP_DEPTH_MAX - 1, OTLP_DEPTH_MAX, OTLP_DEPTH_MAX + 1, VALUE_DEPTH_MAX - 1])
@pytest.mark.parametrize("inmost", [1, "\ud800", 1 << 63, float("nan")], ids=["plain", "surrogate", "int", "nan"])
def test_a_value_as_deep_as_the_wire_lets_it_be_is_read_by_both_parsers_wherever_it_stands(
    kind: str, levels: int, inmost: Any
) -> None:
    value = nested(levels, kind, inmost)
    traced = {"deep": value}
    journal = JournalInMemory(facts(attributes=traced, resource=traced))
    journal.events(
        start(attributes=dict(traced), links=[[bytes(range(1, 17)), SPAN, traced]]),
        [3, T0, 1, "event", traced],
        end(1),
        [5, T0, 9, value, {}, None],
        [7, T0, "space", "deep", value],
    )
    document = journal.document()
    (span,), (log,) = spans_of(document), logs_of(document)
    for item in (span, span["events"][0], span["links"][0]):
        check_attributes(attributes_of(item), traced)
    assert same(value_of(log["body"]), Expected(value).value)
    check_attributes(document["spaces"]["space"], traced, is_plain=True)
    check_attributes(document["session"]["attributes"], traced, is_plain=True)


def test_a_mark_that_a_client_sets_itself_stands_and_no_key_comes_twice() -> None:
    for value in (1 << 63, "\ud800", nested(40, "map")):
        journal = JournalInMemory()
        journal.events(start(attributes={f"{PREFIX}a": "mine", "a": value, f"{PREFIX}b": 2}))
        (span,) = spans_of(journal.document())  # which would fail if a key came twice
        assert attributes_of(span)[f"{PREFIX}a"] == "mine"


def test_two_keys_that_become_the_same_are_both_kept_however_late_the_second_comes() -> None:
    journal = JournalInMemory()
    journal.events(start(attributes={HIGH: 1, CLEANED: 2}), [2, T0, 1, {"\ud801": 3}, None], end(1, attributes={LOW: 4}))
    (span,) = spans_of(journal.document())
    found = attributes_of(span)
    assert [found[key] for key in ("\ufffd", "\ufffd#2", "\ufffd#3", "\ufffd#4")] == [2, 1, 3, 4]
    assert f"{PREFIX}\ufffd" not in found, "the key that was sound is not marked"


def test_the_name_of_an_event_that_is_no_unicode_is_marked() -> None:
    journal = JournalInMemory()
    journal.events(start(), [3, T0, 1, "e\ud800", {}], [3, T0, 1, "fine", {}])
    (span,) = spans_of(journal.document())
    assert [attributes_of(event) for event in span["events"]] == [{f"{PREFIX}event.name": "surrogates"}, {}]


def test_an_id_that_is_no_unicode_is_in_the_file_as_it_is() -> None:
    session_id = "a\ud800b\udfff"
    session = JournalInMemory(facts(session_id)).document()["session"]
    assert session["id"] == "a\ufffdb\ufffd"
    assert base64.b64decode(session["id_bytes"]).decode("utf-8", "surrogatepass") == session_id
    assert "id_bytes" not in JournalInMemory(facts("fine")).document()["session"]


def test_text_that_is_no_unicode_is_cleaned_in_every_part_of_the_session() -> None:
    broken = "\ud800"
    journal = JournalInMemory(facts(command=broken, host=broken, resource={"service.name": broken}))
    journal.events([7, T0, broken, broken, broken])
    raw = journal.render()
    assert orjson.loads(raw)["session"]["owner"]["command"] == "\ufffd"
    assert "\ufffd" in orjson.loads(raw)["spaces"]
