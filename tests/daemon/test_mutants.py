"""The interleavings are worth something only if they fail when the order is broken: plant a fault, see them fail.

Each mutant is a change of a few words in a copy of the package; the interleaving test runs against the copy in a process of
its own and must fail. A mutant whose words are no longer found fails too: it must be planted anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.daemon.planting import Change, run_planted

MUTANTS: dict[str, list[Change]] = {
    "the check moved before an await": [
        (
            "collectord/daemon/owner.py",
            """        async with self._bench.threads.slot():
            self._feed()
            effects = self.core.take()
""",
            """        self._feed()
        effects = self.core.take()
        async with self._bench.threads.slot():
""",
        )
    ],
    "the rename moved off the owner": [
        (
            "collectord/daemon/owner.py",
            "            self._schedule.written(result.size_bytes)\n",
            "            self._schedule.written(result.size_bytes)\n"
            "            await self._bench.threads.publish(partial(self._bench.disk.rename, request.out, self._trace_path))\n",
        ),
        (
            "collectord/daemon/owner.py",
            "            await self._bench.threads.publish(lambda: self._bench.disk.rename(temporary, self._trace_path))\n",
            "            await trio.lowlevel.checkpoint()\n",
        ),
    ],
    "the reply before the sync": [
        (
            "collectord/daemon/owner.py",
            "        records = effects.records\n        if not self._is_created:",
            "        records = effects.records\n"
            "        self.core.handle(inputs.Synced())\n"
            "        for say in self.core.take().say:\n"
            "            say.to.say(say.message)\n"
            "        if not self._is_created:",
        )
    ],
    "a failed sync taken for a success": [
        (
            "collectord/daemon/owner.py",
            "            await self._bench.threads.commit(lambda: self._writer.append(records))\n"
            "        except DiskError as error:\n            self._failed(error.message)\n",
            "            await self._bench.threads.commit(lambda: self._writer.append(records))\n"
            "        except DiskError:\n            self._synced()\n",
        )
    ],
    "the crash flag per daemon instead of per run": [
        ("collectord/session/core.py", "    __slots__ = (", "    slots_no_more = ("),
        ("collectord/session/core.py", "        self._mark: inputs.Crash | inputs.OwnerGone | None = None\n", ""),
        ("collectord/session/core.py", "        self._mark = event\n", "        RunCore._mark = event\n"),
        (
            "collectord/session/core.py",
            "    def __init__(self, facts: RunFacts",
            "    _mark = None\n\n    def __init__(self, facts: RunFacts",
        ),
    ],
    "the mark ignored at the hand-over": [
        (
            "collectord/session/state.py",
            "        I.OWNER_GONE: _row(A.MARK_IF_WAITING, S.CRASHING, S.ENDING),",
            "        I.OWNER_GONE: _row(A.IGNORE, S.ENDING),",
        )
    ],
    "the directory not synced after the final rename": [
        ("collectord/daemon/owner.py", "            if order.kind is ExportKind.FINAL:\n", "            if False:\n")
    ],
    "the journal not synced": [("collectord/journal/writer.py", "self._disk.sync(", "(lambda _: None)(")],
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_interleavings_fail_when_the_order_is_broken(name: str, tmp_path: Path) -> None:
    shorter = {"INTERLEAVING_DEPTH": "3", "INTERLEAVING_WORDS": "400"}
    result = run_planted(MUTANTS[name], tmp_path, ["tests/daemon/test_interleavings.py"], shorter)
    assert result.returncode == 1, result.stdout[-3000:]
    assert "the word was" in result.stdout
