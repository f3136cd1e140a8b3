"""Scenario D12: one record in one journal is damaged, among many: everything else loads, and the loss is reported three times."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from collectord.journal.format import HEAD_SIZE_BYTES, HEADER_SIZE_BYTES, decode_head, decode_header
from collectord.model import Outcome, RecordType
from tests.export.otlp import check_document, logs_of, value_of
from tests.process.daemon import Daemon, running
from tests.process.resuming import Known, ResumingClient
from tests.scenarios.journals import terminals_of
from tests.scenarios.streams import check_stored

pytestmark = pytest.mark.process

SOUND = 12
GROUPS, SIZE = 5, 3
HARMED = 3
"""Which group is damaged, from 1: what comes behind it is as sound as what comes before."""


def offset_of_group(raw: bytes, number: int) -> int:
    """Where the record of a group of events stands."""
    head, offset = decode_head(raw), HEAD_SIZE_BYTES
    assert head is not None
    while True:
        header = decode_header(raw[offset:], head.salt, offset)
        assert header is not None
        number -= header.type == RecordType.EVENTS
        if number == 0:
            return offset
        offset += header.size


def flip(inside: int) -> Callable[[bytes], bytes]:
    """Turn a bit of the harmed record, at that byte of it."""

    def harm(raw: bytes) -> bytes:
        made = bytearray(raw)
        made[offset_of_group(raw, HARMED) + inside] ^= 4
        return bytes(made)

    return harm


def tear(raw: bytes) -> bytes:
    """A record was being written: most of it is there. (It is a copy, which no checksum would let pass elsewhere either.)"""
    start = offset_of_group(raw, GROUPS)
    return raw + raw[start : start + HEADER_SIZE_BYTES - 1]


HARM: dict[str, Callable[[bytes], bytes]] = {
    "body": flip(HEADER_SIZE_BYTES + 5),
    "header": flip(2),
    "torn": tear,
    "ended": flip(HEADER_SIZE_BYTES + 5),
}


def journal_of(daemon: Daemon, name: str) -> Path:
    """The first file of its journal."""
    return daemon.state_dir / "journals" / f"{name}~1.0.journal"


def begin(daemon: Daemon, name: str) -> ResumingClient:
    """A session with so many groups, each durable before the next is sent."""
    client = ResumingClient(daemon.client, Known(name))
    client.open()
    for _ in range(GROUPS):
        client.log(SIZE)
        client.settle()
    return client


def test_d12_a_damaged_record_costs_its_own_events_alone_and_is_told_of_everywhere() -> None:
    with running() as daemon:
        clients = {name: begin(daemon, name) for name in [*HARM, *(f"sound-{number}" for number in range(SOUND))]}
        clients["ended"].end()
        finished = daemon.trace_path("ended").read_bytes()
        daemon.stop(signal.SIGKILL)
        for client in clients.values():
            client.hear_out()
        offsets = {}
        for name, harm in HARM.items():
            raw = journal_of(daemon, name).read_bytes()
            offsets[name] = offset_of_group(raw, HARMED)
            journal_of(daemon, name).write_bytes(harm(raw))
        daemon.start()

        rows = {row["id"]: row for row in daemon.status().sessions}
        assert {name for name, row in rows.items() if row["outcome"] == "running"} == set(clients) - {"ended"}
        assert {name for name, row in rows.items() if row["corrupt_records"]} == {"body", "header"}
        assert {name for name, row in rows.items() if row["torn_bytes"]} == {"torn"}
        said = daemon.said().splitlines()
        for name in ("body", "header"):
            assert [line for line in said if journal_of(daemon, name).name in line and str(offsets[name]) in line], said
        assert not [line for line in said if "sound-" in line and ("WARNING" in line or "ERROR" in line)]

        for name, client in clients.items():
            if name != "ended":
                with client:
                    client.resume()
                    client.log(1)
                    assert client.end() is Outcome.COMPLETED
                _check(daemon, client.known)
        assert daemon.trace_path("ended").read_bytes() == finished
        aside = sorted(path.name for path in (daemon.state_dir / "quarantine").iterdir() if path.suffix == ".torn")
        assert len(aside) == 1
        assert aside[0].startswith("torn~1.0.journal")


def _check(daemon: Daemon, known: Known) -> None:
    """Damaged: all but the harmed group is shown, and the file says so. Sound: nothing is missing."""
    document = check_document(daemon.trace_path(known.session_id).read_bytes())
    head, session = document["collectord"], document["session"]
    integrity, harmed = session["integrity"], known.session_id in ("body", "header")
    bodies = [event[3] for event in known.events]
    if harmed:
        del bodies[(HARMED - 1) * SIZE : HARMED * SIZE]
    assert [value_of(record["body"]) for record in logs_of(document)] == bodies
    assert [terminal["outcome"] for terminal in terminals_of(daemon, known.session_id, damaged=harmed)] == ["completed"]
    torn = HEADER_SIZE_BYTES - 1 if known.session_id == "torn" else 0
    assert (integrity["corrupt_records"], integrity["torn_bytes"]) == (int(harmed), torn)
    assert head["integrity"] == ("damaged" if harmed else "torn" if torn else "complete")
    assert session["outcome"] == "completed"
    if not harmed:
        check_stored("a damaged journal among many (D12)", daemon, known)
