"""Scenario D16, and who comes while the daemon stops. The stop in the midst of many streams is in ``test_d15_stops``."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import pytest

from collectord.wire import messages
from tests.process.client import Refused, log, span_start
from tests.process.daemon import running
from tests.scenarios.streams import end_all, start_streams

pytestmark = pytest.mark.process


def test_d16_whatever_was_accepted_is_in_the_file_after_a_stop_however_soon_it_comes() -> None:
    with running() as daemon:
        clients = [daemon.client() for _ in range(5)]
        for number, client in enumerate(clients):
            client.open(f"d16-{number}")
            client.send_events([log("shown")])
        for client in clients[:4]:
            client.flush(export=True)
        clients[1].send_events([span_start("one more")])
        clients[1].wait_acknowledged()
        clients[2].send_events([span_start("being written")])
        exporting = clients[2].sequence
        clients[2].tell(messages.Flush(91, exporting, export=True))
        clients[3].send_events([span_start("ending")])
        clients[3].send_end(wait=False)
        clients[4].wait_acknowledged()
        daemon.session("d16-3")  # an answer from behind all of that: it has been read
        assert daemon.stop(signal.SIGINT) == 0
        found = [daemon.trace(f"d16-{number}")["session"] for number in range(5)]
        assert [session["counts"]["events"] for session in found] == [1, 2, 2, 2, 1]
        assert [session["outcome"] for session in found] == ["running", "running", "running", "completed", "running"]
        assert list((daemon.state_dir / "traces").glob(".*")) == [], "no temporary file is left"
        for client in clients:
            client.close()


def test_a_client_that_connects_while_the_daemon_stops_is_told_or_finds_nobody() -> None:
    with running() as daemon:
        group = start_streams(daemon, [f"late-{number}" for number in range(5)], random.Random(1))
        process = daemon.process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        outcomes = set()
        while process.poll() is None:
            try:
                with daemon.client() as client:
                    client.open(f"too-late-{time.monotonic_ns()}")
                    outcomes.add("opened")
            except Refused as refused:
                outcomes.add(refused.code)
            except (OSError, AssertionError):
                outcomes.add("nobody")
        assert process.returncode == 0
        assert outcomes <= {"opened", "collector-draining", "nobody"}
        for stream in group:
            stream.join(60)
        daemon.start()
        end_all("SIGTERM under load (D15)", daemon, group)


def test_d17_a_state_directory_that_cannot_be_listed_refuses_the_start_in_words() -> None:
    with running() as daemon:
        daemon.stop()
        journals = daemon.state_dir / "journals"
        for path in sorted(journals.iterdir()):
            path.unlink()
        journals.rmdir()
        journals.symlink_to("/proc/self/does-not-exist")
        command = [
            sys.executable,
            "-m",
            "collectord",
            "serve",
            "--socket",
            str(daemon.socket),
            "--state-dir",
            str(daemon.state_dir),
        ]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        journals.unlink()
    assert refused.returncode == 2
    assert "directory-unusable" in refused.stderr
    assert "Traceback" not in refused.stderr
