"""Pairs of lines and their predictions -> difference, interval, p, and whether they are identical.

Interval and p exist twice: of the pair alone, and adjusted for all pairs of a family. The tests are
those of `metrics.compare_top1`. The null hypothesis is `metrics.NULL_HYPOTHESIS`.
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
from dataclasses import dataclass, replace
from fractions import Fraction
from operator import attrgetter
from pathlib import Path

import numpy as np

from fgvc import metrics
from fgvc.report.aggregate_seeds import Line
from fgvc.report.predictions import RunPredictions
from fgvc.report.run_rows import Run

ALPHA = 0.05
DRAWS, SEED = 10_000, 0  # of the bootstrap of mean per class
WORDS = {  # of each verdict, on pages and on the terminal
    "identical": "identical",
    "tie": "not distinguishable",
    "higher": "higher",
    "lower": "lower",
}
TESTS = {
    "mcnemar": "McNemar's exact test",
    "sign_flip": "exact sign flips of each image's difference",
    "sign_flip_subsets": "exact sign flips over equal numbers of seeds, their geometric mean",
}
CONTROLS = ("off", "random", "centre", "pretrained_block")
ATTENTION_FREE = ("random", "centre")  # use no attention; their only control is off
SAME_PATCHES = ("token_grid", "part_tokens", "part_stride")  # fields of Run
Pair = tuple[Line, str, Line]  # a line, the name of its control, and the control
PredictionsByPath = dict[Path, RunPredictions]


@dataclass(frozen=True)
class PairwiseTest(metrics.Top1Comparison):
    """Top-1 of a line minus top-1 of another: of this pair alone, and as one pair of a family.

    low, high, p: of this pair alone, at level 1 - ALPHA. low_holm, high_holm, p_holm: after Holm
    over `family` pairs; the interval has the level 1 - alpha_holm and excludes 0 exactly where
    p_holm <= ALPHA. against: folder of the first run of the other line. identical: the same
    predicted class for every image; same_right: the same images right (by the same fraction of
    seeds), whatever the wrong predictions are.
    """

    p_holm: float
    low_holm: float
    high_holm: float
    alpha_holm: float
    family: int = 1
    identical: bool = False
    against: str = ""

    @property
    def verdict(self) -> str:
        """identical | tie | higher | lower, after Holm; a tie is called "not distinguishable"."""
        return verdict(self, self.p_holm, self.identical)

    def reversed(self, against: str) -> PairwiseTest:
        """The other line minus this one; against: folder of this line."""
        bounds = (self.low, self.high, self.low_holm, self.high_holm)
        low, high, low_holm, high_holm = (0.0 - bound for bound in bounds)
        return replace(
            self,
            value=0.0 - self.value,
            low=high,
            high=low,
            low_holm=high_holm,
            high_holm=low_holm,
            against=against,
        )


def verdict(difference: metrics.Top1Comparison, p: float, identical: bool) -> str:
    """identical | tie | higher | lower, by this p; identical predictions are not called a tie."""
    if identical:
        return "identical"
    if p > ALPHA:
        return "tie"
    return "higher" if difference.value > 0 else "lower"


def compare_lines(
    pairs: Sequence[tuple[Line, Line]], predictions: PredictionsByPath, family: int | None = None
) -> list[PairwiseTest]:
    """Compare the lines of each pair.

    Args:
        family: number of pairs for Holm's adjustment; None: the number of these pairs.
    """

    def right(line: Line) -> np.ndarray:
        """right_SN"""
        return np.stack([predictions[run.path].right_N for run in line.runs])

    comparisons = [metrics.compare_top1(right(line), right(other)) for line, other in pairs]
    family = len(pairs) if family is None else family
    p_values = [comparison.p for comparison in comparisons]
    adjusted = metrics.holm(p_values, family)
    alphas = metrics.holm_alphas(p_values, ALPHA, family)
    tests = []
    for i, (line, other) in enumerate(pairs):
        adjusted_interval = metrics.interval_top1(right(line), right(other), p_values[i], alphas[i])
        test = PairwiseTest(
            **vars(comparisons[i]),
            p_holm=adjusted[i],
            low_holm=adjusted_interval.low,
            high_holm=adjusted_interval.high,
            alpha_holm=alphas[i],
            family=family,
            identical=prediction_shares(line, predictions) == prediction_shares(other, predictions),
            against=other.first.folder,
        )
        tests.append(test)
    return tests


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


def in_box_shares(line: Line, lines: Sequence[Line]) -> dict[str, float | None]:
    """Fraction of the patches inside the box: of the line, of random and of central patches.

    A record states the controls' fractions on its own images and number of patches. Without them,
    those of the runs of the controls count; None: neither exists.
    """
    run, shares = line.first, {"in_box": line.mean("in_box")}
    for name in ATTENTION_FREE:
        measured = (
            other.mean("in_box")
            for other in lines
            if other.first.part_attention == name
            and all(getattr(other.first, key) == getattr(run, key) for key in SAME_PATCHES)
        )
        recorded = line.mean(f"in_box_{name}")
        shares[name] = next(measured, None) if recorded is None else recorded
    return shares
