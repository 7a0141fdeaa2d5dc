"""Pairs of lines and their predictions -> difference, interval, p, and whether they are identical.

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
from fgvc.report.predictions import RunPredictions

ALPHA = 0.05
DRAWS, SEED = 10_000, 0  # of the bootstrap
PredictionsByPath = dict[Path, RunPredictions]


@dataclass(frozen=True)
class PairwiseTest:
    """Top-1 of a line minus top-1 of another, with its 95 % interval, p, and p after Holm.

    test: as in `metrics.Top1Comparison`. family: number of pairs that p_holm is adjusted for.
    identical: the same predicted class for every image; same_right: the same images right (by the
    same fraction of seeds), whatever the wrong predictions are.
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
        """identical | tie | higher | lower; identical predictions are not called a tie."""
        if self.identical:
            return "identical"
        if self.p_holm > ALPHA:
            return "tie"
        return "higher" if self.difference > 0 else "lower"


def compare_lines(
    pairs: Sequence[tuple[Line, Line]], predictions: PredictionsByPath, family: int | None = None
) -> list[PairwiseTest]:
    """Compare the lines of each pair.

    Args:
        family: number of pairs for Holm's adjustment; None: the number of these pairs.
    """
    comparisons = [
        metrics.compare_top1(
            _right_per_seed(line, predictions), _right_per_seed(other, predictions), DRAWS, SEED
        )
        for line, other in pairs
    ]
    family = len(pairs) if family is None else family
    adjusted = metrics.holm([comparison.p for comparison in comparisons], family)
    return [
        PairwiseTest(
            test=comparison.test,
            difference=comparison.value,
            low=comparison.low,
            high=comparison.high,
            p=comparison.p,
            p_holm=p_holm,
            family=family,
            identical=_prediction_shares(line, predictions)
            == _prediction_shares(other, predictions),
            same_right=comparison.same_right,
        )
        for (line, other), comparison, p_holm in zip(pairs, comparisons, adjusted, strict=True)
    ]


def find_identical(lines: Sequence[Line], predictions: PredictionsByPath) -> dict[int, int]:
    """Place of a line with the predictions of an earlier line -> place of the first such line."""
    place_of: dict[frozenset[tuple[str, Fraction]], int] = {}
    repeated = {}
    for place, line in enumerate(lines, 1):
        if count_distinct_predictions(line, predictions) is None:
            continue
        first_place = place_of.setdefault(_prediction_shares(line, predictions), place)
        if first_place != place:
            repeated[place] = first_place
    return repeated


def count_distinct_predictions(line: Line, predictions: PredictionsByPath) -> int | None:
    """Number of distinct predictions among the seeds of a line; None if they were not read."""
    if any(run.path not in predictions for run in line.runs):
        return None
    return len(_prediction_shares(line, predictions))


def _prediction_shares(
    line: Line, predictions: PredictionsByPath
) -> frozenset[tuple[str, Fraction]]:
    """Each distinct prediction digest with the fraction of seeds that have it."""
    times = Counter(predictions[run.path].predictions_digest for run in line.runs)
    return frozenset((digest, Fraction(n, len(line.runs))) for digest, n in times.items())


def _right_per_seed(line: Line, predictions: PredictionsByPath) -> np.ndarray:
    """right_SN: whether each seed of a line predicts each image correctly."""
    return np.stack([predictions[run.path].right_N for run in line.runs])
