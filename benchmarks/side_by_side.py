"""Two implementations of the same work -> their best times, measured alternately in one process.

Absolute times on a shared machine mean little. Alternating rounds expose both implementations to
the same load.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A row of the table. value: compared with `target`; higher is better unless `upper_bound`."""

    work: str
    baseline: str
    value: float
    target: float
    detail: str
    upper_bound: bool = False  # the target is an upper bound

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
