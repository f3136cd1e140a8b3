"""Scenarios M1 to M6: the crash against an export that is in flight. Real daemon, real renderers, real slow system calls."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from collectord.model import Outcome
from tests.process.client import RawClient, log, span_start
from tests.process.daemon import Daemon, running
from tests.scenarios.support import BIG_SPANS, agent, crashed_row, finish, send_big, slow, until, wait_for

pytestmark = pytest.mark.process

TIMES = 10 if os.environ.get("COLLECTORD_FULL") else 4


@pytest.fixture(scope="module")
def slow_sync() -> Iterator[Daemon]:
    """A daemon whose documents take 300 ms to sync: an `end` that has just begun cannot have committed."""
    with running(slow("fsync", 300_000)) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def slow_rename() -> Iterator[Daemon]:
    """A daemon whose every rename takes 200 ms."""
    with running(slow("rename,renameat,renameat2", 200_000)) as daemon:
        yield daemon


def test_m1_a_crash_reported_while_a_running_export_is_renamed_stands(slow_rename: Daemon) -> None:
    for number in range(5):
        name = f"m1-{number}"
        with slow_rename.client() as client, slow_rename.client() as other:
            client.open(name)
            client.send_events([span_start("turn", {"text": "x" * 2_000}) for _ in range(200)])
            client.wait_acknowledged()
            exporting = threading.Thread(target=lambda c=client: c.flush(export=True))
            exporting.start()
            answer = other.crash("killed in mid-rename", session_id=name)
            exporting.join()
        assert answer.outcome is Outcome.CRASHED
        document = slow_rename.trace(name)
        assert document["session"]["outcome"] == "crashed"
        assert document["session"]["crash"]["message"] == "killed in mid-rename"
        assert document["session"]["counts"]["unfinished"] == 200


def test_m1b_a_crash_stands_on_a_machine_that_is_busy_with_other_writes() -> None:
    noise = "import os\nfor n in range(200):\n    open(f'{n}', 'wb').write(os.urandom(1 << 20))\n"
    with running() as daemon:
        scratch = daemon.directory / "noise"
        scratch.mkdir()
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
        writer = subprocess.Popen([sys.executable, "-c", noise], cwd=scratch)
        try:
            for number in range(3):
                name = f"m1b-{number}"
                with daemon.client() as client, daemon.client() as other:
                    client.open(name)
                    send_big(client, 2_000, "y" * 2_500)
                    client.send_end()
                    answer = other.crash("out of memory", session_id=name)
                assert answer.outcome in (Outcome.CRASHED, Outcome.COMPLETED)
                assert daemon.trace(name)["session"]["outcome"] == answer.outcome.value
                with daemon.client() as client, daemon.client() as other:
                    client.open(f"{name}-running")
                    send_big(client, 500, "y" * 2_500)
                    flushing = threading.Thread(target=lambda c=client: c.flush(export=True))
                    flushing.start()
                    assert other.crash("out of memory", session_id=f"{name}-running").outcome is Outcome.CRASHED
                    flushing.join()
                assert daemon.trace(f"{name}-running")["session"]["crash"]["message"] == "out of memory"
        finally:
            for process in (*busy, writer):
                process.kill()
                process.wait()


def test_m2_a_burst_after_a_pause_is_all_on_disk_without_a_further_event() -> None:
    with running() as daemon:
        clients: list[RawClient] = []
        for number in range(20):
            client = daemon.client()
            client.open(f"m2-{number}")
            send_big(client, 100, "x" * 2_000)
            clients.append(client)
        for client in clients:
            client.send_events([log(f"burst {event}") for event in range(8)])
        for client in clients:
            client.wait_acknowledged()
        for number in range(20):
            until(partial(_shows_the_burst, daemon, f"m2-{number}"), "the file did not follow")
        for number, client in enumerate(clients):
            client.close()
            crashed_row(daemon, f"m2-{number}")
            document = daemon.trace(f"m2-{number}")
            bodies = [r["body"]["stringValue"] for r in document["resourceLogs"][0]["scopeLogs"][0]["logRecords"]]
            assert bodies == [f"burst {event}" for event in range(8)]


def _shows_the_burst(daemon: Daemon, stem: str) -> bool:
    return bool(daemon.trace(stem)["session"]["counts"]["logs"] == 8)


def test_m2b_events_that_come_while_a_write_is_stuck_are_all_stored() -> None:
    with running(slow("fdatasync", 150_000)) as daemon, daemon.client() as client:
        client.open("m2b")
        for number in range(4):
            client.send_events([log(f"event {number}")])
        client.wait_acknowledged()
        assert client.end().outcome is Outcome.COMPLETED
        assert daemon.trace("m2b")["session"]["counts"]["logs"] == 4


def test_m3_a_crash_5_ms_after_an_end_of_52_mb_wins(slow_sync: Daemon) -> None:
    for number in range(TIMES):
        name = f"m3-{number}"
        with slow_sync.client() as client, slow_sync.client() as other:
            client.open(name)
            send_big(client)
            end = client.send_end()
            _wait_until_ending(slow_sync, name)
            answer = other.crash("out of memory", session_id=name)
            waiting = client.terminal(end)
        assert answer.outcome is Outcome.CRASHED
        assert waiting.outcome is Outcome.CRASHED, "the end that waits is told what stands"
        assert waiting.path == str(slow_sync.trace_path(name))
        crash = _session_line(slow_sync.trace_path(name))
        assert b'"outcome":"crashed"' in crash
        assert b'"message":"out of memory"' in crash
        assert b'"end_requested":"completed"' in crash
        assert b'"unfinished":0' in crash
        slow_sync.trace_path(name).unlink()


def _wait_until_ending(daemon: Daemon, name: str) -> None:
    """The end was taken in, its document is being rendered and will take 300 ms to sync: a few milliseconds later now."""
    until(lambda: daemon.session(name)["state"] == "ending")


def _session_line(path: Path) -> bytes:
    with path.open("rb") as file:
        file.readline()
        return file.readline()


def test_m3_an_owner_that_vanishes_5_ms_after_an_end_of_52_mb_has_crashed(slow_sync: Daemon) -> None:
    for number in range(TIMES):
        name = f"m3v-{number}"
        client = slow_sync.client()
        client.open(name)
        send_big(client)
        client.send_end()
        _wait_until_ending(slow_sync, name)
        client.close()
        row = crashed_row(slow_sync, name)
        assert row["crash"]["reason"] == "connection-closed"
        assert row["spans"] == BIG_SPANS
        assert b'"end_requested":"completed"' in _session_line(slow_sync.trace_path(name))
        slow_sync.trace_path(name).unlink()


def test_m3b_an_end_after_an_acknowledged_crash_is_answered_crashed_and_changes_nothing() -> None:
    with running() as daemon, daemon.client() as client:
        client.open("m3b")
        client.send_events([span_start("turn")])
        assert client.crash("broken").outcome is Outcome.CRASHED
        before = daemon.trace_path("m3b").read_bytes()
        assert client.end().outcome is Outcome.CRASHED
        assert daemon.trace_path("m3b").read_bytes() == before


def test_m3c_five_ends_and_three_crash_reports_at_once_make_one_terminal_record(slow_sync: Daemon) -> None:
    with slow_sync.client() as client:
        client.open("m3c")
        client.send_events([span_start("turn")])
        client.wait_acknowledged()
        ends = [client.send_end(message=f"end {number}") for number in range(5)]
        others = [slow_sync.client() for _ in range(3)]
        reports = [other.send_crash(f"crash {n}", session_id="m3c") for n, other in enumerate(others)]
        outcomes = {client.terminal(end).outcome for end in ends}
        outcomes |= {other.terminal(report).outcome for other, report in zip(others, reports, strict=True)}
        assert outcomes == {Outcome.CRASHED}
    session = slow_sync.trace("m3c")["session"]
    texts = {note["text"].removeprefix("reported too: ").removeprefix("reported late: ") for note in session["notes"]}
    first = session["crash"]["message"]
    assert {f"crash {n}" for n in range(3)} - texts == {first}, "the first stands, the others are noted"
    for other in others:
        other.close()


def test_m5_one_session_crashes_and_another_completes_in_the_same_daemon() -> None:
    with running() as daemon, daemon.client() as a, daemon.client() as b:
        a.open("a")
        b.open("b")
        a.send_events([span_start("x")])
        b.send_events([span_start("y")])
        assert a.crash("gone").outcome is Outcome.CRASHED
        assert b.end().outcome is Outcome.COMPLETED
        assert daemon.trace("a")["session"]["outcome"] == "crashed"
        assert daemon.trace("b")["session"]["outcome"] == "completed"


def test_m6_a_crash_wins_for_an_id_full_of_separators_too(slow_sync: Daemon) -> None:
    name = "weird:session/with.unsafe:chars"
    with slow_sync.client() as client, slow_sync.client() as other:
        opened = client.open(name)
        send_big(client, 1_000)
        end = client.send_end()
        _wait_until_ending(slow_sync, name)
        assert other.crash("out of memory", session_id=name).outcome is Outcome.CRASHED
        assert client.terminal(end).outcome is Outcome.CRASHED
    stem = Path(opened.path).name.removesuffix(".json")
    session = slow_sync.trace(stem)["session"]
    assert session["id"] == name
    assert session["crash"]["message"] == "out of memory"


def test_m7_ids_that_differ_in_a_separator_have_files_of_their_own() -> None:
    names = ["a.b", "a_b", "a:b", "a/b"]
    with running() as daemon:
        paths = {}
        clients = [daemon.client() for _ in names]
        for client, name in zip(clients, names, strict=True):
            paths[name] = client.open(name).path
        for client in clients:
            client.end()
            client.close()
        assert len(set(paths.values())) == 4
        for name, path in paths.items():
            stem = Path(path).name.removesuffix(".json")
            assert daemon.trace(stem)["session"]["id"] == name


@pytest.mark.parametrize("moment", ["between turns", "in the middle of a turn"])
def test_m8_a_killed_agent_is_crashed_with_its_signal_and_its_open_spans_unfinished(moment: str) -> None:
    script = """
client.open("m8")
client.send_events([span_start("turn 1"), span_end(1)])
if sys.argv[1] != "between turns":
    client.send_events([span_start("turn 2"), span_start("execute_tool bash")])
client.wait_acknowledged()
reached("there")
time.sleep(600)
"""
    with running() as daemon:
        process = agent(daemon, script, moment)
        wait_for(process, "there")
        process.kill()
        finish(process)
        row = crashed_row(daemon, "m8")
        assert row["crash"]["reason"] == "process-died"
        assert row["crash"]["signal"] in ("SIGKILL", None), "None where the kernel does not tell"
        session = daemon.trace("m8")["session"]
        assert session["counts"]["unfinished"] == (0 if moment == "between turns" else 2)
        spans = daemon.trace("m8")["resourceSpans"][0]["scopeSpans"][0]["spans"]
        for span in spans:
            marked = any(a["key"] == "collectord.span.unfinished" for a in span["attributes"])
            assert marked == ("endTimeUnixNano" not in span)


def test_m10_a_session_opened_again_after_a_crash_is_a_new_run_with_files_of_its_own() -> None:
    with running() as daemon:
        with daemon.client() as client:
            client.open("m10")
            assert client.crash("first").outcome is Outcome.CRASHED
        before = daemon.trace_path("m10").read_bytes()
        with daemon.client() as client:
            assert client.open("m10").run == 2
            client.send_events([log("again")])
            assert client.end().outcome is Outcome.COMPLETED
        assert daemon.trace_path("m10").read_bytes() == before
        assert daemon.trace("m10", 2)["session"]["outcome"] == "completed"
        rows = [(row["run"], row["outcome"]) for row in daemon.status().sessions if row["id"] == "m10"]
        assert sorted(rows) == [(1, "crashed"), (2, "completed")]


def test_m11_a_report_after_a_clean_end_changes_nothing_and_is_noted() -> None:
    with running() as daemon:
        with daemon.client() as client, daemon.client() as other:
            client.open("m11")
            client.send_events([log("done")])
            assert client.end().outcome is Outcome.COMPLETED
            before = daemon.trace_path("m11").read_bytes()
            assert other.crash("too late", session_id="m11").outcome is Outcome.COMPLETED
        assert daemon.trace_path("m11").read_bytes() == before
        assert _notes(daemon, "m11") == ["reported late: too late"]
        assert daemon.session("m11")["outcome"] == "completed"


def _notes(daemon: Daemon, stem: str) -> list[str]:
    """The notes in a journal."""
    from collectord.journal.disk import RealDisk
    from collectord.journal.reader import JournalReader
    from collectord.model import RecordType
    from collectord.session.records import unpack

    path = str(daemon.state_dir / "journals" / f"{stem}~1.0.journal")
    records = list(JournalReader(RealDisk(), [path], [None]))
    return [unpack(record.body)["text"] for record in records if record.type is RecordType.NOTE]
