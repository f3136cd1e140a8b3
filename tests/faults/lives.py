"""A small fixed workload that a daemon does not live through, and what must be so after the next one: for the kill beds.

Three sessions, one of them with a participant: one ends, one crashes, one is still running when the daemon is told to stop. Each
client does one thing after the other, so that the same calls are made in the same order each time.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from attrs import Factory, define

from collectord.model import Outcome
from tests.export.otlp import check_document, logs_of, spans_of, value_of
from tests.faults import figures
from tests.process.client import Refused, span_end, span_start
from tests.process.daemon import Daemon
from tests.process.resuming import Known, ResumingClient
from tests.scenarios.journals import stored_of, terminals_of

BED = "SIGKILL at every call"
"""In the table of figures."""

REPORT = "it broke, and said so"


@define
class Lives:
    """What the clients of the workload know; ``copy`` it before it is gone on with more than once."""

    stays: Known = Factory(lambda: Known("stays"))
    ends: Known = Factory(lambda: Known("ends"))
    joins: Known = Factory(lambda: Known("ends", join=True))
    crashes: Known = Factory(lambda: Known("crashes"))

    @property
    def each(self) -> list[Known]:
        """All of them, participants before the owner whose end would end them."""
        return [self.stays, self.joins, self.ends, self.crashes]

    def copy(self) -> Lives:
        """As they stand now."""
        return Lives(*(known.copy() for known in (self.stays, self.ends, self.joins, self.crashes)))

    @property
    def acknowledged(self) -> int:
        """How many events were said to be durable."""
        return sum(known.acknowledged for known in self.each)


def live(daemon: Daemon, lives: Lives, watch: Callable[[int], None] = lambda step: None, steps: int = 99) -> int:
    """The workload, or the first steps of it, and then a stop; what was told is in ``lives``.

    Args:
        daemon: that listens.
        lives: of clients that have not begun.
        watch: called when a step begins, with its number, from 1; a stop by SIGTERM is the last one.
        steps: how many are taken; where that is not all, the stop is by SIGKILL.

    Returns:
        The daemon's exit status, killed or not.
    """
    stays, joins, ends, crashes = clients = [ResumingClient(daemon.client, known) for known in lives.each]
    whole: list[Callable[[], object]] = [
        stays.open,
        lambda: _grow(stays, 2),
        ends.open,
        lambda: _start_span(ends, "work"),
        lambda: _grow(ends, 4),
        joins.open,
        lambda: _start_span(joins, "helper's"),
        lambda: ends.flush(export=True),
        crashes.open,
        lambda: _grow(crashes, 2),
        lambda: crashes.crash(REPORT),
        lambda: _leave(joins),
        lambda: _end(ends),
        lambda: _grow(stays, 4),
    ]
    try:
        for number, step in enumerate(whole[:steps], 1):
            watch(number)
            step()
        watch(len(whole) + 1)
    except OSError:
        pass  # the daemon is gone
    finally:
        status = daemon.stop(signal.SIGTERM if steps >= len(whole) else signal.SIGKILL)
        for client in clients:
            client.hear_out()
    return status


HALF = 11
"""So many steps leave two runs open, one of them with a participant, and one crashed."""


def _grow(client: ResumingClient, to: int) -> None:
    """Send what is missing to that many events, and hear that all is durable."""
    missing = to - len(client.known.events)
    if missing > 0:
        client.log(missing)
    client.settle()


def _start_span(client: ResumingClient, name: str) -> None:
    client.write([span_start(name)])
    client.settle()


def _leave(client: ResumingClient) -> None:
    if len(client.known.events) == 1:
        client.write([span_end(1)])
    client.detach()


def _end(client: ResumingClient) -> None:
    _grow(client, 4)
    if len(client.known.events) == 4:
        client.write([span_end(1)])
    client.end()


# ---------------------------------------------------------------- the next daemon


def finish(daemon: Daemon, lives: Lives, watch: Callable[[int], None] = lambda step: None) -> bool:
    """Every client that is not through comes back and goes on to its end; those that are told what stands are not let in.

    Args:
        daemon: that listens.
        lives: of clients whose daemon is gone.
        watch: called when a step begins, with its number, from 1.

    Returns:
        Whether the daemon lived through it.
    """
    stays, joins, ends, crashes = clients = [ResumingClient(daemon.client, known, 0) for known in lives.each]
    steps: list[Callable[[], None]] = [
        lambda: _finish_stays(stays),
        lambda: _finish_ends(ends, joins),
        lambda: _finish_crashes(crashes),
    ]
    try:
        for number, step in enumerate(steps, 1):
            watch(number)
            step()
    except OSError:
        assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
        for client in clients:
            client.hear_out()
        return False
    for client in clients:
        client.close()
    return True


def _finish_stays(stays: ResumingClient) -> None:
    if _comes_back(stays):
        _grow(stays, 6)
        stays.end()


def _finish_ends(ends: ResumingClient, joins: ResumingClient) -> None:
    if _comes_back(ends):
        if _comes_back(joins):
            _leave(joins)
        _end(ends)


def _finish_crashes(crashes: ResumingClient) -> None:
    if _comes_back(crashes):
        _grow(crashes, 2)
        crashes.crash(REPORT)


def _comes_back(client: ResumingClient) -> bool:
    """Whether the client is let in; where it is not, that it is for the right reason."""
    known = client.known
    if not known.was_opened or known.left:
        return False
    try:
        client.resume()
    except Refused as refused:
        ended = refused.code == "session-ended" and (known.asked is not None or known.join)
        has_left = refused.code == "resume-refused" and known.leaves
        if not ended and not has_left:
            raise AssertionError(f"{known.session_id}, of which {known.asked} was asked, is not let in: {refused}") from refused
        return False
    assert known.told is None, f"{known.session_id} was told that it is {known.told}, and was let in again"
    return True


def check(daemon: Daemon, lives: Lives) -> None:
    """What is on the disk is what was told: each event once, the outcome, the trace id; and no temporary file is left.

    To be called when the last daemon has been stopped.
    """
    for known in lives.each:
        if known.was_opened:
            _check_events(daemon, known)
        if known.was_opened and not known.join:
            _check_outcome(daemon, known)
    for producers in ([lives.stays], [lives.ends, lives.joins], [lives.crashes]):
        if producers[0].was_opened:
            _check_document(daemon, producers)
    left = [path.name for path in (daemon.state_dir / "traces").iterdir() if path.name.startswith(".")]
    assert left == [], "temporary files are left"
    aside = [path for path in (daemon.state_dir / "quarantine").iterdir() if path.suffix == ".journal" and path.stat().st_size]
    assert aside == [], "a kill damages nothing; at most a journal is found of which nothing was written yet"


def _check_events(daemon: Daemon, known: Known) -> None:
    stored = stored_of(daemon, known.session_id, known.run).get(known.producer, set())
    lost = set(range(1, known.acknowledged + 1)) - stored
    figures.record(BED, "acknowledged events", known.acknowledged)
    figures.record(BED, "acknowledged events lost", len(lost))
    assert not lost, f"{known.acknowledged} were acknowledged, {len(stored)} are stored"
    assert stored == set(range(1, len(known.events) + 1)), "all that it sent is stored, each event once"


def _check_outcome(daemon: Daemon, known: Known) -> None:
    terminals = [terminal["outcome"] for terminal in terminals_of(daemon, known.session_id, known.run)]
    session = daemon.trace(known.session_id, known.run)["session"]
    assert known.asked is not None
    figures.record(BED, "wrong outcomes", terminals != [known.asked.value])
    figures.record(BED, "false crashes", known.asked is not Outcome.CRASHED and session["outcome"] == "crashed")
    assert terminals == [known.asked.value], "one outcome, and the one that was asked for"
    assert session["outcome"] == known.asked.value
    assert known.told in (None, known.asked)
    if known.asked is Outcome.CRASHED:
        assert (session["crash"]["reason"], session["crash"]["message"]) == ("reported", REPORT)


def _check_document(daemon: Daemon, producers: list[Known]) -> None:
    known = producers[0]
    document = check_document(daemon.trace_path(known.session_id, known.run).read_bytes())
    assert document["session"]["trace_id"] == known.trace_id.hex()
    assert document["session"]["integrity"]["duplicates"] == 0
    figures.record(BED, "duplicates", document["session"]["counts"]["events"] - sum(len(one.events) for one in producers))
    bodies = sorted(value_of(record["body"]) for record in logs_of(document))
    assert bodies == sorted(event[3] for one in producers for event in one.events if event[0] == 5)
    ids = sorted(span["spanId"] for span in spans_of(document))
    assert ids == sorted(event[2].hex() for one in producers for event in one.events if event[0] == 1)
