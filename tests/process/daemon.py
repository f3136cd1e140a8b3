"""A real daemon process in a directory of its own, for tests. Started with `collectord serve`, ended with a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from tests.export.otlp import check_document
from tests.process.client import RawClient

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 40.0
CHECKED_MAX_BYTES = 16 << 20
"""Larger trace files are left to the tests that make them: checking a gigabyte field by field takes minutes."""


class Daemon:
    """One daemon process and its directories.

    Args:
        directory: of its own; holds ``state/`` and the socket.
        wrapper: words put before the command, ``strace …`` say.
        environment: added to ours.
    """

    def __init__(
        self, directory: Path, wrapper: Sequence[str] = (), environment: dict[str, str] | None = None, *options: str
    ) -> None:
        self.directory = directory
        self.state_dir = directory / "state"
        self.socket = directory / "s"
        self.log = directory / "log"
        self._wrapper = list(wrapper)
        self._environment = environment or {}
        self._options = options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it says that it listens."""
        self.launch([sys.executable, "-m", "collectord"])
        self.wait_until_it_listens()

    def launch(self, program: Sequence[str], stdin: int = subprocess.DEVNULL) -> None:
        """Start a program as the daemon, with the arguments of `serve`; it need not listen yet."""
        command = [
            *self._wrapper, *program, "serve",
            "--socket", str(self.socket), "--state-dir", str(self.state_dir), *self._options,
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={**os.environ, **self._environment}, start_new_session=True,
        )  # fmt: skip

    def wait_until_it_listens(self) -> None:
        """Until it says so; raises ``AssertionError`` with what it said where it ends before that."""
        assert self.process is not None
        assert self.process.stderr is not None
        lines = []
        for line in self.process.stderr:
            if line.startswith(b"listening on "):
                break
            lines.append(line)
            with self.log.open("ab") as file:
                file.write(line)
        else:
            raise AssertionError(f"the daemon did not start: {b''.join(lines).decode()}")
        self._forward_log()

    def listens(self) -> bool:
        """Whether it comes to listen; False where it is killed before that."""
        try:
            self.wait_until_it_listens()
        except AssertionError:
            assert self.process is not None
            assert self.process.wait(STOP_TIMEOUT_S) == -signal.SIGKILL
            assert self.process.stderr is not None
            self.process.stderr.close()
            return False
        return True

    def _forward_log(self) -> None:
        """What it says later goes to a file: a pipe that nobody reads would fill."""
        import threading

        assert self.process is not None
        stream, log = self.process.stderr, self.log
        assert stream is not None

        def copy() -> None:
            with log.open("ab") as file:
                for line in stream:
                    file.write(line)
                    file.flush()
            stream.close()

        self._copier = threading.Thread(target=copy, daemon=True)
        self._copier.start()

    @property
    def pid(self) -> int:
        """Of the daemon itself, also under a wrapper."""
        assert self.process is not None
        if not self._wrapper:
            return self.process.pid
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def client(self, **hello: Any) -> RawClient:
        """A new connection that has said hello."""
        client = RawClient(str(self.socket))
        try:
            client.hello(**hello)
        except BaseException:
            client.close()
            raise
        return client

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait until it is gone; returns its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            os.kill(self.pid, number)
        status = self.process.wait(STOP_TIMEOUT_S)
        self._copier.join(5)
        return status

    def said(self) -> str:
        """What it has logged, from its first start on, but for the line that says that it listens."""
        return self.log.read_text() if self.log.exists() else ""

    # ------------------------------------------------------------ what is on disk

    def trace_path(self, name: str, run: int = 1) -> Path:
        """Of the session whose file name stem is ``name``."""
        return self.state_dir / "traces" / (f"{name}.json" if run == 1 else f"{name}~{run}.json")

    def trace(self, name: str, run: int = 1) -> dict[str, Any]:
        """The trace file as it stands."""
        document: dict[str, Any] = orjson.loads(self.trace_path(name, run).read_bytes())
        return document

    def status(self) -> Any:
        """The status answer: ``.daemon`` and ``.sessions``."""
        with self.client() as client:
            return client.status()

    def session(self, session_id: str) -> dict[str, Any]:
        """The row of a session in `status`."""
        return next(row for row in self.status().sessions if row["id"] == session_id)


@contextmanager
def running(wrapper: Sequence[str] = (), environment: dict[str, str] | None = None, *options: str) -> Iterator[Daemon]:
    """A daemon for the length of a block, with a short socket path. Every trace file that is there at the end is checked."""
    with tempfile.TemporaryDirectory(prefix="cd-") as directory:
        daemon = Daemon(Path(directory), wrapper, environment, *options)
        daemon.start()
        try:
            yield daemon
            for path in sorted(daemon.state_dir.glob("traces/**/*.json")):
                if path.stat().st_size <= CHECKED_MAX_BYTES:
                    check_document(path.read_bytes())
        finally:
            if daemon.process is not None and daemon.process.poll() is None:
                try:
                    daemon.stop()
                except subprocess.TimeoutExpired:
                    os.killpg(daemon.process.pid, signal.SIGKILL)
                    daemon.process.wait()
                    raise
