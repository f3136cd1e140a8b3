"""Writers flat out, and the end of the session in their midst: what the rows L9, L10 and L11 share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from collectord.model import Outcome
from tests.process.client import RawClient
from tests.process.daemon import Daemon
from tests.scenarios.journals import stored_of, terminals_of
from tests.scenarios.support import PATIENCE_S


def kv_set(space: str, key: str, value: Any) -> list[Any]:
    """A ``kv_set`` event."""
    return [7, time.time_ns(), space, key, value]


def kv_delete(space: str, key: str) -> list[Any]:
    """A ``kv_delete`` event."""
    return [8, time.time_ns(), space, key]


def kv_clear(space: str) -> list[Any]:
    """A ``kv_clear`` event."""
    return [9, time.time_ns(), space]


def write(client: RawClient, begin: threading.Barrier, batches: int, batch: Callable[[int], list[Any]]) -> RawClient:
    """Flat out, without listening; then until everything is acknowledged or refused."""
    begin.wait()
    for _ in range(batches):
        client.send_events(batch(client.sequence + 1))
    client.wait_acknowledged()
    return client


def raced(
    daemon: Daemon, name: str, writers: int, batches: int, batch: Callable[[int], list[Any]], head_start_s: float
) -> tuple[float, int]:
    """Writers flat out, the owner ends in their midst: every writer comes back, and the books agree to the event.

    Returns:
        How long the last writer took after the end, and how many of all events were stored.
    """
    with daemon.client() as owner, ThreadPoolExecutor(writers) as pool:
        owner.open(name)
        clients = [daemon.client() for _ in range(writers)]
        for client in clients:
            client.open(name, join=True)
        begin = threading.Barrier(writers + 1)
        written = [pool.submit(write, client, begin, batches, batch) for client in clients]
        begin.wait()
        time.sleep(head_start_s)  # the scenario's own: the end comes so long after the first write
        assert owner.end().outcome is Outcome.COMPLETED
        ended = time.monotonic()
        for future in written:
            future.result(PATIENCE_S)
        took = time.monotonic() - ended
        stored = stored_of(daemon, name)
        for number, client in enumerate(clients, 2):
            assert {code for _, _, code in client.refused} <= {"session-ended"}
            assert client.acknowledged == client.sequence
            assert client.stored == stored.get(number, set())
            client.close()
    total = sum(map(len, stored.values()))
    session = daemon.trace(name)["session"]
    assert session["counts"]["events"] == session["integrity"]["stored"] == total
    assert len(terminals_of(daemon, name)) == 1
    return took, total
