"""What a process has used so far."""

from __future__ import annotations

import psutil


def cpu_seconds(pid: int) -> float:
    """CPU time of all its threads, in user and in kernel mode."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def resident_mib(pid: int) -> float:
    """Its memory in MiB."""
    return float(psutil.Process(pid).memory_info().rss / (1 << 20))
