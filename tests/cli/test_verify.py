"""`verify` and `recover` on real directories: without a daemon, beside one, and beside one that is busy."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from collectord.cli.main import main
from collectord.journal.store import StateLock, is_locked
from tests.process.client import RawClient, log, span_end, span_start
from tests.process.daemon import Daemon, running

pytestmark = pytest.mark.process

Said = pytest.CaptureFixture[str]


def told(capsys: Said, *arguments: str | Path) -> tuple[int, str, str]:
    """Run a command; its exit status and what it said."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def report(capsys: Said, *arguments: str | Path) -> dict[str, Any]:
    """What ``verify --json`` says; the exit status must agree with it."""
    status, out, err = told(capsys, "verify", "--json", *arguments)
    assert err == ""
    assert out.isascii()
    found: dict[str, Any] = json.loads(out)
    assert set(found) == {"as_of", "clean", "items", "truncated", "counts"}
    assert found["clean"] is (status == 0)
    return found


def faults(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Code and file name of each fault."""
    return [(item["code"], os.path.basename(item["path"])) for item in found["items"] if item["kind"] == "fault"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a daemon leaves that was stopped: two runs of one session, one of a strange id, one that is open."""
    directory = tmp_path_factory.mktemp("kept")
    with running() as daemon:
        for _ in range(2):
            with daemon.client() as client:
                client.open("twice")
                client.send_events([span_start("a"), span_end(1), span_start("b")])
                client.end()
        with daemon.client() as client:
            client.open("a/b\n")
            client.send_events([log("x")])
            client.crash("as planned")
        client = daemon.client()
        client.open("open")
        client.send_events([span_start("a")])
        client.flush(export=True)
        daemon.stop()
        client.close()
        shutil.copytree(daemon.state_dir, directory / "state")
    return directory / "state"


@pytest.fixture
def state(kept: Path, tmp_path: Path) -> Path:
    """A copy of it to be broken."""
    return Path(shutil.copytree(kept, tmp_path / "state"))


def snapshot(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its content and when it was changed."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def flip(path: Path, offset: int) -> None:
    """Change one bit of a file."""
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 4
    path.write_bytes(bytes(raw))


# ---------------------------------------------------------------- verify


def test_a_sound_directory_is_clean_in_one_line_and_nothing_is_changed(state: Path, capsys: Said) -> None:
    before = snapshot(state)
    status, out, err = told(capsys, "--state-dir", state, "verify")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].startswith("4 runs, ")
    assert out.splitlines()[-1].endswith(" 8 events checked: clean")
    assert snapshot(state) == before


def test_a_fault_is_one_line_with_file_offset_and_code_and_the_exit_status_is_1(state: Path, capsys: Said) -> None:
    journal = state / "journals" / "twice~2.0.journal"
    flip(journal, 40)
    status, out, _ = told(capsys, "verify", "--state-dir", state)
    assert status == 1
    lines = out.splitlines()
    assert f"{journal}:32: record-corrupt: the checksum of a record's header is wrong" in lines
    assert lines[-1].endswith(f" checked: {len(lines) - 1} faults")


def test_json_has_every_field_that_programs_rely_on(state: Path, capsys: Said) -> None:
    journal = state / "journals" / "twice~1.0.journal"
    with journal.open("ab") as file:
        file.write(b"torn")
    (state / "traces" / "notes.txt").write_text("mine")
    found = report(capsys, "--state-dir", state)
    assert found["items"] == [
        {
            "kind": "fault", "code": "tail-torn", "path": str(journal), "offset": journal.stat().st_size - 4, "length": 4,
            "id": "twice", "run": 1, "message": "the last record is incomplete",
        },
        {
            "kind": "note", "code": "foreign-file", "path": str(state / "traces" / "notes.txt"), "offset": 0, "length": None,
            "id": None, "run": None, "message": "it is no trace file of collectord's",
        },
    ]  # fmt: skip
    assert {name: found["counts"][name] for name in ("runs", "running", "events", "faults", "notes")} == {
        "runs": 4, "running": 1, "events": 8, "faults": 1, "notes": 1,
    }  # fmt: skip


def test_a_path_is_a_directory_a_journal_a_trace_file_or_a_session(state: Path, capsys: Said, tmp_path: Path) -> None:
    where = ["--state-dir", str(state)]
    named: list[tuple[list[str | Path], int]] = [
        ([state], 4),
        ([state / "journals" / "twice~1.0.journal"], 1),
        ([state / "traces" / "twice~2.json"], 1),
        ([*where, "twice"], 2),
        ([*where, "twice", "--run", "2"], 1),
        ([*where, "--id-json", '"a/b\\n"'], 1),
        ([*where, "open", state / "traces" / "open.json", state], 4),
    ]
    for words, runs in named:
        found = report(capsys, *words)
        assert (faults(found), found["counts"]["runs"]) == ([], runs), words
    elsewhere = tmp_path / "twice~1.0.journal"
    shutil.copy(state / "journals" / "twice~1.0.journal", elsewhere)
    assert faults(report(capsys, elsewhere)) == []
    renamed = Path(shutil.copy(elsewhere, tmp_path / "evidence"))
    assert faults(report(capsys, renamed)) == []
    flip(renamed, 50)
    assert ("record-corrupt", "evidence") in faults(report(capsys, renamed))


def test_a_copy_of_a_trace_file_is_held_against_the_journal_of_its_session(state: Path, capsys: Said, tmp_path: Path) -> None:
    copy = Path(shutil.copy(state / "traces" / "twice~2.json", tmp_path / "copy.json"))
    assert faults(report(capsys, "--state-dir", state, copy)) == []
    flip(copy, copy.stat().st_size - 10)
    assert faults(report(capsys, "--state-dir", state, copy)) == [("trace-differs", "copy.json")]
    assert faults(report(capsys, "--state-dir", tmp_path, copy)) == [("trace-orphan", "copy.json")]


def test_what_is_not_there_exits_2_or_4(state: Path, capsys: Said, tmp_path: Path) -> None:
    assert told(capsys, "verify", "--state-dir", tmp_path / "nowhere")[0] == 2
    assert told(capsys, "verify", tmp_path)[0] == 2
    assert told(capsys, "verify", "--state-dir", state, "--run", "1")[0] == 2
    for command in ("verify", "recover"):
        status, out, err = told(capsys, command, "--state-dir", state, "nobody")
        assert (status, out) == (4, "")
        assert "(session-unknown)\nremedy: " in err
        assert told(capsys, command, "--state-dir", state, "twice", "--run", "3")[0] == 4


def test_a_fifo_in_the_place_of_a_journal_does_not_hold_it_up(state: Path, capsys: Said) -> None:
    os.mkfifo(state / "journals" / "pipe~1.0.journal")
    os.mkfifo(state / "traces" / "pipe.json")
    os.symlink("/dev/zero", state / "traces" / "zero.json")
    assert {("unreadable", "pipe.json"), ("unreadable", "zero.json")} <= set(faults(report(capsys, "--state-dir", state)))


# ---------------------------------------------------------------- verify beside a daemon


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as daemon:
        yield daemon


def test_a_running_daemon_tells_its_state_directory(daemon: Daemon, capsys: Said) -> None:
    with daemon.client() as client:
        client.open("told")
        assert faults(report(capsys, "--socket", daemon.socket)) == []
        client.end()
    assert faults(report(capsys, "--socket", daemon.socket, "told")) == []


def test_the_lock_of_a_daemon_is_seen_without_being_touched(daemon: Daemon, tmp_path: Path) -> None:
    assert is_locked(str(daemon.state_dir / "lock"))
    assert not is_locked(str(tmp_path / "lock"))
    with StateLock(str(tmp_path / "lock")):
        assert is_locked(str(tmp_path / "lock"))
    assert not is_locked(str(tmp_path / "lock"))


def test_nobody_is_accused_while_sessions_are_written_end_and_crash(capsys: Said) -> None:
    with running() as daemon:
        stop = threading.Event()
        lives = [0] * 4

        def live(number: int) -> None:
            kind = ("completed", "crash", "export", "killed")[number]
            while not stop.is_set():
                with daemon.client() as client:
                    client.open(f"{kind}-{number}")
                    for _ in range(30):
                        client.send_events([span_start("a"), span_end(client.sequence + 1), log("x" * 300)])
                        if kind == "export":
                            client.flush(export=True)
                    _end(client, kind)
                lives[number] += 1

        threads = [threading.Thread(target=live, args=(number,)) for number in range(len(lives))]
        for thread in threads:
            thread.start()
        looked, seen_running = 0, 0
        try:
            while looked < 12 or min(lives) < 3 or not seen_running:
                found = report(capsys, "--state-dir", daemon.state_dir)
                assert faults(found) == []
                looked += 1
                seen_running += found["counts"]["running"]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        daemon.stop()
        assert faults(report(capsys, "--state-dir", daemon.state_dir)) == []


def _end(client: RawClient, kind: str) -> None:
    if kind == "crash":
        client.crash("as planned")
    elif kind != "killed":
        client.end()


def test_after_a_kill_and_a_restart_all_is_clean(capsys: Said) -> None:
    with running() as daemon:
        client = daemon.client()
        client.open("cut off")
        client.send_events([span_start("a")] * 100)
        client.flush()
        daemon.stop(signal.SIGKILL)
        client.close()
        assert set(faults(report(capsys, "--state-dir", daemon.state_dir))) <= {("tail-torn", "cut%20off~1.0.journal")}
        daemon.start()
        assert faults(report(capsys, "--state-dir", daemon.state_dir)) == []


# ---------------------------------------------------------------- recover


def test_a_missing_trace_file_is_rebuilt_byte_for_byte(state: Path, capsys: Said) -> None:
    path = state / "traces" / "twice~2.json"
    before = path.read_bytes()
    path.unlink()
    status, out, err = told(capsys, "recover", "--state-dir", state, "twice")
    assert (status, err) == (0, "")
    assert out == f"twice run 2: completed, 3 events: written\n{path}\n"
    assert path.read_bytes() == before
    assert faults(report(capsys, state)) == []
    assert not list((state / "traces").glob(".*"))


def test_one_that_is_right_stays_and_it_is_not_even_touched(state: Path, capsys: Said) -> None:
    before = snapshot(state / "traces")
    journal = state / "journals" / "twice~1.0.journal"
    status, out, _ = told(capsys, "recover", journal, state / "traces" / "open.json")
    assert status == 0
    assert out.splitlines()[::2] == [
        "twice run 1: completed, 3 events: the trace file is right already",
        "open run 1: running, 1 event: the trace file is right already",
    ]
    assert snapshot(state / "traces") == before


def test_a_damaged_one_is_replaced_and_its_bytes_are_kept(state: Path, capsys: Said) -> None:
    path = state / "traces" / "twice.json"
    good = path.read_bytes()
    flip(path, len(good) // 2)
    damaged = path.read_bytes()
    assert told(capsys, "recover", path)[1].splitlines()[0].endswith("written; the old file is in quarantine/")
    assert path.read_bytes() == good
    assert (state / "quarantine" / "twice.json").read_bytes() == damaged
    assert "collectord recover" in (state / "quarantine" / "twice.json.txt").read_text()
    found = report(capsys, state)
    assert (faults(found), [item["code"] for item in found["items"]]) == ([], ["quarantined"])


def test_a_finished_one_whose_journal_is_damaged_stays_and_the_rest_can_be_written_elsewhere(
    state: Path, capsys: Said, tmp_path: Path
) -> None:
    before = snapshot(state / "traces")
    journal = state / "journals" / "twice~1.0.journal"
    raw = journal.read_bytes()
    flip(journal, raw.index(b"\xa1b"))  # in the events
    status, _, err = told(capsys, "recover", journal)
    assert status == 1
    assert "(trace-kept)\nremedy: " in err
    assert snapshot(state / "traces") == before
    output = tmp_path / "out.json"
    status, out, err = told(capsys, "recover", journal, "--output", output)
    assert (status, out) == (0, f"twice run 1: completed, 0 events: written\n{output}\n")
    assert "its journal is damaged" in err
    assert json.loads(output.read_bytes())["collectord"]["integrity"] == "damaged"
    assert snapshot(state / "traces") == before


def test_one_that_is_finished_stays_where_the_journal_holds_no_end(state: Path, capsys: Said) -> None:
    shutil.copy(state / "traces" / "twice.json", state / "traces" / "open.json")
    before = snapshot(state / "traces")
    status, _, err = told(capsys, "recover", "--state-dir", state, "open")
    assert (status, "(trace-kept)" in err) == (1, True)
    assert snapshot(state / "traces") == before


def test_a_run_without_an_end_is_rendered_as_it_stands_and_says_so(state: Path, capsys: Said) -> None:
    path = state / "traces" / "open.json"
    path.unlink()
    status, out, err = told(capsys, "recover", "--state-dir", state, "open")
    assert (status, out) == (0, f"open run 1: running, 1 event: written\n{path}\n")
    assert err == "its journal holds no end: it is rendered as it stands\n"
    assert json.loads(path.read_bytes())["session"]["outcome"] == "running"
    assert faults(report(capsys, state)) == []


def test_the_output_may_be_standard_output_or_any_file_and_nothing_else_is_written(
    state: Path, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    before = snapshot(state)
    good = (state / "traces" / "twice.json").read_bytes()
    assert main(["recover", "--state-dir", str(state), "twice", "--run", "1", "--output", "-"]) == 0
    captured = capfdbinary.readouterr()
    assert captured.out == good
    assert captured.err == b"twice run 1: completed, 3 events: written\n"
    output = tmp_path / "out.json"
    output.write_text("old")
    assert main(["recover", "--state-dir", str(state), "twice", "--run", "1", "--output", str(output)]) == 0
    assert output.read_bytes() == good
    assert sorted(os.listdir(tmp_path)) == ["out.json", "state"]
    assert snapshot(state) == before


def test_what_would_be_written_over_something_else_is_refused(state: Path, capsys: Said, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/null")
    for output in (tmp_path, tmp_path / "link"):
        assert told(capsys, "recover", "--state-dir", state, "open", "--output", output)[0] == 2
    assert told(capsys, "recover", "--state-dir", state)[0] == 2
    assert told(capsys, "recover", state)[0] == 2
    assert told(capsys, "recover", "--state-dir", state, "open", "twice", "--output", tmp_path / "x")[0] == 2
    alone = shutil.copy(state / "journals" / "open~1.0.journal", tmp_path)
    assert told(capsys, "recover", alone)[0] == 2
    assert told(capsys, "recover", alone, "--output", tmp_path / "x.json")[0] == 0


def test_beside_a_daemon_it_is_refused_and_to_another_place_it_is_not(daemon: Daemon, capsys: Said, tmp_path: Path) -> None:
    with daemon.client() as client:
        client.open("live")
        client.send_events([log("x")])
        client.flush(export=True)
        before = daemon.trace_path("live").read_bytes()
        status, _, err = told(capsys, "recover", "--socket", daemon.socket, "live")
        assert (status, "(already-running)\n" in err) == (1, True)
        output = tmp_path / "live.json"
        assert told(capsys, "recover", "--socket", daemon.socket, "live", "--output", output)[0] == 0
        assert output.read_bytes() == before
        client.end()


@pytest.mark.parametrize("is_live", [True, False])
def test_what_a_running_collector_is_just_writing_is_not_called_torn(
    state: Path, capsys: Said, tmp_path: Path, is_live: bool
) -> None:
    good = (state / "traces" / "open.json").read_bytes()
    segments = sorted((state / "journals").glob("open~1.*.journal"))
    with segments[-1].open("ab") as file:
        file.write(b"\1" * 20)
    (state / "journals" / f"open~1.{len(segments)}.journal").write_bytes(b"\1")
    output = tmp_path / "out.json"
    with StateLock(str(state / "lock")) if is_live else nullcontext():
        assert told(capsys, "recover", "--state-dir", state, "open", "--output", output)[0] == 0
    assert (output.read_bytes() == good) is is_live
    assert (b'"integrity":"torn"' in output.read_bytes()) is not is_live


def test_a_journal_of_which_nothing_can_be_made_is_said_so(state: Path, capsys: Said) -> None:
    journal = state / "journals" / "open~1.0.journal"
    raw = journal.read_bytes()
    journal.write_bytes(raw[:10])
    status, _, err = told(capsys, "recover", journal)
    assert (status, "(journal-unreadable)\n" in err) == (1, True)
    journal.unlink()
    status, _, err = told(capsys, "recover", state / "traces" / "open.json")
    assert (status, "(journal-unreadable)\n" in err) == (1, True)


def test_json_says_what_was_done(state: Path, capsys: Said) -> None:
    (state / "traces" / "twice.json").unlink()
    status, out, _ = told(capsys, "recover", "--state-dir", state, "twice", "--run", "1", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["items"] == [
        {
            "id": "twice", "run": 1, "outcome": "completed", "events": 3,
            "path": str(state / "traces" / "twice.json"), "action": "written", "damaged": False,
        }
    ]  # fmt: skip
    assert set(found) == {"as_of", "items", "truncated"}
