"""What becomes of a session when its process forks, dies of an exception, exits, or is killed: real processes, a real daemon."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.client.agents import run_agent
from tests.client.collectors import RealCollector
from tests.process.daemon import Daemon
from tests.scenarios.support import crashed_row


def seen(daemon: Daemon, name: str) -> dict[str, Any]:
    """The session once it has crashed, in the words of its trace file."""
    crashed_row(daemon, name)
    return RealCollector(daemon).see(name)


# ---------------------------------------------------------------- unhandled exceptions


def test_an_unhandled_exception_is_reported_before_the_process_goes(daemon: Daemon, name: str) -> None:
    script = """
session = collectord.session(sys.argv[1])
sys.excepthook  # the previous hook still prints
with session.span("work"):
    session.log("about to fail")
    def deep():
        raise RuntimeError("the agent is broken")
    deep()
"""
    agent = run_agent(script, daemon.socket, name)
    assert agent.returncode == 1
    assert "RuntimeError: the agent is broken" in agent.stderr
    told = seen(daemon, name)
    assert told["outcome"] == "crashed"
    assert told["exception"]["type"] == "RuntimeError"
    assert "in deep" in told["exception"]["stack"]
    assert [log["body"] for log in told["logs"]] == ["about to fail"]
    (span,) = told["spans"]
    assert span["status"] == "error"


def test_the_hook_calls_the_one_before_it_with_the_same_exception(daemon: Daemon, name: str) -> None:
    script = """
sys.excepthook = lambda kind, error, stack: print("hook", kind.__name__, error, flush=True)
session = collectord.session(sys.argv[1])
raise ValueError("once")
"""
    assert run_agent(script, daemon.socket, name).stdout == "hook ValueError once\n"
    assert seen(daemon, name)["outcome"] == "crashed"


def test_the_hook_leaves_a_run_that_has_ended_as_it_is(daemon: Daemon, name: str) -> None:
    script = """
with collectord.session(sys.argv[1]):
    pass
raise ValueError("afterwards")
"""
    assert run_agent(script, daemon.socket, name).returncode == 1
    assert RealCollector(daemon).see(name)["outcome"] == "completed"


def test_a_participants_unhandled_exception_detaches_it_and_the_run_goes_on(daemon: Daemon, name: str) -> None:
    with daemon.client() as owner:
        owner.open(name)
        script = """
session = collectord.session(sys.argv[1], join=True)
raise ValueError("of the child")
"""
        run_agent(script, daemon.socket, name)
        assert daemon.session(name)["outcome"] == "running"
        assert owner.end().outcome.value == "completed"
    (participant,) = daemon.trace(name)["session"]["participants"]
    assert "of the child" in str(participant)


# ---------------------------------------------------------------- exits and kills


def test_an_interpreter_that_exits_without_an_end_leaves_a_crashed_run_with_everything_in_it(daemon: Daemon, name: str) -> None:
    script = """
session = collectord.session(sys.argv[1])
for number in range(1000):
    session.log(number)
"""
    assert run_agent(script, daemon.socket, name).returncode == 0
    told = seen(daemon, name)
    assert told["outcome"] == "crashed"
    assert [log["body"] for log in told["logs"]] == [*range(1000)]
    crash = daemon.trace(name)["session"]["crash"]
    assert (crash["reason"], crash["exit_code"]) in {("process-died", 0), ("process-died", None), ("connection-closed", None)}


@pytest.mark.parametrize("how", ["os._exit(7)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_what_was_flushed_survives_a_death_without_warning(daemon: Daemon, name: str, how: str) -> None:
    script = f"""
session = collectord.session(sys.argv[1])
span = session.start_span("in the tool call")
assert session.flush(30)
{how}
"""
    assert run_agent(script, daemon.socket, name).returncode in (7, -signal.SIGKILL)
    (span,) = seen(daemon, name)["spans"]
    assert (span["name"], span["unfinished"]) == ("in the tool call", True)


def test_a_signal_handler_may_use_everything(daemon: Daemon, name: str) -> None:
    script = """
session = collectord.session(sys.argv[1])
handled = 0
def handler(number, frame):
    global handled
    handled += 1
    with session.span("in the handler"):
        session.log("signalled")
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
while handled < 200:
    with session.span("main"):
        session.log("working")
signal.setitimer(signal.ITIMER_REAL, 0)
assert session.flush(30)
print(handled, session.end().outcome)
"""
    agent = run_agent(script, daemon.socket, name)
    assert agent.returncode == 0, agent.stderr
    count, outcome = agent.stdout.split()
    told = RealCollector(daemon).see(name)
    assert outcome == told["outcome"] == "completed"
    assert sum(log["body"] == "signalled" for log in told["logs"]) == int(count)
    assert (told["client_lost"], told["refused"]) == (0, 0)


def test_finalisers_may_use_everything(daemon: Daemon, name: str) -> None:
    script = """
import gc, time
session = collectord.session(sys.argv[1])
done = []
class Finalised:
    def __init__(self):
        self.me = self
    def __del__(self):
        session.log("finalised")
        done.append(None)
for number in range(2000):
    Finalised()
    session.log("working")
while len(done) < 2000:  # a collection that another thread is in the middle of makes ours return at once
    gc.collect()
    time.sleep(0.001)
print(session.end().outcome)
"""
    assert run_agent(script, daemon.socket, name).stdout == "completed\n"
    bodies = [log["body"] for log in RealCollector(daemon).see(name)["logs"]]
    assert (bodies.count("working"), bodies.count("finalised")) == (2000, 2000)


# ---------------------------------------------------------------- fork


def test_a_forked_child_is_quiet_and_the_parent_goes_on_undisturbed(daemon: Daemon, name: str) -> None:
    script = """
session = collectord.session(sys.argv[1])
session.log("before")
read, write = os.pipe()
if os.fork() == 0:
    session.log("of the child")
    session.start_span("of the child").end()
    ended = session.end()
    flushed = session.flush(5)
    statistics = session.statistics()
    told = (ended.outcome, flushed, session.outcome, statistics["state"], "fork" in statistics["last_error"])
    os.write(write, repr(told).encode())
    os._exit(0)
os.wait()
print(os.read(read, 1000).decode())
session.log("after")
print(session.end().outcome)
"""
    agent = run_agent(script, daemon.socket, name)
    assert agent.stdout == "('unknown', False, 'unknown', 'quiet', True)\ncompleted\n", agent.stderr
    told = RealCollector(daemon).see(name)
    assert [log["body"] for log in told["logs"]] == ["before", "after"]
    assert not told["spans"]


def test_a_child_that_outlives_its_parent_does_not_hide_the_parents_death(daemon: Daemon, name: str) -> None:
    script = """
session = collectord.session(sys.argv[1])
gone, alive = os.pipe()
if os.fork() == 0:
    os.close(1), os.close(2)
    os.read(0, 1)
    signal.pause()
session.flush(30)
print(os.getpid(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    script = script.replace("    os.read(0, 1)\n    signal.pause()\n", "    signal.alarm(20)\n    signal.pause()\n")
    assert run_agent(script, daemon.socket, name).returncode == -signal.SIGKILL
    assert seen(daemon, name)["outcome"] == "crashed"


def test_a_forked_child_may_open_a_session_or_join_its_parents(daemon: Daemon, name: str) -> None:
    script = """
session = collectord.session(sys.argv[1])
if os.fork() == 0:
    with collectord.session(sys.argv[1], join=True) as joined:
        joined.start_span("joined").end()
    with collectord.session(sys.argv[1] + "-child") as own:
        own.start_span("own").end()
    os._exit(0 if own.outcome == "completed" else 1)
assert os.wait()[1] == 0
print(session.end().outcome)
"""
    assert run_agent(script, daemon.socket, name).stdout == "completed\n"
    assert [span["name"] for span in RealCollector(daemon).see(name)["spans"]] == ["joined"]
    assert [span["name"] for span in RealCollector(daemon).see(name + "-child")["spans"]] == ["own"]


def test_ids_of_parent_and_child_differ_after_a_fork(daemon: Daemon, name: str) -> None:
    script = """
session = collectord.session(sys.argv[1])
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, session.start_span("child").span_id.encode())
    os._exit(0)
os.wait()
print(os.read(read, 16).decode() != session.start_span("parent").span_id)
"""
    assert run_agent(script, daemon.socket, name).stdout == "True\n"


# ---------------------------------------------------------------- importing


def test_importing_starts_nothing_and_the_first_session_one_thread(daemon: Daemon, name: str) -> None:
    script = """
print(threading.active_count(), "msgpack" in sys.modules, "socket" in sys.modules)
session = collectord.session(sys.argv[1])
print([(thread.name.startswith("collectord"), thread.daemon) for thread in threading.enumerate()[1:]])
session.end()
"""
    assert run_agent(script, daemon.socket, name).stdout == "1 False False\n[(True, True)]\n"


def test_the_time_of_an_import_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    script = """
import importlib, time
for name in [n for n in sys.modules if n.startswith("collectord_client")]:
    del sys.modules[name]
began = time.perf_counter()
importlib.import_module("collectord_client")
package = time.perf_counter()
importlib.import_module("collectord_client").session
print(f"{1e3 * (package - began):.2f} {1e3 * (time.perf_counter() - began):.2f}")
"""
    package, everything = map(float, run_agent(script, "/nowhere").stdout.split())
    with capsys.disabled():
        print(f"\nimport collectord_client: {package:.2f} ms, with all that a session needs: {everything:.2f} ms")
    assert package < 1_000
