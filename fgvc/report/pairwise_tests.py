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
class PairwiseTest(metrics.Top1Comparison):
    """Top-1 of a line minus top-1 of another, with p after Holm.

    family: number of pairs that p_holm is adjusted for. identical: the same predicted class for
    every image; same_right: the same images right (by the same fraction of seeds), whatever the
    wrong predictions are.
    """

    p_holm: float
    family: int = 1
    identical: bool = False

    @property
    def verdict(self) -> str:
        """identical | tie | higher | lower; identical predictions are not called a tie."""
        if self.identical:
            return "identical"
        if self.p_holm > ALPHA:
            return "tie"
        return "higher" if self.value > 0 else "lower"


def compare_lines(
    pairs: Sequence[tuple[Line, Line]], predictions: PredictionsByPath, family: int | None = None
) -> list[PairwiseTest]:
    """Compare the lines of each pair.

    Args:
        family: number of pairs for Holm's adjustment; None: the number of these pairs.
    """
    comparisons = []
    for pair in pairs:
        right_a_SN, right_b_SN = (
            np.stack([predictions[run.path].right_N for run in line.runs]) for line in pair
        )
        comparisons.append(metrics.compare_top1(right_a_SN, right_b_SN, DRAWS, SEED))
    family = len(pairs) if family is None else family
    adjusted = metrics.holm([comparison.p for comparison in comparisons], family)
    return [
        PairwiseTest(
            **vars(comparison),
            p_holm=p_holm,
            family=family,
            identical=prediction_shares(line, predictions) == prediction_shares(other, predictions),
        )
        for (line, other), comparison, p_holm in zip(pairs, comparisons, adjusted, strict=True)
    ]


def prediction_shares(
    line: Line, predictions: PredictionsByPath
) -> frozenset[tuple[str, Fraction]] | None:
    """Each distinct prediction digest with the fraction of seeds that have it; None if not read."""
    if any(run.path not in predictions for run in line.runs):
        return None
    times = Counter(predictions[run.path].predictions_digest for run in line.runs)
    return frozenset((digest, Fraction(n, len(line.runs))) for digest, n in times.items())
