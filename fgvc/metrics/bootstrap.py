"""Predictions of two models on the same images -> their difference with a bootstrap interval.

Row i of both arguments is the same image. Every difference is a minus b: if it is positive, a is
better. A score is 1 for a correct prediction, or the share of seeds with a correct prediction. A
pair is resampled in a canonical order and the sign is applied afterwards, so that swapping a and b
negates every number exactly. The interval covers the sampling of images, not of seeds.
N images, B draws, C classes, V distinct values, W values of a sum.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy.fft import next_fast_len

LEVEL = 0.95
DECIMALS = 12  # 2/3 - 1/3 and 1 - 2/3 are one value; other shares differ by far more

ValueCounts = tuple[tuple[float, int], ...]  # (difference, number of images), ascending


@dataclass(frozen=True)
class Difference:
    """Score of a minus score of b, a fraction in -1..1, with a 95 % interval."""

    value: float
    low: float
    high: float

    def __neg__(self) -> Difference:
        return Difference(0.0 - self.value, 0.0 - self.high, 0.0 - self.low)  # never -0.0


def bootstrap_top1(surplus_N: np.ndarray, unit: int, level: float = LEVEL) -> Difference:
    """Difference in top-1 with its percentile interval, of all resamples of the images.

    Only the count of each difference matters: the sum of a resample is a sum of N independent draws
    from these counts, and its distribution is computed without drawing. Random resamples could not
    give the levels of a long table, such as 99.996 %.

    Args:
        surplus_N: score of a minus score of b, as integers; at least one image.
        unit: of these integers: 1 for one seed each, otherwise the number that makes them integers.
        level: of the interval.
    """
    assert len(surplus_N) > 0
    value_V, count_V = np.unique(surplus_N, return_counts=True)
    counts = tuple(zip(value_V.tolist(), count_V.tolist(), strict=True))
    swapped = tuple((-value, n) for value, n in reversed(counts))
    value, low, high = (
        total / (unit * len(surplus_N)) for total in _sum_of_draws(max(counts, swapped), level)
    )
    if counts == swapped:  # symmetric, whatever the last digit of a probability is
        return Difference(0.0, min(low, -high), max(high, -low))
    return Difference(value, low, high) if counts > swapped else -Difference(value, low, high)


@functools.lru_cache(maxsize=2**14)
def _sum_of_draws(counts: tuple[tuple[int, int], ...], level: float) -> tuple[int, int, int]:
    """The observed sum, and bounds of the sum over n draws with replacement from the n values.

    The N-fold convolution of the counts, by a Fourier transform. A bound is the outermost value
    beyond which at most (1 - level) / 2 of the distribution lies.
    """
    value_V, count_V = np.array(counts, dtype=np.int64).T
    n, lowest = int(count_V.sum()), int(value_V[0])
    step = math.gcd(*(value_V - lowest).tolist()) or 1
    probability_V = np.zeros(int(value_V[-1] - lowest) // step + 1)
    probability_V[(value_V - lowest) // step] = count_V / n
    size = n * (len(probability_V) - 1) + 1
    length = next_fast_len(size, real=True)
    sum_W = np.fft.irfft(np.fft.rfft(probability_V, length) ** n, length)[:size].clip(0)
    tail = (1 - level) / 2
    low = int(np.searchsorted(sum_W.cumsum(), tail))
    high = size - 1 - int(np.searchsorted(sum_W[::-1].cumsum(), tail))
    first = n * lowest
    return int(value_V @ count_V), first + step * low, first + step * high


def bootstrap_mean_per_class(
    score_a_N: np.ndarray, score_b_N: np.ndarray, label_N: np.ndarray, draws: int, seed: int
) -> Difference:
    """Difference in mean per-class accuracy; images are resampled within their classes.

    Stratified, because a test set fixes the number of images per class: no resample can lose a
    class, and a class of few images contributes its actual spread. Classes without images are left
    out, as in `evaluate`.

    Args:
        score_a_N, score_b_N: bool or fractions in 0..1; at least one image.
        label_N: class indices.
        draws: B.
        seed: of the generator; the same arguments give the same numbers.
    """
    assert score_a_N.shape == score_b_N.shape == label_N.shape
    assert len(label_N) > 0
    surplus_N = (score_a_N.astype(np.float64) - score_b_N.astype(np.float64)).round(DECIMALS)
    order_N = np.argsort(label_N, kind="stable")
    starts_C = np.unique(label_N[order_N], return_index=True)[1]
    strata = []
    for of_class in np.split(surplus_N[order_N], starts_C[1:]):
        value_V, count_V = np.unique(of_class, return_counts=True)
        strata.append(tuple(zip(value_V.tolist(), count_V.tolist(), strict=True)))
    # resampled in the canonical order; the difference has the given order of a and b
    swapped = [tuple((0.0 - value, n) for value, n in reversed(counts)) for counts in strata]
    if strata < swapped:
        return -_resample(tuple(swapped), draws, seed)
    difference = _resample(tuple(strata), draws, seed)
    if strata > swapped:
        return difference
    half = (difference.high - difference.low) / 2  # both orders are equal: symmetric
    return Difference(0.0, -half, half) if half else Difference(0.0, 0.0, 0.0)


@functools.lru_cache(maxsize=2**14)
def _resample(strata: tuple[ValueCounts, ...], draws: int, seed: int) -> Difference:
    """Mean over strata of the mean within each stratum, with its percentile interval.

    Cached, because the same counts often recur in a table of many rows, and drawing takes nearly
    all the time of a comparison.
    """
    rng = np.random.default_rng(seed)
    value, mean_B = 0.0, np.zeros(draws)
    for counts in strata:
        value_V, count_V = (np.array(column) for column in zip(*counts, strict=True))
        n = int(count_V.sum())
        drawn_BV = rng.multinomial(n, count_V / n, size=draws)  # with replacement
        value += float(value_V @ count_V) / n / len(strata)
        mean_B += drawn_BV @ value_V / n / len(strata)
    low, high = np.quantile(mean_B, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(value, float(low), float(high))
