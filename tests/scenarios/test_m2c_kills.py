"""Scenario M2c: a burst, SIGKILL of the daemon right after the last acknowledgement or anywhere in it, a restart, over and over.

One state directory lives through all of it. One session does too, from the first kill to the last; the others end after some
kills each, and new ones take their places. (SIGKILL says nothing of the disk: the page cache survives.)
"""

from __future__ import annotations

import os
import random
import signal
import threading

import pytest

from collectord.model import Outcome
from tests.faults import figures
from tests.process.daemon import Daemon, running
from tests.process.resuming import Known, ResumingClient
from tests.scenarios.streams import check_stored, check_verifies

pytestmark = pytest.mark.process

SEED = int(os.environ.get("KILL_SEED", "20"))
SESSIONS = 4
BED = "SIGKILL under load (M2c)"


class Burst:
    """Several sessions that write, are cut off, and come back.

    Args:
        rng: decides everything.
        daemon: theirs.
    """

    def __init__(self, rng: random.Random, daemon: Daemon) -> None:
        self._rng = rng
        self._daemon = daemon
        self._begun = 0
        self.clients: list[ResumingClient] = []
        self.over: list[Known] = []

    def begin(self) -> None:
        """As many sessions as there are to be."""
        while len(self.clients) < SESSIONS:
            client = ResumingClient(self._daemon.client, Known(f"m2c-{self._begun}"))
            self._begun += 1
            client.open()
            self.clients.append(client)

    def write(self, settle: bool) -> None:
        """A burst from each; with ``settle``, until the last event of all is acknowledged, else until the daemon is gone."""
        while True:
            for client in self.clients:
                for _ in range(self._rng.randint(1, 4)):
                    client.log(self._rng.choice((1, 3, 30)), self._rng.choice((0, 0, 1_000)))
            for client in self.clients:
                client.settle(None if settle else max(0, len(client.known.events) - 200))
            if settle:
                return

    def come_back(self) -> None:
        """All of them, with what is not acknowledged; some have nothing more to say after that."""
        for client in self.clients:
            client.resume()
        for client in self.clients[1:]:
            if self._rng.random() < 0.2:
                self.end(client)

    def end(self, client: ResumingClient) -> None:
        """One session ends, well or by its own report."""
        if self._rng.random() < 0.2:
            client.crash("enough")
        else:
            client.end(self._rng.choice((Outcome.COMPLETED, Outcome.FAILED)))
        client.close()
        self.clients.remove(client)
        self.over.append(client.known)


def _die(daemon: Daemon, burst: Burst, rng: random.Random, right_after: bool) -> None:
    if right_after:
        burst.write(settle=True)
        daemon.stop(signal.SIGKILL)
        return
    timer = threading.Timer(rng.uniform(0, 0.05), daemon.process.kill)  # type: ignore[union-attr]
    timer.start()
    try:
        burst.write(settle=False)
    except OSError:
        pass  # it is gone
    timer.join()
    daemon.stop(signal.SIGKILL)


def _kill_over_and_over(kills: int) -> None:
    rng = random.Random(SEED)
    acknowledged_before_a_kill = unacknowledged = 0
    with running() as daemon:
        burst = Burst(rng, daemon)
        for kill in range(kills):
            burst.begin()
            _die(daemon, burst, rng, right_after=kill % 2 == 0)
            for client in burst.clients:
                client.hear_out()
                unacknowledged += len(client.known.events) - client.known.acknowledged
            daemon.start()
            burst.come_back()
        for client in list(burst.clients):
            burst.end(client)
        for known in burst.over:
            check_stored(BED, daemon, known)
            acknowledged_before_a_kill += known.acknowledged
        check_verifies(daemon)
        assert len(burst.over) >= SESSIONS
    print(f"{kills} kills, seed {SEED}: {len(burst.over)} sessions, {acknowledged_before_a_kill} acknowledged events, "
          f"{unacknowledged} sent again or found")  # fmt: skip
    assert kills < 10 or unacknowledged > 10 * kills, "the daemon was killed while it had work"
    figures.record(BED, "kills", kills)


def test_m2c_every_acknowledged_event_is_there_once_after_a_few_kills() -> None:
    _kill_over_and_over(2)


@pytest.mark.bed
def test_m2c_every_acknowledged_event_is_there_once_after_many_kills() -> None:
    _kill_over_and_over(1_000 if figures.is_full() else 40)
