"""Scenarios D: sizes, bad configurations, locks and sockets, and many at once. Stops and kills are in ``test_d_stops``."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from collectord.model import Outcome
from tests.export.otlp import logs_of, spans_of
from tests.process.client import RawClient, log, span_end, span_start
from tests.process.daemon import running
from tests.scenarios.support import crashed_row, until

pytestmark = pytest.mark.process


def test_d2_fifty_thousand_events_in_one_session_are_all_there() -> None:
    with running() as daemon, daemon.client() as client:
        client.open("d2")
        for batch in range(50):
            client.send_events([log(f"{batch} {n}") for n in range(1_000)])
        assert client.end().outcome is Outcome.COMPLETED
        document = daemon.trace("d2")
        assert document["session"]["counts"]["logs"] == 50_000
        bodies = [record["body"]["stringValue"] for record in logs_of(document)]
        assert bodies == [f"{batch} {n}" for batch in range(50) for n in range(1_000)]


def test_d17_a_wrong_configuration_refuses_to_start_and_says_why() -> None:
    with tempfile.TemporaryDirectory(prefix="cd-") as directory:
        place = Path(directory)
        (place / "file").write_text("not a directory")
        lines = {"unknown": "sokcet = '/x'", "type": "drain_timeout_s = 'long'", "syntax": "socket = ", "utf8": "\xff"}
        for name, line in lines.items():
            (place / f"{name}.toml").write_bytes(line.encode("latin-1"))
        cases: list[tuple[list[str], list[str]]] = [
            (["--state-dir", "/dev/null/x"], ["directory-unusable", "/dev/null/x"]),
            (["--state-dir", f"{place}/file"], ["directory-unusable", "not a directory"]),
            (["--config", "/nonexistent.toml"], ["config-invalid", "/nonexistent.toml"]),
            (["--config", f"{place}/unknown.toml"], ["config-invalid", "line 1", "did you mean socket"]),
            (["--config", f"{place}/type.toml"], ["config-invalid", "line 1", "drain_timeout_s"]),
            (["--config", f"{place}/syntax.toml"], ["config-invalid", "line 1"]),
            (["--config", f"{place}/utf8.toml"], ["config-invalid"]),
            (["--socket", "/tmp/" + "x" * 120], ["config-invalid", "socket"]),
            (["--drain-timeout", "-1"], ["drain"]),
            (["--drain-timeout", "nan"], ["drain"]),
            (["--log-level", "loud"], ["config-invalid", "log_level", "warning"]),
        ]
        begun = []
        for number, (options, _) in enumerate(cases):  # all at once: nothing of one is another's
            own = ["--socket", f"{place}/s{number}", "--state-dir", f"{place}/d{number}"]
            command = [sys.executable, "-m", "collectord", "serve", *own, *options]
            begun.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
        for process, (options, words) in zip(begun, cases, strict=True):
            _, said = process.communicate(timeout=60)
            assert process.returncode == 2, (options, said)
            assert [word for word in words if word not in said] == [], (options, said)
            assert "Traceback" not in said
        assert not list(place.glob("s[0-9]*")), "no socket was made"


def test_d19_a_hundred_sessions_in_parallel_do_not_mix() -> None:
    with running() as daemon:

        def work(number: int) -> None:
            with daemon.client() as client:
                client.open(f"d19-{number}")
                root = span_start("root", {"owner": number})
                client.send_events([root])
                for _ in range(10):
                    first = client.sequence + 1
                    client.send_events([span_start("child", {"owner": number}, parent=root[2]), span_end(first)])
                client.end()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number in range(100):
            spans = spans_of(daemon.trace(f"d19-{number}"))
            assert len(spans) == 11
            ids = {span["spanId"] for span in spans}
            assert all(span["parentSpanId"] in ids for span in spans if "parentSpanId" in span)
            owners = {a["value"]["intValue"] for span in spans for a in span["attributes"] if a["key"] == "owner"}
            assert owners == {str(number)}
        totals = daemon.status().daemon
        assert totals["events_stored"] == totals["events_received"] == 100 * 21


def test_the_socket_is_its_owners_alone_and_a_stale_one_is_replaced() -> None:
    with running() as daemon:
        assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o600
        daemon.stop(signal.SIGKILL)
        assert daemon.socket.exists()
        daemon.start()
        with daemon.client() as client:
            client.open("after")
            client.end()


def test_a_second_daemon_is_refused_with_who_holds_the_lock() -> None:
    with running() as daemon:
        for socket_path, state in ((daemon.socket, daemon.directory / "other"), (daemon.directory / "t", daemon.state_dir)):
            command = [
                sys.executable, "-m", "collectord", "serve", "--socket", str(socket_path), "--state-dir", str(state),
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 1
            assert f"pid {daemon.pid}" in done.stderr
        with daemon.client() as client:
            client.open("still here")
            assert client.end().outcome is Outcome.COMPLETED


def test_a_file_at_the_socket_path_that_is_no_socket_is_not_touched() -> None:
    with tempfile.TemporaryDirectory(prefix="cd-") as directory:
        path = Path(directory) / "s"
        path.write_text("precious")
        command = [sys.executable, "-m", "collectord", "serve", "--socket", str(path), "--state-dir", directory]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert "socket-unusable" in done.stderr
        assert path.read_text() == "precious"


def test_a_service_manager_is_told_when_it_is_ready_and_when_it_stops() -> None:
    with tempfile.TemporaryDirectory(prefix="cd-") as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{directory}/n")
        manager.settimeout(30)
        with running((), {"NOTIFY_SOCKET": f"{directory}/n"}) as daemon:
            assert b"READY=1" in manager.recv(4_096)
            os.kill(daemon.pid, signal.SIGINT)
            assert b"STOPPING=1" in manager.recv(4_096)
            assert daemon.process is not None
            assert daemon.process.wait(30) == 0


def test_a_client_that_never_reads_its_answers_costs_one_acknowledgement() -> None:
    with running() as daemon:
        deaf: RawClient = daemon.client()
        deaf.open("deaf")
        deaf.socket.settimeout(2)
        sent = 0
        try:
            for _ in range(20_000):
                deaf.send_events([log("x")])
                sent += 1
        except TimeoutError:
            pass
        with daemon.client() as other:
            other.open("other")
            other.send_events([log("y")])
            other.wait_acknowledged()
            other.end()
        assert daemon.status().daemon["memory_bytes"] < 200 << 20
        deaf.close()
        row = crashed_row(daemon, "deaf")
        assert row["events"] >= sent - 1
        until(lambda: daemon.status().daemon["sessions_running"] == 0)
