"""Daemons that break one rule, for beds that must find them out. Python imports this at its start where it is on the path.

``COLLECTORD_MUTANT`` names the rule; without it nothing is changed. Each entry replaces what it names only if that is there.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any


def _replace(owner: type, name: str, function: object) -> None:
    assert name in vars(owner), f"{owner.__name__}.{name} is no more: plant this mutant anew"
    setattr(owner, name, function)


def _now_and_then(sync: Callable[[Any, int], None]) -> Callable[[Any, int], None]:
    """Two of three are done."""
    calls = itertools.count(1)

    def forgetful(disk: Any, fd: int) -> None:
        if next(calls) % 3:
            sync(disk, fd)

    return forgetful


def _again(sync: Callable[[Any, int], None]) -> Callable[[Any, int], None]:
    """What failed is tried once more, and believed."""

    def stubborn(disk: Any, fd: int) -> None:
        try:
            sync(disk, fd)
        except OSError:
            sync(disk, fd)

    return stubborn


def _plant(mutant: str) -> None:
    from collectord.journal.disk import RealDisk

    if mutant == "no-fdatasync":
        _replace(RealDisk, "sync", lambda self, fd: None)
    elif mutant == "an-fdatasync-forgotten-now-and-then":
        _replace(RealDisk, "sync", _now_and_then(RealDisk.sync))
    elif mutant == "no-directory-fsync":
        _replace(RealDisk, "sync_directory", lambda self, path: None)
    elif mutant == "retry-the-failed-fdatasync":
        _replace(RealDisk, "sync", _again(RealDisk.sync))
    else:
        raise AssertionError(f"no such mutant: {mutant}")


if "COLLECTORD_MUTANT" in os.environ:
    _plant(os.environ["COLLECTORD_MUTANT"])
