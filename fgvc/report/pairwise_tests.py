"""Pairs of lines and their answers -> test, interval, adjusted p, and whether they are identical.

The tests are those of `metrics.compare_top1`. The null hypothesis is `metrics.NULL_HYPOTHESIS`.
S seeds, N images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from fgvc import metrics
from fgvc.report.aggregate_seeds import Line
from fgvc.report.predictions import TestPredictions

ALPHA = 0.05
DRAWS, SEED = 10_000, 0  # of the bootstrap
PredictionsByPath = dict[Path, TestPredictions]


@dataclass(frozen=True)
class PairwiseTest:
    """Top-1 of a line minus that of another, its 95 % interval, p, and p after Holm.

    test: as in `metrics.Top1Comparison`. family: number of pairs that p_holm is adjusted for.
    identical: the same predicted class on every image; same_right: the same images right (by
    the same share of seeds), with any mistakes on the others.
    """

    test: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    family: int = 1
    identical: bool = False
    same_right: bool = False

    @property
    def verdict(self) -> str:
        """identical | tie | higher | lower; identical answers are not called a tie."""
        if self.identical:
            return "identical"
        if self.p_holm > ALPHA:
            return "tie"
        return "higher" if self.difference > 0 else "lower"


def compare_lines(
    pairs: Sequence[tuple[Line, Line]], read: PredictionsByPath, family: int | None = None
) -> list[PairwiseTest]:
    """Compare the lines of each pair.

    Args:
        family: number of pairs for Holm's adjustment; None: the number of these pairs.
    """
    family = len(pairs) if family is None else family
    tops = [
        metrics.compare_top1(_right(line, read), _right(other, read), DRAWS, SEED)
        for line, other in pairs
    ]
    adjusted = metrics.holm([top.p for top in tops], family)
    return [
        PairwiseTest(
            test=top.test,
            difference=top.value,
            low=top.low,
            high=top.high,
            p=top.p,
            p_holm=p_holm,
            family=family,
            identical=_predictions(line, read) == _predictions(other, read),
            same_right=top.same_right,
        )
        for (line, other), top, p_holm in zip(pairs, tops, adjusted, strict=True)
    ]


def find_identical(lines: Sequence[Line], read: PredictionsByPath) -> dict[int, int]:
    """Place of each line that repeats earlier answers -> place of the first such line; from 1."""
    first: dict[frozenset[tuple[str, Fraction]], int] = {}
    repeated = {}
    for place, line in enumerate(lines, 1):
        if count_distinct_predictions(line, read) is None:
            continue
        at = first.setdefault(_predictions(line, read), place)
        if at != place:
            repeated[place] = at
    return repeated


def count_distinct_predictions(line: Line, read: PredictionsByPath) -> int | None:
    """Number of distinct predictions among the seeds of a line; None if they were not read."""
    if any(run.path not in read for run in line.runs):
        return None
    return len(_predictions(line, read))


def _predictions(line: Line, read: PredictionsByPath) -> frozenset[tuple[str, Fraction]]:
    """Each distinct prediction digest with the share of seeds that gave it."""
    times = Counter(read[run.path].predictions for run in line.runs)
    return frozenset((digest, Fraction(n, len(line.runs))) for digest, n in times.items())


def _right(line: Line, read: PredictionsByPath) -> np.ndarray:
    """right_SN: which images each seed of a line got right."""
    return np.stack([read[run.path].right_N for run in line.runs])
