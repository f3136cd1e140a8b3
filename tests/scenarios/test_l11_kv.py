"""Scenario L11: key-value writers and readers while the session ends: what was acknowledged is stored, and nothing else."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from collectord.model import EventKind, RecordType
from collectord.session.records import unpack
from tests.process.client import Refused
from tests.process.daemon import Daemon, running
from tests.scenarios.journals import records_of
from tests.scenarios.races import kv_clear, kv_delete, kv_set, raced

pytestmark = pytest.mark.process

WRITERS = READERS = 10


class Reader(threading.Thread):
    """Asks for the status over and over: every answer is one, however the session stands, and its counts never fall."""

    def __init__(self, daemon: Daemon, name: str, over: threading.Event) -> None:
        super().__init__()
        self._daemon = daemon
        self._name = name
        self._over = over
        self.answers = 0
        self.outcomes: set[str] = set()
        self.fault: BaseException | None = None

    def run(self) -> None:
        """Until it is told to stop."""
        seen = 0
        try:
            with self._daemon.client(liveness="connection") as client:
                while not self._over.is_set():
                    for row in client.status().sessions:
                        if row["id"] == self._name:
                            assert row["events"] >= seen, f"{row['events']} events, and there were {seen}"
                            seen = row["events"]
                            self.outcomes.add(row["outcome"])
                    self.answers += 1
        except (AssertionError, OSError, Refused) as fault:
            self.fault = fault


def spaces_of(daemon: Daemon, stem: str) -> dict[str, dict[str, Any]]:
    """What the stored events come to, in the order of their positions."""
    spaces: dict[str, dict[str, Any]] = {}
    for record in records_of(daemon, stem):
        for event in unpack(record.body) if record.type is RecordType.EVENTS else []:
            if event[0] == EventKind.KV_SET:
                spaces.setdefault(event[2], {})[event[3]] = event[4]
            elif event[0] == EventKind.KV_DELETE:
                spaces.get(event[2], {}).pop(event[3], None)
            else:
                spaces.pop(event[2], None)
    return spaces


def test_l11_ten_kv_writers_and_ten_readers_while_the_session_ends_lose_nothing_that_was_acknowledged() -> None:
    rng = random.Random(11)

    def batch(first: int) -> list[Any]:
        made: list[Any] = [kv_set(rng.choice("abc"), str(rng.randrange(20)), first + number) for number in range(20)]
        return [*made, kv_delete(rng.choice("abc"), str(rng.randrange(20))), *([kv_clear("c")] if rng.random() < 0.1 else [])]

    totals = []
    with running() as daemon:
        for number in range(3):
            name, over = f"l11-{number}", threading.Event()
            readers = [Reader(daemon, name, over) for _ in range(READERS)]
            for reader in readers:
                reader.start()
            try:
                totals.append(raced(daemon, name, WRITERS, 40, batch, 0.01)[1])
            finally:
                over.set()
                for reader in readers:
                    reader.join(60)
            assert [reader.fault for reader in readers if reader.fault is not None] == []
            assert all(reader.answers > 0 for reader in readers)
            assert set().union(*(reader.outcomes for reader in readers)) <= {"running", "completed"}
            assert daemon.trace(name)["spaces"] == spaces_of(daemon, name)
    assert any(0 < total < WRITERS * 40 * 21 for total in totals), f"the end never came in their midst: {totals}"
