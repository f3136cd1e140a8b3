"""Who may come back to a run that a new daemon found open, and how long it is waited for: design section 4, daemon restart.

An owner that is provably dead, or of another boot, is judged at once; one that is provably alive is waited for; of any other it
is seen after ten seconds. A crash report in between wins. Everybody who is not let in is told why, with a code of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest

from collectord.journal.format import (
    HEAD_SIZE_BYTES,
    HEADER_SIZE_BYTES,
    decode_head,
    decode_header,
    encode_record,
    record_from,
)
from collectord.limits import RESUME_GRACE_UNKNOWN_S
from collectord.model import Outcome, Record, RecordType
from collectord.session.records import unpack
from tests.process.client import RawClient, Refused
from tests.process.daemon import Daemon, running
from tests.process.resuming import Known, ResumingClient
from tests.scenarios.journals import terminals_of
from tests.scenarios.support import agent, crashed_row, finish, wait_for

pytestmark = pytest.mark.process

OPEN_AND_WAIT = """
client.open("s")
client.send_events([span_start("execute_tool bash")])
client.wait_acknowledged()
reached("there")
sys.stdin.readline()
"""


def restart(daemon: Daemon) -> None:
    """The daemon is killed, and there is another."""
    daemon.stop(signal.SIGKILL)
    daemon.start()


def opened(daemon: Daemon, name: str, liveness: str = "process") -> ResumingClient:
    """A session with three events that are durable; its owner is this process."""
    client = ResumingClient(lambda: daemon.client(liveness=liveness), Known(name))
    client.open()
    client.log(3)
    client.settle()
    return client


# ---------------------------------------------------------------- how long it is waited for


def test_an_owner_that_died_while_there_was_no_collector_is_judged_before_anybody_can_ask() -> None:
    with running() as daemon:
        process = agent(daemon, OPEN_AND_WAIT)
        wait_for(process, "there")
        daemon.stop(signal.SIGKILL)
        process.kill()
        finish(process)
        daemon.start()
        session = daemon.trace("s")["session"]
        assert (session["outcome"], session["crash"]["reason"]) == ("crashed", "collector-restarted")
        assert (session["counts"]["events"], session["counts"]["unfinished"]) == (1, 1)
        with daemon.client() as client:
            assert client.open("s").run == 2
            assert client.end().outcome is Outcome.COMPLETED


def test_an_owner_that_lives_and_is_silent_is_waited_for_and_watched() -> None:
    with running() as daemon:
        process = agent(daemon, OPEN_AND_WAIT)
        wait_for(process, "there")
        restart(daemon)
        assert daemon.session("s")["outcome"] == "running"
        with daemon.client() as other, pytest.raises(Refused) as refused:
            other.open("s")
        assert refused.value.code == "session-busy"
        process.kill()
        finish(process)
        began = time.monotonic()
        assert crashed_row(daemon, "s")["crash"]["reason"] == "collector-restarted"
        assert time.monotonic() - began < RESUME_GRACE_UNKNOWN_S, "its death was seen, not waited for"
        assert len(terminals_of(daemon, "s")) == 1


def test_a_crash_reported_while_an_owner_is_waited_for_wins() -> None:
    with running() as daemon:
        process = agent(daemon, OPEN_AND_WAIT)
        wait_for(process, "there")
        restart(daemon)
        with daemon.client() as other:
            answer = other.crash("a watchdog says so", session_id="s")
        assert answer.outcome is Outcome.CRASHED
        process.kill()
        finish(process)
        crash = daemon.trace("s")["session"]["crash"]
        assert (crash["reason"], crash["message"]) == ("reported", "a watchdog says so")
        assert len(terminals_of(daemon, "s")) == 1


@pytest.mark.bed
def test_an_owner_of_whom_nothing_is_known_has_ten_seconds() -> None:
    with running() as daemon:
        leaves, returns = opened(daemon, "leaves", "connection"), opened(daemon, "returns", "connection")
        daemon.stop(signal.SIGKILL)
        leaves.hear_out()
        daemon.start()
        began = time.monotonic()
        row = crashed_row(daemon, "leaves") if daemon.session("leaves")["outcome"] == "running" else None
        took = time.monotonic() - began
        assert row is not None, "it was not waited for"
        assert row["crash"]["reason"] == "collector-restarted"
        assert RESUME_GRACE_UNKNOWN_S - 1 < took < RESUME_GRACE_UNKNOWN_S + 10, took
        with returns, pytest.raises(Refused) as refused:
            returns.resume()
        assert refused.value.code == "session-ended"
        with leaves, pytest.raises(Refused) as refused:
            leaves.resume()
        assert refused.value.code == "session-ended"


def test_an_owner_of_whom_nothing_is_known_may_come_back_in_time() -> None:
    with running() as daemon, opened(daemon, "returns", "connection") as client:
        restart(daemon)
        client.resume()
        client.log(1)
        assert client.end() is Outcome.COMPLETED
        assert daemon.trace("returns")["session"]["counts"]["events"] == 4


def test_an_owner_of_another_boot_is_judged_at_once_whoever_has_its_number_now() -> None:
    with running() as daemon:
        client = opened(daemon, "s")
        daemon.stop(signal.SIGKILL)
        client.hear_out()
        path = next((daemon.state_dir / "journals").glob("s~1.*.journal"))
        rewrite(path, lambda record: with_boot_id(record, "00000000-1111-2222-3333-444444444444"))
        daemon.start()
        session = daemon.trace("s")["session"]
        assert (session["outcome"], session["crash"]["reason"]) == ("crashed", "collector-restarted")
        assert session["integrity"]["corrupt_records"] == session["integrity"]["torn_bytes"] == 0


def with_boot_id(record: Record, boot_id: str) -> Record:
    """The record as another boot would have written it."""
    if record.type is not RecordType.OPENED:
        return record
    body: dict[str, Any] = unpack(record.body)
    assert body["boot_id"], "the kernel tells of its boots"
    return Record(record.type, msgpack.packb({**body, "boot_id": boot_id}))


def rewrite(path: Path, change: Callable[[Record], Record]) -> None:
    """A journal with other records in it, every checksum right."""
    raw = path.read_bytes()
    head = decode_head(raw)
    assert head is not None
    made, offset = bytearray(raw[:HEAD_SIZE_BYTES]), HEAD_SIZE_BYTES
    while offset < len(raw):
        header = decode_header(raw[offset:], head.salt, offset)
        assert header is not None
        record = record_from(header, raw[offset + HEADER_SIZE_BYTES : offset + header.size])
        assert record is not None
        made += encode_record(change(record), head.salt, len(made), begins_group=header.begins_group)
        offset += header.size
    assert bytes(made) != raw
    path.write_bytes(made)


# ---------------------------------------------------------------- who is not let in


def refusal(client: RawClient, session_id: str, token: bytes) -> str:
    """The code with which a resume is refused."""
    with pytest.raises(Refused) as refused:
        client.open(session_id, resume_token=token)
    return refused.value.code


def test_a_wrong_token_is_refused_and_the_right_one_still_works() -> None:
    with running() as daemon, opened(daemon, "s") as client:
        restart(daemon)
        token = client.known.token
        for wrong in (b"", b"\0" * len(token), token[:-1], token + b"\0", bytes([token[0] ^ 1]) + token[1:]):
            with daemon.client() as other:
                assert refusal(other, "s", wrong) == "resume-token-wrong"
        assert daemon.session("s")["outcome"] == "running", "a wrong token is nobody's crash"
        client.resume()
        assert client.end() is Outcome.COMPLETED


def test_a_run_that_has_ended_is_not_resumed_and_its_file_stays() -> None:
    with running() as daemon, opened(daemon, "s") as client:
        client.end()
        token, before = client.known.token, daemon.trace_path("s").read_bytes()
        for _ in range(2):
            with daemon.client() as other:
                assert refusal(other, "s", token) == "session-ended"
            restart(daemon)
        assert daemon.trace_path("s").read_bytes() == before


def test_a_run_that_goes_on_in_this_collector_is_not_resumed() -> None:
    with running() as daemon, opened(daemon, "s") as client:
        with daemon.client() as other:
            assert refusal(other, "s", client.known.token) == "resume-refused"
        restart(daemon)
        client.resume()
        with daemon.client() as other:
            assert refusal(other, "s", client.known.token) == "resume-refused", "it was resumed already, and goes on"
        client.log(2)
        assert client.end() is Outcome.COMPLETED


def test_a_session_of_which_nothing_is_known_is_not_resumed() -> None:
    with running() as daemon, daemon.client() as client:
        assert refusal(client, "never", b"x" * 16) == "session-unknown"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_with_the_right_token_does_not_even_hear_that_there_is_such_a_session() -> None:
    script = (
        "import os, sys\n"
        "from tests.process.client import RawClient, Refused\n"
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "client = RawClient(sys.argv[1]); client.hello()\n"
        "try:\n    client.open('s', resume_token=bytes.fromhex(sys.argv[2]))\n"
        "except Refused as refused:\n    print(refused.code)\n"
    )
    with running() as daemon, opened(daemon, "s") as client:
        restart(daemon)
        daemon.directory.chmod(0o755)
        daemon.socket.chmod(0o666)
        said = subprocess.run(
            [sys.executable, "-c", script, str(daemon.socket), client.known.token.hex()],
            capture_output=True, text=True, check=False, cwd=Path(__file__).resolve().parents[2], timeout=60,
        )  # fmt: skip
        assert (said.stdout, said.stderr) == ("session-unknown\n", "")
        client.resume()
        assert client.end() is Outcome.COMPLETED
