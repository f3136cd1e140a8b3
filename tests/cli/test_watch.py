"""`status --watch` on a real terminal, against real daemons."""

from __future__ import annotations

import errno
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.process.client import RawClient
from tests.process.daemon import Daemon, running

pytestmark = pytest.mark.process

PATIENCE_S = 60.0


class Terminal:
    """A pseudo-terminal with the program on it; keeps everything that was written to it."""

    def __init__(self, socket: Path, *arguments: str, columns: int = 90, lines: int = 24) -> None:
        self.written = b""
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (lines, columns))
        environment = {**os.environ, "TERM": "xterm-256color"}
        for name in ("NO_COLOR", "COLUMNS", "LINES"):
            environment.pop(name, None)
        command = [sys.executable, "-m", "collectord", "--socket", str(socket), "status", *arguments]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True)
        os.close(slave)

    def wait_for(self, what: str, holds: Callable[[bytes], bool]) -> None:
        """Read on until it holds of what was written since the last wait; that part is then done with."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds(self.written):
            assert time.monotonic() < deadline, f"waited for {what}; there is {self.written!r}"
            chunk = self._read()
            assert chunk, f"the program ended before {what}; there is {self.written!r}"
            self.written += chunk
        self.written = b""

    def wait_for_text(self, text: str) -> None:
        """Read on until a text is written."""
        self.wait_for(text, lambda written: text.encode() in written)

    def rest(self) -> bytes:
        """Everything until the program has ended."""
        while chunk := self._read():
            self.written += chunk
        return self.written

    def _read(self) -> bytes:
        try:
            return os.read(self._master, 65_536)
        except OSError as error:
            if error.errno == errno.EIO:  # how Linux says that nobody has the terminal open any more
                return b""
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)


def test_watch_draws_in_place_and_ends_with_the_last_picture_on_ctrl_c() -> None:
    with running() as daemon, daemon.client() as client, Terminal(daemon.socket, "--watch", "--interval", "0.1") as terminal:
        terminal.wait_for_text("no sessions yet")
        client.open("watched")
        terminal.wait_for_text("watched")
        terminal.wait_for("a second drawing", lambda written: written.count(b"\x1b[H") >= 2)
        terminal.process.send_signal(signal.SIGINT)
        rest = terminal.rest()
        assert terminal.process.wait() == 0
        client.end()
    before, _, after = rest.partition(b"\x1b[?1049l")
    assert b"\x1b[2J" not in before, "a cleared screen flickers"
    assert b"watched" in after
    assert b"Traceback" not in after
    assert b"\x1b[?25h" in rest


def test_watch_survives_a_restart_of_the_daemon() -> None:
    with running() as daemon, Terminal(daemon.socket, "--watch", "--interval", "0.1") as terminal:
        terminal.wait_for_text(f"pid {daemon.pid} ")
        daemon.stop()
        terminal.wait_for_text("waiting for the daemon")
        daemon.start()
        terminal.wait_for_text(f"pid {daemon.pid} ")
        terminal.process.send_signal(signal.SIGINT)
        terminal.rest()
        assert terminal.process.wait() == 0


def test_watch_never_draws_more_lines_than_the_screen_has() -> None:
    with running() as daemon:
        clients = [open_session(daemon, f"s{number}") for number in range(12)]
        with Terminal(daemon.socket, "--watch", lines=14) as terminal:
            terminal.wait_for("a whole picture", lambda written: b"more not shown" in written and b"\x1b[J" in written)
            terminal.process.send_signal(signal.SIGINT)
            last = terminal.rest().partition(b"\x1b[?1049l")[2]
        for client in clients:
            client.end()
            client.close()
    assert 0 < last.count(b"\n") < 14


def open_session(daemon: Daemon, session_id: str) -> RawClient:
    client = daemon.client()
    client.open(session_id)
    return client


def test_colours_are_for_terminals_only_and_not_where_they_are_unwanted() -> None:
    with running() as daemon:
        with Terminal(daemon.socket) as terminal:
            assert b"\x1b[1m" in terminal.rest()
        command = [sys.executable, "-m", "collectord", "--socket", str(daemon.socket), "status"]
        environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
        piped = subprocess.run(command, capture_output=True, check=True, env=environment)
        assert b"\x1b" not in piped.stdout


def test_watch_in_a_pipe_writes_one_picture_below_the_other_and_json_one_line_each() -> None:
    with running() as daemon:
        command = [sys.executable, "-m", "collectord", "--socket", str(daemon.socket), "status", "--watch", "--interval", "0.1"]
        for options, first in (([], b"collectord "), (["--json"], b'{"daemon": {')):
            process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            assert process.stdout is not None
            seen = 0
            while seen < 2:
                line = process.stdout.readline()
                assert line, "it ended"
                assert b"\x1b" not in line
                seen += line.startswith(first)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE_S)
            assert (process.returncode, err) == (0, b"")


def test_a_reader_that_leaves_ends_the_program_without_a_word() -> None:
    with running() as daemon:
        command = [sys.executable, "-m", "collectord", "--socket", str(daemon.socket), "status", "--watch", "--interval", "0.1"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(PATIENCE_S) == 1
        process.stderr.close()
