"""Logits and labels -> precision and recall of each class, at every threshold.

N images, C classes, K of them, T thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fgvc.metrics.classification import log_probabilities, readable
from fgvc.types import ThresholdCounts

CHUNK_IMAGES = 4096  # images whose probabilities are in memory at once


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision (1 without positive predictions) and recall per threshold, with their counts.

    hit_T, false_T: true and false positives. passed_T, missed_T: true and false negatives.
    """

    hit_T: np.ndarray
    false_T: np.ndarray
    passed_T: np.ndarray
    missed_T: np.ndarray
    precision_T: np.ndarray
    recall_T: np.ndarray


class ThresholdCounter:
    """Counts every class against the rest, at thresholds evenly spaced from 0 to 1, by blocks."""

    def __init__(self, classes: int, thresholds: int) -> None:
        self._reached_CT = np.zeros((classes, thresholds), np.int64)
        self._hit_CT = np.zeros((classes, thresholds), np.int64)

    def add(self, prob_NC: np.ndarray, label_N: np.ndarray) -> None:
        """Count readable images."""
        classes, thresholds = self._reached_CT.shape
        # the highest threshold that a probability reaches; 1 + 1e-16 counts as 1
        reached_NC = np.minimum(prob_NC * (thresholds - 1), thresholds - 1).astype(np.int64)
        cell_NC = reached_NC + np.arange(classes) * thresholds
        own_N = np.take_along_axis(cell_NC, label_N[:, None], axis=1)[:, 0]
        for count_CT, cells in ((self._reached_CT, cell_NC.ravel()), (self._hit_CT, own_N)):
            count_CT += np.bincount(cells, minlength=count_CT.size).reshape(count_CT.shape)

    def counts(self, label_N: np.ndarray) -> ThresholdCounts:
        """The counts; label_N: of all images, also of the unreadable ones.

        An unreadable image is a false negative at every threshold: it counts in the support.
        """
        # from counts by the highest threshold reached to counts of images that reach a threshold
        hit_CT, all_CT = (
            count_CT[:, ::-1].cumsum(axis=1)[:, ::-1]
            for count_CT in (self._hit_CT, self._reached_CT)
        )
        support_C = np.bincount(label_N, minlength=len(hit_CT))
        return ThresholdCounts(hit_CT, all_CT - hit_CT, support_C, len(label_N))


def count_by_threshold(
    logits_NC: np.ndarray, label_N: np.ndarray, thresholds: int
) -> ThresholdCounts:
    """The counts of a ThresholdCounter, from logits."""
    counter, readable_N = ThresholdCounter(logits_NC.shape[1], thresholds), readable(logits_NC)
    for start in range(0, len(label_N), CHUNK_IMAGES):
        rows = start + np.flatnonzero(readable_N[start : start + CHUNK_IMAGES])
        counter.add(np.exp(log_probabilities(logits_NC[rows])), label_N[rows])
    return counter.counts(label_N)


def add_counts(parts: Sequence[ThresholdCounts]) -> ThresholdCounts:
    """The counts of all images of several disjoint sets; at least one set."""
    return ThresholdCounts(
        sum((part.hit_CT for part in parts[1:]), parts[0].hit_CT),
        sum((part.false_CT for part in parts[1:]), parts[0].false_CT),
        sum((part.support_C for part in parts[1:]), parts[0].support_C),
        sum(part.images for part in parts),
    )


def of_class(counts: ThresholdCounts, label: int) -> PrecisionRecallCurve:
    return _curve(counts, np.array([label]))


def micro(counts: ThresholdCounts) -> PrecisionRecallCurve:
    """The micro average: each pair of an image and a class is an item."""
    return _curve(counts, np.arange(len(counts.support_C)))


def macro(counts: ThresholdCounts) -> PrecisionRecallCurve:
    """The macro average at each threshold, with the counts of `micro`.

    Recall is the mean over classes with images; precision is the mean over those of these classes
    that have positive predictions.
    """
    supported_C = counts.support_C > 0
    hit_CT, false_CT = counts.hit_CT[supported_C], counts.false_CT[supported_C]
    total_CT = hit_CT + false_CT
    classes_T = (total_CT > 0).sum(axis=0)
    precision_T = (hit_CT / np.maximum(total_CT, 1)).sum(axis=0) / np.maximum(classes_T, 1)
    recall_T = (hit_CT / counts.support_C[supported_C, None]).mean(axis=0)
    return replace(
        micro(counts), precision_T=np.where(classes_T > 0, precision_T, 1), recall_T=recall_T
    )


def _curve(counts: ThresholdCounts, label_K: np.ndarray) -> PrecisionRecallCurve:
    hit_T, false_T = counts.hit_CT[label_K].sum(axis=0), counts.false_CT[label_K].sum(axis=0)
    support = int(counts.support_C[label_K].sum())
    total_T = hit_T + false_T
    return PrecisionRecallCurve(
        hit_T,
        false_T,
        counts.images * len(label_K) - support - false_T,
        support - hit_T,
        np.where(total_T > 0, hit_T / np.maximum(total_T, 1), 1),
        hit_T / max(support, 1),
    )
