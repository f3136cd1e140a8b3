"""Faults and delays of a file system, switched under a live daemon: M1 with a slow rename, and the rows of D7.

Everything acknowledged is looked for in the trace file in the end. While a fault stands that lets nothing be stored, nothing is
acknowledged; once it is gone the work goes on without another event to remind it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from attrs import frozen

from collectord.wire import messages
from tests.export.otlp import check_document, logs_of
from tests.faults import figures
from tests.faults.power.apart import missing
from tests.faults.switch import Fault, Switch
from tests.process.client import RawClient, Refused, log, span_start
from tests.process.daemon import Daemon
from tests.scenarios.support import until

BED = "switched faults (FUSE)"
ROOT = Path(__file__).resolve().parents[2]
_WHY_NOT = missing()

pytestmark = [
    pytest.mark.bed,
    pytest.mark.process,
    pytest.mark.skipif(_WHY_NOT is not None, reason=_WHY_NOT or ""),
]

JOURNALS = r"/journals/.*\.journal$"
JOURNAL_DIRECTORY = r"/journals$"
TRACES = r"/traces/.*\.json$"
TEMPORARY = r"/traces/\."
TRACE_DIRECTORY = r"/traces$"
TEXT = "x" * 3_000


@frozen
class Faulty:
    """A daemon whose state is on the file system with the faults."""

    daemon: Daemon
    switch: Switch


@pytest.fixture(scope="module")
def faulty() -> Iterator[Faulty]:
    with tempfile.TemporaryDirectory(prefix="cd-") as name:
        directory = Path(name)
        backing, mount = directory / "backing", directory / "mnt"
        backing.mkdir()
        mount.mkdir()
        switch = Switch(directory / "switch", directory / "fired")
        places = [str(place) for place in (backing, mount, directory / "switch", directory / "fired")]
        server = subprocess.Popen([sys.executable, "-m", "tests.faults.passthrough", *places], cwd=ROOT, stdin=subprocess.PIPE)
        daemon = Daemon(directory)
        daemon.state_dir = mount / "state"
        try:
            until(lambda: os.path.ismount(mount) or server.poll() is not None, "the file system is not there")
            daemon.start()
            yield Faulty(daemon, switch)
            daemon.stop()
            for path in sorted(daemon.state_dir.glob("traces/**/*.json")):
                check_document(path.read_bytes())
        finally:
            if daemon.process is not None and daemon.process.poll() is None:
                daemon.stop(signal.SIGKILL)
            assert server.stdin is not None
            server.stdin.close()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
                subprocess.run(["umount", "-l", str(mount)], check=False)


@pytest.fixture(autouse=True)
def healed(faulty: Faulty) -> Iterator[None]:
    yield
    faulty.switch.heal()


def opened(faulty: Faulty, name: str) -> RawClient:
    """A session with a few acknowledged events, on a healthy disk."""
    client = faulty.daemon.client()
    client.open(name)
    send(client, 3)
    client.wait_acknowledged()
    return client


def send(client: RawClient, count: int) -> None:
    """Events that say which they are."""
    client.send_events([log(f"{client.sequence + 1 + number} {TEXT}") for number in range(count)])


def acknowledged_before_anything_else(client: RawClient) -> bool:
    """Wait for the acknowledgement of all that was sent; False where something else is told first."""
    while client.acknowledged < client.sequence and not client.pushed:
        client.read_more()
    return not client.pushed


def outcome_is(daemon: Daemon, name: str, outcome: str) -> bool:
    """Whether the trace file says that."""
    return bool(daemon.trace(name)["collectord"]["outcome"] == outcome)


def check_stored(daemon: Daemon, name: str, count: int) -> None:
    """The trace file has these events, each once and in order."""
    told = [record["body"]["stringValue"].split(" ")[0] for record in logs_of(daemon.trace(name))]
    figures.record(BED, "acknowledged events lost", len({str(n) for n in range(1, count + 1)} - set(told)))
    assert told == [str(number) for number in range(1, count + 1)]


# ---------------------------------------------------------------- M1

WAYS = ("the owner reports it", "somebody else reports it", "the owner is gone")


@pytest.mark.parametrize("way", WAYS)
def test_m1_a_crash_beats_the_running_export_whose_rename_is_under_way(way: str, faulty: Faulty) -> None:
    for number in range(5 if figures.is_full() else 2):
        name = f"m1-{WAYS.index(way)}-{number}"
        with faulty.daemon.client() as client, faulty.daemon.client() as other:
            client.open(name)
            faulty.switch.order(Fault("rename", TRACES, delay_s=0.2))
            client.send_events([span_start("tool", {"input": TEXT}), log("1 " + TEXT)])
            until(lambda: faulty.switch.fired("fault rename"), "no running export was renamed")
            assert not faulty.switch.fired("after rename"), "the test was too slow: the rename is over"
            if way == "the owner reports it":
                answer = client.crash("it broke")
            elif way == "somebody else reports it":
                answer = other.crash("it broke", session_id=name)
            else:
                client.close()
                until(partial(outcome_is, faulty.daemon, name, "crashed"), "it is not crashed")
            if way != "the owner is gone":
                assert answer.outcome.value == "crashed"
                document = faulty.daemon.trace(name)
                assert document["session"]["crash"]["message"] == "it broke"
            figures.record(BED, "crashes during a rename", 1)
            assert len(faulty.switch.fired("after rename")) == 2, "the running document, then the crashed one"
            document = faulty.daemon.trace(name)
            assert document["collectord"]["outcome"] == "crashed"
            figures.record(BED, "wrong outcomes", document["session"]["outcome"] != "crashed")
            assert len(logs_of(document)) == 1
        faulty.switch.heal()


# ---------------------------------------------------------------- D7: the journal

FAILS_ONCE = {
    "fsync EIO": [Fault("fsync", JOURNALS, "EIO", times=1)],
    "fsync EIO at the third": [Fault("fsync", JOURNALS, "EIO", after=2, times=1)],
    "write EIO": [Fault("write", JOURNALS, "EIO", times=1)],
    "write ENOSPC": [Fault("write", JOURNALS, "ENOSPC", times=1)],
    "short writes": [Fault("write", JOURNALS, short=700)],
}
"""After these the run goes on at once, and nobody need be told."""


@pytest.mark.parametrize("fault", FAILS_ONCE)
def test_d7_a_journal_that_fails_once_is_gone_on_with_in_a_fresh_segment(fault: str, faulty: Faulty) -> None:
    name = f"once-{[*FAILS_ONCE].index(fault)}"
    with opened(faulty, name) as client:
        faulty.switch.order(*FAILS_ONCE[fault])
        for _ in range(4):
            send(client, 1)
            client.wait_acknowledged()
        assert faulty.switch.fired("fault"), "no fault was fired"
        figures.record(BED, "faults fired", len(faulty.switch.fired("fault")))
        assert not client.pushed
        faulty.switch.heal()
        assert client.end().outcome.value == "completed"
    check_stored(faulty.daemon, name, 7)


STAYS = {
    "fsync EIO": [Fault("fsync", JOURNALS, "EIO")],
    "fsync EIO from the second on": [Fault("fsync", JOURNALS, "EIO", after=1)],
    "directory fsync EIO": [Fault("fsync", JOURNALS, "EIO", times=1), Fault("fsyncdir", JOURNAL_DIRECTORY, "EIO")],
    "write EIO": [Fault("write", JOURNALS, "EIO")],
    "write EDQUOT": [Fault("write", JOURNALS, "EDQUOT")],
    "ENOSPC behind a short write": [Fault("write", JOURNALS, room_bytes=2_000)],
    "EROFS": [Fault(operation, "/state/", "EROFS") for operation in ("write", "open", "rename", "unlink")],
    "EMFILE": [Fault("fsync", JOURNALS, "EIO", times=1), Fault("open", JOURNALS, "EMFILE")],
    "nothing can be removed": [Fault("fsync", JOURNALS, "EIO"), Fault("unlink", JOURNALS, "EIO")],
}
"""While these stand nothing can be stored."""


@pytest.mark.parametrize("fault", STAYS)
def test_d7_a_journal_that_cannot_be_written_is_told_and_shown_and_goes_on_by_itself(fault: str, faulty: Faulty) -> None:
    name = f"stays-{[*STAYS].index(fault)}"
    daemon = faulty.daemon
    with opened(faulty, name) as client:
        faulty.switch.order(*STAYS[fault])
        send(client, 1)
        while acknowledged_before_anything_else(client):
            send(client, 1)
        durable = client.acknowledged
        assert client.sequence <= durable + 1 <= 6, "nothing failed"
        told = client.pushed.pop(0)
        assert isinstance(told, messages.Stalled), told
        assert told.code == "disk-failed"
        row = daemon.session(name)
        assert row["outcome"] == "running"
        assert row["stalled"]
        with daemon.client() as another, pytest.raises(Refused) as refused:
            another.open(f"{name}-new")
        assert refused.value.error.retryable
        retries = daemon.said().count("is stalled")
        until(lambda: daemon.said().count("is stalled") > retries, "it was not tried again")
        assert client.acknowledged == durable
        figures.record(BED, "faults fired", len(faulty.switch.fired("fault")))
        faulty.switch.heal()
        client.wait_acknowledged()  # nothing is sent: the timer does it
        assert daemon.session(name)["stalled"] is None
        assert client.end().path is not None
    check_stored(daemon, name, client.sequence)
    assert not daemon.trace_path(f"{name}-new").exists(), "refused, and yet there"


# ---------------------------------------------------------------- D7: the trace file

NOT_EXPORTED = {
    "rename EIO": [Fault("rename", TRACES, "EIO")],
    "rename EROFS": [Fault("rename", TRACES, "EROFS")],
    "directory fsync EIO": [Fault("fsyncdir", TRACE_DIRECTORY, "EIO")],
    "write ENOSPC": [Fault("write", TEMPORARY, room_bytes=5_000)],
    "fsync EIO": [Fault("fsync", TEMPORARY, "EIO")],
    "open EMFILE": [Fault("open", TEMPORARY, "EMFILE")],
}
"""While these stand no document can be finished; the journal is well."""


@pytest.mark.parametrize("fault", NOT_EXPORTED)
def test_d7_an_end_whose_document_cannot_be_written_stands_and_its_file_follows_by_itself(fault: str, faulty: Faulty) -> None:
    name = f"export-{[*NOT_EXPORTED].index(fault)}"
    daemon = faulty.daemon
    with opened(faulty, name) as client:
        faulty.switch.order(*NOT_EXPORTED[fault])
        send(client, 3)
        client.wait_acknowledged()
        assert not client.pushed, "the journal is well"
        answer = client.end("failed", "as it is")
        assert answer.outcome.value == "failed"
        assert answer.path is None
        assert answer.export_error
        assert faulty.switch.fired("fault"), "no fault was fired"
        figures.record(BED, "faults fired", len(faulty.switch.fired("fault")))
        assert daemon.status().daemon["exports_owed"] == 1
        faulty.switch.heal()
        until(lambda: daemon.status().daemon["exports_owed"] == 0, "the file is still owed")
    assert outcome_is(daemon, name, "failed")
    check_stored(daemon, name, 6)


def test_d7_short_writes_of_a_document_are_gone_on_with(faulty: Faulty) -> None:
    with opened(faulty, "short") as client:
        faulty.switch.order(Fault("write", TEMPORARY, short=100))
        send(client, 3)
        assert client.end().path is not None
        assert len(faulty.switch.fired("fault")) > 10
    check_stored(faulty.daemon, "short", 6)


# ---------------------------------------------------------------- and after all of that


def test_d7_a_daemon_that_is_killed_after_all_these_faults_finds_every_run_as_it_was_told(faulty: Faulty) -> None:
    daemon = faulty.daemon
    with opened(faulty, "last") as client:
        faulty.switch.order(Fault("fsync", JOURNALS, "EIO", times=1))
        send(client, 2)
        client.wait_acknowledged()
        faulty.switch.heal()
        told = {path.name: path.read_bytes() for path in daemon.state_dir.glob("traces/*.json") if path.name != "last.json"}
        assert told
        daemon.stop(signal.SIGKILL)
        daemon.start()
        assert {name: (daemon.state_dir / "traces" / name).read_bytes() for name in told} == told, "a finished file has changed"
    with daemon.client() as other:
        assert other.crash("nobody comes back", session_id="last").outcome.value == "crashed"
    check_stored(daemon, "last", 5)
