"""What a session does to a collector: the same promises on a real daemon and on the fake, which verifies the fake too."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Iterator

import collectord_client as collectord
import pytest
import trio

from tests.client.collectors import Collector


def test_a_session_is_open_at_once_and_knows_its_run(collector: Collector, name: str) -> None:
    session = collectord.session(name, attributes={"team": "ci"}, socket_path=str(collector.socket))
    assert (session.id, session.run, session.outcome) == (name, 1, "running")
    assert len(bytes.fromhex(session.trace_id)) == 16
    assert session.path is not None
    ended = session.end()
    assert (ended.outcome, ended.path) == ("completed", session.path)
    assert collector.see(name)["attributes"] == {"team": "ci"}


def test_a_session_can_be_given_the_trace_id_it_replays(collector: Collector, name: str) -> None:
    session = collectord.session(name, socket_path=str(collector.socket), trace_id="ab" * 16)
    assert session.trace_id == "ab" * 16
    session.end()


# ---------------------------------------------------------------- how the block is left


class Odd(BaseException):
    """Neither an Exception nor anything the client knows."""


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "completed"),
        (ValueError("boom"), "failed"),
        (Odd("odd"), "failed"),
        (KeyboardInterrupt(), "cancelled"),
        (asyncio.CancelledError(), "cancelled"),
        (concurrent.futures.CancelledError(), "cancelled"),
        (GeneratorExit(), "cancelled"),
        (SystemExit(), "completed"),
        (SystemExit(0), "completed"),
        (SystemExit(3), "failed"),
        (SystemExit("no such file"), "failed"),
        (BaseExceptionGroup("both", [ValueError("boom"), asyncio.CancelledError()]), "failed"),
        (BaseExceptionGroup("one", [asyncio.CancelledError()]), "cancelled"),
    ],
    ids=repr,
)
def test_the_way_a_block_is_left_is_the_outcome(
    collector: Collector, name: str, error: BaseException | None, outcome: str
) -> None:
    left: BaseException | None = None
    try:
        with collectord.session(name, socket_path=str(collector.socket)) as session:
            if error is not None:
                raise error
    except BaseException as caught:  # noqa: BLE001 — what came out is what is tested
        left = caught
    assert left is error
    assert session.outcome == outcome
    assert collector.see(name)["outcome"] == outcome


async def test_a_cancelled_trio_scope_leaves_the_session_cancelled(collector: Collector, name: str) -> None:
    with trio.CancelScope() as scope:
        with collectord.session(name, socket_path=str(collector.socket)) as session:
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert session.outcome == collector.see(name)["outcome"] == "cancelled"


def test_a_failed_session_tells_the_exception_with_its_stack(collector: Collector, name: str) -> None:
    with pytest.raises(LookupError), collectord.session(name, socket_path=str(collector.socket)):
        raise LookupError("not there")
    seen = collector.see(name)
    assert seen["exception"]["type"] == "LookupError"
    assert seen["exception"]["message"] == "not there"
    assert "test_contract.py" in seen["exception"]["stack"]
    assert "not there" in seen["message"]


# ---------------------------------------------------------------- terminal calls


def test_terminal_calls_are_idempotent_and_answer_what_stands(collector: Collector, name: str) -> None:
    with collectord.session(name, socket_path=str(collector.socket)) as session:
        first = session.end(outcome="failed", message="on purpose")
        assert first.outcome == "failed"
        for again in (session.end(), session.crash("late"), session.cancel("late"), session.end(outcome="completed")):
            assert (again.outcome, again.path) == ("failed", first.path)
    assert session.end().outcome == session.outcome == "failed"
    assert collector.see(name)["outcome"] == "failed"


@pytest.mark.parametrize("how", ["crash", "cancel"])
def test_crash_and_cancel_end_the_run_with_their_words(collector: Collector, name: str, how: str) -> None:
    session = collectord.session(name, socket_path=str(collector.socket))
    ended = session.crash("why") if how == "crash" else session.cancel("why")
    assert ended.outcome == {"crash": "crashed", "cancel": "cancelled"}[how]
    assert ended.path == session.path
    assert collector.see(name)["message"] == "why"


def test_what_comes_after_the_end_is_refused_here_and_does_not_raise(collector: Collector, name: str) -> None:
    session = collectord.session(name, socket_path=str(collector.socket))
    span = session.start_span("open")
    session.end()
    span.set_attribute("late", 1)
    span.end()
    session.log("late")
    session.start_span("late").end()
    assert not session.flush(timeout=5)
    seen = collector.see(name)
    assert [(one["name"], one["unfinished"], one["attributes"]) for one in seen["spans"]] == [("open", True, {})]
    assert not seen["logs"]


# ---------------------------------------------------------------- spans


def test_a_span_is_told_whole(collector: Collector, name: str) -> None:
    with collectord.session(name, socket_path=str(collector.socket)) as session:
        linked = session.start_span("linked", parent=collectord.ROOT)
        span = session.start_span(
            "first name",
            parent="00000000000000aa",
            kind="client",
            attributes={"a": 1},
            links=[linked, ("cd" * 16, "ef" * 8)],
            start_time=1_000,
            span_id="00000000000000bb",
        )
        span.set_attribute("b", [True, None, 2.5])
        span.set_attributes({"a": 2})
        span.add_event("first token", {"index": 0})
        span.update_name("second name")
        span.end(status="ok", message=None, end_time=2_000)
        linked.end()
    told = collector.see(name)["spans"][0]
    assert told == {
        "id": "00000000000000bb", "parent": "00000000000000aa", "name": "second name", "kind": 3, "start": 1_000,
        "end": 2_000, "status": "ok", "message": None, "unfinished": False, "attributes": {"a": 2, "b": [True, None, 2.5]},
        "events": [{"name": "first token", "attributes": {"index": 0}}],
        "links": [(session.trace_id, linked.span_id), ("cd" * 16, "ef" * 8)],
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "number"), [("internal", 1), ("server", 2), ("client", 3), ("producer", 4), ("consumer", 5)])
def test_kinds_have_open_telemetrys_numbers(collector: Collector, name: str, kind: str, number: int) -> None:
    with collectord.session(name, socket_path=str(collector.socket)) as session:
        session.start_span("one", kind=kind).end()
    assert collector.see(name)["spans"][0]["kind"] == number


def test_the_current_span_is_the_parent_unless_another_is_named(collector: Collector, name: str) -> None:
    with collectord.session(name, socket_path=str(collector.socket)) as session:
        with session.span("outer") as outer:
            assert collectord.current_span() is outer
            session.start_span("child").end()
            session.start_span("root", parent=collectord.ROOT).end()
            with session.span("inner") as inner:
                session.start_span("named", parent=outer).end()
                session.start_span("grandchild").end()
            session.start_span("after").end()
        assert collectord.current_span() is None
        session.start_span("top").end()
    parents = {span["name"]: span["parent"] for span in collector.see(name)["spans"]}
    own = outer.span_id
    assert parents == {
        "outer": None, "child": own, "root": None, "inner": own, "named": own, "grandchild": inner.span_id, "after": own,
        "top": None,
    }  # fmt: skip


def test_an_exception_that_leaves_a_span_makes_it_an_error_with_the_exception_as_an_event(
    collector: Collector, name: str
) -> None:
    with collectord.session(name, socket_path=str(collector.socket)) as session:
        with pytest.raises(ZeroDivisionError), session.span("divide"):
            _ = 1 / 0
    (span,) = collector.see(name)["spans"]
    assert span["status"] == "error"
    assert "division by zero" in span["message"]
    (event,) = span["events"]
    assert event["name"] == "exception"
    assert event["attributes"]["exception.type"] == "ZeroDivisionError"
    assert event["attributes"]["exception.message"] == "division by zero"
    assert "ZeroDivisionError" in event["attributes"]["exception.stacktrace"]


def test_a_span_that_was_cancelled_is_no_error_and_not_ok(collector: Collector, name: str) -> None:
    with collectord.session(name, socket_path=str(collector.socket)) as session:
        with pytest.raises(asyncio.CancelledError), session.span("work"):
            raise asyncio.CancelledError
    (span,) = collector.see(name)["spans"]
    assert span["status"] == "unset"


def test_a_span_ended_twice_ends_once_and_takes_nothing_afterwards(collector: Collector, name: str) -> None:
    with collectord.session(name, socket_path=str(collector.socket)) as session:
        span = session.start_span("one")
        span.end(status="ok", end_time=span_end_time)
        span.end(status="error", message="late")
        span.set_attribute("late", 1)
        span.add_event("late")
        assert session.statistics()["ignored"] == {"ended_twice": 1, "after_end": 2}
    (told,) = collector.see(name)["spans"]
    assert (told["status"], told["end"], told["attributes"], told["events"]) == ("ok", span_end_time, {}, [])


span_end_time = 2**63


def test_a_span_left_open_stays_without_an_end(collector: Collector, name: str) -> None:
    with collectord.session(name, socket_path=str(collector.socket)) as session:
        session.start_span("open", attributes={"k": "v"})
    (span,) = collector.see(name)["spans"]
    assert (span["unfinished"], span["end"], span["attributes"]) == (True, None, {"k": "v"})


def test_repeated_and_unknown_ids_are_kept_as_they_are(collector: Collector, name: str) -> None:
    with collectord.session(name, socket_path=str(collector.socket)) as session:
        first = session.start_span("first", span_id="11" * 8)
        second = session.start_span("second", span_id="11" * 8, parent="99" * 8)
        first.set_attribute("of", "first")
        second.set_attribute("of", "second")
        second.end()
        first.end()
    assert [(s["id"], s["attributes"]["of"], s["parent"]) for s in collector.see(name)["spans"]] == [
        ("11" * 8, "second", "99" * 8),
        ("11" * 8, "first", None),
    ]


# ---------------------------------------------------------------- logs, attributes, spaces


def test_logs_have_their_severity_and_the_current_span(collector: Collector, name: str) -> None:
    with collectord.session(name, socket_path=str(collector.socket)) as session:
        for severity in ("trace", "debug", "info", "warn", "error", "fatal"):
            session.log(severity, severity=severity)
        with session.span("work") as span:
            session.log({"any": "body"}, attributes={"attempt": 2})
    logs = collector.see(name)["logs"]
    assert [(log["severity"], log["body"]) for log in logs[:6]] == [
        (1, "trace"), (5, "debug"), (9, "info"), (13, "warn"), (17, "error"), (21, "fatal"),
    ]  # fmt: skip
    assert logs[6] == {"severity": 9, "body": {"any": "body"}, "attributes": {"attempt": 2}, "span": span.span_id}
    assert {log["span"] for log in logs[:6]} == {None}


def test_attributes_and_spaces_of_a_session_end_as_they_were_left(collector: Collector, name: str) -> None:
    with collectord.session(name, attributes={"a": 1, "b": 1}, socket_path=str(collector.socket)) as session:
        session.set_attribute("b", 2)
        memory = session.space("memory")
        memory.set("goal", {"done": False})
        memory.set("gone", 1)
        memory.delete("gone")
        session.space("scratch").set("x", 1)
        session.space("scratch").clear()
    seen = collector.see(name)
    assert seen["attributes"] == {"a": 1, "b": 2}
    assert {space: values for space, values in seen["spaces"].items() if values} == {"memory": {"goal": {"done": False}}}


def test_an_event_says_what_was_true_when_it_was_made(collector: Collector, name: str) -> None:
    messages = [{"role": "user"}]
    with collectord.session(name, socket_path=str(collector.socket)) as session:
        span = session.start_span("chat", attributes={"messages": messages})
        messages[0]["role"] = "changed"
        messages.append({"role": "later"})
        span.end()
    assert collector.see(name)["spans"][0]["attributes"] == {"messages": [{"role": "user"}]}


# ---------------------------------------------------------------- flush


def test_a_flush_is_true_when_everything_is_there(collector: Collector, name: str) -> None:
    session = collectord.session(name, socket_path=str(collector.socket))
    for number in range(100):
        session.log(number)
    assert session.flush(timeout=30, export=True)
    assert [log["body"] for log in collector.see(name)["logs"]] == [*range(100)]
    statistics = session.statistics()
    assert (statistics["accepted"], statistics["sent"], statistics["acknowledged"]) == (100, 100, 100)
    assert (statistics["refused"], statistics["lost"], statistics["state"]) == ({}, 0, "connected")
    session.end()


def test_a_flush_is_false_when_something_was_refused(collector: Collector, name: str) -> None:
    session = collectord.session(name, socket_path=str(collector.socket))
    session.start_span("bad", start_time=-1)
    assert not session.flush(timeout=30)
    assert session.statistics()["refused"] == {"time-invalid": 1}
    session.log("good")
    session.end()
    seen = collector.see(name)
    assert (seen["refused"], seen["stored"]) == (1, 1)


# ---------------------------------------------------------------- owners and participants


def test_a_participant_adds_to_the_run_and_leaves_it_running(collector: Collector, name: str) -> None:
    owner = collectord.session(name, socket_path=str(collector.socket))
    with collectord.session(name, join=True, socket_path=str(collector.socket)) as guest:
        assert (guest.run, guest.trace_id, guest.path) == (owner.run, owner.trace_id, owner.path)
        with guest.span("of the guest"):
            pass
    assert owner.outcome == "running"
    owner.start_span("of the owner").end()
    owner.end()
    assert {span["name"] for span in collector.see(name)["spans"]} == {"of the guest", "of the owner"}


@pytest.mark.parametrize("call", ["end", "crash", "detach"])
def test_no_call_of_a_participant_ends_the_run(collector: Collector, name: str, call: str) -> None:
    owner = collectord.session(name, socket_path=str(collector.socket))
    guest = collectord.session(name, join=True, socket_path=str(collector.socket))
    assert getattr(guest, call)().outcome == "running"
    assert owner.end().outcome == "completed"


def test_a_participant_that_asks_for_a_cancel_has_the_owner_told(collector: Collector, name: str) -> None:
    told = threading.Event()
    reasons: list[str] = []
    owner = collectord.session(name, socket_path=str(collector.socket))

    def listen(reason: str) -> None:
        reasons.append(reason)
        told.set()

    owner.on_cancel(listen)
    guest = collectord.session(name, join=True, socket_path=str(collector.socket))
    guest.cancel("too expensive")
    assert told.wait(30)
    assert reasons == ["too expensive"]
    guest.detach()
    assert owner.cancel("as asked").outcome == "cancelled"


def test_the_participants_learn_how_the_run_ended(collector: Collector, name: str) -> None:
    owner = collectord.session(name, socket_path=str(collector.socket))
    guest = collectord.session(name, join=True, socket_path=str(collector.socket))
    owner.end(outcome="failed")
    assert guest.end().outcome in ("failed", "running")
    assert owner.outcome == "failed"


def test_a_second_owner_is_refused_and_works_without_effect(collector: Collector, name: str) -> None:
    first = collectord.session(name, socket_path=str(collector.socket))
    with collectord.session(name, socket_path=str(collector.socket)) as second:
        second.start_span("nowhere").end()
    assert (second.path, second.outcome) == (None, "unknown")
    assert "session-busy" in second.statistics()["last_error"]
    assert first.end().outcome == "completed"
    assert not collector.see(name)["spans"]


# ---------------------------------------------------------------- many at once


def test_events_of_many_threads_arrive_each_once_and_in_the_order_of_its_thread(collector: Collector, name: str) -> None:
    session = collectord.session(name, socket_path=str(collector.socket))

    def work(thread: int) -> None:
        for number in range(250):
            session.log([thread, number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session.end()
    bodies = [log["body"] for log in collector.see(name)["logs"]]
    for thread_number in range(8):
        assert [body[1] for body in bodies if body[0] == thread_number] == [*range(250)]
    assert len(bodies) == 2_000


def test_ends_and_crashes_from_many_threads_all_answer_the_one_outcome(collector: Collector, name: str) -> None:
    session = collectord.session(name, socket_path=str(collector.socket))
    outcomes: list[str] = []

    def calls() -> Iterator[threading.Thread]:
        for number in range(8):
            call = session.crash if number % 2 else session.end
            yield threading.Thread(target=lambda call=call: outcomes.append(call().outcome))

    threads = list(calls())
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(outcomes) == 8
    assert {*outcomes} == {collector.see(name)["outcome"]}
