"""Work on a disk on which some writes fail: an fdatasync that fails once, and one that fails until the disk is healed.

What is told becomes marks, as in ``workload``, and is held against the crash states of the log in the same way: what was
acknowledged is on the disk, and not only in the memory of a kernel that has once said EIO and will not say it again.
"""

from __future__ import annotations

from pathlib import Path

from attrs import define

from collectord.wire import messages
from tests.faults.power.bad_disk import FOR_EVER, BadDisk
from tests.faults.power.workload import Marks, Writer
from tests.process.client import RawClient
from tests.process.daemon import Daemon

_SESSIONS = 3
_ROUNDS = 6
_PADDING = 6_000
"""More than a block, so that no group shares all its blocks with the one before."""


@define
class Faults:
    """What was done to the disk.

    Attributes:
        once: writes that failed once, each behind one fdatasync.
        stalls: times that a run stood still until the disk was healed.
    """

    once: int = 0
    stalls: int = 0


def do_failing_work(
    directory: Path, state_dir: Path, marks_path: str, switch: str, environment: dict[str, str], with_stall: bool
) -> Faults:
    """All of it.

    Args:
        directory: for the socket and the daemon's words; not on the disk under test.
        state_dir: on the disk under test.
        marks_path: of the mark file.
        switch: path of the switch that the disk looks at.
        environment: of the daemon.
        with_stall: whether a disk that stays bad is tried too.
    """
    marks, bad, faults = Marks(marks_path), BadDisk(switch), Faults()
    daemon = Daemon(directory, environment=environment)
    daemon.state_dir = state_dir
    daemon.start()
    writers: list[Writer] = []
    try:
        writers = [Writer(daemon, marks, f"session-{number}") for number in range(_SESSIONS)]
        for number in range(_ROUNDS):
            for writer in writers:
                writer.write_group(2, _PADDING)
            _fail_once(writers[number % _SESSIONS], bad, faults)
        if with_stall:
            _stand_still(daemon, writers[0], writers[1], bad, faults)
        for writer in writers:
            writer.write_group(1, _PADDING)
        writers.pop().finish("completed")
        writers.pop().finish("crashed")
        daemon.stop()
    finally:
        for writer in writers:
            writer.client.close()
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.stop()
        marks.close()
    return faults


def _fail_once(writer: Writer, bad: BadDisk, faults: Faults) -> None:
    """The group's first way to the disk fails; it is acknowledged all the same, and nobody need be told."""
    token = f"the {faults.once}th write that fails;"
    bad.fail(token.encode(), 1)
    writer.write_group(3, _PADDING, token)
    assert not bad.is_bad, "acknowledged, and the write that was to fail never came"
    assert not writer.client.pushed
    faults.once += 1


def _stand_still(daemon: Daemon, writer: Writer, neighbour: Writer, bad: BadDisk, faults: Faults) -> None:
    """A disk that stays bad: told, shown, nothing acknowledged; healed: it goes on by itself. A neighbour notices nothing."""
    token = "a write that always fails;"
    bad.fail(token.encode(), FOR_EVER)
    sequence = writer.send_group(3, _PADDING, token)
    told = next_pushed(writer.client)
    assert isinstance(told, messages.Stalled), told
    neighbour.write_group(2, _PADDING)
    row = daemon.session(writer.session)
    assert "error" in row["stalled"].lower(), row["stalled"]
    assert daemon.session(neighbour.session)["stalled"] is None
    assert bad.is_bad
    assert writer.client.acknowledged < sequence
    bad.heal()
    writer.hear_acknowledged()
    assert daemon.session(writer.session)["stalled"] is None
    faults.stalls += 1


def next_pushed(client: RawClient) -> object:
    """What a client is told next besides acknowledgements."""
    return client.pushed.pop(0) if client.pushed else client.receive()
