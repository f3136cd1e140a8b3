"""Is a trace file what it claims to be: our document, and OTLP/JSON to two parsers that are not ours?

``check_document`` is called on every file that the tests produce: it checks

- that it is one JSON document with our keys in our order, line 1 short, the session on line 2, every span on a line of its own;
- that line 1, the session, the resources and the spans say the same, and that the counts count what is there;
- that OpenTelemetry's own JSON classes and protobuf's JSON mapping read it, and find every span and log in it.

Any state of a run will do, running or ended, damaged too. ``spans_of``, ``logs_of`` and ``attributes_of`` take a document apart;
``value_of`` turns an OTLP value back into a Python one.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import orjson
from google.protobuf import json_format
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData as ProtobufLogs
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData as ProtobufTraces
from opentelemetry.proto_json.logs.v1.logs import LogsData as JsonLogs
from opentelemetry.proto_json.trace.v1.trace import TracesData as JsonTraces

from collectord.limits import HEAD_LINE_MAX_BYTES

_KEYS = ["collectord", "session", "resourceSpans", "resourceLogs", "spaces"]
_SMALL_BYTES = 4 << 20
"""Up to here documents go through protobuf too; beyond, its JSON reader alone would take the test's time."""


def check_document(raw: bytes) -> dict[str, Any]:
    """The document, after everything about it that can be checked was checked; raises ``AssertionError``."""
    document: dict[str, Any] = orjson.loads(raw)
    assert list(document) == _KEYS
    _check_lines(raw, document)
    _check_counts(document)
    _check_values(document)
    if len(raw) <= _SMALL_BYTES:
        _check_with_opentelemetry(raw, document)
        _check_with_protobuf(document)
    return document


def spans_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """All spans, group after group."""
    return [span for group in document["resourceSpans"] for scope in group["scopeSpans"] for span in scope["spans"]]


def logs_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """All log records, group after group."""
    return [record for group in document["resourceLogs"] for scope in group["scopeLogs"] for record in scope["logRecords"]]


def attributes_of(item: dict[str, Any]) -> dict[str, Any]:
    """A list of attributes as a map; a key that comes twice is a fault."""
    found = {pair["key"]: value_of(pair["value"]) for pair in item["attributes"]}
    assert len(found) == len(item["attributes"]), "a key comes twice"
    return found


def value_of(value: dict[str, Any]) -> Any:
    """An OTLP value as a Python one."""
    if not value:
        return None
    ((kind, inner),) = value.items()
    if kind == "intValue":
        return int(inner)
    if kind == "doubleValue":
        return float(inner)
    if kind == "bytesValue":
        return base64.b64decode(inner, validate=True)
    if kind == "arrayValue":
        return [value_of(item) for item in inner["values"]]
    if kind == "kvlistValue":
        return {pair["key"]: value_of(pair["value"]) for pair in inner["values"]}
    assert kind in ("stringValue", "boolValue"), kind
    return inner


def _check_lines(raw: bytes, document: dict[str, Any]) -> None:
    """Line 1 is short and says what matters, and every span has a line of its own."""
    first, second, *_ = raw.split(b"\n", 2)
    assert len(first) <= HEAD_LINE_MAX_BYTES
    head = orjson.loads(first.rstrip(b",") + b"}")["collectord"]
    session = orjson.loads(b"{" + second.rstrip(b",") + b"}")["session"]
    assert head == document["collectord"]
    assert head["format"] == 1
    assert session == document["session"]
    assert session["id"].startswith(head["name"].removesuffix("…"))
    for name in ("run", "outcome", "opened_at", "ended_at", "trace_id"):
        assert head[name] == session[name], name
    lines = [orjson.loads(line.rstrip(b",")) for line in raw.split(b"\n") if line.startswith(b'{"traceId"')]
    assert lines == spans_of(document)
    assert raw.endswith(b"}\n")
    for time in (session["opened_at"], session["ended_at"], session["last_event_at"]):
        assert time is None or re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", time)


def _check_counts(document: dict[str, Any]) -> None:
    session, spans = document["session"], spans_of(document)
    counts, integrity = session["counts"], session["integrity"]
    if not integrity["corrupt_records"]:
        assert counts["spans"] == len(spans)
        assert counts["logs"] == len(logs_of(document))
        assert counts["unfinished"] == sum("endTimeUnixNano" not in span for span in spans)
        assert counts["errors"] == sum(span.get("status", {}).get("code") == 2 for span in spans)
    assert integrity["received"] == integrity["stored"] + sum(integrity["refused"].values())
    assert (session["crash"] is not None) == (session["outcome"] == "crashed")
    assert (session["ended_at"] is None) == (session["outcome"] == "running")


def _check_values(document: dict[str, Any]) -> None:
    for span in spans_of(document):
        assert span["traceId"] == document["session"]["trace_id"]
        assert re.fullmatch("[0-9a-f]{16}", span["spanId"])
        assert span["kind"] in range(1, 6)
        assert span.get("status", {"code": 1})["code"] in (1, 2)
        marked = attributes_of(span).get("collectord.span.unfinished") is True
        assert marked == ("endTimeUnixNano" not in span)
    for group in [*document["resourceSpans"], *document["resourceLogs"]]:
        resource = attributes_of(group["resource"])
        assert resource["session.id"]
        assert resource["collectord.outcome"] == document["session"]["outcome"]
        assert "service.name" in resource


def _check_with_opentelemetry(raw: bytes, document: dict[str, Any]) -> None:
    """As the OpenTelemetry project's own JSON classes read it: unknown keys ignored, ids in hex."""
    text = raw.decode()
    traces = JsonTraces.from_json(text)
    read = [span for group in traces.resource_spans for scope in group.scope_spans for span in scope.spans]
    assert [(span.span_id or b"").hex() for span in read] == [span["spanId"] for span in spans_of(document)]
    assert [span.name for span in read] == [span["name"] for span in spans_of(document)]
    logs = JsonLogs.from_json(text)
    records = [record for group in logs.resource_logs for scope in group.scope_logs for record in scope.log_records]
    assert len(records) == len(logs_of(document))


def _check_with_protobuf(document: dict[str, Any]) -> None:
    """As protobuf's JSON mapping reads it, which wants ids in base64 and its own keys only to be asked for."""
    told = json.loads(json.dumps(document))
    for item in [*spans_of(told), *logs_of(told), *(link for span in spans_of(told) for link in span.get("links", ()))]:
        for name in ("traceId", "spanId", "parentSpanId"):
            if name in item:
                item[name] = base64.b64encode(bytes.fromhex(item[name])).decode()
    traces = json_format.ParseDict({"resourceSpans": told["resourceSpans"]}, ProtobufTraces(), ignore_unknown_fields=False)
    count = sum(len(scope.spans) for group in traces.resource_spans for scope in group.scope_spans)
    assert count == len(spans_of(document))
    json_format.ParseDict({"resourceLogs": told["resourceLogs"]}, ProtobufLogs(), ignore_unknown_fields=False)
