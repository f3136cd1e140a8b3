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
    assert events.record.type is RecordType.EVENTS
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


def test_every_type_is_listed_with_its_fields() -> None:
    crash = records.crashed(1, Verdict(CrashReason.REPORTED, "m"), None)
    made: dict[RecordType, Record] = {
        record.type: record
        for record in (
            records.opened(facts()),
            records.joined(2, 1, 1, "c", {}, b""),
            records.left(2, 1, True, None),
            records.refused(1, 1, 1, "c", 1),
            records.gap(1, 1, 1, 1),
            records.end_requested(Outcome.FAILED, None, None, 1, True),
            records.cancel_requested("r", 1, 1),
            records.ended(Outcome.FAILED, 1, None, None),
            records.note(1, "k", "t"),
            records.segment(0, 1, "c", 1),
            records.torn(1, 1, 1),
            records.duplicates(1, 1, 1, 1),
        )
    }
    rows = table(section(TEXT, "Types"))
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
