"""Confusion matrix -> macro-F1 corrected for its bias, and its variance between test sets.

C classes with support, M kinds of mistakes (pairs of a true and another predicted class), Q nodes
of a quadrature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fgvc.types import ConfusionCounts

NODE_Q, WEIGHT_Q = np.polynomial.laguerre.laggauss(16)


@dataclass(frozen=True)
class ClassCounts:
    """Images of a confusion matrix.

    support_C, hit_C: images of a class, and images predicted correctly.
    false_C: images of other classes predicted as this class.
    truth_M, predicted_M, count_M: each kind of mistake and its number of images. predicted_M is C
        for predictions of a class without support and for unreadable images.
    """

    support_C: np.ndarray
    hit_C: np.ndarray
    false_C: np.ndarray
    truth_M: np.ndarray
    predicted_M: np.ndarray
    count_M: np.ndarray


def count_classes(confusion: ConfusionCounts) -> tuple[ClassCounts, int]:
    """Counts of a confusion matrix, and the number of classes with support or predictions."""
    classes = confusion.classes
    (supported_C,) = np.nonzero(confusion.support_C)
    position = np.full(classes + 1, len(supported_C))
    position[supported_C] = np.arange(len(supported_C))
    wrong_V = confusion.truth_V != confusion.pred_V
    hit_C = confusion.hit_C[supported_C]
    counts = ClassCounts(
        support_C=confusion.support_C[supported_C].astype(float),
        hit_C=hit_C.astype(float),
        false_C=(confusion.predicted_C[supported_C] - hit_C).astype(float),
        truth_M=position[confusion.truth_V[wrong_V]],
        predicted_M=position[confusion.pred_V[wrong_V]],
        count_M=confusion.count_V[wrong_V].astype(float),
    )
    return counts, int((confusion.support_C + confusion.predicted_C > 0).sum())


def image_variance(recall_C: np.ndarray, support_C: np.ndarray) -> np.ndarray:
    """Variance of "predicted correctly" within a class, unbiased.

    One image has no variance: classes of one image count as a single class (collapsed strata,
    Cochran 1977, sec. 5A.12).
    """
    variance_C = recall_C * (1 - recall_C) * support_C / np.maximum(support_C - 1, 1)
    single_C = support_C == 1
    singles = int(single_C.sum())
    if singles:
        share = float(recall_C[single_C].mean() if singles > 1 else recall_C.mean())
        variance_C[single_C] = share * (1 - share) * singles / max(singles - 1, 1)
    return variance_C


def shrink_rates(rate_C: np.ndarray, support_C: np.ndarray, noise: float) -> np.ndarray:
    """Rates per image, shrunk until their spread is the estimated spread without sampling noise.

    The spread between classes is estimated by analysis of variance. Shrinking by the square root of
    the usual factor keeps it (constrained empirical Bayes, Louis, JASA 1984).

    Args:
        noise: variance of the rate of one image.
    """
    total = support_C.sum()
    grand = (support_C * rate_C).sum() / total
    size = total - (support_C**2).sum() / total
    excess = (support_C * (rate_C - grand) ** 2).sum() - (len(rate_C) - 1) * noise
    spread = excess / size if excess > 0 and size > 0 else 0.0
    factor_C = spread / (spread + noise / support_C) if spread > 0 else np.zeros_like(rate_C)
    mean = rate_C.mean()
    return mean + np.sqrt(factor_C) * (rate_C - mean)


def macro_f1(
    counts: ClassCounts, recall_C: np.ndarray, variances: tuple[np.ndarray, ...]
) -> tuple[float, float, float]:
    """Mean F1 of the classes with support: observed, corrected for its bias, its variance.

    Bias and variance are those of a classifier with smoothed rates. The delta method is too small
    with few images per class: it is scaled by the exact variance of one class over its own delta
    method.

    Args:
        recall_C: smoothed. variances: `image_variance` of each class, as alternatives.
    """
    support_C, total = counts.support_C, counts.support_C.sum()
    observed = float((2 * counts.hit_C / (support_C + counts.hit_C + counts.false_C)).mean())
    dispersion = _false_dispersion(counts)
    noise = dispersion * counts.false_C.sum() / total
    false_C = support_C * np.maximum(shrink_rates(counts.false_C / support_C, support_C, noise), 0)
    size_C = support_C * (1 + recall_C) + false_C
    f1_C = 2 * support_C * recall_C / size_C
    mean_C, exact_C = f1_moments(support_C, recall_C, false_C, dispersion)
    corrected = min(max(observed - float((mean_C - f1_C).mean()), 0.0), 1.0)
    # contribution of one image: a hit to the F1 of its class, a mistake to that of the predicted
    hit_C, mistake_C = (2 - f1_C) / size_C, -f1_C / size_C
    delta = max(_delta_variance(counts, recall_C, v_C, hit_C, mistake_C) for v_C in variances)
    own = support_C * recall_C * (1 - recall_C) * hit_C**2 + dispersion * false_C * mistake_C**2
    scale = float(exact_C.sum() / own.sum()) if own.sum() > 0 else 1.0
    return observed, corrected, scale * delta / len(f1_C) ** 2


def _delta_variance(
    counts: ClassCounts,
    recall_C: np.ndarray,
    variance_C: np.ndarray,
    hit_C: np.ndarray,
    mistake_C: np.ndarray,
) -> float:
    """Variance of a sum over images: `hit_C` of a hit, `mistake_C` of the wrong class predicted.

    The classes of the mistakes are pooled over all true classes.
    """
    mistake_M = np.append(mistake_C, 0.0)[counts.predicted_M]
    images = max(float(counts.count_M.sum()), 1.0)
    mean = float((counts.count_M * mistake_M).sum()) / images
    spread = max(float((counts.count_M * mistake_M**2).sum()) / images - mean**2, 0.0)
    image_C = variance_C * (hit_C - mean) ** 2 + (1 - recall_C) * spread
    return float((counts.support_C * image_C).sum())


def _false_dispersion(counts: ClassCounts) -> float:
    """Variance over mean of the number of false positives: 1 if spread thinly over the classes.

    Below 1 where images of a class are mostly mistaken for the same other class.
    """
    support_M = counts.support_C[counts.truth_M]
    count_M = counts.count_M
    binomial_M = count_M * (support_M - count_M) / np.maximum(support_M - 1, 1)
    variance_M = np.where(support_M > 1, binomial_M, count_M)
    total = float(count_M.sum())
    return min(float(variance_M.sum()) / total, 1.0) if total else 1.0


def f1_moments(
    support_C: np.ndarray, recall_C: np.ndarray, false_C: np.ndarray, dispersion: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of 2 h / (n + h + f) over test sets: h hits, f false positives.

    h is binomial(n, recall), f independent and binomial with mean `false_C` and `dispersion` (1:
    Poisson). With 1 / d the integral of t^(d - 1) over t in 0..1, and 1 / d^2 that of
    -log(t) t^(d - 1), both moments are integrals of generating functions. t = exp(-v / E[d]) makes
    them Gauss-Laguerre sums over v.
    """
    n_C1, recall_C1, false_C1 = (x_C[:, None] for x_C in (support_C, recall_C, false_C))
    size_C1 = n_C1 * (1 + recall_C1) + false_C1
    away_CQ = -np.expm1(-NODE_Q / size_C1)  # 1 - t
    miss_CQ = np.log1p(-recall_C1 * away_CQ)
    certain = 1 - dispersion
    if certain > 1e-6:
        false_CQ = false_C1 / certain * np.log1p(-certain * away_CQ)
    else:
        false_CQ = -false_C1 * away_CQ
    rest_CQ = NODE_Q * (1 - (n_C1 + 1) / size_C1) + false_CQ
    weight_C = 2 * support_C * recall_C / size_C1[:, 0]
    mean_C = weight_C * (np.exp(rest_CQ + (n_C1 - 1) * miss_CQ) @ WEIGHT_Q)
    pair_CQ = 1 - recall_C1 * away_CQ + (n_C1 - 1) * recall_C1 * (1 - away_CQ)
    square_CQ = NODE_Q * pair_CQ * np.exp(rest_CQ + (n_C1 - 2) * miss_CQ)
    square_C = 2 * weight_C / size_C1[:, 0] * (square_CQ @ WEIGHT_Q)
    return mean_C, np.maximum(square_C - mean_C**2, 0)
