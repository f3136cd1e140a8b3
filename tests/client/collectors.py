"""One view of what a collector has of a session, whichever collector it is: the contract is tested on both."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import orjson

from collectord.names import encode_session_id
from tests.client.fake_collector import FakeCollector, Run
from tests.export.otlp import attributes_of, logs_of, spans_of, value_of
from tests.process.daemon import Daemon

STATUSES = {0: "unset", 1: "ok", 2: "error"}


class Collector(Protocol):
    """What the contract tests ask of a collector."""

    socket: Path

    def see(self, session_id: str) -> dict[str, Any]:
        """The session, however the collector keeps it."""


class RealCollector:
    """A daemon process; what it has is what the trace file says."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.socket = daemon.socket

    def see(self, session_id: str) -> dict[str, Any]:
        """The session as its trace file tells it."""
        document = orjson.loads(self.daemon.trace_path(encode_session_id(session_id)).read_bytes())
        session = document["session"]
        exception = (session["crash"] or session["end"] or {}).get("exception")
        return {
            "outcome": session["outcome"],
            "message": (session["crash"] or session["end"] or {}).get("message"),
            "exception": exception,
            "attributes": session["attributes"],
            "client_lost": session["integrity"]["client_lost"],
            "refused": sum(session["integrity"]["refused"].values()),
            "stored": session["integrity"]["stored"],
            "spans": [_span_of(span) for span in spans_of(document)],
            "logs": [
                {
                    "severity": log["severityNumber"],
                    "body": value_of(log["body"]),
                    "attributes": attributes_of(log),
                    "span": log.get("spanId"),
                }
                for log in logs_of(document)
            ],
            "spaces": document["spaces"],
        }


def _span_of(span: dict[str, Any]) -> dict[str, Any]:
    attributes = attributes_of(span)
    return {
        "id": span["spanId"],
        "parent": span.get("parentSpanId"),
        "name": span["name"],
        "kind": span["kind"],
        "start": int(span["startTimeUnixNano"]),
        "end": int(span["endTimeUnixNano"]) if "endTimeUnixNano" in span else None,
        "status": STATUSES[span.get("status", {}).get("code", 0)],
        "message": span.get("status", {}).get("message"),
        "unfinished": attributes.pop("collectord.span.unfinished", False),
        "attributes": attributes,
        "events": [{"name": event["name"], "attributes": attributes_of(event)} for event in span.get("events", ())],
        "links": [(link["traceId"], link["spanId"]) for link in span.get("links", ())],
    }


class FakeSeen:
    """A fake; what it has is folded from the events it kept."""

    def __init__(self, fake: FakeCollector) -> None:
        self.fake = fake
        self.socket = fake.socket

    def see(self, session_id: str) -> dict[str, Any]:
        """The session as its events tell it."""
        with self.fake.lock:
            run = self.fake.runs[session_id]
            folded = _Fold()
            for producer, sequence, event in run.events:
                folded.take(producer, sequence, event)
            return folded.told(run)


class _Fold:
    """What a list of events adds up to."""

    def __init__(self) -> None:
        self.open: dict[tuple[int, int], dict[str, Any]] = {}
        self.ended: list[dict[str, Any]] = []
        self.logs: list[dict[str, Any]] = []
        self.attributes: dict[str, Any] = {}
        self.spaces: dict[str, dict[str, Any]] = {}

    def take(self, producer: int, sequence: int, event: list[Any]) -> None:
        """One event more."""
        match event:
            case [1, at, span_id, parent, name, kind, attributes, *links]:
                self.open[producer, sequence] = {
                    "id": span_id.hex(), "parent": None if parent is None else parent.hex(), "name": name, "kind": kind,
                    "start": at, "end": None, "status": "unset", "message": None, "unfinished": True,
                    "attributes": dict(attributes), "events": [],
                    "links": [(link[0].hex(), link[1].hex()) for link in (links[0] if links else ())],
                }  # fmt: skip
            case [2, _, reference, attributes, name]:
                span = self.open[producer, reference]
                span["attributes"] |= attributes
                span["name"] = span["name"] if name is None else name
            case [3, _, reference, name, attributes]:
                self.open[producer, reference]["events"].append({"name": name, "attributes": attributes})
            case [4, at, reference, status, message, attributes]:
                span = self.open.pop((producer, reference))
                span["attributes"] |= attributes
                span |= {"end": at, "status": STATUSES[status], "message": message, "unfinished": False}
                self.ended.append(span)
            case [5, _, severity, body, attributes, span_id]:
                shown = None if span_id is None else span_id.hex()
                self.logs.append({"severity": severity, "body": body, "attributes": attributes, "span": shown})
            case [6, _, attributes]:
                self.attributes |= attributes
            case [7, _, space, key, value]:
                self.spaces.setdefault(space, {})[key] = value
            case [8, _, space, key]:
                self.spaces.get(space, {}).pop(key, None)
            case [9, _, space]:
                self.spaces.get(space, {}).clear()

    def told(self, run: Run) -> dict[str, Any]:
        """As a trace file would say it."""
        end = run.end
        exception = getattr(end, "exception", None)
        message = getattr(end, "message", None) if end is None or hasattr(end, "message") else end.reason
        return {
            "outcome": run.outcome.value,
            "message": message,
            "exception": exception,
            "attributes": run.opening.attributes | self.attributes,
            "client_lost": run.client_lost,
            "refused": sum(producer.refused for producer in run.producers),
            "stored": len(run.events),
            "spans": [*self.ended, *self.open.values()],
            "logs": self.logs,
            "spaces": self.spaces,
        }
