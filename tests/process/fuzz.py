"""Hostile input against a real daemon: `python -m tests.process.fuzz --cases N --seed S`.

Each case is one connection that says something unsound (``mutations``). Beside them a well-behaved session goes on all the time.
After every batch of cases: the daemon lives, it is back at its descriptors and tasks, the well-behaved session has lost nothing.
Of every case: each answer is a regular one or an error with a code that is documented, no answer is `internal-error`, the
connection is closed in the end, and what was acknowledged is in the journal.
"""

from __future__ import annotations

import argparse
import random
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attrs import Factory, define

from collectord.errors import CODES, PeerError
from collectord.journal.disk import RealDisk
from collectord.journal.reader import JournalReader
from collectord.model import Outcome, RecordType
from collectord.wire import messages
from collectord.wire.connection import ClientConnection
from tests.export.otlp import attributes_of, spans_of
from tests.process.client import RawClient, span_end, span_start
from tests.process.daemon import Daemon, running
from tests.process.mutations import Conversation, conversation

BATCH_CASES = 40
PATIENCE_S = 60.0
WITNESS = "the well-behaved one"


class Found(AssertionError):
    """The daemon did something wrong."""


@define
class Report:
    """What came of a whole run."""

    cases: int
    seed: int
    kinds: Counter[str] = Factory(Counter)
    answers: Counter[str] = Factory(Counter)
    codes: Counter[str] = Factory(Counter)
    checked: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        def shown(counts: Counter[str]) -> str:
            return ", ".join(f"{name} {count}" for name, count in counts.most_common())

        return (
            f"fuzz: {self.cases} cases, seed {self.seed}, {self.seconds:.1f} s\n"
            f"  cases: {shown(self.kinds)}\n  answers: {shown(self.answers)}\n  codes: {shown(self.codes)}\n"
            f"  {self.checked} acknowledged events were looked up in journals"
        )


# ---------------------------------------------------------------- one case


@define
class Heard:
    """What one connection was answered."""

    answers: list[messages.Answer] = Factory(list)

    @property
    def errors(self) -> list[messages.Error]:
        return [answer for answer in self.answers if isinstance(answer, messages.Error)]


def speak(path: str, case: Conversation) -> Heard | None:
    """Say it all, and hear what is due; then shut, and hear the rest. None of a case that leaves without listening."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(path)
        try:
            connection.sendall(case.stream)
        except (BrokenPipeError, ConnectionResetError):
            pass  # closed already: what it said before that is still there to be heard
        except TimeoutError:
            raise Found("the daemon neither reads nor closes the connection") from None
        if case.manners == "vanish":
            return None
        due = set(case.due or ()) if case.manners == "wait" else set()
        return _listen(connection, due)


def _listen(connection: socket.socket, due: set[int]) -> Heard:
    machine, heard = ClientConnection(), Heard()
    shut = False
    while True:
        if not due and not shut:
            shut = True
            try:
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # closed by the daemon in the meantime
        try:
            chunk = connection.recv(1 << 16)
        except ConnectionResetError:
            chunk = b""
        except TimeoutError:
            raise Found(f"requests {sorted(due)} get no answer, and no end; heard so far: {heard.answers}") from None
        if not chunk:
            return heard
        machine.receive(chunk)
        try:
            while (answer := machine.next_answer()) is not None:
                heard.answers.append(answer)
                due.discard(getattr(answer, "id", None))
        except PeerError as error:
            raise Found(f"an answer that cannot be decoded: {error}") from None


def judge(heard: Heard, report: Report) -> None:
    """Every answer is a regular one, or an error that is documented and not our own fault."""
    for index, answer in enumerate(heard.answers):
        report.answers[type(answer).__name__.lower()] += 1
        codes = [answer.code] if isinstance(answer, messages.Error | messages.Stalled) else []
        codes += [code for _, _, code in answer.refused] if isinstance(answer, messages.Ack) else []
        for code in codes:
            report.codes[code] += 1
            if code not in CODES or CODES[code].whose != "client":
                raise Found(f"answered {code}: {answer}")
        if isinstance(answer, messages.Error) and answer.id is None and index + 1 < len(heard.answers):
            raise Found(f"an error without an id is the last word, but then came {heard.answers[index + 1 :]}")


def acknowledged(heard: Heard, case: Conversation) -> set[int]:
    """The sequences that were acknowledged and not refused, of a case whose batches are known."""
    assert case.counted is not None
    sent = {sequence for first, count in case.counted for sequence in range(first, first + count)}
    upto = 0
    for answer in heard.answers:
        if isinstance(answer, messages.Ack):
            upto = max(upto, answer.sequence)
            assert not answer.refused_more, "the cases are small"
            for first, count, _ in answer.refused:
                sent -= set(range(first, first + count))
    return {sequence for sequence in sent if sequence <= upto}


def look_up(daemon: Daemon, opened: messages.Opened, wanted: set[int]) -> None:
    """Whether the journal of a run holds these sequences of its owner, each once."""
    stem = Path(opened.path).name.removesuffix(".json").partition("~")[0]
    paths = sorted(map(str, (daemon.state_dir / "journals").glob(f"{stem}~{opened.run}.*.journal")))
    found: Counter[int] = Counter()
    for record in JournalReader(RealDisk(), paths, [None] * len(paths)):
        if record.type is RecordType.EVENTS and record.producer == opened.producer:
            found.update(range(record.first_sequence, record.first_sequence + record.count))
    missing = sorted(wanted - set(found))
    twice = [sequence for sequence, count in found.items() if count > 1]
    if missing or twice:
        raise Found(f"{opened.path}: acknowledged and not stored {missing}, stored twice {twice}")


# ---------------------------------------------------------------- the well-behaved session


class Witness:
    """A session beside them all, which must not notice anything."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.client: RawClient = daemon.client()
        self.client.open(WITNESS)
        self._spans = 0

    def go_on(self, spans: int = 5) -> None:
        """A few more spans, durable."""
        for _ in range(spans):
            self._spans += 1
            first = self.client.send_events([span_start(f"span {self._spans}", {"n": self._spans})])
            self.client.send_events([span_end(first)])
        flushed = self.client.flush()
        if (flushed.sequence, flushed.refused) != (2 * self._spans, 0):
            raise Found(f"the well-behaved session sent {2 * self._spans} events, and was told {flushed}")
        if self.client.pushed:
            raise Found(f"the well-behaved session was told {self.client.pushed}")

    def end(self) -> None:
        """Complete, and see that the file has all of it."""
        answer = self.client.end()
        if answer.outcome is not Outcome.COMPLETED:
            raise Found(f"the well-behaved session ended as {answer}")
        numbers = [attributes_of(span)["n"] for span in spans_of(self._daemon.trace("the%20well-behaved%20one"))]
        if numbers != list(range(1, self._spans + 1)):
            raise Found(f"the well-behaved session has spans {numbers}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None) -> None:
        self.client.close()


# ---------------------------------------------------------------- the whole run


def _standing(daemon: Daemon, watcher: RawClient) -> dict[str, Any]:
    if daemon.process is None or daemon.process.poll() is not None:
        raise Found(f"the daemon has died; it said {daemon.said()[-2_000:]}")
    return watcher.status().daemon


def _settle(daemon: Daemon, watcher: RawClient, before: dict[str, Any]) -> None:
    """Back to the well-behaved session alone: its descriptors, its tasks, nothing of the others."""
    deadline = time.monotonic() + PATIENCE_S
    names = ("sessions_running", "descriptors", "tasks")
    while True:
        now = _standing(daemon, watcher)
        if all(now[name] == before[name] for name in names):
            break
        if time.monotonic() > deadline:
            raise Found(f"kept: {[(name, before[name], now[name]) for name in names]}")
        time.sleep(0.005)
    if now["events_received"] != now["events_stored"] + now["events_refused"]:
        raise Found(f"the totals do not add up: {now}")
    said = daemon.said()
    for word in ("Traceback", "internal error", "stalled"):
        if word in said:
            raise Found(f"the daemon says: {said[-4_000:]}")


def fuzz(cases: int, seed: int, only: int | None = None) -> Report:
    """Run cases against a daemon of their own.

    Raises:
        Found: with the number of the case, or of the batch, and what was wrong.
    """
    report = Report(cases, seed)
    began = time.monotonic()
    with running() as daemon, daemon.client() as watcher, Witness(daemon) as witness:
        witness.go_on()
        before = _standing(daemon, watcher)
        numbers = range(cases) if only is None else range(only, only + 1)
        for start in range(0, len(numbers), BATCH_CASES):
            batch = numbers[start : start + BATCH_CASES]
            for number in batch:
                case = conversation(seed, number)
                try:
                    _play(daemon, case, report)
                except (Found, AssertionError, OSError) as error:
                    raise Found(f"seed {seed}, case {number} ({case.kind}, {case.manners}): {error}") from error
            try:
                witness.go_on()
                _settle(daemon, watcher, before)
            except (AssertionError, OSError) as error:
                raise Found(f"seed {seed}, after cases {batch[0]} to {batch[-1]}: {error}") from error
        witness.end()
    report.seconds = time.monotonic() - began
    return report


def _play(daemon: Daemon, case: Conversation, report: Report) -> None:
    report.kinds[case.kind] += 1
    heard = speak(str(daemon.socket), case)
    if heard is None:
        return
    judge(heard, report)
    opened = next((answer for answer in heard.answers if isinstance(answer, messages.Opened)), None)
    if opened is not None and case.counted is not None:
        wanted = acknowledged(heard, case)
        report.checked += len(wanted)
        look_up(daemon, opened, wanted)


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.process.fuzz", description="Hostile input against a real daemon.")
    parser.add_argument("--cases", type=int, default=4_000)
    parser.add_argument("--seed", type=int, default=None, help="the same seed makes the same cases; by default a new one")
    parser.add_argument("--only", type=int, default=None, help="the number of the one case to run")
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    print(f"fuzz: {given.cases} cases, seed {seed}", flush=True)
    try:
        print(fuzz(given.cases, seed, given.only))
    except Found as found:
        print(f"FOUND {found}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
