"""A stranger's client: written from docs/protocol.md with a socket and msgpack, and nothing of this package.

The page says what happens in corners that a field-by-field comparison cannot see: each of its statements here is tried.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import msgpack
import pytest

from collectord.errors import CODES
from tests.docs.tables import code, read, section, table
from tests.process.daemon import Daemon, running

SPAN = b"spanspan"


class Stranger:
    """One connection."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.say("hello", id=1, protocol=1, client="stranger/1", pid=os.getpid())
        self.welcome = self.hear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()

    def say(self, kind: str, **fields: Any) -> None:
        """Send one message."""
        payload = msgpack.packb({"type": kind, **fields})
        self.socket.sendall(len(payload).to_bytes(4, "big") + payload)

    def hear(self) -> dict[str, Any]:
        """The next message; an empty one at end-of-file."""
        size = self._read(4)
        heard: dict[str, Any] = msgpack.unpackb(self._read(int.from_bytes(size, "big"))) if size else {}
        return heard

    def _read(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            chunk = self.socket.recv(size - len(got))
            if not chunk:
                break
            got += chunk
        return got


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as found:
        yield found


def test_a_life_said_all_at_once_is_answered_as_the_page_says(daemon: Daemon) -> None:
    with Stranger(str(daemon.socket)) as agent:
        agent.say("open", id=2, session_id="life")
        agent.say("events", first_sequence=1, events=[[1, 10, SPAN, None, "work", 1, {}], [99, 10], [4, 20, 1, 1, None, {}]])
        agent.say("events", first_sequence=6, events=[[3, 30, 1, "late", {}], [5, 40, 9, "hi", {}, SPAN]])
        agent.say("flush", id=3, last_sequence=7, export=True)
        agent.say("end", id=4, outcome="completed", last_sequence=9)
        agent.say("end", id=5, outcome="failed", last_sequence=9)
        agent.say("events", first_sequence=10, events=[[9, 50, "s"]])
        heard: list[dict[str, Any]] = []
        while sum(message["type"] == "terminal" for message in heard) < 2:
            heard.append(agent.hear())
        kinds = [message["type"] for message in heard]
        assert kinds[0] == "opened"
        acks = [message for message in heard if message["type"] == "ack"]
        stretches = [stretch for ack in acks for stretch in ack["refused"]]
        assert [2, 1, "event-unknown"] in stretches
        assert [6, 1, "span-ended"] in stretches
        while [10, 1, "session-ended"] not in stretches:
            stretches += agent.hear()["refused"]
        flushed = next(message for message in heard if message["type"] == "flushed")
        assert (flushed["id"], flushed["sequence"], flushed["refused"]) == (3, 7, 2)
        assert kinds.index("ack") < kinds.index("flushed")
        terminals = {message["id"]: message["outcome"] for message in heard if message["type"] == "terminal"}
        assert terminals == {4: "completed", 5: "completed"}
        assert os.path.exists(next(message["path"] for message in heard if message["type"] == "terminal"))
    lost = daemon.trace("life")["session"]["integrity"]
    assert (lost["received"], lost["stored"], lost["client_lost"]) == (5, 3, 4)


def test_a_refused_open_leaves_the_connection_free_and_what_was_sent_behind_it_closes_it(daemon: Daemon) -> None:
    with Stranger(str(daemon.socket)) as owner, Stranger(str(daemon.socket)) as other:
        owner.say("open", id=2, session_id="busy")
        assert owner.hear()["type"] == "opened"
        other.say("open", id=2, session_id="busy")
        refused = other.hear()
        assert (refused["type"], refused["code"], refused["retryable"], refused["id"]) == ("error", "session-busy", True, 2)
        other.say("open", id=3, session_id="busy", resume_token=b"t")
        assert other.hear()["code"] == "resume-refused"
        other.say("open", id=4, session_id="none", join=True)
        assert other.hear()["code"] == "session-unknown"
        other.say("open", id=5, session_id="busy")
        other.say("events", first_sequence=1, events=[])
        assert other.hear()["id"] == 5
        last = other.hear()
        assert (last["code"], last.get("id")) == ("message-unexpected", None)
        assert other.hear() == {}
        owner.say("end", id=3, outcome="completed", last_sequence=0)
        assert owner.hear()["outcome"] == "completed"


def test_an_id_without_bytes_and_attributes_beyond_a_limit_close_the_connection(daemon: Daemon) -> None:
    wrong = [("", {}, "session-id-invalid"), ("x", {str(n): n for n in range(1_025)}, "message-malformed")]
    for session_id, attributes, wanted in wrong:
        with Stranger(str(daemon.socket)) as agent:
            agent.say("open", id=2, session_id=session_id, attributes=attributes)
            last = agent.hear()
            assert (last["code"], "id" in last) == (wanted, False)
            assert agent.hear() == {}


def test_participants_hear_what_the_page_says(daemon: Daemon) -> None:
    with Stranger(str(daemon.socket)) as owner, Stranger(str(daemon.socket)) as guest, Stranger(str(daemon.socket)) as asker:
        owner.say("open", id=2, session_id="group")
        assert owner.hear()["producer"] == 1
        for connection in (guest, asker):
            connection.say("open", id=2, session_id="group", join=True)
            assert connection.hear()["next_sequence"] == 1
        guest.say("end", id=3, outcome="completed", last_sequence=0)
        assert guest.hear()["code"] == "not-owner"
        owner.say("detach", id=3, last_sequence=0)
        assert owner.hear()["code"] == "not-owner"
        guest.say("cancel", id=4, reason="enough")
        assert guest.hear() == {"type": "cancel_answer", "id": 4, "run": 1}
        asked = owner.hear()
        assert (asked["type"], asked["reason"], asked["grace_s"]) == ("cancel_requested", "enough", 30.0)
        guest.say("detach", id=5, last_sequence=2)
        assert {key: value for key, value in guest.hear().items() if key != "path"} == {
            "type": "detached",
            "id": 5,
            "sequence": 2,
        }
        owner.say("cancel", id=4, reason="enough", last_sequence=0)
        told = owner.hear()
        assert (told["type"], told["outcome"], told["id"]) == ("terminal", "cancelled", 4)
        pushed = asker.hear()
        assert (pushed["type"], pushed["outcome"], "id" in pushed) == ("terminal", "cancelled", False)
        asker.say("status", id=9)
        assert next(row for row in asker.hear()["sessions"] if row["id"] == "group")["outcome"] == "cancelled"
    with Stranger(str(daemon.socket)) as reporter:
        reporter.say("crash", id=2, reason="too late", session_id="group")
        assert reporter.hear()["outcome"] == "cancelled"
        reporter.say("cancel", id=3, reason="too late", session_id="group", run=1)
        assert reporter.hear()["outcome"] == "cancelled"


def test_a_stranger_comes_back_after_a_restart_as_the_page_says() -> None:
    with running() as daemon:
        owner, guest = Stranger(str(daemon.socket)), Stranger(str(daemon.socket))
        owner.say("open", id=2, session_id="back")
        known = owner.hear()
        guest.say("open", id=2, session_id="back", join=True)
        guest_known = guest.hear()
        logs: list[list[Any]] = [[5, number, 9, number, {}, None] for number in range(1, 8)]
        logs[1] = [99, 2]
        owner.say("events", first_sequence=1, events=logs[:3])
        assert owner.hear()["sequence"] == 3
        daemon.stop()
        stopped = owner.hear()
        assert (stopped["code"], stopped["retryable"], "id" in stopped) == ("collector-draining", True, False)
        assert owner.hear() == {}
        owner.socket.close()
        guest.socket.close()
        daemon.start()
        with Stranger(str(daemon.socket)) as owner, Stranger(str(daemon.socket)) as guest:
            owner.say("open", id=2, session_id="back", resume_token=b"guessed")
            assert owner.hear()["code"] == "resume-token-wrong"
            owner.say("open", id=3, session_id="back", resume_token=known["resume_token"])
            back = owner.hear()
            assert {**back, "id": 2, "next_sequence": 1} == known
            assert back["next_sequence"] == 4
            guest.say("open", id=2, session_id="back", resume_token=guest_known["resume_token"])
            assert guest.hear() == guest_known
            owner.say("events", first_sequence=1, events=logs)  # whole, though three of them are there
            owner.say("flush", id=2, last_sequence=7)
            owner.say("end", id=3, outcome="completed", last_sequence=7)
            heard: list[dict[str, Any]] = []
            while not heard or heard[-1]["type"] != "terminal":
                heard.append(owner.hear())
            assert [message["refused"] for message in heard if message["type"] == "flushed"] == [1]
            assert heard[-1]["outcome"] == "completed"
        with Stranger(str(daemon.socket)) as late:
            late.say("open", id=2, session_id="back", resume_token=known["resume_token"])
            refused = late.hear()
            assert (refused["code"], refused["retryable"]) == ("session-ended", False)
            late.say("cancel", id=3, reason="", session_id="back", run=known["run"])
            told = late.hear()
            assert (told["type"], told["outcome"], told["path"]) == ("terminal", "completed", known["path"])
            late.say("open", id=4, session_id="never", resume_token=known["resume_token"])
            assert late.hear()["code"] == "session-unknown"
        found = daemon.trace("back")["session"]
        assert found["trace_id"] == known["trace_id"].hex()
        counts = found["integrity"]
        assert (counts["stored"], counts["duplicates"], counts["client_lost"], counts["refused"]) == (
            6, 3, 0, {"event-unknown": 1},
        )  # fmt: skip


def test_a_connection_that_ends_without_a_restart_cannot_be_resumed(daemon: Daemon) -> None:
    with Stranger(str(daemon.socket)) as owner:
        owner.say("open", id=2, session_id="gone")
        token = owner.hear()["resume_token"]
        with Stranger(str(daemon.socket)) as other:
            other.say("open", id=2, session_id="gone", resume_token=token)
            assert other.hear()["code"] == "resume-refused"


def test_the_pages_table_of_refusals_says_of_each_whether_it_may_pass() -> None:
    rows = table(section(read("protocol.md"), "When the collector restarts"))
    assert {code(name): again for name, again, _ in rows} == {
        code(name): "yes" if CODES[code(name)].retryable else "no" for name, *_ in rows
    }
