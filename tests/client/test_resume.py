"""The collector goes away and comes back: what it stored is compared with what was submitted, wherever the connection broke."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import collectord_client as collectord
import pytest
from collectord_client import _codec, _crash, _limits, _patience, _transport
from collectord_client._entries import Event
from collectord_client._outbox import Outbox
from collectord_client._unacknowledged import Frame, Unacknowledged

from collectord.errors import CODES
from collectord.model import Outcome
from collectord.wire import messages
from tests.client.agents import run_agent
from tests.client.fake_collector import Connection, FakeCollector, Point
from tests.scenarios.support import until

PATIENCE_S = 60.0
EVENTS = 30


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The pauses are what a test would wait for; their growth and their end have a test of their own."""
    monkeypatch.setattr(_patience, "RECONNECT_FIRST_S", 0.001)
    monkeypatch.setattr(_patience, "RECONNECT_MAX_S", 0.02)
    yield
    for session in list(_crash.sessions):  # those that a test leaves looking for a collector
        session._transport.close()
    for thread in threading.enumerate():
        if thread.name == "collectord-sender":
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def opened(fake: FakeCollector, name: str, **arguments: Any) -> collectord.Session:
    """A session with a fake that takes its runs up again."""
    fake.restarts = True
    return collectord.session(name, socket_path=str(fake.socket), timeout=PATIENCE_S, **arguments)


def check_exact(fake: FakeCollector, name: str, bodies: list[Any], producer: int = 1) -> None:
    """Every event was stored once, in its order, under its own number, and none was sent that was there already."""
    with fake.lock:
        run = fake.runs[name]
        mine = [(sequence, event[3]) for number, sequence, event in run.events if number == producer]
        assert mine == [*enumerate(bodies, start=1)]
        assert [(one.client_lost, one.duplicates) for one in run.producers] == [(0, 0)] * len(run.producers)


class Cutter:
    """Breaks the connection at a point, so many times."""

    def __init__(self, point: Point, times: int) -> None:
        self.point = point
        self.left = times

    def __call__(self, point: Point) -> bool:
        if point is self.point and self.left:
            self.left -= 1
            return True
        return False


# ---------------------------------------------------------------- where it breaks


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("point", Point)
def test_wherever_the_connection_breaks_each_event_is_stored_once(
    fake: FakeCollector, name: str, point: Point, times: int
) -> None:
    session = opened(fake, name)
    fake.cut_at = cutter = Cutter(point, times)
    fake.hang_up()
    for number in range(EVENTS):
        session.log(number)
        if number % 5 == 4:
            assert session.flush(PATIENCE_S)
    ended = session.end(timeout=PATIENCE_S)
    assert (ended.outcome, ended.path) == ("completed", session.path)
    check_exact(fake, name, [*range(EVENTS)])
    statistics = session.statistics()
    assert (statistics["acknowledged"], statistics["lost"], statistics["refused"]) == (EVENTS, 0, {})
    assert cutter.left == 0
    assert statistics["reconnects"] >= 1


def test_a_frame_that_breaks_at_any_byte_is_sent_again(fake: FakeCollector, name: str) -> None:
    session = opened(fake, name)
    numbers = iter(range(10**6))
    sent: list[int] = []
    for budget in range(1, 200, 3):
        fake.byte_budget = budget
        while fake.byte_budget is not None:
            sent.append(next(numbers))
            session.log(sent[-1])
            session.flush(PATIENCE_S)
    assert session.end(timeout=PATIENCE_S).outcome == "completed"
    check_exact(fake, name, sent)


@pytest.mark.parametrize("kept", range(0, 21, 2))
def test_a_collector_that_has_stored_more_than_it_acknowledged_is_sent_the_rest(
    fake: FakeCollector, name: str, kept: int
) -> None:
    session = opened(fake, name)
    fake.withholds = True
    session.log(0)
    until(lambda: fake.runs[name].events)
    with fake.lock:  # what is submitted now waits in one piece
        for number in range(1, 20):
            session.log(number)
        until(lambda: session.statistics()["sent"] == 20)
    until(lambda: len(fake.runs[name].events) == 20)
    with fake.lock:
        fake.hang_up()
        fake.runs[name].forget_unacknowledged(lambda acknowledged, stored: min(kept, stored))
        fake.withholds = False
    assert session.end(timeout=PATIENCE_S).outcome == "completed"
    check_exact(fake, name, [*range(20)])


@pytest.mark.parametrize("seed", range(12))
def test_in_a_random_life_with_breaks_everywhere_nothing_is_lost_and_nothing_comes_twice(
    fake: FakeCollector, name: str, seed: int
) -> None:
    dice = random.Random(seed)
    session = opened(fake, name)
    guest = opened(fake, name, join=True)
    breaks = [0]

    def cut(_: Point) -> bool:
        breaks[0] += dice.random() < 0.15
        return breaks[0] < 60 and dice.random() < 0.15

    fake.cut_at = cut
    written: dict[int, list[str]] = {1: [], 2: []}
    locks = {1: threading.Lock(), 2: threading.Lock()}
    flushed: list[bool] = []

    def work(writer: collectord.Session, producer: int, own: random.Random, thread: int) -> None:
        for number in range(100):
            with locks[producer]:  # so that the order is known
                written[producer].append(f"{thread}-{number}{'x' * own.choice([0, 10, 3_000])}")
                writer.log(written[producer][-1])
            if own.random() < 0.05:
                flushed.append(writer.flush(PATIENCE_S))
            if own.random() < 0.05:
                with fake.lock:
                    fake.withholds = not fake.withholds
            if own.random() < 0.03:
                with fake.lock:
                    fake.hang_up()
                    fake.runs[name].forget_unacknowledged(own.randint)

    threads = [
        threading.Thread(target=work, args=(writer, producer, random.Random(1_000 * seed + thread), thread))
        for thread, (writer, producer) in enumerate([(session, 1), (session, 1), (guest, 2)])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    guest.detach(timeout=PATIENCE_S)
    assert session.end(timeout=PATIENCE_S).outcome == "completed"
    assert all(flushed)
    assert flushed
    assert session.statistics()["reconnects"] > 2, f"seed {seed}: too little happened"
    for producer in (1, 2):
        check_exact(fake, name, written[producer], producer)
    assert len(fake.runs[name].detached) >= 1


# ---------------------------------------------------------------- who waits


def test_requests_that_wait_are_asked_again_where_they_stood_and_each_is_answered_once(fake: FakeCollector, name: str) -> None:
    session = opened(fake, name)
    is_deaf = threading.Event()
    is_deaf.set()
    fake.on_request = lambda _, request: is_deaf.is_set() and not isinstance(request, messages.Hello | messages.Open)
    answers: dict[str, Any] = {}
    threads = []

    def ask(what: str, call: Callable[[], Any]) -> None:
        before = len(fake.heard)
        threads.append(threading.Thread(target=lambda: answers.update({what: call()})))
        threads[-1].start()
        until(lambda: len(fake.heard) > before)

    session.log("before")
    ask("first", lambda: session.flush(PATIENCE_S))
    session.log("between")
    ask("second", lambda: session.flush(PATIENCE_S))
    session.log("behind")
    ask("end", lambda: session.end(timeout=PATIENCE_S).outcome)
    with fake.lock:
        fake.heard.clear()
        is_deaf.clear()
        fake.hang_up()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert answers == {"first": True, "second": True, "end": "completed"}
    check_exact(fake, name, ["before", "between", "behind"])
    order = [(type(one).__name__, getattr(one, "last_sequence", 0)) for one in fake.heard[2:]]
    assert order == [("Events", 0), ("Flush", 1), ("Events", 0), ("Flush", 2), ("Events", 0), ("End", 3)]
    assert not session._transport._outbox._waiting  # type: ignore[attr-defined]


def test_a_flush_for_which_nobody_waits_any_more_is_not_asked_again(fake: FakeCollector, name: str) -> None:
    session = opened(fake, name)
    fake.on_request = lambda _, request: isinstance(request, messages.Flush)
    for _ in range(5):
        assert not session.flush(0.01)
    until(lambda: sum(isinstance(one, messages.Flush) for one in fake.heard) == 5)
    fake.heard.clear()
    fake.on_request = None
    fake.hang_up()
    assert session.end(timeout=PATIENCE_S).outcome == "completed"
    assert not [one for one in fake.heard if isinstance(one, messages.Flush)]


def test_a_host_that_flushes_without_end_while_nobody_is_there_does_not_fill_its_memory(fake: FakeCollector, name: str) -> None:
    session = opened(fake, name)
    fake.go_away()
    until(lambda: session.statistics()["state"] == "reconnecting")
    for _ in range(_limits.REQUESTS_MAX + 500):
        session.flush(0)
    assert session.statistics()["queued"] <= _limits.REQUESTS_MAX
    session.log("kept")
    fake.listen()
    assert session.end(timeout=PATIENCE_S).outcome == "completed"
    check_exact(fake, name, ["kept"])


def test_a_terminal_call_that_waits_in_vain_returns_in_time_and_what_it_asked_stays_asked(fake: FakeCollector, name: str) -> None:
    session = opened(fake, name)
    session.log("kept")
    fake.go_away()
    assert session.end(timeout=0.05).outcome == "unknown"
    assert session.end(outcome="failed", timeout=0.05).outcome == "unknown"
    fake.listen()
    until(lambda: session.outcome == "completed")
    assert session.end().outcome == session.crash().outcome == "completed"
    ends = [one for one in fake.heard if isinstance(one, messages.End | messages.Crash)]
    assert len(ends) == 1
    check_exact(fake, name, ["kept"])


def test_a_participant_comes_back_as_itself_and_its_departure_waits_for_that(fake: FakeCollector, name: str) -> None:
    owner = opened(fake, name)
    guest = opened(fake, name, join=True)
    for number in range(5):
        owner.log(f"owner {number}")
        guest.log(f"guest {number}")
    fake.go_away()
    for number in range(5, 10):
        owner.log(f"owner {number}")
        guest.log(f"guest {number}")
    assert guest.detach(timeout=0.05).outcome == "running"
    fake.listen()
    until(lambda: fake.runs[name].detached)
    assert owner.end(timeout=PATIENCE_S).outcome == "completed"
    check_exact(fake, name, [f"owner {number}" for number in range(10)], 1)
    check_exact(fake, name, [f"guest {number}" for number in range(10)], 2)


@pytest.mark.parametrize("point", [Point.ASKED, Point.DONE, Point.ANSWERED])
def test_a_departure_that_breaks_off_leaves_the_run_alone(fake: FakeCollector, name: str, point: Point) -> None:
    owner = opened(fake, name)
    asked: list[str] = []
    owner.on_cancel(asked.append)
    guest = opened(fake, name, join=True)
    guest.log("of the guest")
    guest.flush(PATIENCE_S)
    fake.cut_at = Cutter(point, 1)
    assert guest.detach(timeout=PATIENCE_S).outcome in ("running", "unknown")
    assert len(fake.runs[name].detached) == 1
    assert owner.end(timeout=PATIENCE_S).outcome == "completed"
    assert not [request for request in fake.heard if isinstance(request, messages.Cancel)]
    assert not asked


# ---------------------------------------------------------------- what is answered


def refuse(code: str, retryable: bool, times: int) -> Callable[[Connection, messages.Request], bool]:
    """Answers the next opens with an error."""
    left = [times]

    def answer(connection: Connection, request: messages.Request) -> bool:
        if not isinstance(request, messages.Open) or not left[0]:
            return False
        left[0] -= 1
        connection.say(messages.Error(code, "not now", retryable, request.id))
        return True

    return answer


@pytest.mark.parametrize("code", ["collector-draining", "disk-failed", "disk-full", "session-busy", "too-many-sessions"])
def test_a_refusal_that_may_pass_is_asked_again_until_it_has(fake: FakeCollector, name: str, code: str) -> None:
    assert code not in CODES or CODES[code].retryable
    session = opened(fake, name)
    fake.on_request = refuse(code, True, 5)
    fake.hang_up()
    session.log("kept")
    assert session.end(timeout=PATIENCE_S).outcome == "completed"
    check_exact(fake, name, ["kept"])
    assert session.statistics()["last_error"] == ""


FINAL = ["resume-token-wrong", "session-ended", "session-unknown", "resume-refused", "journal-too-new", "a-code-of-tomorrow"]


@pytest.mark.parametrize("code", FINAL)
def test_a_refusal_that_is_final_makes_the_session_quiet_and_says_why(fake: FakeCollector, name: str, code: str) -> None:
    assert code not in CODES or not CODES[code].retryable
    session = opened(fake, name)
    fake.on_request = refuse(code, False, 1)
    session.log("kept")
    assert session.flush(PATIENCE_S)
    fake.withholds = True
    session.log("unknown")
    until(lambda: len(fake.runs[name].events) == 2)
    with fake.lock:
        if code == "session-ended":
            fake.runs[name].outcome = Outcome.CRASHED
        fake.hang_up()
    until(lambda: session.statistics()["state"] == "quiet")
    session.log("lost")
    assert not session.flush(PATIENCE_S)
    assert session.end(timeout=PATIENCE_S).outcome == ("crashed" if code == "session-ended" else "unknown")
    statistics = session.statistics()
    assert code in statistics["last_error"]
    until(lambda: session.statistics()["unacknowledged_bytes"] == 0)
    assert (statistics["acknowledged"], statistics["unacknowledged"], statistics["lost"]) == (1, 1, 1)
    assert sum(isinstance(one, messages.Open) for one in fake.heard) == 2


@pytest.mark.parametrize("outcome", ["completed", "failed", "cancelled", "crashed"])
def test_where_the_run_ended_meanwhile_the_outcome_that_stands_is_told(fake: FakeCollector, name: str, outcome: str) -> None:
    session = opened(fake, name)

    def end_and_go(connection: Connection, request: messages.Request) -> bool:
        if isinstance(request, messages.End):
            fake.runs[name].outcome = Outcome(outcome)
            connection.hang_up()
            return True
        return False

    fake.on_request = end_and_go
    ended = session.end(timeout=PATIENCE_S)
    assert (ended.outcome, ended.path, session.outcome) == (outcome, session.path, outcome)
    until(lambda: "session-ended" in session.statistics()["last_error"])
    assert session.crash().outcome == outcome


def test_a_participant_that_comes_back_to_a_run_that_is_over_learns_how_it_ended(fake: FakeCollector, name: str) -> None:
    opened(fake, name)
    guest = opened(fake, name, join=True)
    with fake.lock:
        fake.runs[name].outcome = Outcome.CRASHED
        fake.hang_up()
    until(lambda: guest.statistics()["state"] == "quiet")
    assert guest.outcome == guest.detach(timeout=PATIENCE_S).outcome == "crashed"


@pytest.mark.parametrize("silence", ["an error", "nonsense", "gone"])
def test_an_outcome_that_cannot_be_learned_is_not_invented(fake: FakeCollector, name: str, silence: str) -> None:
    session = opened(fake, name)

    def tell_nothing(connection: Connection, request: messages.Request) -> bool:
        if isinstance(request, messages.End):
            fake.runs[name].outcome = Outcome.COMPLETED
            connection.hang_up()
        elif isinstance(request, messages.Cancel) and silence == "an error":
            connection.say(messages.Error("internal-error", "no", False, request.id))
        elif isinstance(request, messages.Cancel) and silence == "nonsense":
            connection.say_bytes(_codec.encode_message({"type": "terminal", "id": request.id, "outcome": "splendid"}))
        elif isinstance(request, messages.Cancel):
            connection.hang_up()
        else:
            return False
        return True

    fake.on_request = tell_nothing
    assert session.end(timeout=0.5).outcome == "unknown"
    assert session.outcome in ("unknown", "running")  # as long as it may still be learned


def test_a_collector_that_stops_is_no_error_for_the_host(fake: FakeCollector, name: str) -> None:
    session = opened(fake, name)
    with fake.lock:
        for connection in fake.runs[name].connections:
            connection.say(messages.Error("collector-draining", "in a moment", True))
        fake.hang_up()
    until(lambda: session.statistics()["reconnects"] == 1)
    statistics = session.statistics()
    assert (statistics["state"], statistics["last_error"]) == ("connected", "")
    session.end()


def test_opening_waits_for_a_collector_that_is_about_to_restart(fake: FakeCollector, name: str) -> None:
    fake.on_request = refuse("collector-draining", True, 3)
    with opened(fake, name) as session:
        session.log("kept")
    check_exact(fake, name, ["kept"])


def test_a_disk_that_stalls_is_told_as_long_as_it_does(fake: FakeCollector, name: str) -> None:
    session = opened(fake, name)
    fake.withholds = True
    session.log("kept")
    until(lambda: fake.runs[name].events)
    (connection,) = fake.runs[name].connections
    connection.say(messages.Stalled("disk-failed", "no space left on device"))
    until(lambda: session.statistics()["stalled"])
    assert session.statistics()["stalled"] == "no space left on device (disk-failed)"
    with fake.lock:
        connection.acknowledge()
    until(lambda: not session.statistics()["stalled"])
    session.end()


# ---------------------------------------------------------------- hostile answers


def spoilt(**changes: Any) -> Callable[[messages.Open], bytes]:
    """An ``opened`` with something wrong."""

    def make(request: messages.Open) -> bytes:
        fields = {
            "type": "opened", "id": request.id, "run": 1, "producer": 1, "trace_id": bytes(range(1, 17)), "next_sequence": 1,
            "resume_token": b"t", "path": "/t", **changes,
        }  # fmt: skip
        return _codec.encode_message(fields)

    return make


HOSTILE: dict[str, Callable[[messages.Open], bytes]] = {
    "4 GiB": lambda _: b"\xff\xff\xff\xff",
    "8 MiB and a byte": lambda _: (_limits.ANSWER_SIZE_MAX_BYTES + 1).to_bytes(4, "big"),
    "no msgpack": lambda _: b"\0\0\0\1\xc1",
    "another run": spoilt(run=2),
    "another producer": spoilt(producer=2),
    "another trace": spoilt(trace_id=b"x" * 16),
    "a sequence below one": spoilt(next_sequence=0),
    "a sequence that was never sent": spoilt(next_sequence=100),
    "a sequence of text": spoilt(next_sequence="1"),
    "no token": spoilt(resume_token=None),
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_answer_to_a_resume_reaches_the_host(
    fake: FakeCollector, name: str, answer: Callable[[messages.Open], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    unhandled: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", unhandled.append)
    session = opened(fake, name)

    def spoil(connection: Connection, request: messages.Request) -> bool:
        if isinstance(request, messages.Open):
            connection.say_bytes(answer(request))
        return isinstance(request, messages.Open)

    fake.on_request = spoil
    session.log("kept")
    fake.hang_up()
    until(lambda: session.statistics()["state"] == "quiet")
    assert "does not take the session up again" in session.statistics()["last_error"]
    session.log("lost")
    assert session.end(timeout=PATIENCE_S).outcome == "unknown"
    assert not unhandled


def test_a_collector_that_talks_without_answering_is_given_up(
    fake: FakeCollector, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(fake, name)
    monkeypatch.setattr(_transport, "RECONNECT_ANSWER_S", 0.1)
    talks = [True]

    def talk(connection: Connection, request: messages.Request) -> bool:
        if isinstance(request, messages.Open) and talks.pop():
            while not connection.is_gone:
                connection.say(messages.Ack(0, []))
                try:
                    connection._socket.send(b"")
                    connection._socket.getpeername()
                except OSError:
                    return True
            return True
        talks.append(False)
        return False

    fake.on_request = talk
    fake.hang_up()
    session.log("kept")
    assert session.end(timeout=PATIENCE_S).outcome == "completed"
    check_exact(fake, name, ["kept"])


def test_a_collector_that_goes_back_behind_its_acknowledgement_makes_a_gap_and_is_told_of(fake: FakeCollector, name: str) -> None:
    session = opened(fake, name)
    for number in range(10):
        session.log(number)
        assert session.flush(PATIENCE_S)
    with fake.lock:
        fake.hang_up()
        fake.runs[name].events = fake.runs[name].events[:6]
        fake.runs[name].producers[0].next = 7
    session.log("behind")
    assert session.end(timeout=PATIENCE_S).outcome == "completed"
    run = fake.runs[name]
    assert [event[3] for event in run.stored()] == [*range(6), "behind"]
    assert run.client_lost == 4
    assert "4 events that it had acknowledged" in session.statistics()["last_error"]


def test_what_was_refused_in_an_acknowledgement_that_was_lost_is_counted_by_the_next_flush(
    fake: FakeCollector, name: str
) -> None:
    session = opened(fake, name)
    session.log("good")
    session.flush(PATIENCE_S)
    fake.cut_at = Cutter(Point.STORED, 1)
    session.start_span("bad", start_time=-1)
    assert not session.flush(PATIENCE_S)
    statistics = session.statistics()
    assert (statistics["acknowledged"], statistics["refused"]) == (1, {"not-listed": 1})
    session.end()


def test_an_acknowledgement_of_what_was_never_sent_counts_for_nothing_that_comes_later(fake: FakeCollector, name: str) -> None:
    session = opened(fake, name)
    session.log(0)
    session.flush(PATIENCE_S)
    with fake.lock:
        (connection,) = fake.runs[name].connections
        connection.say(messages.Ack(1_000, []))
        connection.say(messages.Stalled("disk-failed", "so that it is known to be read"))
    until(lambda: session.statistics()["stalled"])
    fake.withholds = True
    session.log(1)
    until(lambda: len(fake.runs[name].events) == 2)
    assert session.statistics()["acknowledged"] == 1
    with fake.lock:
        fake.hang_up()
        fake.runs[name].forget_unacknowledged(lambda acknowledged, _: acknowledged)
        fake.withholds = False
    assert session.end(timeout=PATIENCE_S).outcome == "completed"
    check_exact(fake, name, [0, 1])
    assert session.statistics()["acknowledged"] == 2


# ---------------------------------------------------------------- an outage


def test_an_outage_costs_what_the_memory_has_no_room_for_and_the_gap_is_exact(
    fake: FakeCollector, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transport.SocketTransport.__init__, "__defaults__", (256 << 10,))
    session = opened(fake, name)
    session.log("before")
    assert session.flush(PATIENCE_S)
    fake.go_away()
    until(lambda: session.statistics()["state"] == "reconnecting")
    for number in range(2_000):
        session.log(f"{number} {'x' * 1_000}")
    statistics = session.statistics()
    lost = statistics["lost"]
    assert 1_500 < lost < 2_000
    assert statistics["accepted"] == 2_001 - lost
    fake.listen()
    assert not session.flush(PATIENCE_S)  # everything is durable, and not everything is there
    session.log("after")
    assert session.end(timeout=PATIENCE_S).outcome == "completed"
    run = fake.runs[name]
    assert run.client_lost == lost
    bodies = [event[3] for event in run.stored()]
    assert bodies == ["before", *(f"{number} {'x' * 1_000}" for number in range(2_000 - lost)), "after"]
    assert run.events[-1][1] == 2_002


def test_what_is_sent_and_not_acknowledged_takes_of_the_same_memory(
    fake: FakeCollector, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transport.SocketTransport.__init__, "__defaults__", (64 << 10,))
    session = opened(fake, name)
    fake.withholds = True
    for number in range(200):
        session.log(f"{number} {'x' * 1_000}")
        until(lambda: session.statistics()["queued"] == 0)
    statistics = session.statistics()
    assert statistics["unacknowledged_bytes"] <= 64 << 10
    assert statistics["lost"] == 200 - statistics["unacknowledged"] > 100
    fake.withholds = False
    assert session.end(timeout=PATIENCE_S).outcome == "completed"
    assert fake.runs[name].client_lost == statistics["lost"]


def test_losses_behind_which_nothing_came_are_told_when_the_interpreter_exits(fake: FakeCollector, name: str) -> None:
    fake.restarts = True
    script = """
from collectord_client import _transport
_transport.SocketTransport.__init__.__defaults__ = (64 << 10,)
session = collectord.session(sys.argv[1])
for number in range(2000):
    session.log("x" * 60_000)
print(session.statistics()["lost"], flush=True)
"""
    lost = int(run_agent(script, fake.socket, name).stdout)
    assert lost > 100
    assert fake.runs[name].client_lost == lost


def test_a_full_backlog_and_an_absent_socket_are_waited_for(fake: FakeCollector, name: str) -> None:
    session = opened(fake, name)
    fake.go_away()
    fake.socket.unlink()
    until(lambda: "No such file" in session.statistics()["last_error"])
    fake.listen()
    session.log("kept")
    assert session.end(timeout=PATIENCE_S).outcome == "completed"
    check_exact(fake, name, ["kept"])


def test_a_backlog_that_is_full_ends_the_opening_in_time(tmp_path: Path, name: str) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(tmp_path / "s"))
            session = collectord.session(name, socket_path=str(tmp_path / "s"), timeout=0.2)
    assert (session.outcome, session.path) == ("unknown", None)
    assert "takes no connection" in session.statistics()["last_error"]


def test_a_resume_is_waited_for_longer_than_a_connection(fake: FakeCollector, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _limits.RECONNECT_ANSWER_S >= 30
    monkeypatch.setattr(_transport, "RECONNECT_MAX_S", 0.01)
    session = opened(fake, name)
    fake.heard.clear()

    def linger(_: Connection, request: messages.Request) -> bool:
        if isinstance(request, messages.Open):
            time.sleep(0.3)  # the slowness of the collector is what is tested
        return False

    fake.on_request = linger
    fake.hang_up()
    session.log("kept")
    assert session.end(timeout=PATIENCE_S).outcome == "completed"
    assert sum(isinstance(one, messages.Open) for one in fake.heard) == 1


# ---------------------------------------------------------------- pauses, and their end


def test_pauses_double_with_jitter_up_to_a_bound_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    clock = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    patience = _patience.Patience()
    pauses = []
    while (pause := patience.next_pause()) is not None:
        pauses.append(pause)
        clock[0] += pause
    longest = _limits.RECONNECT_FIRST_S
    for pause in pauses[:-1]:
        assert longest / 2 <= pause <= longest
        longest = min(2 * longest, _limits.RECONNECT_MAX_S)
    assert clock[0] == pytest.approx(1_000 + _limits.RECONNECT_GIVE_UP_S)
    assert len({*pauses}) == len(pauses)
    patience.progress()
    again = patience.next_pause()
    assert again is not None
    assert again <= _limits.RECONNECT_FIRST_S


def test_a_collector_that_takes_the_session_up_and_drops_it_each_time_is_given_up(
    fake: FakeCollector, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_patience, "RECONNECT_GIVE_UP_S", 0.5)
    session = opened(fake, name)
    fake.cut_at = Cutter(Point.OPENED, 10**9)
    session.log("unheard")
    fake.hang_up()
    assert session.end(timeout=PATIENCE_S).outcome == "unknown"
    statistics = session.statistics()
    assert statistics["state"] == "quiet"
    assert statistics["reconnects"] > 2
    assert statistics["unacknowledged_bytes"] == 0
    assert "gone" in statistics["last_error"]


def test_a_session_that_is_closed_while_nobody_is_there_ends_its_thread(fake: FakeCollector, name: str) -> None:
    session = opened(fake, name)
    fake.go_away()
    until(lambda: session.statistics()["state"] == "reconnecting")
    session._transport.close()
    thread = session._transport._thread  # type: ignore[attr-defined]
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


# ---------------------------------------------------------------- exits


def test_an_end_that_is_said_while_the_collector_restarts_is_not_lost(fake: FakeCollector, name: str) -> None:
    fake.restarts = True

    def restart(_: Connection, request: messages.Request) -> bool:
        if isinstance(request, messages.End) and fake.on_request is not None:
            fake.on_request = None
            fake.go_away()
            threading.Timer(0.5, fake.listen).start()
            return True
        return False

    fake.on_request = restart
    script = """
with collectord.session(sys.argv[1]) as session:
    session.log("kept")
print(session.outcome)
"""
    agent = run_agent(script, fake.socket, name)
    assert (agent.stdout, agent.stderr, agent.returncode) == ("completed\n", "", 0)
    check_exact(fake, name, ["kept"])


def test_an_end_that_was_not_waited_for_has_the_time_of_the_exit(fake: FakeCollector, name: str) -> None:
    fake.restarts = True

    def restart(_: Connection, request: messages.Request) -> bool:
        if isinstance(request, messages.End) and fake.on_request is not None:
            fake.on_request = None
            fake.go_away()
            threading.Timer(0.2, fake.listen).start()
            return True
        return False

    fake.on_request = restart
    script = """
session = collectord.session(sys.argv[1])
session.log("kept")
print(session.end(timeout=0).outcome)
"""
    agent = run_agent(script, fake.socket, name)
    assert (agent.stdout, agent.stderr, agent.returncode) == ("unknown\n", "", 0)
    assert fake.runs[name].outcome is Outcome.COMPLETED
    check_exact(fake, name, ["kept"])


def test_what_was_sent_and_not_acknowledged_is_sent_again_in_the_time_of_the_exit(fake: FakeCollector, name: str) -> None:
    fake.restarts = fake.withholds = True

    def forget() -> None:
        until(lambda: name in fake.runs and fake.runs[name].events)
        with fake.lock:
            fake.go_away()
            fake.runs[name].forget_unacknowledged(lambda acknowledged, _: acknowledged)
            fake.withholds = False
        threading.Timer(0.2, fake.listen).start()

    thread = threading.Thread(target=forget)
    thread.start()
    script = """
session = collectord.session(sys.argv[1])
session.log("kept")
while session.statistics()["state"] == "connected":
    pass
"""
    agent = run_agent(script, fake.socket, name)
    thread.join(PATIENCE_S)
    assert (agent.stdout, agent.stderr, agent.returncode) == ("", "", 0)
    check_exact(fake, name, ["kept"])


def test_a_fork_while_nobody_is_there_takes_nothing_from_the_parents_resume(fake: FakeCollector, name: str) -> None:
    fake.restarts = True

    def away() -> None:
        until(lambda: name in fake.runs and fake.runs[name].events)
        fake.go_away()
        threading.Timer(0.5, fake.listen).start()

    thread = threading.Thread(target=away)
    thread.start()
    script = """
session = collectord.session(sys.argv[1])
session.log("before")
while session.statistics()["state"] == "connected":
    pass
session.log("in the outage")
if os.fork() == 0:
    session.log("of the child")
    told = (session.end().outcome, session.statistics()["state"])
    os._exit(0 if told == ("unknown", "quiet") else 1)
print(os.wait()[1], session.end().outcome)
"""
    agent = run_agent(script, fake.socket, name)
    thread.join(PATIENCE_S)
    assert (agent.stdout, agent.stderr) == ("0 completed\n", "")
    check_exact(fake, name, ["before", "in the outage"])


def test_a_collector_that_never_comes_back_holds_up_the_exit_no_longer_than_is_stated(fake: FakeCollector, name: str) -> None:
    fake.restarts = True
    script = """
import atexit, time
sessions = [collectord.session(f"{sys.argv[1]}-{number}") for number in range(4)]
atexit._clear()
def tell(began=[]):
    print(time.monotonic() - began[0] < 4 if began else began.append(time.monotonic()), flush=True)
atexit.register(tell)
from collectord_client import _crash
atexit.register(_crash._at_exit)
input()
for session in sessions:
    session.log("unheard")
    session.end(timeout=0)
tell()
"""
    import os
    import subprocess
    import sys

    command = [sys.executable, "-c", "import collectord_client as collectord, sys\n" + script, name]
    environment = {**os.environ, "COLLECTORD_SOCKET": str(fake.socket)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as agent:
        until(lambda: len(fake.runs) == 4)
        fake.go_away()
        said, error = agent.communicate("\n", timeout=PATIENCE_S)
    assert (said, error, agent.returncode) == ("None\nTrue\n", "", 0)


# ---------------------------------------------------------------- what is kept


def test_a_frame_that_was_half_sent_is_sent_whole_on_the_next_connection() -> None:
    outbox = Outbox(_limits.MEMORY_MAX_BYTES)
    for number in range(3):
        outbox.put(Event(_codec.pack(number), b"", None, None))
    whole = outbox.unsent
    assert whole is not None
    outbox.sent(len(whole) - 1)
    assert outbox.is_half_sent
    assert outbox.resume(1) == 0
    assert outbox.unsent == whole
    outbox.sent(1)
    outbox.resume(3)
    assert outbox.unsent == _codec.encode_events(3, [_codec.pack(2)])


def frame(first: int, count: int) -> Frame:
    events = [_codec.pack([5, number, 9, {"deep": [[number]] * 3}, {}, None]) for number in range(first, first + count)]
    return Frame(first, first + count - 1, _codec.encode_events(first, events))


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 70])
def test_a_frame_without_its_first_events_is_the_frame_of_the_others(count: int) -> None:
    for skipped in range(count):
        cut = _codec.without_first(frame(1_000, count).raw, 1_000, count, skipped)
        assert cut == frame(1_000 + skipped, count - skipped).raw


def test_acknowledged_counts_events_and_not_the_numbers_of_lost_ones() -> None:
    kept = Unacknowledged()
    for first, count in ((1, 3), (4, 2), (10, 5)):  # 6 to 9 were lost
        kept.keep(frame(first, count))
    told = [kept.acknowledge(sequence) for sequence in (2, 2, 1, 4, 9, 12, 12, 14, 20)]
    assert told == [2, 0, 0, 2, 1, 3, 0, 2, 0]
    assert (kept.events, kept.size_bytes, len(kept)) == (0, 0, 0)


@pytest.mark.parametrize("acknowledged", range(16))
@pytest.mark.parametrize("following", range(1, 17))
def test_what_is_sent_again_begins_where_the_collector_goes_on(acknowledged: int, following: int) -> None:
    kept = Unacknowledged()
    for first, count in ((1, 3), (4, 2), (10, 5)):
        kept.keep(frame(first, count))
    counted = kept.acknowledge(acknowledged)
    newly, missing = kept.resume(following)
    there = {1, 2, 3, 4, 5, 10, 11, 12, 13, 14}
    again = {number for one in kept for number in range(one.first, one.last + 1)}
    held = {n for n in there if n > acknowledged} | {n for n in again if n <= acknowledged}  # whole frames are held until then
    assert again == {n for n in held if n >= following}
    assert all(one.raw == frame(one.first, one.last - one.first + 1).raw for one in kept)
    assert counted + newly == len({n for n in there if n <= max(acknowledged, following - 1)})
    first_held = min(again, default=acknowledged + 1)
    assert missing == max(0, min(acknowledged, first_held - 1) - following + 1)
    assert kept.size_bytes == sum(one.size_bytes for one in kept)
