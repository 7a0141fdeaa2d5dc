"""Pairs of lines and their predictions -> difference, interval, p, and whether they are identical.

The tests are those of `metrics.compare_top1`. The null hypothesis is `metrics.NULL_HYPOTHESIS`.
A line with part attention is paired with the controls that it must beat to show that attention
helps:
    off                no part attention
    random, centre     the same number of random or central patches
    pretrained_block   the pretrained last block, for a line whose last block is random initially
Everything else in the configs of a line and its control is the same, and so are their weights.
Random weights depend on the seed, so both lines must then have the same seeds.
S seeds, N images.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import attrgetter
from pathlib import Path

import numpy as np

from fgvc import metrics
from fgvc.report.aggregate_seeds import Line
from fgvc.report.predictions import RunPredictions
from fgvc.report.run_rows import Run

ALPHA = 0.05
DRAWS, SEED = 10_000, 0  # of the bootstrap
CONTROLS = ("off", "random", "centre", "pretrained_block")
ATTENTION_FREE = ("random", "centre")  # use no attention; their only control is off
Pair = tuple[Line, str, Line]  # a line, the name of its control, and the control
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


def match_controls(lines: Sequence[Line]) -> list[Pair]:
    """Pair every line of a group with each of its controls that exists.

    If several lines qualify as a control, those of the same code, data and weights are preferred,
    then the newest. The choice does not depend on the test numbers or on the order of the lines.
    """
    pairs = []
    for line, name in itertools.product(lines, CONTROLS):
        run, seeds = line.first, {run.seed for run in line.runs}
        candidates = [
            other
            for other in lines
            if run.part_attention != "off"
            and _is_control(other.first, run, name)
            # random weights of equal digests are equal for equal seeds only
            and (run.weights_kind != "random" or {run.seed for run in other.runs} == seeds)
        ]
        same_answer = [other for other in candidates if other.first.answer == run.answer]
        if candidates:
            key = attrgetter("first.started", "first.folder")
            pairs.append((line, name, max(same_answer or candidates, key=key)))
    return pairs


def _is_control(other: Run, run: Run, name: str) -> bool:
    if other.rest != run.rest:
        return False
    if name == "off":
        return other.part_attention == "off"
    if (other.part_rest, other.part_tokens) != (run.part_rest, run.part_tokens):
        return False
    if name == "pretrained_block":
        same = other.part_attention == run.part_attention
        return same and (other.last_block, run.last_block) == ("pretrained", "random")
    same = other.last_block == run.last_block
    return same and other.part_attention == name and run.part_attention not in ATTENTION_FREE
