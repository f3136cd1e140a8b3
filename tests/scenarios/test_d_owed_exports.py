"""A trace file that cannot be written when its run ends: the outcome stands, the answer says so, and the file comes later."""

from __future__ import annotations

import signal

import pytest

from collectord.model import Outcome
from tests.process.client import log
from tests.process.daemon import running
from tests.scenarios.support import until

pytestmark = pytest.mark.process


def test_an_end_whose_export_failed_has_no_path_and_its_file_is_written_later_without_a_restart() -> None:
    with running() as daemon:
        with daemon.client() as client:
            client.open("s")
            client.send_events([log("kept")])
            client.flush(export=True)
            path = daemon.trace_path("s")
            path.unlink()
            path.mkdir()  # nothing can be renamed over a directory
            answer = client.end()
        assert (answer.outcome, answer.path) == (Outcome.COMPLETED, None)
        assert answer.export_error is not None
        assert str(path) in answer.export_error
        assert daemon.status().daemon["exports_owed"] == 1
        path.rmdir()
        until(path.exists, "the file never came")
        assert daemon.trace("s")["session"]["outcome"] == "completed"
        until(lambda: daemon.status().daemon["exports_owed"] == 0)


def test_a_crash_whose_export_failed_is_derived_at_the_next_start_at_the_latest() -> None:
    with running() as daemon:
        with daemon.client() as client:
            client.open("s")
            client.send_events([log("kept")])
            client.flush(export=True)
            path = daemon.trace_path("s")
            path.unlink()
            path.mkdir()
            assert client.crash("it broke").path is None
        daemon.stop(signal.SIGKILL)
        path.rmdir()
        daemon.start()
        session = daemon.trace("s")["session"]
        assert (session["outcome"], session["crash"]["message"]) == ("crashed", "it broke")


def test_what_cannot_be_recovered_at_a_start_is_refused_until_it_can_be() -> None:
    with running() as daemon:
        with daemon.client() as client:
            client.open("s")
            client.send_events([log("kept")])
            client.flush(export=True)
            answer = client.end()
        assert answer.path is not None
        daemon.stop()
        path = daemon.trace_path("s")
        path.unlink()
        path.mkdir()
        daemon.start()
        assert daemon.status().daemon["exports_owed"] == 1
        path.rmdir()
        until(path.exists, "the file never came")
        assert daemon.trace("s")["session"]["outcome"] == "completed"
