"""Logits -> the margin of a class over all others, and how much of it another forward pass takes.

N images, C classes.
"""

from __future__ import annotations

import numpy as np

ROWS = 4096  # per block: the logits of a large test set are not copied as a whole


def margins(logits_NC: np.ndarray, index_N: np.ndarray) -> np.ndarray:
    """float64 logit of a class minus the largest logit of the others; infinite for C = 1.

    It is negative if another class has a larger logit.
    """
    margin_N = np.empty(len(logits_NC))
    for start in range(0, len(logits_NC), ROWS):
        rows = slice(start, start + ROWS)
        block_nC = logits_NC[rows].astype(np.float64)
        own_n1 = index_N[rows, None]
        own_n = np.take_along_axis(block_nC, own_n1, axis=1)[:, 0]
        np.put_along_axis(block_nC, own_n1, -np.inf, axis=1)
        margin_N[rows] = own_n - block_nC.max(axis=1)  # -inf where there is no other class
    return margin_N


def score_margins(score_NK: np.ndarray) -> np.ndarray:
    """float64 margin of each prediction from its two largest probabilities; infinite for K = 1.

    NaN for unreadable images.
    """
    if score_NK.shape[1] == 1:
        return np.where(np.isnan(score_NK[:, 0]), np.nan, np.inf)
    with np.errstate(divide="ignore"):  # a probability that underflows: an infinite margin
        log_N2 = np.log(score_NK[:, :2])
    return log_N2[:, 0] - log_N2[:, 1]


def margin_losses(fast_NC: np.ndarray, exact_NC: np.ndarray) -> np.ndarray:
    """By how much the margin of the fast prediction is smaller in the exact logits.

    The exact prediction is another class only if this is at least the fast margin. Negative where
    the margin grows.
    """
    if fast_NC.shape[1] == 1:  # a single class keeps its infinite margin
        return np.zeros(len(fast_NC))
    index_N = fast_NC.argmax(axis=1)
    return margins(fast_NC, index_N) - margins(exact_NC, index_N)
