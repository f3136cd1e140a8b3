"""What durability rests on, left out on purpose, one thing at a time: a named test must fail for each.

As in ``test_mutants``, each mutant is a change of a few words in a copy of the package. The three that the issue names come
first, and run with `make test`; the others are left to `make beds`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.daemon.planting import Change, run_planted
from tests.faults import figures

WRITER = "collectord/journal/writer.py"
OWNER = "collectord/daemon/owner.py"
CHAIN = "collectord/journal/chain.py"
RECOVERY = "collectord/journal/recovery.py"

EVERY_CALL = "tests/daemon/test_d7_every_call_fails.py::test_each_call_fails_in_turn_and_nothing_acknowledged_is_lost"
LIVES = (f"{EVERY_CALL}[some-ends]", f"{EVERY_CALL}[some-crashes]")
LOST = ("tests/daemon/test_d7_every_call_fails.py::test_a_sync_that_failed_and_lost_its_bytes_is_not_believed_the_second_time",)
RECOVERIES = (
    "tests/journal/test_recovery.py::"
    "test_the_last_group_is_written_again_in_a_fresh_segment_since_nobody_knows_that_it_is_durable",
)

HALF_WAY = (
    "tests/journal/test_recovery.py::test_a_recovery_that_came_to_write_only_its_segment_record_has_not_taken_anything_away",
)

Mutant = tuple[list[Change], tuple[str, ...], str]
"""What is changed, which tests are run, and words that the failure must say, so that it fails for the right reason."""

NAMED: dict[str, Mutant] = {
    "skip the journal's fdatasync": (
        [(WRITER, "self._disk.sync(", "(lambda _: None)(")],
        LIVES,
        "no record is durable",
    ),
    "skip the fdatasync of an append": (
        [(WRITER, "            self._write_here()\n", "            self._write_here_unsynced()\n"),
         (WRITER, "    def _write_here(self)", "    def _write_here_unsynced(self) -> None:\n"
          "        sync, self._disk.sync = self._disk.sync, lambda _: None\n"
          "        try:\n            self._write_here()\n        finally:\n            self._disk.sync = sync\n\n"
          "    def _write_here(self)")],
        LIVES,
        "not durable",
    ),
    "skip the directory fsync": (
        [(WRITER, "            self._disk.sync_directory(self._directory)\n", "")],
        LIVES,
        "no record is durable",
    ),
    "retry the failed fsync and acknowledge": (
        [(WRITER, "        self._disk.sync(self._fd)\n        self._parts[-1] =",
          "        try:\n            self._disk.sync(self._fd)\n"
          "        except OSError:\n            self._disk.sync(self._fd)\n        self._parts[-1] =")],
        LOST,
        "not durable",
    ),
}  # fmt: skip

OTHERS: dict[str, Mutant] = {
    "skip the directory fsync behind the final rename": (
        [(OWNER, "            if order.kind is ExportKind.FINAL:\n", "            if False:\n")],
        LIVES,
        "directory entry is not durable",
    ),
    "skip the fsync of the final document": (
        [(OWNER, "            sync=final,\n", "            sync=False,\n")],
        LIVES,
        "JSONDecodeError",
    ),
    "go on in the file that failed": (
        [(WRITER, "        self._cause = _sentence(error, self._parts[-1].path)\n        self.close()\n",
          "        self._cause = _sentence(error, self._parts[-1].path)\n        self._write_here()\n")],
        LIVES,
        "not durable",
    ),
    "forget what was not durable": (
        [(WRITER, "            except OSError as error:\n                self._abandon(error)\n",
          "            except OSError as error:\n                self._pending.clear()\n                self._abandon(error)\n")],
        LIVES,
        "not durable",
    ),
    "say nothing of how far the failed file is good": (
        [(WRITER, "bodies.segment(self._number, offset,", "bodies.segment(self._number, 1 << 30,")],
        LIVES,
        "before what was durable",
    ),
    "take more and more into memory": (
        [(OWNER, "> PENDING_MAX_BYTES", "> PENDING_MAX_BYTES << 20")],
        LIVES,
        "more and more",
    ),
    "never try again": (
        [(OWNER, "trio.current_time() + self._retry_pause_s", "math.inf")],
        LIVES,
        "TooSlow",
    ),
    "tell nobody that it stalled": (
        [("collectord/session/core.py", 'self._say(asker, messages.Stalled("disk-failed", event.cause))', "pass")],
        LIVES,
        "was not told",
    ),
    "keep the descriptor of a file that failed": (
        [(WRITER, "        self._cause = _sentence(error, self._parts[-1].path)\n        self.close()\n",
          "        self._cause = _sentence(error, self._parts[-1].path)\n        self._fd = None\n")],
        LIVES,
        "open_files",
    ),
    "believe a segment record whose group is not there": (
        [(CHAIN, 'following >= file.seam.get("records", 0)', "True")],
        HALF_WAY,
        "of which the records end at",
    ),
    "a recovery that trusts what it reads": (
        [(RECOVERY, "    Tail.UNPROVEN: Mending.WRITE_AGAIN,", "    Tail.UNPROVEN: Mending.NONE,")],
        RECOVERIES,
        "Mending.WRITE_AGAIN",
    ),
}  # fmt: skip


def check(mutant: Mutant, directory: Path) -> None:
    """It is noticed, and for what it is."""
    changes, tests, words = mutant
    result = run_planted(changes, directory, tests)
    assert result.returncode == 1, f"nothing noticed it: {result.stdout[-3000:]}"
    assert words in result.stdout, result.stdout[-3000:]
    figures.record("durability left out on purpose", "mutants noticed", 1)


@pytest.mark.parametrize("name", NAMED)
def test_what_the_issue_names_is_noticed_when_it_is_left_out(name: str, tmp_path: Path) -> None:
    check(NAMED[name], tmp_path)


@pytest.mark.bed
@pytest.mark.parametrize("name", OTHERS)
def test_what_else_durability_rests_on_is_noticed_when_it_is_left_out(name: str, tmp_path: Path) -> None:
    check(OTHERS[name], tmp_path)
