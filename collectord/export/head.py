"""The first two lines of a trace file: what matters, and everything about the session.

Pure. Owns the names and the order of their fields (docs/trace-format.md). The spans are ``render``'s.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from collectord.export.fold import RunSummary
from collectord.export.values import clean, clean_text, plain, plain_attributes
from collectord.limits import HEAD_LINE_MAX_BYTES
from collectord.model import Attributes, Outcome
from collectord.times import rfc3339

FORMAT: Final = 1
"""Of the trace file. To change it: raise it, keep reading the old number, say what changed in docs/trace-format.md."""

_NAME_SHOWN_MAX: Final = 400
_CRASH_FIELDS: Final = ("reason", "signal", "exit_code", "message", "exception", "end_requested")


def dumps(value: Any) -> bytes:
    """JSON in one line, of anything: what it has no form for is encoded as ``values.plain`` does."""
    told = plain(value)
    try:
        return orjson.dumps(told)
    except TypeError:  # text that is not Unicode: rare enough to be tried last
        return orjson.dumps(clean(told))


def first_line(summary: RunSummary) -> bytes:
    """Line 1 without its end: at most ``HEAD_LINE_MAX_BYTES`` whatever the id is."""
    facts, terminal = summary.facts, summary.terminal
    crashed = terminal is not None and terminal["outcome"] == Outcome.CRASHED.value
    told = {
        "format": FORMAT,
        "name": _shortened(clean_text(facts.session_id)),
        "run": facts.run,
        "outcome": summary.outcome,
        "reason": terminal["reason"] if crashed and terminal else None,
        "signal": terminal["signal"] if crashed and terminal else None,
        "exit_code": terminal["exit_code"] if crashed and terminal else None,
        "opened_at": rfc3339(facts.opened_at),
        "ended_at": None if terminal is None else rfc3339(terminal["at"]),
        "trace_id": facts.trace_id.hex(),
        "integrity": _integrity_word(summary),
    }
    line = b'{"collectord":' + dumps(told) + b","
    assert len(line) <= HEAD_LINE_MAX_BYTES, len(line)
    return line


def _shortened(name: str) -> str:
    """A name of a few hundred characters: escaped, each takes six bytes at most."""
    return name if len(name) <= _NAME_SHOWN_MAX else name[: _NAME_SHOWN_MAX - 1] + "…"


def _integrity_word(summary: RunSummary) -> str:
    """The worst that is known: ``damaged`` (the journal), ``gaps`` (lost by a client), ``torn``, or ``complete``."""
    ledger = summary.ledger
    if ledger.corrupt_records:
        return "damaged"
    if ledger.gaps:
        return "gaps"
    return "torn" if ledger.torn_bytes else "complete"


def session_line(summary: RunSummary) -> bytes:
    """Line 2 without its end."""
    facts, ledger, terminal = summary.facts, summary.ledger, summary.terminal
    session: Attributes = {
        "id": clean_text(facts.session_id),
        "run": facts.run,
        "outcome": summary.outcome,
        "opened_at": rfc3339(facts.opened_at),
        "last_event_at": None if ledger.last_event_at is None else rfc3339(ledger.last_event_at),
        "ended_at": None if terminal is None else rfc3339(terminal["at"]),
        "trace_id": facts.trace_id.hex(),
        "crash": _crash(summary),
        "end": _end(summary),
        "owner": {"pid": facts.pid, "uid": facts.uid, "command": facts.command},
        "participants": [participant.as_dict() for participant in summary.participants.values()],
        "attributes": plain_attributes(summary.attributes),
        "counts": {
            "events": ledger.stored,
            "spans": ledger.spans,
            "unfinished": ledger.open_spans,
            "errors": ledger.errors,
            "logs": ledger.logs,
        },
        "usage": ledger.usage.as_dict(),
        "integrity": {
            "last_position": ledger.last_position,
            "received": ledger.stored + ledger.refused_total,
            "stored": ledger.stored,
            "duplicates": ledger.duplicates,
            "refused": ledger.refused,
            "gaps": ledger.gaps,
            "client_lost": ledger.client_lost,
            "torn_bytes": ledger.torn_bytes,
            "corrupt_records": ledger.corrupt_records,
        },
        "notes": summary.notes,
    }
    if session["id"] != facts.session_id:  # the id itself, where it is no Unicode: as UTF-8 would write it
        session["id_bytes"] = facts.session_id.encode("utf-8", "surrogatepass")
    return b'"session":' + dumps(session) + b","


def _crash(summary: RunSummary) -> Attributes | None:
    terminal = summary.terminal
    if terminal is None or terminal["outcome"] != Outcome.CRASHED.value:
        return None
    return {name: terminal[name] for name in _CRASH_FIELDS}


def _end(summary: RunSummary) -> Attributes | None:
    terminal = summary.terminal
    if terminal is None or terminal["outcome"] not in (Outcome.FAILED.value, Outcome.CANCELLED.value):
        return None
    return {"message": terminal["message"], "exception": terminal["exception"]}
