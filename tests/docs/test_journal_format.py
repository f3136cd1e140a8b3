"""docs/journal-format.md: the example is decoded, the tables compared with the code."""

from __future__ import annotations

from collectord.journal.format import HEAD_SIZE_BYTES, HEADER_SIZE_BYTES, MAGIC, VERSION
from collectord.journal.scan import FoundHead, FoundRecord, scan_segment
from collectord.model import CrashReason, Outcome, Record, RecordType, Verdict
from collectord.session import records
from collectord.session.records import unpack
from tests.docs.tables import block, code, read, section, table
from tests.export.journals import facts

TEXT = read("journal-format.md")


def test_the_worked_example_is_a_journal() -> None:
    raw = bytes.fromhex(block(TEXT, "hex").replace("\n", " "))
    head, events, terminal = scan_segment(lambda offset, size: raw[offset : offset + size], len(raw))
    assert isinstance(head, FoundHead)
    assert head.head.salt == 0x01020304
    assert isinstance(events, FoundRecord)
    assert isinstance(terminal, FoundRecord)
    assert events.record == Record(RecordType.EVENTS, events.record.body, 1, 1, 1, 1)
    assert terminal.record == Record(RecordType.TERMINAL, terminal.record.body)
    assert unpack(events.record.body) == [[5, 1_700_000_000_000_000_001, 9, "hi", {}, None]]
    assert unpack(terminal.record.body)["outcome"] == "completed"


def test_the_layouts_add_up() -> None:
    for title, size in (("The head of a file", HEAD_SIZE_BYTES), ("Records", HEADER_SIZE_BYTES)):
        offset = 0
        for at, length, _ in table(section(TEXT, title)):
            assert int(at) == offset
            offset += int(length)
        assert offset == size
    assert MAGIC.hex(" ") in TEXT
    assert f"version: {VERSION}" in TEXT


def one_of_each() -> dict[RecordType, Record]:
    """A record of every type that the core makes; each number in them is another."""
    return {
        record.type: record
        for record in (
            records.opened(facts()),
            records.joined(2, 71, 72, "c", {}, b""),
            records.left(2, 71, True, None),
            records.refused(3, 4, 5, "c", 71),
            records.gap(3, 4, 75, 71),
            records.end_requested(Outcome.FAILED, None, None, 1, True),
            records.cancel_requested("r", 71, 72),
            records.ended(Outcome.FAILED, 1, None, None),
            records.note(1, "k", "t"),
            records.segment(73, 75, "c", 71, 79),
            records.torn(3, 75, 71),
            records.duplicates(3, 4, 5, 71),
            records.resumed(3, 71, 72, 73, "b", "c"),
            records.checkpoint(),
        )
    }


def test_every_type_is_listed_with_its_fields() -> None:
    crash = records.crashed(1, Verdict(CrashReason.REPORTED, "m"), None)
    made = one_of_each()
    rows = table(section(TEXT, "Types"))[: len(RecordType)]
    assert {int(number): code(name) for number, name, _ in rows} == {t.value: t.name.lower() for t in RecordType}
    for number, name, cells in rows:
        listed = set(cells.replace(",", " ").replace("`", " ").split()) - {"and", "for", "a", "crash"}
        kind = RecordType(int(number))
        if kind is RecordType.EVENTS:
            assert not listed
            continue
        fields = set(unpack(made[kind].body))
        if kind is RecordType.TERMINAL:
            fields |= set(unpack(crash.body))
        assert listed == fields, name


def test_the_header_of_every_type_is_what_is_said_of_it() -> None:
    made = one_of_each()
    seen = {"events"}  # the worked example has one
    for types, producer, sequence, position, count in table(section(TEXT, "Types"))[len(RecordType) + 2 :]:
        for name in types.replace("`", "").split(", "):
            if name in seen:
                continue
            seen.add(name)
            record = made[RecordType[name.upper()]]
            fixed = {"1, the owner": (1,), "0": (0,), "the participant": (2,)}.get(producer, (3,))
            assert record.producer in fixed, name
            assert record.first_sequence == {"0": 0, "of the first": 4}[sequence], name
            assert record.first_position == int(position) == 0, name
            assert record.count == (5 if count == "how many" else 0), name
    assert seen == {kind.name.lower() for kind in RecordType}
