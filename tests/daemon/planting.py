"""Faults planted in a copy of the package, to see whether tests notice: run in a process of their own, against the copy.

Owns the copying and the running. A change whose words are no longer found is an error: it must be planted anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

Change = tuple[str, str, str]
"""A file, words in it, and what is put in their place."""


def run_planted(
    changes: Sequence[Change], into: Path, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run pytest against a changed copy, up to the first failure.

    Args:
        changes: what is different.
        into: an empty directory for the copy.
        arguments: which tests.
        environment: added to ours.
    """
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "collectord", into / "collectord", ignore=ignored)
    shutil.copytree(ROOT / "tests", into / "tests", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", into)
    for file, old, new in changes:
        path = into / file
        text = path.read_text()
        assert old in text, f"{file} no longer holds the words that this mutant changes"
        path.write_text(text.replace(old, new))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *arguments]
    ours = {**os.environ, "PYTHONPATH": str(into), "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}
    return subprocess.run(command, cwd=into, env=ours, capture_output=True, text=True, timeout=300, check=False)
