"""The current span in threads, tasks, generators and contexts: each has its own, and the right parent."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator

import collectord_client as collectord
import pytest
import trio

from tests.client.collectors import RealCollector
from tests.process.daemon import Daemon


@pytest.fixture
def session(daemon: Daemon, name: str) -> Iterator[collectord.Session]:
    with collectord.session(name, socket_path=str(daemon.socket)) as opened:
        yield opened


def parents(daemon: Daemon, session: collectord.Session) -> dict[str, str | None]:
    """The parent of each span by name, in the words of the trace file."""
    session.end()
    spans = RealCollector(daemon).see(session.id)["spans"]
    names = {span["id"]: span["name"] for span in spans}
    return {span["name"]: names.get(span["parent"]) for span in spans}


def test_a_new_thread_has_no_current_span_unless_it_is_given_the_context(daemon: Daemon, session: collectord.Session) -> None:
    def work(name: str) -> None:
        with session.span(name), session.span(f"below {name}"):
            pass

    with session.span("main"):
        context = contextvars.copy_context()
        threads = [threading.Thread(target=work, args=("bare",)), threading.Thread(target=context.run, args=(work, "given"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    told = parents(daemon, session)
    assert told["given"] == "main"
    assert (told["below given"], told["below bare"]) == ("given", "bare")


def test_threads_that_interleave_keep_their_parents(daemon: Daemon, session: collectord.Session) -> None:
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        with session.span(f"outer {number}", parent=collectord.ROOT):
            barrier.wait(30)
            with session.span(f"inner {number}"):
                barrier.wait(30)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = parents(daemon, session)
    assert told == {f"outer {n}": None for n in range(4)} | {f"inner {n}": f"outer {n}" for n in range(4)}


def test_asyncio_tasks_that_interleave_keep_their_parents(daemon: Daemon, session: collectord.Session) -> None:
    async def main() -> None:
        both = asyncio.Event()
        inside = 0

        async def work(number: int) -> None:
            nonlocal inside
            with session.span(f"outer {number}"):
                inside += 1
                if inside == 2:
                    both.set()
                await both.wait()
                with session.span(f"inner {number}"):
                    await asyncio.sleep(0)

        with session.span("main"):
            async with asyncio.TaskGroup() as group:
                group.create_task(work(1))
                group.create_task(work(2))

    asyncio.run(main())
    told = parents(daemon, session)
    assert told == {"main": None, "outer 1": "main", "outer 2": "main", "inner 1": "outer 1", "inner 2": "outer 2"}


async def test_trio_tasks_and_threads_that_interleave_keep_their_parents(daemon: Daemon, session: collectord.Session) -> None:
    inside = 0
    both = trio.Event()

    async def work(number: int) -> None:
        nonlocal inside
        with session.span(f"outer {number}"):
            inside += 1
            if inside == 2:
                both.set()
            await both.wait()
            with session.span(f"inner {number}"):
                await trio.to_thread.run_sync(lambda: session.start_span(f"thread {number}").end())

    with session.span("main"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work, 1)
            nursery.start_soon(work, 2)
    told = await trio.to_thread.run_sync(parents, daemon, session)
    assert {name: parent for name, parent in told.items() if name != "main"} == {
        "outer 1": "main", "outer 2": "main", "inner 1": "outer 1", "inner 2": "outer 2",
        "thread 1": "inner 1", "thread 2": "inner 2",
    }  # fmt: skip


def test_a_span_that_is_left_in_another_context_leaves_that_context_alone(session: collectord.Session) -> None:
    span = session.span("one")
    contextvars.copy_context().run(span.__enter__)
    with session.span("other") as other:
        span.__exit__(None, None, None)
        assert collectord.current_span() is other
    assert not span.is_recording


def test_the_current_span_of_one_session_is_no_parent_in_another(daemon: Daemon, session: collectord.Session, name: str) -> None:
    with collectord.session(f"{name}-other", socket_path=str(daemon.socket)) as other:
        with session.span("here"):
            other.start_span("there").end()
    assert RealCollector(daemon).see(other.id)["spans"][0]["parent"] is None
