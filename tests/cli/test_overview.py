"""How `status` looks: fixed answers in, lines out."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectord.cli.overview import GLYPHS, STYLES, render
from collectord.model import Outcome
from collectord.times import rfc3339
from collectord.wire.messages import StatusAnswer
from tests.cli.calm import calmly

NOW = 1_767_225_600_000_000_000
SECOND = 1_000_000_000


def ago(seconds: float) -> str:
    return rfc3339(NOW - int(seconds * SECOND))


DAEMON: dict[str, Any] = {
    "pid": 4242,
    "version": "0.1.0",
    "uptime_s": 11_532.1,
    "sessions_running": 2,
    "sessions_total": 17,
    "events_received": 12_345,
    "events_stored": 12_340,
    "events_refused": 5,
    "events_duplicate": 0,
    "stalled": 0,
    "memory_bytes": 61 << 20,
    "descriptors": 34,
    "state_dir": "/home/ada/.local/state/collectord",
    "socket": "/run/user/1000/collectord/collectord.sock",
}


def row(session_id: str, outcome: str = "running", **changes: Any) -> dict[str, Any]:
    """A session as the daemon tells it."""
    return {
        "id": session_id,
        "run": 1,
        "outcome": outcome,
        "state": outcome,
        "pid": 4243,
        "uid": 1000,
        "opened_at": ago(724),
        "ended_at": None if outcome == "running" else ago(10),
        "last_event_at": ago(3.2),
        "events": 100,
        "spans": 41,
        "unfinished": 0,
        "errors": 0,
        "logs": 0,
        "refused": 0,
        "gaps": 0,
        "client_lost": 0,
        "participants": 0,
        "usage": {"input_tokens": 80_000, "output_tokens": 1_234, "cost": None},
        "activity": None,
        "crash": None,
        "path": "/traces/x.json",
        "stalled": None,
        **changes,
    }


def drawn(*rows: dict[str, Any], width: int = 80, height: int | None = None, left_out: int = 0, **daemon: Any) -> list[str]:
    answer = StatusAnswer(1, {**DAEMON, **daemon}, list(rows), left_out)
    return [line.plain.rstrip() for line in render(answer, NOW, width, height)]


def the_whole_picture() -> list[str]:
    """What README.md shows; a test compares."""
    activity = {"name": "execute_tool bash", "span_id": "00f067aa0ba902b7", "started_at": ago(12)}
    crash = {"reason": "process-died", "signal": "SIGKILL", "exit_code": None, "message": "killed"}
    return drawn(
        row("nightly-42", run=2, unfinished=3, activity=activity, participants=2),
        row("researcher", "completed"),
        row("deployer", "failed", errors=2),
        row("importer", "cancelled"),
        row("migrator", "crashed", unfinished=2, crash=crash),
        left_out=3,
    )


def test_the_whole_picture() -> None:
    assert the_whole_picture() == [
        "collectord 0.1.0  pid 4242  up 3h12m  2 running of 17 sessions",
        "events: 12,345 received = 12,340 stored + 5 refused",
        "traces: /home/ada/.local/state/collectord",
        "socket: /run/user/1000/collectord/collectord.sock   61 MiB, 34 descriptors",
        "",
        "  OUTCOME   SESSION                AGE   IDLE  SPANS  OPEN   ERR TOKENS      PID",
        "▶ running   nightly-42 #2       12m04s     3s     41     3     0  81.2k     4243",
        "  └ execute_tool bash, for 12s; 2 participants",
        "✓ completed researcher          12m04s      -     41     0     0  81.2k     4243",
        "✗ failed    deployer            12m04s      -     41     0     2  81.2k     4243",
        "⊘ cancelled importer            12m04s      -     41     0     0  81.2k     4243",
        "† crashed   migrator            12m04s      -     41     2     0  81.2k     4243",
        "  └ its process was killed by SIGKILL; 2 spans unfinished",
        "… 3 more not shown",
    ]


def test_every_outcome_has_a_glyph_and_a_colour_of_its_own() -> None:
    for told in (GLYPHS, STYLES):
        assert set(told) == {outcome.value for outcome in Outcome}
        assert len(set(told.values())) == len(Outcome)


@pytest.mark.parametrize(
    ("crash", "words"),
    [
        ({"reason": "process-died", "signal": "SIGSEGV"}, "its process was killed by SIGSEGV"),
        ({"reason": "process-died", "exit_code": 0}, "its process ended with exit status 0, without ending the run"),
        ({"reason": "process-died"}, "its process died"),
        ({"reason": "connection-closed"}, "its connection was closed without an end"),
        ({"reason": "reported", "message": "out of memory"}, "reported: out of memory"),
        ({"reason": "collector-restarted"}, "the collector was restarted and it did not come back"),
    ],
)
def test_a_crash_is_told_in_words(crash: dict[str, Any], words: str) -> None:
    assert drawn(row("x", "crashed", crash=crash), width=120)[-1] == f"  └ {words}"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stalled": "No space left on device"}, "stalled: No space left on device"),
        ({"state": "ending"}, "ending: its trace file is being written"),
        ({"state": "cancel-requested"}, "asked to stop"),
        ({"refused": 5}, "5 events refused"),
        ({"gaps": 1, "client_lost": 17}, "1 gap; 17 events lost by the client"),
        ({"corrupt_records": 2, "torn_bytes": 17}, "2 records of its journal damaged; 17 bytes torn off"),
        ({"participants": 1}, "1 participant"),
    ],
)
def test_what_is_out_of_the_ordinary_is_said_below_the_session(changes: dict[str, Any], words: str) -> None:
    assert drawn(row("x", **changes))[-1] == f"  └ {words}"


def test_a_session_with_nothing_to_say_takes_one_line() -> None:
    assert drawn(row("x", "completed"))[-1].startswith("✓ completed x")


def test_stalled_sessions_are_announced_at_the_top() -> None:
    assert "2 sessions stalled" in drawn(row("x"), stalled=2)[4]


def test_without_sessions_it_says_so() -> None:
    assert drawn()[-1] == "no sessions yet"


def test_what_agents_wrote_is_neither_obeyed_nor_taken_for_markup() -> None:
    activity = {"name": "\x1b[31mchat\n[bold]x[/bold] :smile:", "started_at": ago(1)}
    picture = drawn(row("evil\x1b]0;p\x07[red]", activity=activity), width=100)
    assert "evil\\x1b]0;p\\x07[red]" in picture[-2]
    assert picture[-1] == "  └ \\x1b[31mchat\\n[bold]x[/bold] :smile:, for 1s"


def test_columns_give_way_before_ids_do() -> None:
    titles = {width: drawn(row("x"), width=width)[5].split() for width in (120, 80, 60, 45, 20)}
    assert titles[120] == titles[80] == ["OUTCOME", "SESSION", "AGE", "IDLE", "SPANS", "OPEN", "ERR", "TOKENS", "PID"]
    assert "PID" not in titles[60]
    assert "ERR" in titles[60]
    assert "SPANS" in titles[45]
    assert titles[20] == ["OUTCOME", "SESSION"]


def test_on_a_screen_what_has_no_place_is_counted() -> None:
    rows = [row(f"s{number}", activity={"name": "chat", "started_at": ago(1)}) for number in range(10)]
    for height in range(8, 30):
        picture = drawn(*rows, height=height, left_out=4)
        assert len(picture) <= height
        shown = sum(line.startswith("▶") for line in picture)
        assert picture[-1] == f"… {14 - shown} more not shown"


def test_all_sessions_are_shown_where_they_have_room() -> None:
    rows = [row(f"s{number}") for number in range(10)]
    assert "more not shown" not in "".join(drawn(*rows, height=16))
    assert drawn(*rows, height=15)[-1] == "… 2 more not shown"


@calmly
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from([*row("x")]),
            st.none() | st.integers() | st.text(st.characters(codec=None), max_size=200) | st.floats() | st.lists(st.none()),
        ),
        max_size=4,
    ),
    st.dictionaries(st.sampled_from([*DAEMON]), st.none() | st.integers() | st.floats() | st.text(max_size=200)),
    st.integers(20, 150),
)
def test_whatever_the_answer_holds_each_line_is_harmless_and_fits(
    rows: list[dict[str, Any]], daemon: dict[str, Any], width: int
) -> None:
    for line in render(StatusAnswer(1, daemon, rows), NOW, width):
        assert line.cell_len <= width
        assert all(unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in line.plain)
