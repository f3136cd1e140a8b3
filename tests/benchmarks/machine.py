"""What the kernel says about a process, and about the machine: for figures, not for decisions."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path


def memory_bytes(pid: int, field: str = "VmRSS") -> int:
    """The resident memory of a process, or with ``VmHWM`` the most it ever was."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1_024
    return 0


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    """How many threads it has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def cpu_seconds(pid: int) -> float:
    """What it has used of the processors."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wakeups(pid: int) -> int:
    """How often its threads have given up the processor to wait, all together."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total


def children(pid: int) -> list[int]:
    """The processes that it has started: the renderers."""
    return [int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()]


def wait_until_quiet(pid: int, patience_s: float = 120.0) -> None:
    """Until a process and its children have used no processor for a second, and its pool has let its threads go."""
    deadline = time.monotonic() + patience_s
    before, since = -1.0, time.monotonic()
    while time.monotonic() < deadline:
        used = sum(map(cpu_seconds, (pid, *children(pid))))
        if used != before:
            before, since = used, time.monotonic()
        elif time.monotonic() - since >= 1.0 and threads(pid) == 1:
            return
        time.sleep(0.1)
    raise AssertionError(f"process {pid} has not come to rest in {patience_s:g} s")


def facts() -> str:
    """The machine in a line."""
    processor = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.machine()
    )
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    memory = next((int(line.split()[1]) >> 20 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return (
        f"{os.cpu_count()} x {processor}, {memory} GiB, Linux {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}, load before {load}"
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
