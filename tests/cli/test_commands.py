"""The commands against a real daemon: what they print, and how they exit."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collectord.cli.main import main
from tests.process.client import RawClient, span_end, span_start
from tests.process.daemon import Daemon, running

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as daemon:
        yield daemon


Said = pytest.CaptureFixture[str]


def told(daemon: Daemon, capsys: Said, *arguments: str) -> tuple[int, str, str]:
    """Run a command; its exit status and what it said."""
    status = main(["--socket", str(daemon.socket), *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def status_json(daemon: Daemon, capsys: Said) -> dict[str, Any]:
    status, out, err = told(daemon, capsys, "status", "--json")
    assert (status, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def agent(daemon: Daemon, session_id: str) -> RawClient:
    """An open session with one finished span and one that is not."""
    client = daemon.client()
    client.open(session_id)
    client.send_events([span_start("invoke_agent x"), span_end(1), span_start("execute_tool bash")])
    client.flush()
    return client


# ---------------------------------------------------------------- status


def test_status_shows_what_an_agent_is_doing(daemon: Daemon, capsys: Said) -> None:
    with agent(daemon, "doing") as client:
        status, out, _ = told(daemon, capsys, "status")
        client.end()
    assert status == 0
    lines = out.splitlines()
    assert lines[0].startswith("collectord 0.1.0  pid ")
    at = next(index for index, line in enumerate(lines) if line.startswith("▶ running   doing "))
    assert lines[at + 1].startswith("  └ execute_tool bash, for ")
    assert "\x1b" not in out


def test_status_json_has_every_field_that_programs_rely_on(daemon: Daemon, capsys: Said) -> None:
    with agent(daemon, "fields") as client:
        found = status_json(daemon, capsys)
        client.end()
    assert set(found) == {"daemon", "sessions", "sessions_left_out"}
    assert {"pid", "version", "uptime_s", "sessions_running", "events_received", "events_stored", "events_refused"} <= set(
        found["daemon"]
    )
    assert found["daemon"]["socket"] == str(daemon.socket)
    assert found["daemon"]["state_dir"] == str(daemon.state_dir)
    row = next(row for row in found["sessions"] if row["id"] == "fields")
    assert (row["run"], row["outcome"], row["pid"], row["uid"]) == (1, "running", os.getpid(), os.getuid())
    assert (row["events"], row["spans"], row["unfinished"]) == (3, 2, 1)
    assert row["activity"]["name"] == "execute_tool bash"
    assert row["opened_at"].endswith("Z")
    assert len(row["opened_at"]) == len("2026-01-01T00:00:00.000000000Z")


def test_c9_status_is_true_right_after_an_acknowledgement(daemon: Daemon, capsys: Said) -> None:
    with agent(daemon, "right-after") as client:
        for expected in range(4, 14):
            client.send_events([span_start("more")])
            client.flush()
            found = status_json(daemon, capsys)
            assert next(row for row in found["sessions"] if row["id"] == "right-after")["events"] == expected
        client.end()


def test_status_json_is_plain_ascii_whatever_ids_hold(daemon: Daemon, capsys: Said) -> None:
    session_id = "\x1b[31m\x7f\x9b\ud800é\n"
    with agent(daemon, session_id) as client:
        status, out, _ = told(daemon, capsys, "status", "--json")
        told_again = told(daemon, capsys, "status")
        client.end()
    assert status == 0
    assert out.isascii()
    assert not set("\x1b\x7f") & set(out)
    assert session_id in [row["id"] for row in json.loads(out)["sessions"]]
    assert not {"\x1b", "\x7f", "\x9b", "\ud800"} & set(told_again[1])


# ---------------------------------------------------------------- crash


def test_a_crash_report_makes_the_run_crashed(daemon: Daemon, capsys: Said) -> None:
    with agent(daemon, "to-crash"):
        status, out, err = told(daemon, capsys, "crash", "to-crash", "--reason", "out of memory")
        assert (status, err) == (0, "")
        assert out == f"to-crash run 1: crashed (reported: out of memory)\n{daemon.trace_path('to-crash')}\n"
        assert daemon.trace("to-crash")["session"]["crash"]["message"] == "out of memory"


def test_a_crash_report_after_the_end_prints_what_stands_and_exits_1(daemon: Daemon, capsys: Said) -> None:
    with agent(daemon, "ended") as client:
        client.end()
    status, out, _ = told(daemon, capsys, "crash", "ended", "--reason", "too late")
    assert status == 1
    assert out == f"it was over before: ended run 1: completed\n{daemon.trace_path('ended')}\n"
    assert daemon.trace("ended")["session"]["outcome"] == "completed"


@pytest.mark.parametrize("reason", ["the same words", "other words"])
def test_a_second_crash_report_exits_1_also_with_the_same_words(daemon: Daemon, capsys: Said, reason: str) -> None:
    with agent(daemon, f"twice {reason}"):
        assert told(daemon, capsys, "crash", f"twice {reason}", "--reason", "the same words")[0] == 0
        status, out, _ = told(daemon, capsys, "crash", f"twice {reason}", "--reason", reason)
        assert status == 1
        assert out.startswith(f"it was over before: twice {reason} run 1: crashed (reported")


def test_a_crash_report_may_name_the_trace_file(daemon: Daemon, capsys: Said) -> None:
    with agent(daemon, "by/file\n") as client:
        status, out, _ = told(daemon, capsys, "crash", client.path, "--reason", "found dead")
    assert status == 0
    assert out.startswith("by/file\\n run 1: crashed (reported: found dead)\n")


def test_a_crash_report_may_name_the_session_as_json(daemon: Daemon, capsys: Said) -> None:
    with agent(daemon, "a\0b\ud800"):
        assert told(daemon, capsys, "crash", "--id-json", '"a\\u0000b\\ud800"', "--reason", "gone")[0] == 0


def test_a_crash_report_about_an_earlier_run_leaves_the_later_one_alone(daemon: Daemon, capsys: Said) -> None:
    with agent(daemon, "runs") as first:
        first.end()
    with agent(daemon, "runs") as second:
        status, out, _ = told(daemon, capsys, "crash", "runs", "--run", "1", "--reason", "late")
        assert status == 1
        assert out.startswith("it was over before: runs run 1: completed")
        assert daemon.session("runs")["outcome"] == "running"
        second.end()


def test_a_session_or_run_that_does_not_exist_exits_4(daemon: Daemon, capsys: Said) -> None:
    for command in ("crash", "cancel"):
        status, out, err = told(daemon, capsys, command, "nobody", "--reason", "x")
        assert (status, out) == (4, "")
        assert "(session-unknown)\nremedy: " in err
    with agent(daemon, "one-run") as client:
        client.end()
    assert told(daemon, capsys, "crash", "one-run", "--run", "7", "--reason", "x")[0] == 4


# ---------------------------------------------------------------- cancel


def test_a_cancel_is_passed_to_the_owner(daemon: Daemon, capsys: Said) -> None:
    with agent(daemon, "to-cancel") as client:
        status, out, err = told(daemon, capsys, "cancel", "to-cancel", "--reason", "no longer needed")
        assert (status, err) == (0, "")
        assert out == "to-cancel run 1: requested; its agent has 30 s to stop\n"
        assert any(getattr(message, "reason", "") == "no longer needed" for message in [client.receive()])
        client.cancel("as asked")
    assert daemon.trace("to-cancel")["session"]["outcome"] == "cancelled"


def test_a_cancel_after_the_end_prints_what_stands_and_exits_1(daemon: Daemon, capsys: Said) -> None:
    with agent(daemon, "over") as client:
        client.end()
    status, out, _ = told(daemon, capsys, "cancel", "over", "--reason", "x")
    assert status == 1
    assert out.startswith("it was over before: over run 1: completed\n")


# ---------------------------------------------------------------- serve


def test_a_stop_is_a_success_and_one_line_says_that_it_listens(tmp_path: Path) -> None:
    with running() as own:
        assert own.stop(signal.SIGTERM) == 0
        assert "listening" not in own.said()
        assert not own.socket.exists()


def test_a_second_daemon_is_refused_and_told_who_holds_the_place(daemon: Daemon, tmp_path: Path, capsys: Said) -> None:
    status = main(["serve", "--socket", str(daemon.socket), "--state-dir", str(daemon.state_dir)])
    err = capsys.readouterr().err
    assert status == 1
    assert str(daemon.pid) in err
    assert "(already-running)\nremedy: " in err


def test_a_socket_path_that_is_taken_by_a_file_is_refused(tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "s").write_text("mine")
    assert main(["serve", "--socket", str(tmp_path / "s"), "--state-dir", str(tmp_path / "state")]) == 2
    assert "(socket-unusable)" in capsys.readouterr().err
    assert (tmp_path / "s").read_text() == "mine"
