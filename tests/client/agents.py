"""Agents as processes of their own: scripts with the client imported, against a collector's socket."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


def run_agent(
    script: str, socket: Path | str, *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end; `collectord` is the client, which finds the socket in its environment."""
    return subprocess.run(
        [sys.executable, "-c", "import collectord_client as collectord, os, sys, threading, signal\n" + script, *arguments],
        env={**os.environ, "COLLECTORD_SOCKET": str(socket), **(environment or {})},
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
