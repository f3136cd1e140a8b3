"""Starts a bed in mount and process namespaces of its own, and says why where that cannot be done here.

Whatever happens to the bed, nothing of it stays: its mounts, its loop devices, its daemons and its FUSE process go with the
namespaces when the first process in them ends.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

FILE_SYSTEMS: Final = ("ext4", "xfs", "btrfs")

_APART = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
_ROOT = Path(__file__).resolve().parents[3]
_TIMEOUT_S = 1800.0


@cache
def missing(*programs: str) -> str | None:
    """What a bed on a real file system lacks here, in words, or None."""
    if os.geteuid() != 0:
        return "needs root: it mounts file systems"
    if importlib.util.find_spec("pyfuse3") is None:
        return "needs the package pyfuse3 (pip install -e '.[faults]')"
    for device in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(device):
            return f"needs {device}"
    for program in ("unshare", *programs):
        if shutil.which(program) is None:
            return f"needs {program}"
    probe = subprocess.run([*_APART, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        return f"namespaces are not to be had: {probe.stderr.strip()[:200]}"
    return None


def run_apart(module: str, directory: Path, *arguments: str) -> dict[str, Any]:
    """Run a module that prints one JSON document, in namespaces of its own.

    Args:
        module: its name.
        directory: the bed's own, its first argument.
        arguments: the others.

    Returns:
        What it printed.
    """
    result = subprocess.run(
        [*_APART, sys.executable, "-m", module, str(directory), *arguments],
        cwd=_ROOT, capture_output=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    if result.returncode:
        pytest.fail(f"{module} {' '.join(arguments)} ended with {result.returncode}:\n{result.stderr.decode()[-4000:]}")
    found: dict[str, Any] = orjson.loads(result.stdout)
    return found


def needs(*programs: str) -> None:
    """Skip the test where something is missing."""
    reason = missing(*programs)
    if reason is not None:
        pytest.skip(reason)


def power_cuts(directory: Path, file_system: str, *arguments: str) -> dict[str, Any]:
    """Record one log and try its crash states; what came of it, printed too."""
    result = run_apart("tests.faults.power", directory, file_system, *arguments)
    print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode())
    assert result["flushes"] > 0 < result["writes"]
    return result
