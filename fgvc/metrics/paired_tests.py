"""Predictions of two models on the same images -> exact paired tests of their difference.

Row i of both arguments is the same image; a positive difference means that a is better. Images that
both models predict correctly, or both wrongly, do not change any p. The null hypothesis is over
images only, see NULL_HYPOTHESIS. `holm` adjusts the p-values of a family of such tests.
N images, S seeds, M distinct magnitudes of a difference, W values of a sum.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

from fgvc.metrics.bootstrap import LEVEL, Difference, bootstrap_top1

NULL_HYPOTHESIS = (
    "these trained models have equal accuracy on other images of the kind; "
    "the test does not generalize to other seeds"
)
MAX_CHOICES = 300  # 5 seeds of 10 are 252 choices; an exact test takes about a millisecond
TINY = float(np.finfo(np.float64).tiny)  # replaces a p-value of 0 in a logarithm


@dataclass(frozen=True)
class Discordance:
    """Images that only a, or only b, predicts correctly, and the p of McNemar's exact test."""

    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True)
class Top1Comparison(Difference):
    """Top-1 of a minus top-1 of b with its 95 % interval, and the p of `test`.

    test: mcnemar (one prediction per image on both sides), sign_flip (equal numbers of seeds), or
    sign_flip_subsets (unequal numbers of seeds).
    same_right: on every image, the share of seeds with a correct prediction is equal.
    """

    test: str
    p: float
    same_right: bool


def compare_top1(right_a_SN: np.ndarray, right_b_SN: np.ndarray) -> Top1Comparison:
    """Difference in top-1 of two models of any number of seeds: interval by bootstrap, exact p.

    Swapping a and b negates the difference and its interval exactly and leaves p as it is.

    Args:
        right_a_SN, right_b_SN: bool, of the same images.
    """
    a_SN, b_SN = remove_repeats(right_a_SN), remove_repeats(right_b_SN)
    if len(a_SN) == len(b_SN):
        test = "mcnemar" if len(a_SN) == 1 else "sign_flip"
    else:
        test = "sign_flip_subsets"
    p, same = sign_flip(a_SN, b_SN), not _differences(a_SN, b_SN).any()
    difference = interval_top1(a_SN, b_SN, p, 1 - LEVEL)
    return Top1Comparison(**vars(difference), test=test, p=p, same_right=same)


def interval_top1(
    right_a_SN: np.ndarray, right_b_SN: np.ndarray, p: float, alpha: float
) -> Difference:
    """Difference in top-1 with the interval of level 1 - alpha that agrees with p.

    The bootstrap and the exact test are two methods and may disagree near the border, where the
    exact test nearly always finds less. The test decides: with p > alpha the interval is extended
    to 0; with p <= alpha it ends at 0 if it would contain both signs.

    Args:
        right_a_SN, right_b_SN: bool, of the same images.
        p: of `compare_top1`.
    """
    a_SN, b_SN = remove_repeats(right_a_SN), remove_repeats(right_b_SN)
    plain = bootstrap_top1(_differences(a_SN, b_SN), len(a_SN) * len(b_SN), 1 - alpha)
    if p > alpha:
        return Difference(plain.value, min(plain.low, 0.0), max(plain.high, 0.0))
    if plain.value > 0:
        return Difference(plain.value, max(plain.low, 0.0), plain.high)
    return Difference(plain.value, plain.low, min(plain.high, 0.0))


def mcnemar(right_a_N: np.ndarray, right_b_N: np.ndarray) -> Discordance:
    """McNemar's test as a two-sided exact binomial test, without the mid-p correction.

    If neither model is better, an image that only one model predicts correctly is equally often a's
    and b's (McNemar, Psychometrika 1947). p is 1 without such images.

    Args:
        right_a_N, right_b_N: bool.
    """
    assert right_a_N.dtype == right_b_N.dtype == np.bool_
    assert right_a_N.shape == right_b_N.shape
    only_a = int((right_a_N & ~right_b_N).sum())
    only_b = int((right_b_N & ~right_a_N).sum())
    p = 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))
    return Discordance(only_a, only_b, min(p, 1.0))


def sign_flip(right_a_SN: np.ndarray, right_b_SN: np.ndarray) -> float:
    """Two-sided p of the exact paired permutation test over images (Fisher 1935).

    With equal numbers of seeds, the predictions of a and of b on an image are swapped as blocks
    with probability 1/2, which flips the sign of the image's difference. The p is exact if
    the two blocks are exchangeable on every image. With one seed each, or if the seeds of a model
    agree on every image, it is equal to the p of McNemar's exact test.

    With unequal numbers of seeds, a swap is not a symmetry: a mistake of a single seed weighs as
    much as the mistakes of all seeds of the other model. Near the ceiling, plain sign flips
    reject up to four times too often at p = .0005 (1 against 10 seeds, 200 images, accuracy .97).
    The test therefore compares the smaller side with equally many seeds of the larger side, for
    each choice of these seeds, and returns the geometric mean of the exact p-values. The mean is at
    most e times too small under any dependence (Vovk & Wang, "Combining p-values via averaging",
    Biometrika 2020). It was conservative in every simulated cell
    (`benchmarks/family_wise_error.py`), but loses power if seeds disagree. The p does not depend on
    the order of the seeds. If there are more than MAX_CHOICES choices, only cyclic windows enter,
    one starting at each seed, so that the p depends on the order of the seeds of the larger side.

    Args:
        right_a_SN, right_b_SN: bool; S may differ. `remove_repeats` removes repeats.
    """
    few_SN, many_SN = sorted(map(remove_repeats, (right_a_SN, right_b_SN)), key=len)
    if len(few_SN) == len(many_SN):
        return _exact_p(_differences(few_SN, many_SN))
    size, seeds = len(few_SN), len(many_SN)
    choices = itertools.combinations(range(seeds), size)
    if math.comb(seeds, size) > MAX_CHOICES:
        choices = (tuple((first + k) % seeds for k in range(size)) for first in range(seeds))
    p = [_exact_p(_differences(few_SN, many_SN[list(rows)])) for rows in choices]
    # fsum, because the order of the choices must not show in the last digit
    return math.exp(math.fsum(math.log(max(value, TINY)) for value in p) / len(p))


def remove_repeats(right_SN: np.ndarray) -> np.ndarray:
    """Remove repeats: if every distinct row occurs a multiple of k times, keep 1 / k of each.

    A run without random draws gives the same predictions for every seed.

    Args:
        right_SN: bool.
    """
    assert right_SN.ndim == 2
    assert right_SN.dtype == np.bool_
    times = Counter(row.tobytes() for row in right_SN)
    shared = math.gcd(*times.values())
    rows, seen = [], Counter[bytes]()
    for index, row in enumerate(right_SN):
        seen[row.tobytes()] += 1
        if seen[row.tobytes()] <= times[row.tobytes()] // shared:
            rows.append(index)
    return right_SN[rows]


def _differences(right_a_SN: np.ndarray, right_b_SN: np.ndarray) -> np.ndarray:
    """surplus_N: the difference in the share of right seeds, in units that make it an integer."""
    assert right_a_SN.shape[1] == right_b_SN.shape[1]
    hits_a_N = right_a_SN.sum(axis=0, dtype=np.int64)
    hits_b_N = right_b_SN.sum(axis=0, dtype=np.int64)
    return len(right_b_SN) * hits_a_N - len(right_a_SN) * hits_b_N


def _exact_p(surplus_N: np.ndarray) -> float:
    """p of the sum of these integers under all flips of their signs."""
    magnitude_M, count_M = np.unique(np.abs(surplus_N[surplus_N != 0]), return_counts=True)
    if not len(magnitude_M):
        return 1.0
    unit = math.gcd(*magnitude_M.tolist())
    steps = tuple((magnitude_M // unit).tolist())
    return _tail(steps, tuple(count_M.tolist()), abs(int(surplus_N.sum())) // unit)


@functools.lru_cache(maxsize=2**14)
def _tail(magnitude_M: tuple[int, ...], count_M: tuple[int, ...], total: int) -> float:
    """P(|T| >= total) of T = sum over M of magnitude * (2 Binomial(count, 1/2) - count).

    Only positive terms are added, to keep the precision of small p. The magnitude with the most
    images is not convolved; it enters through its binomial tail.
    """
    if total == 0:
        return 1.0
    last = max(range(len(count_M)), key=lambda m: count_M[m])
    pmf_W = np.ones(1)  # of the sum of magnitude * Binomial over the other magnitudes
    for m, (magnitude, count) in enumerate(zip(magnitude_M, count_M, strict=True)):
        if m != last:
            pmf_W = _convolve(pmf_W, magnitude, _binomial(count))
    largest = sum(m * n for m, n in zip(magnitude_M, count_M, strict=True))
    slack = (largest - total) // 2  # T <= -total if the sum is at most this
    rest_W = np.arange(min(slack + 1, len(pmf_W)))
    at_most_W = np.minimum((slack - rest_W) // magnitude_M[last], count_M[last])
    tail = pmf_W[: len(rest_W)] @ bdtr(at_most_W, count_M[last], 0.5)
    return min(1.0, 2 * float(tail))


def _convolve(pmf_W: np.ndarray, magnitude: int, pmf_K: np.ndarray) -> np.ndarray:
    """Distribution of W + magnitude * K; each residue of W modulo magnitude separately."""
    summed = np.zeros(len(pmf_W) + magnitude * (len(pmf_K) - 1))
    for remainder in range(min(magnitude, len(pmf_W))):
        summed[remainder::magnitude] = np.convolve(pmf_W[remainder::magnitude], pmf_K)
    return summed


def _binomial(n: int) -> np.ndarray:
    """The n + 1 probabilities of Binomial(n, 1/2), by ratios from the middle outwards."""
    ratio = (n - np.arange(n)) / (1 + np.arange(n))  # of each probability to its predecessor
    middle = n // 2
    above = np.cumprod(ratio[middle:])
    below = np.cumprod(1 / ratio[:middle][::-1])[::-1]
    weight = np.concatenate([below, [1.0], above])
    return weight / weight.sum()


def holm(p_values: Sequence[float], hypotheses: int | None = None) -> list[float]:
    """Holm's step-down adjustment (Scand. J. Statist. 1979), in the order given.

    Comparing the results with .05 keeps the probability of any false rejection among them at 5 %.

    Args:
        hypotheses: size of the family, at least the number of p-values; the other hypotheses count
            as p = 1. If the tests were selected after seeing the predictions, the family contains
            all tests that could have been selected (`all_pairs`).
    """
    m = len(p_values) if hypotheses is None else hypotheses
    assert m >= len(p_values)
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for step, i in enumerate(order):
        highest = max(highest, min(1.0, (m - step) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def holm_alphas(
    p_values: Sequence[float], alpha: float, hypotheses: int | None = None
) -> list[float]:
    """The level at which Holm's procedure decides on each p, in the order given.

    For a rejected hypothesis it is alpha divided by the number of hypotheses left at its step; for
    all others, alpha divided by the number of hypotheses left when the procedure stops. Thus
    p <= level exactly where the adjusted p of `holm` is at most alpha, and an interval of this
    level that agrees with p excludes 0 exactly where Holm finds a difference.

    What the intervals claim: each alone covers its difference with at least 1 - alpha. Jointly,
    only Holm's decisions are guaranteed: bounds that are jointly valid and agree with Holm would
    end at 0 for every rejection, unless all pairs are rejected (Strassburger & Bretz, Statistics in
    Medicine 2008; Brannath, Kluge & Scharpenberg, arXiv 2402.13719).

    Args:
        hypotheses: as in `holm`.
    """
    adjusted = holm(p_values, hypotheses)
    m = len(p_values) if hypotheses is None else hypotheses
    rejections = sum(value <= alpha for value in adjusted)
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    levels = [0.0] * len(p_values)
    for step, i in enumerate(order):
        levels[i] = alpha / (m - min(step, rejections))
    return levels


def all_pairs(models: int) -> int:
    """Size of the family of comparisons with the model that is best on the same images.

    The best model is selected by the same predictions. Any pair may therefore be tested, and the
    family is all pairs: Holm's adjustment over all pairs is valid for any subset of them. For 50
    equally noisy models, its first step requires 4.1 standard errors; Tukey's range, which accounts
    for their correlation, requires 4.0. Hsu's comparison with the best (1996, Multiple Comparisons,
    ch. 4) requires less because it claims less: a model that it rejects as "not the best" may be
    exactly as good as the best.
    """
    return models * (models - 1) // 2
