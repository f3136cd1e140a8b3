"""The collector absent, gone, silent, hostile; the memory full; the host's own calls wrong: the host never notices."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import collectord_client as collectord
import pytest
from collectord_client import _codec, _entries, _limits, _outbox, _transport
from collectord_client._codec import encode_message
from collectord_client._paths import default_socket_path

from collectord.daemon import settings
from collectord.model import Outcome
from collectord.wire import messages
from tests.client.agents import run_agent
from tests.client.collectors import RealCollector
from tests.client.fake_collector import Connection, FakeCollector
from tests.export.otlp import attributes_of, logs_of
from tests.process.daemon import Daemon, running
from tests.scenarios.support import until

PATIENCE_S = 60.0


def use_everything(session: collectord.Session) -> None:
    """Every call that a host can make while its session runs."""
    with session.span("outer", attributes={"a": 1}, links=[("ab" * 16, "cd" * 8)]) as span:
        span.set_attribute("b", 2)
        span.set_attributes({"c": 3})
        span.add_event("event")
        span.record_exception(ValueError("recorded"))
        span.update_name("other")
        span.set_status("error", "message")
    session.start_span("second", parent=span).end()
    session.log("log")
    session.set_attribute("a", 1)
    space = session.space("memory")
    space.set("k", 1)
    space.delete("k")
    space.clear()


def calls_of(session: collectord.Session) -> tuple[str, ...]:
    """The outcomes that the terminal calls answer."""
    return tuple(call().outcome for call in (session.end, session.crash, session.cancel, session.detach))


# ---------------------------------------------------------------- nobody there


def no_socket(directory: Path) -> str:
    return str(directory / "none")


def no_collector(directory: Path) -> str:
    path = directory / "dead"
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return str(path)


@pytest.mark.parametrize("path", [no_socket, no_collector, lambda _: "/" + "x" * 200, lambda _: "a\0b", lambda _: ""])
def test_without_a_collector_everything_works_and_says_why_nothing_came_of_it(
    tmp_path: Path, path: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLECTORD_SOCKET", no_socket(tmp_path))
    with collectord.session("x", socket_path=path(tmp_path)) as session:
        use_everything(session)
        assert not session.flush(timeout=5)
        assert not session.flush(timeout=5, export=True)
    assert calls_of(session) == ("unknown",) * 4
    assert (session.path, session.outcome, session.run) == (None, "unknown", 0)
    statistics = session.statistics()
    assert statistics["last_error"]
    assert statistics["state"] == "quiet"
    assert statistics["lost"] == 14
    assert threading.active_count() == 1 + sum(not thread.name.startswith("collectord") for thread in threading.enumerate()[1:])


def test_the_default_path_is_the_one_the_daemon_listens_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("COLLECTORD_SOCKET", raising=False)
    for runtime in (str(tmp_path), "", "relative"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        assert default_socket_path() == settings.default_socket_path(os.environ, os.getuid())


def test_the_environment_names_the_socket(daemon: Daemon, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLECTORD_SOCKET", str(daemon.socket))
    assert collectord.session(name).end().outcome == "completed"


# ---------------------------------------------------------------- a collector that goes


def test_a_collector_that_is_killed_costs_the_exit_of_its_agent_no_more_than_is_stated(name: str) -> None:
    with running() as daemon:
        script = f"""
import time
session = collectord.session(sys.argv[1])
os.kill({daemon.pid}, signal.SIGKILL)
for number in range(1000):
    session.log(number)
began = time.monotonic()
import atexit
print("done", flush=True)
"""
        agent = run_agent(script, daemon.socket, name)
        assert (agent.returncode, agent.stdout, agent.stderr) == (0, "done\n", "")
        daemon.stop()


def test_a_stopped_collector_does_not_hold_up_the_host(name: str) -> None:
    with running() as daemon:
        script = f"""
session = collectord.session(sys.argv[1])
os.kill({daemon.pid}, signal.SIGSTOP)
for number in range(5000):
    session.log("x" * 1000)
print(session.flush(timeout=0.1), session.end(timeout=0.1).outcome, flush=True)
"""
        try:
            agent = run_agent(script, daemon.socket, name)
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        assert (agent.returncode, agent.stdout, agent.stderr) == (0, "False unknown\n", "")


# ---------------------------------------------------------------- memory


def test_what_the_memory_has_no_room_for_is_lost_counted_and_a_gap_in_the_trace(
    fake: FakeCollector, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transport.SocketTransport.__init__, "__defaults__", (64 << 10,))
    free = threading.Event()

    def hold(_: Connection, request: messages.Request) -> bool:
        if isinstance(request, messages.Events):
            free.wait(PATIENCE_S)
        return False

    fake.on_request = hold
    session = collectord.session(name, socket_path=str(fake.socket))
    for number in range(200):
        session.log(f"{number} {'x' * 1_000}")
    lost = session.statistics()["lost"]
    assert 100 < lost < 200
    free.set()
    until(lambda: session.statistics()["unacknowledged_bytes"] == 0)
    session.log("after")
    session.end()
    run = fake.runs[name]
    assert run.client_lost == lost
    assert len(run.events) == 201 - lost
    assert run.events[-1][1] == 201
    assert run.events[-1][2][3] == "after"


def test_spans_whose_start_was_lost_are_lost_whole_and_all_of_it_shows_as_a_gap(
    fake: FakeCollector, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transport.SocketTransport.__init__, "__defaults__", (64 << 10,))
    free = threading.Event()

    def hold(_: Connection, request: messages.Request) -> bool:
        if isinstance(request, messages.Events):
            free.wait(PATIENCE_S)
        return False

    fake.on_request = hold
    session = collectord.session(name, socket_path=str(fake.socket))
    for _ in range(200):
        session.log("x" * 1_000)
    span = session.start_span("lost", attributes={"big": "x" * 10_000})
    lost = session.statistics()["lost"]
    free.set()
    until(lambda: session.statistics()["unacknowledged_bytes"] == 0)
    span.set_attribute("of", "a lost span")
    span.end()
    session.log("after")
    session.end()
    assert session.statistics()["lost"] == lost + 2
    assert fake.runs[name].client_lost == lost + 2


# ---------------------------------------------------------------- size


def test_a_value_of_five_megabytes_arrives_whole(daemon: Daemon, name: str) -> None:
    text = "x" * 5_000_000
    with collectord.session(name, socket_path=str(daemon.socket)) as session:
        session.log("small")
        session.start_span("big", attributes={"text": text}).end()
    assert RealCollector(daemon).see(name)["spans"][0]["attributes"] == {"text": text}


def test_a_value_that_no_frame_holds_is_cut_and_marked(daemon: Daemon, name: str) -> None:
    with collectord.session(name, socket_path=str(daemon.socket)) as session:
        session.start_span("big", attributes={"text": "x" * 9_000_000, "small": 1}).end()
    attributes = RealCollector(daemon).see(name)["spans"][0]["attributes"]
    assert attributes["collectord.encoded.text"] == "cut"
    assert attributes["small"] == 1
    assert len(attributes["text"]) < 100_000


def test_small_events_and_one_just_below_the_limit_do_not_share_a_frame() -> None:
    outbox = _outbox.Outbox(_limits.MEMORY_MAX_BYTES)  # without a sender: everything waits at once
    for size in (*[500] * 400, _limits.FRAME_SIZE_MAX_BYTES - 5_000, *[500] * 400):
        outbox.put(_entries.Event(b"", _codec.pack("x" * size), None, None))
    while outbox._queue:
        assert len(outbox._next_frame()) <= 4 + _limits.FRAME_SIZE_MAX_BYTES


def test_many_long_values_in_one_event_are_all_cut_and_the_span_is_kept(daemon: Daemon, name: str) -> None:
    with collectord.session(name, socket_path=str(daemon.socket)) as session:
        session.start_span("many", attributes={str(number): "x" * 70_000 for number in range(200)}).end()
    (span,) = RealCollector(daemon).see(name)["spans"]
    assert span["name"] == "many"
    assert not span["unfinished"]


def test_more_attributes_than_the_collector_takes_are_left_out_and_counted(daemon: Daemon, name: str) -> None:
    with collectord.session(name, socket_path=str(daemon.socket)) as session:
        session.start_span("many", attributes={str(number): number for number in range(3_000)}).end()
    (span,) = RealCollector(daemon).see(name)["spans"]
    kept = sum(key.isdigit() for key in span["attributes"])
    assert span["attributes"]["collectord.attributes.left_out"] == 3_000 - kept


def test_a_value_that_unfolds_without_end_is_bounded(daemon: Daemon, name: str) -> None:
    script = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))
resource.setrlimit(resource.RLIMIT_CPU, (6, 6))  # of its own time, which a busy machine does not shorten
value = ["x"]
for _ in range(60):
    value = [value, value]
with collectord.session(sys.argv[1]) as session:
    session.start_span("folded", attributes={"value": value}).end()
print(session.outcome)
"""
    assert run_agent(script, daemon.socket, name).stdout == "completed\n"
    assert [span["name"] for span in RealCollector(daemon).see(name)["spans"]] == ["folded"]


# ---------------------------------------------------------------- a hostile collector


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\1\xc1",
        b"\0\0\0\1\x2a",
        encode_message({"type": "ack"}),
        encode_message({"type": "terminal", "outcome": 1}),
        encode_message({"type": "opened"}),
    ],
    ids=["4 GiB", "no msgpack", "no map", "ack of nothing", "outcome of a number", "opened"],
)
@pytest.mark.parametrize("after", [messages.Open, messages.Flush])
def test_no_bytes_of_a_collector_reach_the_host(
    fake: FakeCollector, name: str, raw: bytes, after: type[messages.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    unhandled: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", unhandled.append)

    def answer(connection: Connection, request: messages.Request) -> bool:
        if isinstance(request, after):
            connection.say_bytes(raw)
            connection.hang_up()
            return True
        return False

    fake.on_request = answer
    session = collectord.session(name, socket_path=str(fake.socket), timeout=5)
    use_everything(session)
    assert not session.flush(timeout=5)
    assert session.end(timeout=5).outcome in ("unknown", "1", "crashed")
    for thread in threading.enumerate():
        if thread.name.startswith("collectord"):
            thread.join(PATIENCE_S)
    assert not unhandled


@pytest.mark.parametrize("fields", [{"sequence": "no"}, {"sequence": 1, "refused": [7]}], ids=["of text", "of numbers"])
def test_no_acknowledgement_of_a_collector_reaches_the_hosts_hooks(
    fake: FakeCollector, name: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    test_no_bytes_of_a_collector_reach_the_host(
        fake, name, encode_message({"type": "ack", **fields}), messages.Flush, monkeypatch
    )


def test_an_answer_to_open_that_lacks_everything_is_no_session(fake: FakeCollector, name: str) -> None:
    def answer(connection: Connection, request: messages.Request) -> bool:
        if isinstance(request, messages.Open):
            connection.say_bytes(encode_message({"type": "opened", "id": request.id}))
        return isinstance(request, messages.Open)

    fake.on_request = answer
    session = collectord.session(name, socket_path=str(fake.socket))
    assert (session.outcome, session.path) == ("unknown", None)


def test_a_silent_collector_is_given_up_within_the_time_that_was_said(fake: FakeCollector, name: str) -> None:
    fake.on_request = lambda connection, request: True
    began = time.monotonic()
    session = collectord.session(name, socket_path=str(fake.socket), timeout=0.2)
    assert time.monotonic() - began < PATIENCE_S / 2
    assert (session.path, session.outcome) == (None, "unknown")
    assert session.statistics()["last_error"]


# ---------------------------------------------------------------- wrong calls


class Unprintable:
    """No text can be had of it."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


WRONG: list[Any] = [
    None,
    1,
    -1,
    2**80,
    float("nan"),
    "x",
    b"\xff",
    [],
    {},
    [1],
    {1: 2},
    object(),
    Unprintable(),
    "\udcff",
    ("a", "b"),
]


def test_no_argument_of_any_kind_raises_into_the_host(daemon: Daemon, name: str) -> None:
    with collectord.session(name, socket_path=str(daemon.socket)) as session:
        for wrong in WRONG:
            for keyword in ("name", "parent", "kind", "attributes", "links", "start_time", "span_id"):
                session.start_span(**{"name": "x", keyword: wrong}).end()
            for keyword in ("status", "message", "end_time"):
                session.start_span("x").end(**{keyword: wrong})
            span = session.start_span("x")
            span.set_attribute(wrong, wrong)
            span.set_attributes(wrong)
            span.add_event(wrong, wrong, wrong)
            span.update_name(wrong)
            span.set_status(wrong, wrong)
            span.record_exception(wrong, wrong)
            span.end()
            session.log(wrong, wrong, wrong)
            session.set_attribute(wrong, wrong)
            session.set_attributes(wrong)
            session.space(wrong).set(wrong, wrong)
            session.space(wrong).delete(wrong)
            session.flush(0.01)
    assert session.outcome == "completed"


def test_no_argument_of_a_terminal_call_raises_into_the_host(daemon: Daemon, name: str) -> None:
    for number, wrong in enumerate(WRONG):
        for call in ("end", "crash", "cancel"):
            session = collectord.session(f"{name}-{number}-{call}", socket_path=str(daemon.socket))
            assert getattr(session, call)(wrong).outcome in ("completed", "failed", "cancelled", "crashed")


def test_no_argument_of_session_raises_into_the_host(daemon: Daemon) -> None:
    for wrong in WRONG:
        for keyword in ("session_id", "attributes", "trace_id"):
            collectord.session(**{"session_id": None, "socket_path": str(daemon.socket), keyword: wrong}).end()
        collectord.session("x", socket_path=wrong, timeout=0.1).end()


@pytest.mark.parametrize(
    "timeout",
    [float("nan"), -1.0, float("inf")],
)
def test_no_timeout_raises_into_the_host(daemon: Daemon, name: str, timeout: float) -> None:
    session = collectord.session(name, socket_path=str(daemon.socket))
    session.flush(timeout=timeout)
    session.end(timeout=timeout)


def test_a_path_object_names_the_socket_as_well_as_its_text(daemon: Daemon, name: str) -> None:
    with collectord.session(name, socket_path=daemon.socket) as session:  # type: ignore[arg-type]
        pass
    assert session.outcome == "completed"


# ---------------------------------------------------------------- waiting


def test_a_crash_is_answered_while_an_end_waits(fake: FakeCollector, name: str) -> None:
    waiting: list[tuple[Connection, messages.End]] = []
    asked = threading.Event()

    def hold(connection: Connection, request: messages.Request) -> bool:
        if isinstance(request, messages.End):
            waiting.append((connection, request))
            asked.set()
            return True
        if isinstance(request, messages.Crash):
            held, end = waiting[0]
            connection.say(messages.Terminal(Outcome.CRASHED, 1, "/t", request.id))
            held.say(messages.Terminal(Outcome.CRASHED, 1, "/t", end.id))
            return True
        return False

    fake.on_request = hold
    session = collectord.session(name, socket_path=str(fake.socket))
    outcomes: list[str] = []
    thread = threading.Thread(target=lambda: outcomes.append(session.end().outcome))
    thread.start()
    assert asked.wait(PATIENCE_S)
    assert session.crash("now").outcome == "crashed"
    thread.join(PATIENCE_S)
    assert outcomes == ["crashed"]


def test_a_call_that_waits_inside_an_interrupted_call_is_answered(fake: FakeCollector, name: str) -> None:
    session = collectord.session(name, socket_path=str(fake.socket))
    with session._transport._outbox.lock:  # type: ignore[attr-defined]  # as a signal handler finds it, in the middle of a submit
        session.log("in the handler")
        flushed = session.flush(timeout=3)
    session.end()
    assert flushed


def test_a_callback_of_on_cancel_may_end_the_session(daemon: Daemon, name: str) -> None:
    ended: list[str] = []
    done = threading.Event()
    owner = collectord.session(name, socket_path=str(daemon.socket))

    def stop(reason: str) -> None:
        ended.append(owner.cancel(reason, timeout=3).outcome)
        done.set()

    owner.on_cancel(stop)
    with daemon.client() as other:
        other.cancel("enough", session_id=name)
    assert done.wait(PATIENCE_S)
    assert ended == ["cancelled"]


def test_sessions_that_have_ended_leave_no_threads_and_no_descriptors(daemon: Daemon, name: str) -> None:
    script = """
def descriptors():
    return len(os.listdir("/proc/self/fd"))
def settled():
    for thread in threading.enumerate()[1:]:
        thread.join(30)
    return threading.active_count(), descriptors()
collectord.session(sys.argv[1]).end()
before = settled()
for number in range(30):
    collectord.session(f"{sys.argv[1]}-{number}").end()
print(before == settled())
"""
    assert run_agent(script, daemon.socket, name).stdout == "True\n"


# ---------------------------------------------------------------- forks, threads and roles in trouble


def test_an_unhandled_exception_of_a_thread_is_told_and_the_run_goes_on(daemon: Daemon, name: str) -> None:
    script = """
session = collectord.session(sys.argv[1])
def work():
    raise RuntimeError("in a thread")
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(session.outcome)
session.end()
"""
    assert run_agent(script, daemon.socket, name).stdout == "running\n"
    assert RealCollector(daemon).see(name)["outcome"] == "completed"
    (record,) = logs_of(daemon.trace(name))
    assert record["severityText"] == "ERROR"
    assert attributes_of(record)["exception.message"] == "in a thread"


def test_a_participant_that_is_interrupted_leaves_without_asking_the_run_to_stop(fake: FakeCollector, name: str) -> None:
    owner = collectord.session(name, socket_path=str(fake.socket))
    with pytest.raises(KeyboardInterrupt), collectord.session(name, join=True, socket_path=str(fake.socket)):
        raise KeyboardInterrupt
    assert not [request for request in fake.heard if isinstance(request, messages.Cancel)]
    assert fake.runs[name].detached
    assert owner.end().outcome == "completed"


def test_the_whole_of_the_crash_report_waits_no_longer_for_many_sessions_than_for_one(fake: FakeCollector, name: str) -> None:
    fake.on_request = lambda _, request: isinstance(request, messages.Crash)
    script = """
import time
sessions = [collectord.session(f"{sys.argv[1]}-{number}") for number in range(4)]
began = time.monotonic()
sys.excepthook(ValueError, ValueError("x"), None)
print(time.monotonic() - began < 6)
os._exit(0)
"""
    assert run_agent(script, fake.socket, name).stdout == "True\n"


def test_a_collector_that_drains_is_asked_again_until_it_is_back(fake: FakeCollector, name: str) -> None:
    session = collectord.session(name, socket_path=str(fake.socket))
    resumed = threading.Event()
    tries: list[messages.Open] = []

    def drain_then_take(connection: Connection, request: messages.Request) -> bool:
        if not isinstance(request, messages.Open):
            return False
        tries.append(request)
        if len(tries) < 3:
            connection.say(messages.Error("collector-draining", "in a moment", True, request.id))
        else:
            connection.say(messages.Error("resume-refused", "no", False, request.id))
            resumed.set()
        return True

    fake.on_request = drain_then_take
    fake.runs[name].connections[0].hang_up()
    assert resumed.wait(5)
    until(lambda: session.statistics()["state"] == "quiet")


def test_acknowledged_counts_what_is_durable_and_not_what_was_refused(fake: FakeCollector, name: str) -> None:
    session = collectord.session(name, socket_path=str(fake.socket))
    session.start_span("bad", start_time=-1)
    session.log("good")
    session.flush(PATIENCE_S)
    assert session.statistics()["acknowledged"] == 1
    session.end()


def test_the_resource_tells_which_process_this_is(fake: FakeCollector, name: str) -> None:
    collectord.session(name, socket_path=str(fake.socket)).end()
    resource = fake.runs[name].opening.resource
    assert {
        "service.name", "process.pid", "process.executable.name", "process.command_args", "process.runtime.version",
        "host.name", "telemetry.sdk.name", "telemetry.sdk.language", "telemetry.sdk.version",
    } <= resource.keys()  # fmt: skip


def test_a_log_takes_its_message_by_that_name(fake: FakeCollector, name: str) -> None:
    with collectord.session(name, socket_path=str(fake.socket)) as session:
        session.log(message="retrying", severity="warn")


def test_a_session_without_a_collector_keeps_the_trace_id_it_was_given(tmp_path: Path) -> None:
    assert collectord.session("x", socket_path=no_socket(tmp_path), trace_id="ab" * 16).trace_id == "ab" * 16
