"""Recorded traces as sessions: each trace through the real client into a real daemon, and every span of its file compared.

The folder brings its own reader (``read_traces.py``, loaded from there); a test brings made-up spans. Ids in the source that
OTLP has no room for (anything but 16 or 32 hex digits) are mapped to the first bytes of their SHA-256, parents alike, so that
orphans stay orphans and repeated ids stay repeated.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import collectord_client as collectord
import orjson

from tests.export.otlp import check_document, value_of
from tests.process.daemon import Daemon, running


class SourceSpan(Protocol):
    """A span as ``read_traces`` gives it."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_ns: int
    end_ns: int | None
    attributes: dict[str, Any]
    status: str


def mapped_id(text: str, size: int) -> str:
    """An id of ``size`` bytes in hex: the source's own where it is one."""
    lower = text.lower()
    if len(lower) == 2 * size and all(c in "0123456789abcdef" for c in lower) and lower.strip("0"):
        return lower
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[: 2 * size]


def send(socket: str, session_id: str, spans: Sequence[SourceSpan]) -> str:
    """One trace as one session; returns the path of its file."""
    trace_id = mapped_id(spans[0].trace_id, 16)
    session = collectord.session(session_id, socket_path=socket, trace_id=trace_id)
    for span in spans:
        parent = collectord.ROOT if span.parent_id is None else mapped_id(span.parent_id, 8)
        made = session.start_span(
            span.name,
            parent=parent,
            attributes=span.attributes,
            start_time=span.start_ns,
            span_id=mapped_id(span.span_id, 8),
        )
        if span.end_ns is not None:
            made.end(status=span.status, end_time=span.end_ns)
    ended = session.end()
    assert ended.outcome == "completed", session.statistics()
    assert ended.path is not None
    return ended.path


def differences(spans: Sequence[SourceSpan], document: dict[str, Any]) -> list[str]:
    """What the trace file says otherwise than the source, a line each; spans are paired in their order."""
    stored = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
    expected = [span for span in spans if span.end_ns is not None] + [span for span in spans if span.end_ns is None]
    found = []
    if len(stored) != len(expected):
        found.append(f"{len(stored)} spans instead of {len(expected)}")
    for source, span in zip(expected, stored, strict=False):
        found.extend(_differences_of(source, span))
    return found


def _differences_of(source: SourceSpan, span: dict[str, Any]) -> Iterable[str]:
    status = {0: "unset", 1: "ok", 2: "error"}[span.get("status", {}).get("code", 0)]
    attributes = {pair["key"]: value_of(pair["value"]) for pair in span["attributes"]}
    unfinished = attributes.pop("collectord.span.unfinished", False)
    pairs = {
        "trace id": (mapped_id(source.trace_id, 16), span["traceId"]),
        "id": (mapped_id(source.span_id, 8), span["spanId"]),
        "parent": (
            None if source.parent_id is None else mapped_id(source.parent_id, 8),
            span.get("parentSpanId"),
        ),
        "name": (source.name, span["name"]),
        "start": (str(source.start_ns), span["startTimeUnixNano"]),
        "end": (None if source.end_ns is None else str(source.end_ns), span.get("endTimeUnixNano")),
        "unfinished": (source.end_ns is None, unfinished),
        "status": (source.status if source.end_ns is not None else "unset", status),
    }
    for what, (wanted, got) in pairs.items():
        if wanted != got:
            yield f"span {source.span_id}: {what} is {got!r}, not {wanted!r}"
    if _typed(attributes) != _typed(source.attributes):
        keys = [k for k in attributes.keys() | source.attributes.keys() if attributes.get(k) != source.attributes.get(k)]
        yield f"span {source.span_id}: attributes differ in {sorted(map(str, keys))}"


def _typed(value: Any) -> Any:
    """A value that equals another only if the types are the same: in Python, 1 == 1.0 == True."""
    if isinstance(value, dict):
        return {key: _typed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_typed(item) for item in value]
    return (type(value).__name__, value)


def replay(traces: Sequence[tuple[str, Sequence[SourceSpan]]], daemon: Daemon) -> tuple[int, list[str]]:
    """Stream traces and compare; returns how many spans are equal, and what is not."""
    equal = 0
    wrong: list[str] = []
    for name, spans in traces:
        path = send(str(daemon.socket), name, spans)
        raw = Path(path).read_bytes()
        check_document(raw)
        found = differences(spans, orjson.loads(raw))
        wrong.extend(f"{name}: {line}" for line in found)
        equal += len(spans) - len({line.split(":")[0] for line in found})
    return equal, wrong


def replay_folder(folder: str) -> int:
    """Replay a folder of recorded traces; 0 if every span is equal."""
    spec = importlib.util.spec_from_file_location("read_traces", os.path.join(folder, "read_traces.py"))
    assert spec is not None
    assert spec.loader is not None
    reader = importlib.util.module_from_spec(spec)
    sys.modules["read_traces"] = reader
    spec.loader.exec_module(reader)
    traces = traces_of(reader.read_set(folder))
    total = sum(len(spans) for _, spans in traces)
    began = time.monotonic()
    with running() as daemon:
        equal, wrong = replay(traces, daemon)
    for line in wrong[:50]:
        print(line)
    print(f"{len(traces)} traces, {equal} of {total} spans equal, {time.monotonic() - began:.1f} s")
    return 0 if equal == total and not wrong else 1


def traces_of(entries: Iterable[tuple[dict[str, Any], Any]]) -> list[tuple[str, list[Any]]]:
    """The spans of a set, as its reader gives them, grouped by file and trace, in the order in which the traces begin."""
    groups: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for entry, span in entries:
        groups[entry["file"], span.trace_id].append(span)
    return [(f"replay {number} {name}"[:200], group) for number, ((_, name), group) in enumerate(groups.items())]
