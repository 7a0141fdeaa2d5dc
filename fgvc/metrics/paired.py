"""Two models' answers to the same images -> whether they differ: test, interval, correction.

Pure functions. Row i of both arguments is the same image, and every difference is a minus b: above
zero, a is better. A score is whether an answer was right, or the share of seeds that were right.
Images that both get right or both get wrong are ties: they say nothing about which is better and
have no part in McNemar's test. All of it holds for these trained models on other images of the
kind; it says nothing of other seeds.
N images, B draws, C classes, V distinct values.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

LEVEL = 0.95


@dataclass(frozen=True)
class Discordance:
    """Images that only a, or only b, got right, and the p-value of McNemar's exact test."""

    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True)
class Difference:
    """Score of a minus score of b, a fraction in -1..1, with its 95 % interval and p-value."""

    value: float
    low: float
    high: float
    p: float


def mcnemar(right_a_N: np.ndarray, right_b_N: np.ndarray) -> Discordance:
    """McNemar's test as a two-sided exact binomial one, without the mid-p correction.

    Of the images that only one model got right, each is equally often a's and b's if neither is
    better (McNemar, Psychometrika 1947). p is 1 where there is no such image.

    Args:
        right_a_N, right_b_N: bool.
    """
    assert right_a_N.dtype == right_b_N.dtype == np.bool_
    assert right_a_N.shape == right_b_N.shape
    only_a = int((right_a_N & ~right_b_N).sum())
    only_b = int((right_b_N & ~right_a_N).sum())
    p = 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))
    return Discordance(only_a, only_b, min(p, 1.0))


def bootstrap_top1(
    score_a_N: np.ndarray, score_b_N: np.ndarray, draws: int, seed: int
) -> Difference:
    """Difference in top-1 with its percentile interval from `draws` resamples of the images.

    Only how often each difference occurs counts, so a resample is one multinomial draw over the
    distinct values (-1, 0 and 1 where both have one seed): the bootstrap itself, without N x B
    indices.

    Args:
        score_a_N, score_b_N: bool or fractions in 0..1; at least one image.
        draws: B.
        seed: of the generator; the same arguments give the same numbers.
    """
    surplus_N = _surplus(score_a_N, score_b_N)
    value_V, count_V = np.unique(surplus_N, return_counts=True)
    bounds = _bounds_of_counts(tuple(value_V.tolist()), tuple(count_V.tolist()), draws, seed)
    return Difference(float(surplus_N.mean()), *bounds)


def bootstrap_mean_per_class(
    score_a_N: np.ndarray, score_b_N: np.ndarray, label_N: np.ndarray, draws: int, seed: int
) -> Difference:
    """Difference in mean per-class accuracy; images are resampled within their classes.

    Stratified, as a test set fixes how many images a class has: no resample can lose a class, and
    a class of few images contributes the spread that it really has. Classes without images have no
    part, as in `evaluate`.

    Args:
        score_a_N, score_b_N, draws, seed: as in `bootstrap_top1`.
        label_N: class indices.
    """
    surplus_N = _surplus(score_a_N, score_b_N)
    rng = np.random.default_rng(seed)
    order_N = np.argsort(label_N, kind="stable")
    starts_C = np.unique(label_N[order_N], return_index=True)[1]
    value, mean_B = 0.0, np.zeros(draws)
    for of_class in np.split(surplus_N[order_N], starts_C[1:]):
        value += float(of_class.mean()) / len(starts_C)
        value_V, count_V = np.unique(of_class, return_counts=True)
        mean_B += _resampled_means(value_V, count_V, draws, rng) / len(starts_C)
    return Difference(value, *_bounds(mean_B))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Scand. J. Statist. 1979), in the order given.

    Comparing the results with .05 keeps the chance of any false finding among them at 5 %.
    """
    m = len(p_values)
    order = sorted(range(m), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * m, 0.0
    for step, i in enumerate(order):
        highest = max(highest, min(1.0, (m - step) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def _surplus(score_a_N: np.ndarray, score_b_N: np.ndarray) -> np.ndarray:
    assert score_a_N.shape == score_b_N.shape
    assert len(score_a_N) > 0
    return score_a_N.astype(np.float64) - score_b_N.astype(np.float64)


@functools.lru_cache(maxsize=2**14)
def _bounds_of_counts(
    value_V: tuple[float, ...], count_V: tuple[int, ...], draws: int, seed: int
) -> tuple[float, float, float]:
    """Low, high and p of one way to differ: in a table of many lines most ways occur again, and the
    draws are nearly all that a comparison costs."""
    rng = np.random.default_rng(seed)
    return _bounds(_resampled_means(np.array(value_V), np.array(count_V), draws, rng))


def _resampled_means(
    value_V: np.ndarray, count_V: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """mean_B of `draws` resamples with replacement."""
    n = int(count_V.sum())
    drawn_BV = rng.multinomial(n, count_V / n, size=draws)
    return drawn_BV @ value_V / n


def _bounds(mean_B: np.ndarray) -> tuple[float, float, float]:
    """The percentile interval, and the p-value at which it would just touch zero.

    One is added to each count, as no number of draws can prove that p is 0.
    """
    low, high = np.quantile(mean_B, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    tail = min((mean_B <= 0).sum(), (mean_B >= 0).sum())
    p = min(1.0, 2 * (int(tail) + 1) / (len(mean_B) + 1))
    return float(low), float(high), p
