"""Counts -> confidence intervals.

B draws, C classes.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

LEVEL = 0.95
DRAWS, SEED = 2000, 0  # enough for 95 % limits (Efron & Tibshirani 1993, ch. 19); they repeat


def wilson(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson, JASA 1927), without continuity correction.

    Returns:
        (low, high), fractions in 0..1; (0, 1) where nothing was counted.
    """
    assert 0 <= successes <= n
    assert 0 < level < 1
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    # At none and at all the bound is exactly 0 and 1; rounding would miss it.
    low = 0.0 if successes == 0 else max(centre - half, 0.0)
    high = 1.0 if successes == n else min(centre + half, 1.0)
    return low, high


def class_intervals(
    matrix: np.ndarray, draws: int = DRAWS, seed: int = SEED
) -> dict[str, list[float]]:
    """95 % bootstrap intervals of the two numbers that average over classes.

    Images are resampled within their classes, as a test set fixes how many a class has (Davison &
    Hinkley 1997, sec. 3.2; so does `bootstrap_mean_per_class`). The percentiles are moved by what
    the resamples are off the value on average (Efron & Tibshirani 1993, sec. 10.2): with few images
    a class, macro-F1 would else lie outside its own interval. A class that is always right has no
    spread to resample, so such intervals are somewhat narrow.

    Args:
        matrix: as `confusion` counts it; one image at least.

    Returns:
        mean_per_class_ci95 and macro_f1_ci95, each [low, high], of the numbers as `evaluate`
        defines them.
    """
    observed = _class_means(matrix.sum(axis=1), *_counts(matrix))
    resampled = _resampled(matrix, draws, np.random.default_rng(seed))
    drawn = _class_means(matrix.sum(axis=1), *resampled)
    names = ("mean_per_class_ci95", "macro_f1_ci95")
    return {
        name: _limits(float(value_1[0]), value_B)
        for name, value_1, value_B in zip(names, observed, drawn, strict=True)
    }


def _counts(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """hit_BC, predicted_BC of the images as they are: B = 1."""
    classes = len(matrix)
    return np.diagonal(matrix)[None], matrix[:, :classes].sum(axis=0)[None]


def _class_means(
    support_C: np.ndarray, hit_BC: np.ndarray, predicted_BC: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean recall over classes with support, mean F1 over those with support or predictions."""
    held_C = support_C > 0
    recall_B = (hit_BC[:, held_C] / support_C[held_C]).mean(axis=1)
    counted_BC = support_C + predicted_BC
    f1_BC = 2 * hit_BC / np.maximum(counted_BC, 1)
    return recall_B, f1_BC.sum(axis=1) / (counted_BC > 0).sum(axis=1)


def _resampled(
    matrix: np.ndarray, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """hit_BC, predicted_BC: how often a class was right and was predicted, in each resample.

    A resample of a class is one multinomial draw over the cells of its row that are not empty.
    """
    classes = len(matrix)
    hit_BC = np.zeros((draws, classes), np.int32)
    predicted_BC = np.zeros((draws, classes + 1), np.int32)
    for label, count_C in enumerate(matrix):
        (cell_V,) = np.nonzero(count_C)
        n = int(count_C.sum())
        if n == 0:
            continue
        drawn_BV = rng.multinomial(n, count_C[cell_V] / n, size=draws)
        predicted_BC[:, cell_V] += drawn_BV.astype(np.int32)
        hit_BC[:, label] = drawn_BV[:, cell_V == label].sum(axis=1)
    return hit_BC, predicted_BC[:, :classes]  # without the unreadable


def _limits(value: float, value_B: np.ndarray) -> list[float]:
    moved_B = value_B - (value_B.mean() - value)
    low, high = np.quantile(moved_B, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [max(float(low), 0.0), min(float(high), 1.0)]
