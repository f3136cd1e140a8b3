"""A trace file as a tree."""

from __future__ import annotations

import time
import unicodedata
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from collectord.cli.tree import tree_lines
from tests.cli.calm import calmly

BEGIN_NS = 1_767_225_600_000_000_000


def attribute(key: str, value: Any) -> dict[str, Any]:
    kind = {str: "stringValue", bool: "boolValue", int: "intValue"}[type(value)]
    return {"key": key, "value": {kind: str(value) if kind == "intValue" else value}}


def span(
    span_id: str, name: str, parent: str | None, start_ms: int, end_ms: int | None, *attributes: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """A span as the trace file holds it."""
    found: dict[str, Any] = {
        "traceId": "7" * 32,
        "spanId": span_id,
        "name": name,
        "kind": 1,
        "attributes": [*attributes],
        **more,
    }
    found["startTimeUnixNano"] = str(BEGIN_NS + start_ms * 1_000_000)
    if parent is not None:
        found["parentSpanId"] = parent
    if end_ms is None:
        found["attributes"].append(attribute("collectord.span.unfinished", True))
    else:
        found["endTimeUnixNano"] = str(BEGIN_NS + end_ms * 1_000_000)
    return found


def document(*spans: dict[str, Any], **session: Any) -> dict[str, Any]:
    told = {
        "id": "migrator",
        "run": 1,
        "outcome": "completed",
        "opened_at": "2026-01-01T00:00:00.000000000Z",
        "ended_at": "2026-01-01T00:00:03.500000000Z",
        "crash": None,
        "end": None,
        **session,
    }
    return {"session": told, "resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}


def drawn(found: Any, width: int = 100) -> list[str]:
    return [line.plain.rstrip() for line in tree_lines(found, width)]


def test_a_crashed_trace() -> None:
    usage = (attribute("gen_ai.usage.input_tokens", 812), attribute("gen_ai.usage.output_tokens", 92))
    crash = {"reason": "process-died", "signal": "SIGKILL", "exit_code": None}
    assert drawn(
        document(
            span("d", "execute_tool bash", "a", 2900, None),
            span("a", "invoke_agent migrator", None, 0, None),
            span("c", "execute_tool read", "a", 2300, 2800, status={"code": 2, "message": "exit status 1:\n\x1b[31mno"}),
            span("b", "chat", "a", 1, 2201, attribute("gen_ai.request.model", "large-2"), *usage, status={"code": 1}),
            span("e", "inner", "d", 3000, 3001),
            outcome="crashed",
            crash=crash,
        )
    ) == [
        "† crashed after 3.50s  migrator",
        "  its process was killed by SIGKILL  5 spans, 2 unfinished, 1 error",
        "       … ◌ invoke_agent migrator  unfinished",
        "   2.20s ├─ ✓ chat  large-2  812 → 92 tokens",
        "   500ms ├─ ✗ execute_tool read",
        "         │     exit status 1:\\n\\x1b[31mno",
        "       … └─ ◌ execute_tool bash  unfinished",
        "     1ms    └─ • inner",
    ]


def test_a_failed_run_says_with_what() -> None:
    end = {"message": "no such file", "exception": {"type": "FileNotFoundError", "message": "no such file", "stack": None}}
    assert drawn(document(outcome="failed", end=end))[1] == "  FileNotFoundError: no such file  0 spans"


def test_an_error_without_a_message_shows_the_exception() -> None:
    exception = {
        "name": "exception",
        "attributes": [attribute("exception.type", "OSError"), attribute("exception.message", "disk full")],
    }
    found = drawn(document(span("a", "work", None, 0, 1, status={"code": 2}, events=[exception])))
    assert found[-1].strip() == "OSError: disk full"


def test_spans_of_all_resources_are_one_tree() -> None:
    found = document(span("a", "parent", None, 0, 9))
    found["resourceSpans"].append({"scopeSpans": [{"spans": [span("b", "child of another process", "a", 1, 2)]}]})
    assert drawn(found)[-1] == "     1ms └─ • child of another process"


def test_a_span_whose_parent_is_missing_is_shown_and_marked() -> None:
    found = drawn(document(span("a", "orphan", "ffff", 0, 1)))
    assert found[-1] == "     1ms • orphan  (its parent ffff is not in this file)"


def test_a_ring_of_parents_is_shown_once() -> None:
    found = drawn(document(span("a", "one", "b", 0, 1), span("b", "two", "a", 1, 2), span("c", "self", "c", 2, 3)))
    assert found[2:] == [
        "     1ms • one  (its parents form a ring)",
        "     1ms └─ • two",
        "     1ms • self  (its parents form a ring)",
    ]


def test_spans_that_share_an_id_are_all_shown() -> None:
    found = drawn(document(span("a", "first", None, 0, 1), span("a", "second", None, 1, 2), span("b", "child", "a", 1, 2)))
    assert found[2:] == ["     1ms • first", "     1ms └─ • child", "     1ms • second"]


def test_a_span_that_ended_without_a_status_is_not_called_ok() -> None:
    assert "✓" not in "".join(drawn(document(span("a", "x", None, 0, 1), outcome="running")))


def test_deep_traces_stay_on_the_screen_and_say_how_deep_they_are() -> None:
    spans = [span(f"{n:x}", f"level {n}", None if n == 0 else f"{n - 1:x}", n, n + 1) for n in range(3_000)]
    began = time.process_time()
    found = drawn(document(*spans), 60)
    assert time.process_time() - began < 10
    assert len(found) == 3_002
    assert found[-1].endswith("[2999 deep] • level 2999")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
odd_spans = st.lists(
    st.dictionaries(
        st.sampled_from(
            ["spanId", "parentSpanId", "name", "startTimeUnixNano", "endTimeUnixNano", "attributes", "status", "events"]
        ),
        json_values | st.sampled_from(["a", "b", "c"]),
    ),
    max_size=6,
)


@calmly
@given(odd_spans | json_values, st.dictionaries(st.sampled_from([*document()["session"]]), json_values), st.integers(30, 120))
def test_a_damaged_document_loses_no_span_and_harms_no_terminal(spans: Any, session: dict[str, Any], width: int) -> None:
    found = {"session": session, "resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
    lines = tree_lines(found, width)
    assert len(lines) >= 2 + (sum(isinstance(item, dict) for item in spans) if isinstance(spans, list) else 0)
    for line in lines:
        assert line.cell_len <= width
        assert all(unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in line.plain)
