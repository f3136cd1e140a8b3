"""The bed itself, in a namespace of its own: records the log of a workload, mounts its crash states, prints what it found.

`python -m tests.faults.power DIRECTORY FILE_SYSTEM [--seconds S] [--seed N] [--mutant NAME] [--failing]`;
see ``apart`` for how it is started.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from attrs import frozen

from tests.faults.power.check import violations
from tests.faults.power.failing import Faults, do_failing_work
from tests.faults.power.log import CrashState, Entry, read_log, steps
from tests.faults.power.volumes import Image, forget_cached, loop_device, make_image, mount, mounted, unmount
from tests.faults.power.workload import Told, do_work

ROOT = Path(__file__).resolve().parents[3]
MUTANTS = Path(__file__).with_name("mutants")

WORKERS = {"ext4": 2, "xfs": 3, "btrfs": 1}
"""How many processes replay. xfs mostly sleeps while it recovers; two copies of one btrfs cannot be mounted at once."""

OPTIONS = {"ext4": "nodiscard", "xfs": "nodiscard", "btrfs": "nodiscard,max_inline=0"}
"""Of each mount. btrfs keeps small files in its tree, where a write that fails ends the whole file system: not what is tried."""

_CLONE_NEWNS = 0x00020000
_SHOWN = 10


@contextmanager
def block_log(directory: Path, image: Path) -> Iterator[tuple[Path, Path]]:
    """The FUSE process over an image; gives where its files are, and the log."""
    point, log = directory / "blocks", directory / "blocks.log"
    point.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.power.blocks", str(image), str(point), str(log), str(directory / "bad")],
        cwd=ROOT,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while not os.path.ismount(point):
            assert process.poll() is None, "the FUSE process ended at once"
            assert time.monotonic() < deadline, "the FUSE file system is not there"
            time.sleep(0.01)
        yield point, log
    finally:
        subprocess.run(["umount", str(point)], check=False)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def environment_of(mutant: str | None) -> dict[str, str]:
    """What makes a daemon a mutant."""
    if mutant is None:
        return {}
    return {"COLLECTORD_MUTANT": mutant, "PYTHONPATH": str(MUTANTS)}


def record(directory: Path, kind: str, seed: int, mutant: str | None, failing: bool) -> tuple[list[Entry], Faults]:
    """Do the work on a fresh file system; gives the log of its disk. ``base.img`` holds what the disk held before."""
    base, live = directory / "base.img", directory / "live.img"
    make_image(str(base), kind)
    subprocess.run(["cp", "--sparse=always", str(base), str(live)], check=True)
    point, faults, environment = directory / "mnt", Faults(), environment_of(mutant)
    with block_log(directory, live) as (blocks, log):
        with loop_device(str(blocks / "disk"), direct=True) as device, mounted(device, str(point), kind, OPTIONS[kind]):
            marks, state_dir = str(blocks / "marks"), point / "state"
            if failing:
                switch = str(directory / "bad")
                faults = do_failing_work(directory, state_dir, marks, switch, environment, with_stall=mutant is None)
            else:
                do_work(directory, state_dir, marks, seed, environment)
        raw = log.read_bytes()
    live.unlink()
    log.unlink()
    return read_log(raw), faults


@frozen
class Extent:
    """How much of a log is tried.

    Attributes:
        seed: of the random choices.
        subsets: random choices at each place.
        seconds: where all would take longer, states are passed over evenly, but for those in which something has just been
            told; 0 for all.
        stop_early: whether one violation is enough.
    """

    seed: int
    subsets: int
    seconds: float
    stop_early: bool


def replay(directory: Path, kind: str, entries: list[Entry], extent: Extent) -> dict[str, Any]:
    """Mount crash states and check each."""
    began = time.monotonic()
    workers = WORKERS[kind]
    total = sum(len(step.states) for step in steps(entries, extent.subsets, extent.seed))
    children = [_start_worker(directory, number, kind, entries, extent, total) for number in range(workers)]
    for child in children:
        _, status = os.waitpid(child, 0)
        assert status == 0, "a worker failed; what it said stands above"
    tried, found = 0, []
    for number in range(workers):
        share_tried, share_found = orjson.loads((directory / f"found-{number}").read_bytes())
        tried += share_tried
        found += share_found
    assert tried == total or extent.seconds or found
    return {
        "states": tried,
        "states_possible": total,
        "ms_per_state": round((time.monotonic() - began) / tried * 1e3, 1),
        "violated": len(found),
        "violations": sorted(found, key=lambda one: int(one["entry"]))[:_SHOWN],
    }


def _start_worker(directory: Path, number: int, kind: str, entries: list[Entry], extent: Extent, total: int) -> int:
    """A process with a mount namespace of its own, so that all may mount at the same path: paths that were told stay right."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        logging.disable(logging.WARNING)  # what is torn is set aside in every second state
        assert ctypes.CDLL(None).unshare(_CLONE_NEWNS) == 0
        result = _replay_share(directory, number, kind, entries, extent, total)
        (directory / f"found-{number}").write_bytes(orjson.dumps(result))
        status = 0
    except Exception:  # noqa: BLE001 — the worker ends here in any case, and says why
        traceback.print_exc()
    finally:
        os._exit(status)


def _replay_share(
    directory: Path, worker: int, kind: str, entries: list[Entry], extent: Extent, total: int
) -> tuple[int, list[dict[str, Any]]]:
    """Go through the log; at each of the states that are ours, mount and check. The others are other workers'."""
    size = (directory / "base.img").stat().st_size
    disk, crashed = Image(str(directory / f"disk-{worker}.img"), size), Image(str(directory / f"crash-{worker}.img"), size)
    disk.fill(str(directory / "base.img"))
    told, found, number, tried, began = Told(), [], 0, 0, time.monotonic()
    with loop_device(crashed.path) as device:
        for step in steps(entries, extent.subsets, extent.seed):
            disk.put(step.flushed)
            if step.mark is not None:
                told.add(step.mark)
            for state in step.states:
                number += 1
                is_late = 0 < extent.seconds * number < (time.monotonic() - began) * total
                if number % WORKERS[kind] != worker or (is_late and not state.told):
                    continue
                crashed.become(disk)
                crashed.put(state.kept)
                tried += 1
                wrong = _check(device, str(directory / "mnt"), kind, told)
                if wrong:
                    found.append(_report(state, wrong))
                    if extent.stop_early:
                        return tried, found
    return tried, found


def _check(device: str, point: str, kind: str, told: Told) -> list[str]:
    try:
        forget_cached(device)
        mount(device, point, kind, OPTIONS[kind] + (",nouuid" if kind == "xfs" else ""))
    except OSError as error:
        return [f"it cannot be mounted: {error.strerror}"]
    try:
        return violations(os.path.join(point, "state"), told)
    except Exception as error:  # noqa: BLE001 — whatever the product raises here is a finding, and the next state is tried
        return [f"{type(error).__name__}: {error}"]
    finally:
        unmount(point)


def _report(state: CrashState, wrong: list[str]) -> dict[str, Any]:
    return {"entry": state.entry, "kept": state.how, "of_writes": len(state.kept), "wrong": wrong[:_SHOWN]}


def main() -> None:
    """Parse, do it, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0, help="how long to try crash states; 0: all of them")
    parser.add_argument("--stop-early", action="store_true", help="one violation is enough")
    parser.add_argument("--subsets", type=int, default=1)
    parser.add_argument("--mutant")
    parser.add_argument("--failing", action="store_true", help="the work during which writes fail")
    chosen = parser.parse_args()
    mount("tmpfs", str(chosen.directory), "tmpfs", "size=2g")
    (chosen.directory / "mnt").mkdir()
    began = time.monotonic()
    entries, faults = record(chosen.directory, chosen.kind, chosen.seed, chosen.mutant, chosen.failing)
    recorded = time.monotonic()
    extent = Extent(chosen.seed, chosen.subsets, chosen.seconds, chosen.stop_early)
    told = Told()
    for entry in entries:
        if entry.mark is not None:
            told.add(entry.mark)
    result = {
        "file_system": chosen.kind,
        "seed": chosen.seed,
        "groups": told.groups,
        "runs": len(told.runs),
        "writes": sum(entry.write is not None for entry in entries),
        "flushes": sum(entry.write is None and entry.mark is None for entry in entries),
        "faults_once": faults.once,
        "stalls": faults.stalls,
        "record_s": round(recorded - began, 1),
        **replay(chosen.directory, chosen.kind, entries, extent),
        "replay_s": round(time.monotonic() - recorded, 1),
    }
    shutil.rmtree(chosen.directory / "mnt", ignore_errors=True)
    sys.stdout.buffer.write(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
