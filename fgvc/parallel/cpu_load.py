"""A stretch of work -> the CPU time that other processes of this machine used meanwhile.

The load average counts the work of this process too, and for a minute that of the previous job of a
sweep. CPU time is exact: the time of the whole machine less the time of this process.
"""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from fgvc import untrusted

STAT = Path("/proc/stat")  # Linux
BUSY = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal; not idle and iowait


@dataclass(frozen=True)
class CpuTimes:
    """Seconds. wall: a clock. own: CPU time of this process and of its ended children. machine: CPU
    time of all processes of the machine; None if the system does not report it."""

    wall: float = 0.0
    own: float = 0.0
    machine: float | None = 0.0

    def __add__(self, more: CpuTimes) -> CpuTimes:
        machine = None
        if self.machine is not None and more.machine is not None:
            machine = self.machine + more.machine
        return CpuTimes(self.wall + more.wall, self.own + more.own, machine)

    def __sub__(self, start: CpuTimes) -> CpuTimes:
        less = None if start.machine is None else -start.machine
        return self + CpuTimes(-start.wall, -start.own, less)


def cpu_times() -> CpuTimes:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = time.process_time() + children.ru_utime + children.ru_stime
    return CpuTimes(time.monotonic(), own, _machine_seconds())


def _machine_seconds() -> float | None:
    try:
        first = untrusted.read_text(STAT).partition("\n")[0].split()
        return sum(int(first[1 + place]) for place in BUSY) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def other_load(spent: CpuTimes, cores: int) -> float | None:
    """Mean number of usable cores that other processes kept busy; None if it is unknown.

    They may have used the cores that this process may not use: only what exceeds those counts.

    Args:
        cores: that this process may use.
    """
    if spent.machine is None or spent.wall <= 0:
        return None
    elsewhere = (os.cpu_count() or 1) - cores
    return round(max(0.0, (spent.machine - spent.own) / spent.wall - elsewhere), 2)
