"""The first trace file of a run: made with the journal, and final already where the agent was gone before it was answered."""

from __future__ import annotations

import orjson
import trio
import trio.testing

from collectord.model import CrashReason, Verdict
from collectord.session import inputs
from tests.daemon.bench import World


async def test_a_first_file_that_is_final_is_synced_like_any_that_is() -> None:
    world = World()
    world.owner.mark_owner_gone()
    world.owner.post(inputs.ExitInfo(next(world.clock), Verdict(CrashReason.PROCESS_DIED, "killed", "SIGKILL")))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.owner.run, 1)
        while world.document() is None:
            await trio.testing.wait_all_tasks_blocked()
            world.gates.let("slot", "commit")
        document = world.document()
        assert document is not None
        if document["session"]["outcome"] == "crashed":
            world.disk.sync_directory(world.store.trace_directory(0))  # somebody else's rename has made its name durable
            survived = world.disk.power_cut(lambda options: min(options) if options else 0)
            path = world.store.trace_path(0, world.stem, 1)
            assert orjson.loads(survived.read(path, 0, survived.size(path))) == document
        nursery.cancel_scope.cancel()
    assert document["session"]["outcome"] == "crashed", "the case that is meant"
