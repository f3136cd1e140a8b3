"""The demonstration: one daemon, three agents, three different ends, and what the collector says of each.

Everything happens in a temporary directory that is removed again, and nothing is left running. The exit status is 0 only if
every outcome is what it must be, so that this is a test as well.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rich.text import Text

from collectord.cli.paper import Paper
from collectord.cli.text import cut
from collectord.cli.tree import tree_lines
from collectord.limits import SOCKET_PATH_MAX_BYTES

AGENTS = Path(__file__).with_name("agents.py")
COLLECTORD = [sys.executable, "-m", "collectord"]
PATIENCE_S = 30.0


class DemoFailed(Exception):
    """Something is not as it must be."""


class Demo:
    """The places and processes of one demonstration."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "collectord.sock"
        self.state_dir = directory / "state"
        self.environment = {**os.environ, "COLLECTORD_SOCKET": str(self.socket)}
        self.environment.pop("COLLECTORD_STATE_DIR", None)
        self.paper = Paper(sys.stdout)
        self.log = directory / "daemon.log"
        self._processes: list[subprocess.Popen[str]] = []

    # ------------------------------------------------------------ saying

    def say(self, words: str = "") -> None:
        """One line of the story."""
        self.paper.print([Text(words, style="bold")])

    def show_status(self) -> None:
        """What `collectord status` prints."""
        self.say("$ collectord status")
        subprocess.run([*COLLECTORD, "status"], env=self.environment, check=True)
        self.say()

    def status(self) -> dict[str, Any]:
        """The sessions as `collectord status --json` tells them, by their ids."""
        run = subprocess.run(
            [*COLLECTORD, "status", "--json"], env=self.environment, check=True, stdout=subprocess.PIPE, text=True
        )
        return {row["id"]: row for row in json.loads(run.stdout)["sessions"]}

    # ------------------------------------------------------------ processes

    def start(self, command: list[str], stderr: IO[str] | int | None = None) -> subprocess.Popen[str]:
        """A process that is ended with the demonstration, whatever happens."""
        process = subprocess.Popen(
            command, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
        self._processes.append(process)
        return process

    def start_daemon(self) -> subprocess.Popen[str]:
        """The collector, listening."""
        places = ["--socket", str(self.socket), "--state-dir", str(self.state_dir)]
        command = [*COLLECTORD, "serve", *places, "--drain-timeout", "5"]
        with self.log.open("w") as log:
            daemon = self.start(command, log)
        wait_for("the daemon to listen", lambda: "listening on" in self.log.read_text() or daemon.poll() is not None)
        if daemon.poll() is not None:
            raise DemoFailed(f"the daemon did not start: {self.log.read_text().strip()}")
        return daemon

    def agent(self, name: str) -> subprocess.Popen[str]:
        """One agent, at work."""
        return self.start([sys.executable, str(AGENTS), name])

    def end_all(self) -> None:
        """Leave nothing running."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def wait_for(what: str, is_true: Any) -> None:
    """Look again and again until it is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        if time.monotonic() > deadline:
            raise DemoFailed(f"waited {PATIENCE_S:g} s for {what}")
        time.sleep(0.02)


@contextmanager
def demonstration() -> Iterator[Demo]:
    """A demonstration in a directory of its own, which is gone afterwards, as are its processes."""
    directory = Path(tempfile.mkdtemp(prefix="collectord-demo-"))
    if len(os.fsencode(directory / "collectord.sock")) > SOCKET_PATH_MAX_BYTES:  # a socket's path has its limit
        directory.rmdir()
        directory = Path(tempfile.mkdtemp(prefix="collectord-demo-", dir="/tmp"))
    demo = Demo(directory)
    try:
        yield demo
    finally:
        try:
            demo.end_all()
        finally:
            shutil.rmtree(directory)


# ---------------------------------------------------------------- the story


def tell(demo: Demo) -> None:
    """The story from its beginning to its end; raises where it does not end as it must."""
    demo.say("A collector starts, in a directory of its own.")
    daemon = demo.start_daemon()
    demo.say("Three agents start, each a process of its own: researcher, deployer and migrator.")
    researcher, deployer, migrator = demo.agent("researcher"), demo.agent("deployer"), demo.agent("migrator")
    assert migrator.stdout is not None
    if "in the tool call" not in migrator.stdout.readline():
        raise DemoFailed("the migrator did not get to its tool call")
    if researcher.wait(PATIENCE_S) != 0:
        raise DemoFailed("the researcher did not end well")
    if deployer.wait(PATIENCE_S) != 1:
        raise DemoFailed("the deployer did not fail")
    demo.say("The researcher has done its job, the deployer has met an error, the migrator is inside a tool call:\n")
    demo.show_status()
    demo.say(f"Now: kill -9 {migrator.pid}, the migrator. It has no chance to say anything.\n")
    migrator.send_signal(signal.SIGKILL)
    migrator.wait(PATIENCE_S)
    wait_for("the collector to tell the end of the migrator", lambda: demo.status()["migrator"]["ended_at"])
    demo.show_status()
    rows = demo.status()
    demo.say("What is in the trace file of the crashed session, as a tree:\n")
    document = json.loads(Path(rows["migrator"]["path"]).read_text(encoding="utf-8"))
    demo.paper.print(tree_lines(document, demo.paper.width))
    demo.say("\nThe first line of each trace file says what matters:\n")
    for name in ("researcher", "deployer", "migrator"):
        with Path(rows[name]["path"]).open(encoding="utf-8") as file:
            demo.paper.print([Text(f"{name}.json: {cut(file.readline().strip(), 4_096)}")])
    check(rows, document)
    daemon.terminate()
    if daemon.wait(PATIENCE_S) != 0:
        raise DemoFailed(f"the daemon ended with status {daemon.returncode}: {demo.log.read_text().strip()}")
    demo.say("\nAll three are told as they were. The collector has stopped, and its directory is removed.")


def check(rows: dict[str, Any], crashed: dict[str, Any]) -> None:
    """Whether each outcome is what it must be, in `status` and in the file."""
    for name, outcome in (("researcher", "completed"), ("deployer", "failed"), ("migrator", "crashed")):
        if rows[name]["outcome"] != outcome:
            raise DemoFailed(f"{name} is {rows[name]['outcome']}, and must be {outcome}")
    crash = crashed["session"]["crash"]
    if crash["reason"] != "process-died" or crash["signal"] not in allowed_signals():
        raise DemoFailed(f"the crash is told as {crash}")
    spans = [span for resource in crashed["resourceSpans"] for scope in resource["scopeSpans"] for span in scope["spans"]]
    unfinished = sorted(span["name"] for span in spans if "endTimeUnixNano" not in span)
    if unfinished != ["execute_tool bash", "invoke_agent migrator"]:
        raise DemoFailed(f"unfinished are {unfinished}")


def allowed_signals() -> tuple[str | None, ...]:
    """Kernels before 6.15 tell nobody but the parent how a process ended."""
    major, minor = (int(part) for part in platform.release().split("-")[0].split(".")[:2])
    return ("SIGKILL",) if (major, minor) >= (6, 15) else ("SIGKILL", None)


def main() -> int:
    """Run it; returns the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with demonstration() as demo:
            tell(demo)
    except DemoFailed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
