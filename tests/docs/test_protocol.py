"""docs/protocol.md says what the code does, field by field."""

from __future__ import annotations

import re
from typing import Any

import msgpack
import pytest
from attrs import fields

from collectord.errors import CODES
from collectord.model import EventKind
from collectord.wire.messages import ANSWER_TYPES, REQUEST_TYPES, Events
from tests.docs.tables import block, code, read, section, table
from tests.wire.golden import EVENTS

TEXT = read("protocol.md")


def told(title: str) -> dict[str, list[str]]:
    """The messages of a section and their fields, in order."""
    found: dict[str, list[str]] = {}
    name = ""
    for first, field, _ in table(section(TEXT, title)):
        name = code(first) or name
        found.setdefault(name, []).append(code(field))
    return found


@pytest.mark.parametrize(("title", "types"), [("From the client", REQUEST_TYPES), ("From the collector", ANSWER_TYPES)])
def test_every_message_is_listed_with_its_fields(title: str, types: dict[str, type[Any]]) -> None:
    wanted = {
        name: ["first_sequence", "events"] if cls is Events else [field.name for field in fields(cls)]
        for name, cls in types.items()
    }
    assert told(title) == wanted


def test_every_kind_of_event_is_listed_with_its_elements() -> None:
    rows = table(section(TEXT, "Events"))
    assert {int(number): code(name) for number, name, _ in rows} == {kind.value: kind.name.lower() for kind in EventKind}
    for number, _, elements in rows:
        count = len(code(elements.split("]")[0]).split(","))
        lengths = {len(event) for event in EVENTS.values() if event[0] == int(number)}
        assert count in lengths


def test_the_hex_example_is_the_message_beside_it() -> None:
    raw = bytes.fromhex(block(TEXT, "hex").replace("\n", " "))
    assert int.from_bytes(raw[:4], "big") == len(raw) - 4
    message = msgpack.unpackb(raw[4:])
    found = re.search(r"It decodes to `(\{.*?\})`", TEXT)
    assert found is not None
    import json

    assert json.loads(found[1]) == message


def test_every_code_that_is_named_exists() -> None:
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", TEXT)) - {"collector-restarted"}
    assert named
    assert named <= set(CODES)
