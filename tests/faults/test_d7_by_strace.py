"""D7 on a real daemon: strace lets each system call of an open, a group, a flush and an end fail, once or until it is detached.

One daemon lives through all of it, a session a fault. What each client is told, what `status` shows meanwhile, and what is stored
in the end are compared; and nothing else may be left of all these faults: no descriptor, no temporary file, no run that the next
daemon finds otherwise. With COLLECTORD_FULL=1 every errno is tried, else one of each row.
"""

from __future__ import annotations

import itertools
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

import pytest
from attrs import frozen

from collectord.model import Outcome
from collectord.wire import messages
from tests.export.otlp import check_document
from tests.faults import figures
from tests.faults.kills import Strace, need_strace, renderers_of, scratch_daemon
from tests.process.client import RawClient, Refused, log
from tests.process.daemon import Daemon
from tests.scenarios.journals import stored_of, terminals_of
from tests.scenarios.support import until

pytestmark = [pytest.mark.process, pytest.mark.bed]

BED = "each call fails (D7, strace)"
WORDS = {name: os.strerror(getattr(__import__("errno"), name)) for name in ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EMFILE")}

FULL = ("ENOSPC", "EDQUOT", "EIO", "EROFS")
SYNC = ("EIO", "ENOSPC", "EDQUOT")
OPEN = (*FULL, "EMFILE")


class Doing(Enum):
    """What the client does while calls fail."""

    OPEN = "open"
    GROUP = "group"
    FLUSH = "flush"
    END = "end"
    CRASH = "crash"


class Told(Enum):
    """What it is told."""

    REFUSED = "refused"
    NOTHING = "nothing"
    STALLED = "stalled"
    EXPORT = "export"


@frozen
class Row:
    """One kind of fault.

    Attributes:
        doing: what the client does.
        calls: which fail.
        paths: on what, with the session's name to be put in.
        errors: in which ways.
        once: what the client is told where the call fails once in a thread.
        a_while: what it is told while it fails again and again.
    """

    doing: Doing
    calls: str
    paths: tuple[str, ...]
    errors: tuple[str, ...]
    once: Told | None
    a_while: Told | None


FIRST = ("journals/{}~1.0.journal",)
LATER = tuple(f"journals/{{}}~1.{number}.journal" for number in range(1, 12))
TEMPORARY = tuple(f"traces/.{{}}~1.{number}.tmp" for number in range(9))
TRACE = ("traces/{}.json",)
JOURNALS, TRACES = ("journals",), ("traces",)

R, N, S, X = Told.REFUSED, Told.NOTHING, Told.STALLED, Told.EXPORT

ROWS = (
    Row(Doing.OPEN, "openat", FIRST, OPEN, R, R),
    Row(Doing.OPEN, "writev", FIRST, FULL, R, R),
    Row(Doing.OPEN, "fdatasync", FIRST, SYNC, R, R),
    Row(Doing.OPEN, "openat", JOURNALS, ("EMFILE",), R, R),
    Row(Doing.OPEN, "fsync", JOURNALS, SYNC, R, R),
    Row(Doing.OPEN, "openat", TEMPORARY[:1], OPEN, R, R),
    Row(Doing.OPEN, "writev", TEMPORARY[:1], FULL, R, R),
    Row(Doing.OPEN, "rename", TEMPORARY[:1], FULL, R, R),
    Row(Doing.GROUP, "writev", FIRST, FULL, N, N),
    Row(Doing.GROUP, "writev", FIRST + LATER, FULL, None, S),
    Row(Doing.GROUP, "fdatasync", FIRST, SYNC, N, N),
    Row(Doing.GROUP, "fdatasync", FIRST + LATER, SYNC, None, S),
    Row(Doing.GROUP, "fdatasync,openat", FIRST + LATER, OPEN, None, S),
    Row(Doing.GROUP, "fdatasync,fsync", FIRST + JOURNALS, SYNC, S, S),
    Row(Doing.GROUP, "fdatasync,unlink", FIRST + LATER, ("EIO", "EROFS"), None, S),
    Row(Doing.FLUSH, "openat", TEMPORARY, OPEN, X, X),
    Row(Doing.FLUSH, "write", TEMPORARY, FULL, X, X),
    Row(Doing.FLUSH, "rename", TEMPORARY, FULL, X, X),
    Row(Doing.FLUSH, "openat", FIRST, ("EMFILE", "EIO"), X, X),
    Row(Doing.FLUSH, "pread64", FIRST, ("EIO",), X, X),
    Row(Doing.END, "writev", FIRST, FULL, N, N),
    Row(Doing.END, "fdatasync", FIRST, SYNC, N, N),
    Row(Doing.END, "fdatasync", FIRST + LATER, SYNC, None, S),
    Row(Doing.END, "openat", TEMPORARY, OPEN, X, X),
    Row(Doing.END, "write", TEMPORARY, FULL, X, X),
    Row(Doing.END, "fsync", TEMPORARY, SYNC, X, X),
    Row(Doing.END, "rename", TEMPORARY, FULL, X, X),
    Row(Doing.END, "fsync", TRACES, SYNC, X, X),
    Row(Doing.END, "openat", TRACES, ("EMFILE",), X, X),
    Row(Doing.CRASH, "fdatasync", FIRST, SYNC, N, N),
    Row(Doing.CRASH, "fdatasync", FIRST + LATER, SYNC, None, S),
    Row(Doing.CRASH, "rename", TEMPORARY, FULL, X, X),
    Row(Doing.CRASH, "fsync", TRACES, SYNC, X, X),
)


@frozen
class Try:
    """One fault to be tried."""

    row: Row
    error: str
    once: bool
    name: str

    @property
    def told(self) -> Told:
        """What the client must be told."""
        told = self.row.once if self.once else self.row.a_while
        assert told is not None
        return told

    def __str__(self) -> str:
        how = "once" if self.once else "for a while"
        return f"{self.row.doing.value}: {self.row.calls} on {self.row.paths[0]}, {self.error}, {how}"


def tries() -> Iterator[Try]:
    """All, or one errno of each row and way, another one each time."""
    number = itertools.count(1)
    turn = itertools.count()
    for row, once in itertools.product(ROWS, (True, False)):
        if (row.once if once else row.a_while) is None:
            continue
        chosen = row.errors if figures.is_full() else (row.errors[next(turn) % len(row.errors)],)
        for error in chosen:
            yield Try(row, error, once, f"f{next(number)}")


class Bench:
    """A daemon, and strace for a while."""

    def __init__(self, daemon: Daemon, notes: Path) -> None:
        self.daemon = daemon
        self.pids = [daemon.pid, *renderers_of(daemon)]
        self._notes = notes
        self.injected = 0

    @contextmanager
    def failing(self, one: Try) -> Iterator[None]:
        """Let the calls fail in the block; at least one must."""
        which = [word for path in one.row.paths for word in ("-P", str(self.daemon.state_dir / path.format(one.name)))]
        when = ":when=1" if one.once else ""
        calls = one.row.calls
        strace = Strace(self.pids, self._notes, *which, "-e", f"trace={calls}", "-e", f"inject={calls}:error={one.error}{when}")
        try:
            yield
        finally:
            strace.detach()
        injected = strace.log.read_text().count("(INJECTED)")
        assert injected, "nothing failed"
        self.injected += injected

    def descriptors(self) -> int:
        """How many the daemon has."""
        return len(os.listdir(f"/proc/{self.daemon.pid}/fd"))


def live_well(daemon: Daemon) -> None:
    """A session that nothing happens to: whatever is opened for good is open after it."""
    with daemon.client() as client:
        client.open("well")
        client.send_events([log("x")])
        client.flush(export=True)
        client.end()


def hear_stalled(client: RawClient, bench: Bench, one: Try) -> None:
    """The client is told, and `status` shows why."""
    while not any(isinstance(message, messages.Stalled) for message in client.pushed):
        message = client.receive()
        assert message is not None
        client.pushed.append(message)
    (stalled,) = (message for message in client.pushed if isinstance(message, messages.Stalled))
    assert stalled.code == "disk-failed"
    assert WORDS[one.error] in stalled.message
    shown = bench.daemon.session(one.name)["stalled"]
    assert shown is not None
    assert WORDS[one.error] in shown


def refused(code: str, one: Try, error: Refused) -> None:
    """With that code, for that reason, and to be tried again."""
    assert error.code == code
    assert error.error.retryable
    assert WORDS[one.error] in error.error.message


def try_one(bench: Bench, one: Try) -> None:
    """A session whose calls fail at one point of its life, and which ends as any other."""
    with bench.daemon.client() as client:
        if one.row.doing is Doing.OPEN:
            with bench.failing(one), pytest.raises(Refused) as failure:
                client.open(one.name)
            refused("disk-failed", one, failure.value)
    with bench.daemon.client() as client:
        client.open(one.name)
        client.send_events([log("before")])
        client.wait_acknowledged()
        if one.row.doing is Doing.GROUP:
            group(bench, client, one)
        elif one.row.doing is Doing.FLUSH:
            flush(bench, client, one)
        client.send_events([log("after")])
        client.wait_acknowledged()
        outcome = end(bench, client, one)
        check(bench.daemon, client, one, outcome)


def group(bench: Bench, client: RawClient, one: Try) -> None:
    """Events that are acknowledged when they are durable, and not before."""
    with bench.failing(one):
        client.send_events([log("meanwhile")])
        if one.told is Told.STALLED:
            hear_stalled(client, bench, one)
            client.send_events([log("more"), log("and more")])
        else:
            client.wait_acknowledged()
        before = client.acknowledged
    if one.told is Told.STALLED:
        assert before == 1, "what is not durable is not acknowledged"
    client.wait_acknowledged()


def flush(bench: Bench, client: RawClient, one: Try) -> None:
    """A document that is asked for."""
    client.send_events([log("shown")])
    client.wait_acknowledged()
    with bench.failing(one), pytest.raises(Refused) as failure:
        client.flush(export=True)
    refused("export-failed", one, failure.value)
    client.flush(export=True)
    assert bench.daemon.trace(one.name)["session"]["integrity"]["stored"] == 2


def end(bench: Bench, client: RawClient, one: Try) -> Outcome:
    """The end, or a crash that is reported; the answer comes when the outcome is durable."""
    ask = client.send_crash if one.row.doing is Doing.CRASH else client.send_end
    if one.row.doing not in (Doing.END, Doing.CRASH):
        return client.end().outcome
    with bench.failing(one):
        request = ask("completed") if one.row.doing is Doing.END else ask("it broke")
        if one.told is Told.STALLED:
            hear_stalled(client, bench, one)
            answer = None
        else:
            answer = client.terminal(request)
    if answer is None:
        answer = client.terminal(request)
    if one.told is Told.EXPORT:
        assert answer.path is None
        assert answer.export_error is not None
        assert WORDS[one.error] in answer.export_error
    else:
        assert answer.path == str(bench.daemon.trace_path(one.name))
    return answer.outcome


def check(daemon: Daemon, client: RawClient, one: Try, outcome: Outcome) -> None:
    """Everything once, the outcome, and the document, which may come a little later."""
    assert outcome is (Outcome.CRASHED if one.row.doing is Doing.CRASH else Outcome.COMPLETED)
    assert stored_of(daemon, one.name, client.run) == {1: set(range(1, client.sequence + 1))}
    assert [terminal["outcome"] for terminal in terminals_of(daemon, one.name, client.run)] == [outcome.value]

    def stands() -> bool:
        return bool(daemon.trace(one.name, client.run)["session"]["outcome"] == outcome.value)

    until(stands, "its trace file does not come")
    document = check_document(daemon.trace_path(one.name, client.run).read_bytes())
    assert document["session"]["integrity"]["stored"] == client.sequence


def test_d7_each_call_fails_in_turn_and_the_daemon_goes_on() -> None:
    need_strace()
    tried = list(tries())
    with scratch_daemon() as (daemon, notes):
        daemon.start()
        bench = Bench(daemon, notes)
        live_well(daemon)
        before = until(lambda: (now := bench.descriptors()) == bench.descriptors() and now)
        for one in tried:
            try:
                try_one(bench, one)
            except BaseException as error:
                error.add_note(str(one))
                raise
        until(lambda: bench.descriptors() <= before, f"it had {before} descriptors, and has more now")
        assert list((daemon.state_dir / "traces").glob(".*")) == []
        documents = {path.name: path.read_bytes() for path in (daemon.state_dir / "traces").iterdir()}
        until(lambda: daemon.status().daemon["exports_owed"] == 0, "documents are owed")
        assert daemon.stop() == 0
        assert daemon.said().count("cannot be written yet") <= len(tried)
        daemon.start()
        assert {path.name: path.read_bytes() for path in (daemon.state_dir / "traces").iterdir()} == documents
        assert daemon.stop() == 0
    print(f"{len(tried)} faults, {bench.injected} calls failed")
    figures.record(BED, "faults", len(tried))
    figures.record(BED, "calls that failed", bench.injected)


def test_d7_a_short_write_is_gone_on_with_or_the_file_is_left() -> None:
    """A real one: beyond its largest size a file takes a part of what is written, and then nothing (EFBIG)."""
    with scratch_daemon() as (daemon, _):
        daemon.start()
        with daemon.client() as client:
            client.open("short")
            client.send_events([log("before")])
            client.wait_acknowledged()
            size = (daemon.state_dir / "journals" / "short~1.0.journal").stat().st_size
            resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (size + 50, resource.RLIM_INFINITY))
            client.send_events([log("x" * 10_000)])
            while not any(isinstance(message, messages.Stalled) for message in client.pushed):
                message = client.receive()
                assert message is not None
                client.pushed.append(message)
            assert client.acknowledged == 1
            resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            client.wait_acknowledged()
            assert client.end().outcome is Outcome.COMPLETED
        assert (daemon.state_dir / "journals" / "short~1.0.journal").stat().st_size == size + 50, "a part was written"
        assert stored_of(daemon, "short") == {1: {1, 2}}
        assert daemon.stop() == 0
