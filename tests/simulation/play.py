"""One play: a seed, a machine, agents and trouble, then peace; and what came of it.

Owns the order of things and the kinds of trouble. Deterministic: the same seed gives the same trace, to the last line.
"""

from __future__ import annotations

import errno
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import trio
import trio.testing
from attrs import frozen

from collectord.daemon.owner import RunOwner
from tests.simulation.clients import Agent, Stranger
from tests.simulation.disk import Effect
from tests.simulation.rules import Book, Broken, contents
from tests.simulation.world import Life, Machine

SESSIONS = ("a", "b", "a/b", "a~b", "weird:session/with.unsafe:chars", "..")
UIDS = (0, 0, 1000)
AT_ONCE = 6
PEACE_S = 3_600.0

ERRORS = (errno.EIO, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE)
OPERATIONS = (
    "create", "open_append", "write", "write", "sync", "sync", "close", "truncate", "write_file", "rename", "unlink",
    "sync_directory", "sync_directory", "sync_directory", "make_directory", "list_directory", "size", "read",
)  # fmt: skip


Kind = Callable[["Stage"], None]
"""A kind of trouble."""


@frozen
class Result:
    """What came of a play."""

    seed: int
    happened: Counter[str]
    trace: list[str]


def play(seed: int, only: Sequence[Kind] = ()) -> Result:
    """Play one seed.

    Args:
        seed: of everything.
        only: the kinds of trouble that come; those that the seed says where there are none.

    Raises:
        Broken: a rule does not hold; the note says which seed, and what happened before.
    """
    with _deterministic(seed), _logged() as logged:
        results: list[Machine] = []
        try:
            trio.run(_play, seed, only, results, logged, clock=trio.testing.MockClock(autojump_threshold=0))
        except BaseExceptionGroup as group:
            error = _innermost(group)
            lines = results[0].trace[-60:] if results else []
            error.add_note("\n".join([f"seed {seed}; the last of what happened:", *lines]))
            raise error from group
        finally:
            for machine in results:
                machine.close()
        (machine,) = results
        return Result(seed, machine.happened, machine.trace)


async def _play(seed: int, only: Sequence[Kind], results: list[Machine], logged: list[str]) -> None:
    async with trio.open_nursery() as nursery:
        machine = Machine(seed, nursery)
        results.append(machine)
        book = Book(machine)
        with machine.kernel.in_place_of_the_real_one():
            nursery.start_soon(machine.keep_daemon)
            stage = Stage(machine, book, nursery)
            stage.kinds = list(only) or stage.kinds
            nursery.start_soon(stage.trouble)
            await stage.agents_come_and_go()
            await stage.peace()
            await stage.final_recovery()
            book.check()
            if logged:
                raise Broken(f"the daemon logged an internal error: {logged[0]}")
            machine.count_faults()
        nursery.cancel_scope.cancel()


def _innermost(error: BaseException) -> BaseException:
    """The first reason of all."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class Stage:
    """Who acts, and when."""

    def __init__(self, machine: Machine, book: Book, nursery: trio.Nursery) -> None:
        dice = machine.dice
        self.machine = machine
        self.book = book
        self.nursery = nursery
        self.agents: list[Agent] = []
        self.left = dice.choice((6, 10, 16))
        self.is_peace = False
        self._dice = random.Random(dice.getrandbits(64))
        every = [*AGENTS_TROUBLE, *DAEMONS_TROUBLE, *DISKS_TROUBLE, *POWERS_TROUBLE]
        moods = (AGENTS_TROUBLE, DAEMONS_TROUBLE, DISKS_TROUBLE, POWERS_TROUBLE, [*DAEMONS_TROUBLE, *DISKS_TROUBLE], every, every)
        self.kinds: list[Kind] = list(dice.choice(moods))
        self.pace = dice.choice((0.2, 1.0, 4.0))

    # ------------------------------------------------------------ agents

    async def agents_come_and_go(self) -> None:
        """Until all have."""
        dice = self._dice
        while self.left or any(not agent.is_over for agent in self.agents):
            if self.left and sum(not agent.is_over for agent in self.agents) < AT_ONCE:
                self.left -= 1
                self._start_agent()
            self.machine.watch_memory()
            await trio.sleep(dice.expovariate(1.0) * 0.5)
            self.is_peace = self.is_peace or (not self.left and dice.random() < 0.05)
            if self.is_peace:
                self.machine.heal()

    def _start_agent(self) -> None:
        dice = self._dice
        running = [agent for agent in self.agents if not agent.is_over and not agent.joins]
        joined = dice.choice(running) if running and dice.random() < 0.3 else None
        if joined is not None:
            agent = Agent(self.machine, self.book, joined.uid, joined.session_id, joins=True)
        else:
            agent = Agent(self.machine, self.book, dice.choice(UIDS), dice.choice(SESSIONS))
        self.agents.append(agent)
        self.nursery.start_soon(agent.run)

    def living(self) -> list[Agent]:
        """Who may be hurt."""
        return [agent for agent in self.agents if not agent.is_over]

    # ------------------------------------------------------------ trouble and peace

    async def trouble(self) -> None:
        """One thing after the other, until peace."""
        for _ in range(self._dice.choice((3, 10, 40))):
            if self.is_peace:
                break
            await trio.sleep(self._dice.expovariate(1.0) * self.pace)
            if not self.is_peace:
                self._dice.choice(self.kinds)(self)

    async def peace(self) -> None:
        """Everything works again: every run comes to its end."""
        self.is_peace = True
        self.machine.heal()
        await self._until_quiet()

    async def _until_quiet(self) -> None:
        with trio.move_on_after(PEACE_S) as patience:
            while not self._is_quiet():  # noqa: ASYNC110 — the clock is simulated, and nobody tells
                await trio.sleep(1.0)
        if patience.cancelled_caught:
            states = [(owner.core.facts.session_id, owner.core.state.value) for owner in self._live()]
            raise Broken(f"it does not come to rest: {states}")

    def _is_quiet(self) -> bool:
        life = self.machine.life
        return life is not None and life.is_listening and not any(True for _ in self._live())

    def _live(self) -> Iterator[RunOwner]:
        life = self.machine.life
        yield from life.collector.live if life is not None and life.collector is not None else ()

    async def final_recovery(self) -> None:
        """Stop it, start it again, and again: the last start changes nothing."""
        machine = self.machine
        machine.keep_going = False
        assert machine.life is not None
        last = machine.life
        last.stop.set()
        await last.died.wait()
        if self._dice.random() < 0.5:
            machine.count("last power cut")
            machine.kernel.reboot()
            machine.count_faults()
            machine.disk = machine.disk.random_power_cut(self._dice)
        found = []
        for _ in range(2):
            life = machine.life = Life(machine, 0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(life.run)
                await self._until_quiet()
                life.stop.set()
            found.append(contents(machine.disk))
        changed = [path for path in found[0].keys() | found[1].keys() if found[0].get(path) != found[1].get(path)]
        if changed:
            raise Broken(f"a second recovery has changed {changed}")

    def later(self, undo: Callable[[], None], longest_s: float) -> None:
        """Something ends by itself."""

        async def wait() -> None:
            await trio.sleep(self._dice.random() ** 2 * longest_s)
            undo()

        self.nursery.start_soon(wait)

    # ------------------------------------------------------------ kinds of trouble

    def kill_agent(self) -> None:
        living = self.living()
        if living:
            how = self._dice.choice(("process", "connection", "frame", "fork"))
            self.nursery.start_soon(self._dice.choice(living).kill, how)

    def drop_connection(self) -> None:
        living = self.living()
        if living:
            self.nursery.start_soon(self._dice.choice(living).drop)

    def report_crash(self) -> None:
        self._stranger("crash")

    def ask_to_cancel(self) -> None:
        self._stranger("cancel")

    def _stranger(self, what: str) -> None:
        stories = [agent.story for agent in self.living() if agent.story is not None]
        old = list(self.book.stories.values())
        if stories or old:
            story = self._dice.choice(stories if stories and self._dice.random() < 0.8 else old)
            self.nursery.start_soon(Stranger(self.machine, story, self.book).speak, what)

    def kill_daemon(self) -> None:
        self.machine.kill_daemon("daemon killed")

    def kill_daemon_at_a_call(self) -> None:
        if self.machine.life is not None:
            self.machine.life.calls_left = self._dice.choice((0, 1, 2, 3, 5, 10, 30))

    def stop_daemon(self) -> None:
        self.machine.stop_daemon()

    def cut_power(self) -> None:
        self.machine.power_cut()
        for agent in self.living():
            agent.lose_power()
        self.book.power_cut()

    def fail_calls(self) -> None:
        for _ in range(self._dice.choice((1, 2, 4))):
            self._fail_a_call()

    def _fail_a_call(self) -> None:
        dice = self._dice
        operation = dice.choice(OPERATIONS)
        effect = dice.choice((None, None, Effect.NOTHING, Effect.WHOLE))
        if operation == "sync_directory":
            effect = dice.choice((Effect.NOTHING, Effect.LOST))
        self.machine.disk.fail_nth(operation, dice.choice((1, 1, 2, 5)), dice.choice(ERRORS), dice.choice((1, 1, 2, 6)), effect)

    def fail_a_sync(self) -> None:
        self.machine.disk.fail_nth("sync", self._dice.choice((1, 2, 3)), errno.EIO)

    def fill_disk(self) -> None:
        disk = self.machine.disk
        disk.capacity = disk.used_bytes() + self._dice.choice((0, 2_000, 20_000))
        self.machine.count("disk full")
        self.later(lambda: setattr(self.machine.disk, "capacity", None), 60)

    def exhaust_quota(self) -> None:
        disk = self.machine.disk
        disk.quota = disk.used_bytes() + self._dice.choice((0, 2_000, 20_000))
        self.machine.count("quota exhausted")
        self.later(lambda: setattr(self.machine.disk, "quota", None), 60)

    def make_read_only(self) -> None:
        disk = self.machine.disk
        disk.read_only = True
        self.machine.count("disk read-only")
        self.later(lambda: setattr(self.machine.disk, "read_only", False), 20)

    def take_descriptors(self) -> None:
        disk = self.machine.disk
        disk.descriptors_max = disk.open_files() + self._dice.choice((0, 1, 2))
        self.machine.count("descriptors exhausted")
        self.later(lambda: setattr(self.machine.disk, "descriptors_max", None), 20)

    def slow_down(self) -> None:
        self.machine.slow = True
        self.machine.count("disk slow")
        self.later(lambda: setattr(self.machine, "slow", False), 20)

    def fail_renders(self) -> None:
        self.machine.renders_fail = True
        self.machine.count("renders fail")
        self.later(lambda: setattr(self.machine, "renders_fail", False), 10)


AGENTS_TROUBLE = [Stage.kill_agent, Stage.kill_agent, Stage.drop_connection, Stage.report_crash, Stage.ask_to_cancel]
DAEMONS_TROUBLE = [Stage.kill_daemon, Stage.kill_daemon_at_a_call, Stage.stop_daemon, Stage.slow_down]
DISKS_TROUBLE = [
    *[Stage.fail_calls] * 4, Stage.fail_a_sync, Stage.fill_disk, Stage.exhaust_quota, Stage.make_read_only,
    Stage.take_descriptors, Stage.slow_down, Stage.fail_renders,
]  # fmt: skip
POWERS_TROUBLE = [Stage.cut_power, Stage.kill_daemon_at_a_call, Stage.slow_down]


@contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    """Trio's order of tasks from the seed: it is shuffled, as trio wants it, but the same each time.

    By the two names that trio keeps for hypothesis; there is no public way.
    """
    core = trio._core._run
    before = core._ALLOW_DETERMINISTIC_SCHEDULING
    core._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    core._r.seed(seed)
    try:
        yield
    finally:
        core._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        core._r.seed()


class _Catch(logging.Handler):
    """Keeps what the daemon logs as an exception of its own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.caught: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.caught.append(logging.Formatter().format(record))


@contextmanager
def _logged() -> Iterator[list[str]]:
    """What the daemon's boundaries caught; its other lines are not shown."""
    logger = logging.getLogger("collectord")
    handler, propagate = _Catch(), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield handler.caught
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
