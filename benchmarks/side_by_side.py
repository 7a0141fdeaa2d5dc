"""Two ways to do the same work -> the ratio of their best times, taken in turns in one process.

Absolute times on a shared machine mean nothing; interleaved, both sides meet the same neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A line of the table. ratio: what is held against `target`; higher is better unless `most`."""

    work: str
    against: str
    ratio: float
    target: float
    detail: str
    most: bool = False  # the target is an upper bound

    @property
    def met(self) -> bool:
        return self.ratio <= self.target if self.most else self.ratio >= self.target


def best_times(*ways: Callable[[], object], rounds: int = 3) -> list[float]:
    """Seconds of each way, the best of `rounds`, taken in turns after one warm-up each."""
    for way in ways:
        way()
    best = [float("inf")] * len(ways)
    for _ in range(rounds):
        for index, way in enumerate(ways):
            start = time.perf_counter()
            way()
            best[index] = min(best[index], time.perf_counter() - start)
    return best
