"""Counts -> confidence intervals.

C classes with support.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.special import betaincinv

from fgvc.metrics.macro_f1 import ClassCounts, count_classes, image_variance, macro_f1, shrink_rates
from fgvc.types import ConfusionCounts

LEVEL = 0.95
PRIOR_IMAGES = 4.0  # about z squared, as Agresti & Coull (American Statistician 1998) add
# Below these, `benchmarks/class_intervals.py` finds intervals wider than 1.5 times the spread of
# the number, and for some classifiers a coverage below 93 %.
FEW_MISTAKES, FEW_IMAGES = 4, 5


def wilson(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson, JASA 1927), without continuity correction.

    Returns:
        (low, high), fractions in 0..1; (0, 1) if n is 0.
    """
    assert 0 <= successes <= n
    assert 0 < level < 1
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    proportion = successes / n
    centre = (proportion + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (proportion * (1 - proportion) / n + z * z / (4 * n * n)) ** 0.5
    # exactly 0 without successes and 1 without failures, in spite of rounding
    low = 0.0 if successes == 0 else max(centre - half, 0.0)
    high = 1.0 if successes == n else min(centre + half, 1.0)
    return low, high


def upper_limit(count: int, n: int, level: float = LEVEL) -> float:
    """One-sided upper limit of a proportion (Clopper & Pearson, Biometrika 1934), exact.

    With count = 0 it is 1 - (1 - level)^(1/n): below 1 % from n = 299 on, at 95 %.

    Args:
        count: of the n images that were drawn. level: of confidence.
    """
    assert 0 <= count <= n
    return 1.0 if count == n else float(betaincinv(count + 1, n - count, level))


def class_intervals(confusion: ConfusionCounts) -> dict[str, Any]:
    """95 % intervals of the two metrics that average over classes, in closed form.

    Both are intervals for the value of a very large test set with the same class proportions;
    macro-F1 is averaged over the same classes. The number of images per class counts as fixed.

    An interval is the exact binomial interval (Clopper & Pearson, Biometrika 1934) of the effective
    number of images: the size of a binomial sample with the same variance (Korn & Graubard, Survey
    Methodology 1998). The variance of macro-F1 follows from the delta method (Takahashi et al.,
    Applied Intelligence 2022). With few images per class, macro-F1 is below its value on a very
    large test set on average. Its interval is that of the corrected value, extended to the reported
    value where it does not contain it.

    Args:
        confusion: of at least one image.

    Returns:
        mean_per_class_ci95 and macro_f1_ci95, each [low, high], of the numbers as `evaluate`
        defines them. intervals_note: a warning about both, or None.
    """
    counts, averaged = count_classes(confusion)
    recall_C = counts.hit_C / counts.support_C
    variance_C = image_variance(recall_C, counts.support_C)
    noise = float(np.average(variance_C, weights=counts.support_C))
    smooth_C = np.clip(shrink_rates(recall_C, counts.support_C, noise), 0, 1)
    # The first variance is noisy with few images per class; the second is biased if the classifier
    # is worse on small classes. The larger variance covers both cases.
    variances = (variance_C, smooth_C * (1 - smooth_C))
    mean = float(recall_C.mean())
    variance = max(float((v_C / counts.support_C).mean()) for v_C in variances) / len(recall_C)
    f1, corrected, f1_variance = macro_f1(counts, smooth_C, variances)
    share = len(recall_C) / averaged  # the F1 of classes without support is 0 in any test set
    f1_interval = _interval(f1, corrected, f1_variance, counts.support_C)
    return {
        "mean_per_class_ci95": _interval(mean, mean, variance, counts.support_C),
        "macro_f1_ci95": [share * bound for bound in f1_interval],
        "intervals_note": _note(counts),
    }


def _interval(
    reported: float, estimate: float, variance: float, support_C: np.ndarray
) -> list[float]:
    """Exact binomial interval at the effective number of images, extended to `reported`.

    The variance of PRIOR_IMAGES mistakes, spread evenly over the images, is added to both
    variances. Thus the effective number is finite even without mistakes. It then equals the number
    of images if all classes have equally many.
    """
    images = float(support_C.sum())
    unit = float((1 / support_C).mean()) / len(support_C)
    prior = PRIOR_IMAGES / images
    n = (estimate * (1 - estimate) + prior) / (variance + prior * unit)
    hits = estimate * n
    tail = (1 - LEVEL) / 2
    low = 0.0 if hits < 1e-9 else float(betaincinv(hits, n - hits + 1, tail))
    high = 1.0 if n - hits < 1e-9 else float(betaincinv(hits + 1, n - hits, 1 - tail))
    return [min(low, reported), max(high, reported)]


def _note(counts: ClassCounts) -> str | None:
    """Why the intervals may be wide or cover less than 95 %; None if there is no reason."""
    images, hits = int(counts.support_C.sum()), int(counts.hit_C.sum())
    per_class = round(len(counts.support_C) / float((1 / counts.support_C).sum()), 6)
    few = [
        f"{number} of {images} images {name}"
        for name, number in (("wrong", images - hits), ("right", hits))
        if number < FEW_MISTAKES
    ]
    notes = []
    if few:
        notes.append(
            f"{' and '.join(few)}: the intervals of mean per class and macro-F1 can be several "
            "times as wide as the spread of these numbers"
        )
    if per_class < FEW_IMAGES:
        notes.append(
            f"{per_class:.3g} images per class (harmonic mean): if a few classes make most "
            "mistakes, the 95 % interval of macro-F1 covers about 90 %"
        )
    return "; ".join(notes) or None
