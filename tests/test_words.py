"""The words and numbers that all layers share: names of files, codes of errors, limits, times."""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collectord import errors, limits, model, names
from collectord.errors import CODES, CollectordError, DiskError, OperatorError, PeerError, RefusedError
from collectord.names import (
    NAME_SIZE_MAX_BYTES,
    JournalName,
    TraceName,
    encode_session_id,
    is_stem,
    journal_file_name,
    parse_journal_file_name,
    parse_trace_file_name,
    temporary_file_name,
    trace_file_name,
)
from collectord.times import rfc3339

FILE_NAME_MAX_BYTES = 255
RUN_MAX = 2**31 - 1

ANY_ID = st.text(st.characters(exclude_categories=()), min_size=1, max_size=300)
"""Surrogates too: an id comes over the wire in any form that msgpack carries."""
NEAR_ID = st.text(st.sampled_from("a.~%_-/:2E0h\0é\ud800"), min_size=1, max_size=170)
"""Ids from the characters that names are made of, so that they meet if anything can."""

M7 = ["a.b", "a_b", "a:b", "a/b", "a b", "a\\b", "a%2Eb", "a%2eb", "A.b", "a~b", "a~2", "a", "a.json", "a~2.json", ".a", "..",
      ".", "%2E", "%2E.", "../../etc/passwd", "/etc/passwd", "nul\0", "nul", "line\nbreak", "-rf", "😀", "\ud83d\ude00", "\ud83d",
      "é", "e\u0301", "x" * 150, "x" * 151, "x" * 10_000, "x" * 9_999 + "y", "😀" * 10_000, "~h" + "0" * 32]  # fmt: skip


def is_safe(name: str) -> bool:
    """Whether a name can be a file's in every directory, and means that file."""
    return name.isascii() and "/" not in name and "\0" not in name and name not in ("", ".", "..") and name.isprintable()


def test_the_ids_that_have_collided_elsewhere_are_as_many_files() -> None:
    stems = {encode_session_id(session_id) for session_id in M7}
    assert len(stems) == len(M7)
    assert all(is_safe(trace_file_name(stem, 1)) for stem in stems)


@given(ANY_ID | NEAR_ID, ANY_ID | NEAR_ID)
@example("x" * 151, "x" * 150)
def test_two_ids_have_one_name_only_if_they_are_one(first: str, second: str) -> None:
    assert (encode_session_id(first) == encode_session_id(second)) == (first == second)


@given(ANY_ID | NEAR_ID)
@example("..")
@example("\0")
@example("~")
@example("x" * 115 + "/" + "x" * 100)
@example("x" * 114 + "/" + "x" * 100)
@example("x" * 113 + "/" + "x" * 100)
def test_a_name_is_safe_short_and_known_again(session_id: str) -> None:
    stem = encode_session_id(session_id)
    assert is_safe(stem)
    assert len(stem) <= NAME_SIZE_MAX_BYTES
    assert not stem.startswith(".")
    assert is_stem(stem)
    assert ("~" in stem) == (re.search("~h[0-9a-f]{32}$", stem) is not None)
    for name in (
        trace_file_name(stem, RUN_MAX),
        journal_file_name(stem, RUN_MAX, RUN_MAX),
        temporary_file_name(stem, RUN_MAX, RUN_MAX),
    ):
        assert len(name) <= FILE_NAME_MAX_BYTES


@given(NEAR_ID, st.integers(1, RUN_MAX), st.integers(0, RUN_MAX))
@example("a~2", 1, 0)
@example("a.0.journal", 3, 4)
@example("a.json", 2, 0)
def test_what_a_file_name_says_is_read_back(session_id: str, run: int, segment: int) -> None:
    stem = encode_session_id(session_id)
    assert parse_trace_file_name(trace_file_name(stem, run)) == TraceName(stem, run)
    assert parse_journal_file_name(journal_file_name(stem, run, segment)) == JournalName(stem, run, segment)


@given(NEAR_ID, st.integers(1, 30), NEAR_ID, st.integers(1, 30))
@example("a", 2, "a~2", 1)
def test_no_run_of_one_session_has_the_file_of_another(first: str, run: int, second: str, other: int) -> None:
    one, two = (encode_session_id(first), run), (encode_session_id(second), other)
    assert (trace_file_name(*one) == trace_file_name(*two)) == (one == two)


@given(st.text(max_size=60) | st.text(st.sampled_from("a~.2%0Ejsonural"), max_size=40).map(lambda text: text + ".json"))
@example("a~0.json")
@example("a~1.json")
@example("a~01.json")
@example("a~2~3.json")
@example("%zz.json")
@example(".json")
@example("..json")
@example("a\n.json")
@example("a.json\n")
def test_a_name_that_is_taken_for_ours_is_the_one_that_we_would_have_given(name: str) -> None:
    trace, journal = parse_trace_file_name(name), parse_journal_file_name(name)
    if trace is not None:
        assert trace_file_name(trace.stem, trace.run) == name
    if journal is not None:
        assert journal_file_name(journal.stem, journal.run, journal.segment) == name


def test_a_temporary_file_is_never_taken_for_a_trace() -> None:
    for session_id in M7:
        name = temporary_file_name(encode_session_id(session_id), 1, 0)
        assert name.startswith(".")
        assert parse_trace_file_name(name) is None
        assert parse_journal_file_name(name) is None


# ---------------------------------------------------------------- errors


def test_every_code_is_hyphenated_has_one_row_and_says_what_to_do() -> None:
    rows = list(CODES.values())
    assert len(rows) == len(errors._ROWS)
    for row in rows:
        assert re.fullmatch("[a-z][a-z0-9]*(-[a-z0-9]+)+", row.code)
        assert 20 <= len(row.remedy) <= 100
        assert not row.remedy.endswith(".")


@pytest.mark.parametrize("cls", [PeerError, RefusedError, OperatorError, DiskError])
def test_an_error_carries_its_code_and_reads_as_a_sentence(cls: type[CollectordError]) -> None:
    error = cls("disk-failed", "no space left on device")
    assert isinstance(error, CollectordError)
    assert str(error) == "disk-failed: no space left on device"
    assert error.retryable


def test_a_code_that_is_not_in_the_table_cannot_be_raised() -> None:
    with pytest.raises(KeyError):
        PeerError("made-up", "x")


def test_every_code_that_is_raised_is_in_the_table() -> None:
    package = Path(errors.__file__).parent
    used: set[str] = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("PeerError", "RefusedError", "OperatorError", "DiskError", "Error", "Stalled"):
                used.add(str(node.args[0].value))
    assert used <= set(CODES)


# ---------------------------------------------------------------- limits, words, times


def test_every_limit_is_a_number_with_a_reason_and_none_is_anywhere_twice() -> None:
    text = Path(limits.__file__).read_text()
    named = re.findall(r"^([A-Z_]+): Final = ", text, re.MULTILINE)
    assert sorted(named) == sorted(name for name in vars(limits) if name.isupper())
    assert all(isinstance(getattr(limits, name), int | float | tuple) for name in named)
    assert all("_MAX_BYTES" in name or not name.endswith("BYTES") or "RATE" in name for name in named)


def test_an_event_that_fits_a_frame_fits_what_may_wait_for_the_disk() -> None:
    assert limits.FRAME_SIZE_MAX_BYTES <= limits.PENDING_MAX_BYTES
    assert limits.GROUP_MAX_BYTES <= limits.PENDING_MAX_BYTES
    assert limits.REPORT_TEXT_MAX_BYTES * 4 < limits.FRAME_SIZE_MAX_BYTES
    assert limits.PROTOCOL_VERSION in limits.PROTOCOL_VERSIONS


def test_numbers_that_stand_in_files_are_never_given_anew() -> None:
    assert {kind.name: kind.value for kind in model.EventKind} == {
        "SPAN_START": 1, "SPAN_UPDATE": 2, "SPAN_EVENT": 3, "SPAN_END": 4, "LOG": 5, "SESSION_UPDATE": 6, "KV_SET": 7,
        "KV_DELETE": 8, "KV_CLEAR": 9,
    }  # fmt: skip
    assert {kind.name: kind.value for kind in model.RecordType} == {
        "OPENED": 1, "EVENTS": 2, "JOINED": 3, "LEFT": 4, "REFUSED": 5, "GAP": 6, "END_REQUESTED": 7, "CANCEL_REQUESTED": 8,
        "TERMINAL": 9, "NOTE": 10, "SEGMENT": 11, "TORN": 12, "DUPLICATES": 13, "RESUMED": 14,
            "CHECKPOINT": 15,
    }  # fmt: skip
    assert model.SEVERITIES == {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17, "fatal": 21}
    assert {outcome for outcome in model.Outcome if not outcome.is_terminal} == {model.Outcome.RUNNING}


@given(st.integers(0, (1 << 64) - 1))
def test_a_time_is_told_to_the_nanosecond_whatever_it_is(at_ns: int) -> None:
    told = rfc3339(at_ns)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", told)
    if at_ns < 253_402_300_800 * 10**9:
        whole = datetime.strptime(told[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
        assert int(whole.timestamp()) * 10**9 + int(told[20:29]) == at_ns


def test_the_words_know_nothing_of_what_is_built_from_them() -> None:
    for module in (errors, limits, model, names):
        tree = ast.parse(Path(str(module.__file__)).read_text())
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not any(name is not None and name.startswith("collectord") for name in imported)
