"""Raw clients that write as fast as they are let, each in a thread, and come back after a restart: for the rows D15 and M2c."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter

from collectord.model import Outcome
from tests.export.otlp import logs_of, value_of
from tests.faults import figures
from tests.process.client import Refused
from tests.process.daemon import Daemon
from tests.process.resuming import Known, ResumingClient
from tests.scenarios.journals import stored_of, terminals_of
from tests.scenarios.support import PATIENCE_S

AHEAD = 5
"""How many batches a stream is ahead of what is acknowledged, at most."""


class Stream(threading.Thread):
    """A session that is opened and written to until its connection ends; what it was told is in ``client.known``.

    Args:
        daemon: that listens.
        name: of the session.
        size: events in a batch.
    """

    def __init__(self, daemon: Daemon, name: str, size: int) -> None:
        super().__init__(name=name)
        self.client = ResumingClient(daemon.client, Known(name))
        self.flows = threading.Event()
        self._size = size

    @property
    def known(self) -> Known:
        """What it knows."""
        return self.client.known

    def run(self) -> None:
        """Until the connection ends; then what the daemon had said is heard."""
        try:
            self.client.open()
            while True:
                self.client.log(self._size)
                self.client.settle(max(0, len(self.known.events) - AHEAD * self._size))
                if self.known.acknowledged:
                    self.flows.set()
        except (OSError, Refused):
            pass  # the daemon is gone, or lets nobody in any more
        finally:
            self.flows.set()
            self.client.hear_out()


def start_streams(daemon: Daemon, names: list[str], rng: random.Random) -> list[Stream]:
    """Sessions in full flow, with batches of several sizes."""
    streams = [Stream(daemon, name, rng.choice((1, 7, 60))) for name in names]
    for stream in streams:
        stream.start()
    for stream in streams:
        assert stream.flows.wait(PATIENCE_S)
        assert stream.known.acknowledged, f"{stream.name} ended before it flowed"
    return streams


def end_all(bed: str, daemon: Daemon, streams: list[Stream]) -> None:
    """Each comes back, says one thing more, and ends; then what is stored is compared with what was sent."""
    for stream in streams:
        with stream.client as client:
            client.resume()
            client.log(1)
            client.settle()
            assert client.end() is Outcome.COMPLETED
    for stream in streams:
        check_stored(bed, daemon, stream.known)


def check_stored(bed: str, daemon: Daemon, known: Known) -> None:
    """The journal and the file hold exactly what was sent, each event once, in a run that ended as it was asked to.

    Args:
        bed: for the table of figures.
        daemon: where it is stored.
        known: what its client knows; all that it sent are logs, each with a text of its own.
    """
    document = daemon.trace(known.session_id, known.run)
    sent = [event[3] for event in known.events]
    shown = [value_of(record["body"]) for record in logs_of(document)]
    told = document["session"]["outcome"]
    figures.record(bed, "acknowledged events", known.acknowledged)
    figures.record(bed, "acknowledged events lost", (Counter(sent[: known.acknowledged]) - Counter(shown)).total())
    figures.record(bed, "duplicates", (Counter(shown) - Counter(sent)).total())
    figures.record(bed, "wrong outcomes", known.asked is None or told != known.asked.value)
    assert shown == sent, f"{known.session_id}: {len(sent)} events were sent, {len(shown)} are shown"
    assert stored_of(daemon, known.session_id, known.run) == ({1: set(range(1, len(sent) + 1))} if sent else {})
    assert known.asked is not None
    assert [terminal["outcome"] for terminal in terminals_of(daemon, known.session_id, known.run)] == [known.asked.value]
    assert known.told is known.asked, f"{known.session_id} is {known.told}: {known.asked} was asked for"
    assert told == known.asked.value
    assert document["session"]["trace_id"] == known.trace_id.hex()
    assert document["session"]["integrity"]["duplicates"] == 0


def check_verifies(daemon: Daemon) -> None:
    """`collectord verify` finds no fault in the whole state directory."""
    command = [sys.executable, "-m", "collectord", "verify", "--state-dir", str(daemon.state_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
