"""Probabilities and labels -> expected calibration error.

N images, C classes, M bins.
"""

from __future__ import annotations

import numpy as np

BINS = 15


def expected_calibration_error(confidence_N: np.ndarray, right_N: np.ndarray) -> float:
    """Mean |accuracy - confidence| over BINS equal-width bins, weighted by the bins' counts.

    Source: Guo et al., ICML 2017, eq. 3, for the top label. A bin includes its lower edge; the last
    bin includes 1.

    Args:
        confidence_N: probability of the predicted class, in 0..1.
        right_N: whether the prediction was right.

    Returns:
        A fraction in 0..1; 0 without images.
    """
    if len(confidence_N) == 0:
        return 0.0
    edge_M = np.linspace(0, 1, BINS + 1)[1:-1]
    bin_N = np.searchsorted(edge_M, confidence_N, side="right")
    surplus_M = np.bincount(bin_N, weights=right_N - confidence_N, minlength=BINS)
    return float(np.abs(surplus_M).sum() / len(confidence_N))
