"""The replay tool against made-up traces: it must find what is equal, and what is not."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import orjson
import pytest

from tests.process.daemon import running
from tests.replay.replay import differences, mapped_id, replay, send

pytestmark = pytest.mark.process

Span = namedtuple("Span", "trace_id span_id parent_id name start_ns end_ns attributes status")

T0 = 1_700_000_000_000_000_000


def trace() -> list[Any]:
    """Orphans, repeated ids, an end before its start, none at all, and values of every kind."""
    values = {
        "text": "ünï\0\x1b[31m", "int": -5, "big": 1 << 62, "float": 1.0, "bool": True, "none": None,
        "list": [1, "two", [3.5, None]], "map": {"a": {"b": [True]}}, "empty": "",
    }  # fmt: skip
    return [
        Span("t" * 7, "root", None, "invoke_agent", T0, T0 + 9, values, "ok"),
        Span("t" * 7, "00000000000000ab", "root", "chat", T0 + 1, T0 + 2, {"n": 1}, "unset"),
        Span("t" * 7, "00000000000000ab", "root", "chat again", T0 + 3, T0 + 2, {}, "error"),
        Span("t" * 7, "orphan", "nobody", "execute_tool", T0 + 4, None, {"x": "y"}, "unset"),
        Span("t" * 7, "late", "00000000000000ab", "child", T0, T0 + 1, {}, "ok"),
    ]


def test_every_span_of_a_trace_comes_back_equal() -> None:
    with running() as daemon:
        assert replay([("made up", trace())], daemon) == (5, [])


def test_a_difference_in_any_field_is_found() -> None:
    with running() as daemon:
        path = send(str(daemon.socket), "made up", trace())
        with open(path, "rb") as file:
            document = orjson.loads(file.read())
        for changed in (
            {"name": "other"}, {"start_ns": T0 + 77}, {"end_ns": T0 + 77}, {"status": "error"}, {"parent_id": "else"},
            {"span_id": "else"}, {"attributes": {"n": 1.0}}, {"trace_id": "else"},
        ):  # fmt: skip
            spans = trace()
            spans[1] = spans[1]._replace(**changed)
            assert differences(spans, document), changed
        assert not differences(trace(), document)


def test_ids_that_have_no_room_are_mapped_the_same_way_each_time() -> None:
    assert mapped_id("00000000000000AB", 8) == "00000000000000ab"
    assert mapped_id("root", 8) == mapped_id("root", 8) != mapped_id("Root", 8)
    assert mapped_id("0" * 16, 8) != "0" * 16
