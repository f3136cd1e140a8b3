"""docs/protocol.md says what the code does, field by field."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import msgpack
import pytest
from attrs import NOTHING, fields

from collectord import limits
from collectord.daemon.collector import Collector
from collectord.daemon.owner import RunOwner
from collectord.daemon.statistics import Statistics, session_row
from collectord.errors import CODES
from collectord.model import CrashReason, EventKind, Outcome
from collectord.session.core import RunCore
from collectord.wire import messages
from collectord.wire.events import fault_of_event
from collectord.wire.messages import ANSWER_TYPES, REQUEST_TYPES, Events
from tests.docs.tables import block, code, read, section, table
from tests.export.journals import facts

TEXT = read("protocol.md")
SECTIONS = [("From the client", REQUEST_TYPES), ("From the collector", ANSWER_TYPES)]

WORDS: dict[Any, str] = {
    int: "integer", str: "text", bytes: "bin", bool: "boolean", float: "float", dict: "map", list: "array",
}  # fmt: skip

SAMPLES: dict[str, Any] = {
    "time": 1, "span_id": b"spanspan", "parent_id": b"spanspan", "name": "n", "kind": 1, "attributes": {"k": 1}, "links": [],
    "reference": 1, "status": 0, "message": "m", "severity": 9, "body": "b", "space": "s", "key": "k", "value": 1,
}  # fmt: skip
MATTERS_NOT = {"body", "value"}
"""Elements that may be any value."""


def told(title: str) -> dict[str, list[tuple[str, str]]]:
    """The messages of a section: their fields and what is said of each, in order."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for first, field, value in table(section(TEXT, title)):
        name = code(first) or name
        found.setdefault(name, []).append((code(field), value))
    return found


def codes_of(title: str) -> set[str]:
    """The first column of a section's table."""
    return {code(first) for first, *_ in table(section(TEXT, title))}


@pytest.mark.parametrize(("title", "types"), SECTIONS)
def test_every_message_is_listed_with_its_fields(title: str, types: dict[str, type[Any]]) -> None:
    wanted = {
        name: ["first_sequence", "events"] if cls is Events else [field.name for field in fields(cls)]
        for name, cls in types.items()
    }
    assert {name: [field for field, _ in listed] for name, listed in told(title).items()} == wanted


@pytest.mark.parametrize(("title", "types"), SECTIONS)
def test_every_field_has_the_type_that_is_said_and_may_be_left_out_where_that_is_said(
    title: str, types: dict[str, type[Any]]
) -> None:
    for name, listed in told(title).items():
        cls = types[name]
        if cls is Events:
            continue
        hints, told_of = get_type_hints(cls, vars(messages)), dict(listed)
        for field in fields(cls):
            hint, where = hints[field.name], f"{name}.{field.name}"
            may_be_none = type(None) in get_args(hint)
            plain = next((arg for arg in get_args(hint) if arg is not type(None)), hint) if may_be_none else hint
            kind = str if get_origin(plain) is Literal or plain is Outcome else get_origin(plain) or plain
            said = told_of[field.name]
            assert said.startswith(WORDS[kind]), where
            may_be_missing = field.default is not NOTHING if types is REQUEST_TYPES else may_be_none
            listed_so = re.match(rf"[^:]*\b({'optional' if types is REQUEST_TYPES else 'absent'}|of a crash)\b", said)
            if types is REQUEST_TYPES or field.name not in ("reason", "message", "export_error"):
                assert bool(listed_so) == may_be_missing, where


def test_every_kind_of_event_is_listed_with_its_elements() -> None:
    rows = table(section(TEXT, "Events"))[: len(EventKind)]
    assert {int(number): code(name) for number, name, _ in rows} == {kind.value: kind.name.lower() for kind in EventKind}
    for number, name, cell in rows:
        listed = code(cell.split("]")[0]).strip("[").split(", ")
        assert listed[0] == number
        elements = listed[1:] + (["links"] if name == "`span_start`" else [])
        event = [int(number), *(SAMPLES[element] for element in elements)]
        assert fault_of_event(event) is None, name
        assert fault_of_event([*event, None]) == "event-malformed", name
        for index, element in enumerate(elements, start=1):
            if element not in MATTERS_NOT:
                assert fault_of_event([*event[:index], msgpack.ExtType(1, b""), *event[index + 1 :]]) is not None, element


def test_the_hex_example_is_the_message_beside_it() -> None:
    raw = bytes.fromhex(block(TEXT, "hex").replace("\n", " "))
    assert int.from_bytes(raw[:4], "big") == len(raw) - 4
    message = msgpack.unpackb(raw[4:])
    found = re.search(r"It decodes to `(\{.*?\})`", TEXT)
    assert found is not None
    assert json.loads(found[1]) == message
    assert isinstance(messages.decode_request(raw[4:]), messages.Hello)


def test_every_code_that_is_named_exists() -> None:
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", TEXT)) - {reason.value for reason in CrashReason}
    assert named
    assert named <= set(CODES)


def test_what_closes_a_connection_and_what_an_event_is_refused_for_stand_in_errors_too() -> None:
    closing = {code(row[0]) for row in table(section(read("errors.md"), "The protocol is broken"))}
    refusing = {code(row[0]) for row in table(section(read("errors.md"), "An event is refused"))}
    assert codes_of("Errors") == closing | {"collector-draining", "internal-error"}
    assert {code(row[0]) for row in table(section(TEXT, "Events"))[-len(refusing) - 1 :]} == refusing | {"session-ended"}


def test_the_limits_are_those_that_are_told_in_a_welcome() -> None:
    bare = cast(Collector, SimpleNamespace(_boot_id="b"))
    listed = {code(name): int(value) for name, value in table(section(TEXT, "Limits"))}
    assert listed == Collector.welcome(bare, 1).limits
    assert all(getattr(limits, name.upper()) == value for name, value in listed.items())


async def test_every_field_of_a_status_answer_is_listed() -> None:
    surroundings: dict[str, Any] = {"uptime_s": 1.0, "state_dir": "/s", "socket": "/s/s", "exports_owed": 0}
    answer = Statistics().answer(1, [], surroundings, None)
    owner = cast(RunOwner, SimpleNamespace(core=RunCore(facts(), "/t.json", None), is_durable=True))
    for title, wanted in (("Of the daemon", answer.daemon), ("Of a session", session_row(owner, None))):
        listed = [field for first, _ in table(section(TEXT, title)) for field in re.findall(r"`(\w+)`", first)]
        assert sorted(listed) == sorted(wanted)
