"""Words on a terminal: nothing an agent wrote can make it do anything, and everything fits."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from collectord.cli.text import age, amount, counted, cut, cut_middle, duration, moment, plain, size
from collectord.times import rfc3339
from tests.cli.calm import calmly

anything = st.text(st.characters(codec=None), max_size=60) | st.text("a\x1b\x07\u202e\u0301日\ud800\n", max_size=60)


def is_harmless(text: str) -> bool:
    return all(unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for letter in text)


@calmly
@given(anything)
def test_no_control_character_gets_through(text: str) -> None:
    assert is_harmless(plain(text))
    assert is_harmless(cut(text, 20))
    assert is_harmless(cut_middle(text, 20))


@calmly
@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), max_size=60))
def test_what_is_harmless_stays_as_it_is(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x7f\x9b31m", "\\x7f\\x9b31m"),
        ("abc\u202egnp.exe", "abc\\u202egnp.exe"),
        ("\u2028\ufeff", "\\u2028\\ufeff"),
        ("\ud800", "\\ud800"),
        ("e" + "\u0301" * 5, "e" + "\u0301" * 3 + "\\u0301" * 2),
    ],
)
def test_what_a_terminal_would_obey_is_spelled_out(text: str, shown: str) -> None:
    assert plain(text) == shown


@calmly
@given(anything, st.integers(-1, 40))
def test_what_is_cut_fits_and_says_that_it_was_cut(text: str, width: int) -> None:
    for shorten in (cut, cut_middle):
        shown = shorten(text, width)
        assert cell_len(shown) <= max(width, 0)
        if shown != plain(text) and width > 0:
            assert "…" in shown


def test_ids_are_shortened_in_the_middle() -> None:
    assert cut_middle("nightly-build-0017", 11) == "night…-0017"
    assert cut_middle("short", 11) == "short"


def test_wide_letters_count_twice() -> None:
    assert cut("日本語日本語", 7) == "日本語…"
    assert cut_middle("日本語日本語", 7) == "日…語" or cell_len(cut_middle("日本語日本語", 7)) <= 7


def test_a_text_of_megabytes_is_cut_without_being_read_whole() -> None:
    text = "\x1b" * 50_000_000
    began = time.process_time()
    cut(text, 80)
    cut_middle(text, 80)
    assert time.process_time() - began < 1.0


SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (-5, "0s"), (0, "0s"), (250_000, "250µs"), (12_000_000, "12ms"), (1_250_000_000, "1.25s"), (42 * SECOND, "42s"),
        (185 * SECOND, "3m05s"), (7_440 * SECOND, "2h04m"), (273_600 * SECOND, "3d04h"), (1 << 62, "53375d"),
    ],
)  # fmt: skip
def test_durations_are_short(ns: int, shown: str) -> None:
    assert duration(ns) == shown


def test_ages_have_whole_seconds() -> None:
    assert [age(ns) for ns in (-SECOND, 0, 1_999_999_999, 60 * SECOND)] == ["0s", "0s", "1s", "1m00s"]


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (9_999, "9999"),
        (10_000, "10.0k"),
        (81_234, "81.2k"),
        (999_400, "999k"),
        (999_960, "1.0M"),
        (3_400_000, "3.4M"),
    ],
)
def test_counts_are_short(number: int, shown: str) -> None:
    assert amount(number) == shown


@calmly
@given(st.integers(0, 10**18))
def test_no_count_takes_more_than_six_cells(number: int) -> None:
    assert len(amount(number)) <= 6


def test_sizes_have_units() -> None:
    assert [size(n) for n in (0, 1023, 1024, 61 << 20, 3 << 40)] == ["0 B", "1023 B", "1 KiB", "61 MiB", "3 TiB"]


def test_one_thing_is_not_things() -> None:
    assert (counted(1, "span"), counted(12_345, "span")) == ("1 span", "12,345 spans")


@calmly
@given(st.integers(0, 253_402_300_799 * SECOND))
def test_times_are_read_as_they_are_written(at_ns: int) -> None:
    assert moment(rfc3339(at_ns)) == at_ns


@pytest.mark.parametrize("text", [None, 7, "", "Z", "yesterday", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z"])
def test_what_is_no_time_is_none(text: object) -> None:
    assert moment(text) is None
