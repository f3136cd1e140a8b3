"""One test a kind of damage: what is torn, what is corrupt, and that nothing is lost in silence."""

from __future__ import annotations

from collectord.journal.format import HEAD_SIZE_BYTES, HEADER_SIZE_BYTES, Head, encode_head, encode_record
from collectord.journal.scan import (
    Found,
    FoundBadHead,
    FoundCorrupt,
    FoundHead,
    FoundNewer,
    FoundRecord,
    FoundTorn,
    scan_segment,
)
from collectord.model import Record, RecordType

SALT = 0x5EED


def journal(*bodies: bytes, salt: int = SALT) -> tuple[bytes, list[int]]:
    """A journal with a record a body, and where each record begins; the last number is its length."""
    raw = encode_head(Head(salt, 1, 0))
    offsets = [len(raw)]
    for number, body in enumerate(bodies, 1):
        raw += encode_record(Record(RecordType.EVENTS, body, 1, number, number, 1), salt, len(raw))
        offsets.append(len(raw))
    return raw, offsets


def scan(raw: bytes) -> list[Found]:
    """Everything that is found in a journal."""
    return list(scan_segment(lambda offset, size: raw[offset : offset + size], len(raw)))


def bodies(found: list[Found]) -> list[bytes]:
    """The bodies of the sound records."""
    return [item.record.body for item in found if isinstance(item, FoundRecord)]


RAW, OFFSETS = journal(b"first", b"second" * 5, b"third")


def test_a_sound_journal_is_read_whole() -> None:
    found = scan(RAW)
    assert isinstance(found[0], FoundHead)
    assert bodies(found) == [b"first", b"second" * 5, b"third"]
    assert len(found) == 4


def test_a_journal_cut_at_any_byte_loses_its_torn_tail_and_nothing_before_it() -> None:
    for cut in range(len(RAW)):
        found = scan(RAW[:cut])
        if cut < HEAD_SIZE_BYTES:
            assert isinstance(found[0], FoundBadHead)
            continue
        whole = sum(offset <= cut for offset in OFFSETS[1:])
        assert len(bodies(found)) == whole
        torn = [item for item in found if isinstance(item, FoundTorn)]
        rest = cut - OFFSETS[whole]
        assert [item.length for item in torn] == ([rest] if rest else [])
        assert not [item for item in found if isinstance(item, FoundCorrupt)]


def test_any_bit_that_is_flipped_is_noticed_and_costs_one_record_at_the_most() -> None:
    whole = [b"first", b"second" * 5, b"third"]
    for position in range(len(RAW)):
        for bit in range(8):
            damaged = bytearray(RAW)
            damaged[position] ^= 1 << bit
            found = scan(bytes(damaged))
            if position < HEAD_SIZE_BYTES:
                assert isinstance(found[0], FoundBadHead | FoundNewer)
                continue
            hit = next(n for n in range(3) if position < OFFSETS[n + 1])
            assert bodies(found) == whole[:hit] + whole[hit + 1 :]
            (corrupt,) = (item for item in found if isinstance(item, FoundCorrupt))
            assert (corrupt.offset, corrupt.length) == (OFFSETS[hit], OFFSETS[hit + 1] - OFFSETS[hit])
            assert not [item for item in found if isinstance(item, FoundTorn)]


def test_a_tail_of_zero_bytes_is_torn_and_not_corrupt() -> None:
    found = scan(RAW + bytes(5_000))
    assert bodies(found) == bodies(scan(RAW))
    assert found[-1] == FoundTorn(len(RAW), 5_000)


def test_a_complete_header_that_is_wrong_at_the_end_is_corrupt_and_not_torn() -> None:
    damaged = bytearray(RAW)
    damaged[OFFSETS[2]] ^= 1
    assert scan(bytes(damaged))[-1] == FoundCorrupt(
        OFFSETS[2], len(RAW) - OFFSETS[2], "the checksum of a record's header is wrong"
    )


def test_a_type_of_the_future_is_reported_and_what_follows_is_read() -> None:
    raw = encode_head(Head(SALT, 1, 0))
    strange = bytearray(encode_record(Record(RecordType.EVENTS, b"x", 1, 1, 1, 1), SALT, len(raw)))
    from zlib import crc32

    strange[4] = 200
    checked = bytes(strange[: HEADER_SIZE_BYTES - 4])
    seed = crc32(len(raw).to_bytes(8, "little"), SALT)
    strange[HEADER_SIZE_BYTES - 4 : HEADER_SIZE_BYTES] = crc32(checked, seed).to_bytes(4, "little")
    raw += bytes(strange)
    raw += encode_record(Record(RecordType.EVENTS, b"after", 1, 2, 1, 1), SALT, len(raw))
    found = scan(raw)
    assert isinstance(found[1], FoundCorrupt)
    assert found[1].why == "no record has the type 200"
    assert bodies(found) == [b"after"]


def test_bytes_of_a_client_that_look_like_a_record_never_count_as_one() -> None:
    forged = encode_record(Record(RecordType.TERMINAL, b"forged"), 0, 0)
    raw, offsets = journal(b"before", forged * 3, b"after")
    damaged = bytearray(raw)
    damaged[offsets[1]] ^= 1  # the header around the forgery is lost: the search goes through its body
    assert bodies(scan(bytes(damaged))) == [b"before", b"after"]


def test_a_record_moved_to_another_place_or_file_is_not_taken_for_sound() -> None:
    raw, offsets = journal(b"one", b"two")
    swapped = raw[: offsets[0]] + raw[offsets[1] :] + raw[offsets[0] : offsets[1]]
    assert bodies(scan(swapped)) == []
    other, _ = journal(b"one", salt=SALT + 1)
    assert bodies(scan(raw[: offsets[0]] + other[offsets[0] :])) == []


def test_a_journal_of_a_newer_version_is_known_for_what_it_is() -> None:
    assert scan(encode_head(Head(SALT, 1, 0, version=2))) == [FoundNewer(2)]
