"""Two implementations of the same work -> their best times, measured alternately in one process.

Absolute times on a shared machine mean little. Alternating rounds expose both implementations to
the same load.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """A row of the table.

    baseline: the limit that the work is compared with. value: the ratio, or a number with a unit
    in `work`; compared with `target`; higher is better unless `upper_bound`. ours, limit, other:
    what was measured for the project, for the limit and for other tools, with units; empty where
    `detail` says it.
    """

    work: str
    baseline: str
    value: float
    target: float
    detail: str
    upper_bound: bool = False  # the target is an upper bound
    ours: str = ""
    limit: str = ""
    other: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.target if self.upper_bound else self.value >= self.target


def best_times(*functions: Callable[[], object], rounds: int = 3) -> list[float]:
    """Seconds of each function, the best of `rounds` alternating rounds after a warm-up."""
    for function in functions:
        function()
    best = [float("inf")] * len(functions)
    for _ in range(rounds):
        for index, function in enumerate(functions):
            start = time.perf_counter()
            function()
            best[index] = min(best[index], time.perf_counter() - start)
    return best


def peak_mib() -> float:
    """Peak memory of this process in MiB."""
    status = Path("/proc/self/status")  # getrusage includes the peak of the parent process
    if status.is_file():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )
