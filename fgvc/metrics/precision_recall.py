"""Logits and labels -> precision and recall of each class, at every threshold.

N images, C classes, K of them, T thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fgvc.metrics.classification import log_probabilities, readable

CHUNK_IMAGES = 4096  # images whose probabilities are in memory at once


@dataclass(frozen=True)
class ThresholdCounts:
    """Counts of every class against the rest, over all `images`.

    hit_CT, false_CT: true and false positives of a class, that is, images whose probability of the
    class reaches the threshold. support_C: images of the class.
    """

    hit_CT: np.ndarray
    false_CT: np.ndarray
    support_C: np.ndarray
    images: int


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


def count_by_threshold(
    logits_NC: np.ndarray, label_N: np.ndarray, thresholds: int
) -> ThresholdCounts:
    """Count every class against the rest, at thresholds evenly spaced from 0 to 1.

    An unreadable image is a false negative at every threshold: it counts in the support.
    """
    classes = logits_NC.shape[1]
    all_CT = np.zeros((classes, thresholds), np.int64)
    hit_CT = np.zeros((classes, thresholds), np.int64)
    readable_N = readable(logits_NC)
    logits_NC, readable_label_N = logits_NC[readable_N], label_N[readable_N]
    for start in range(0, len(readable_label_N), CHUNK_IMAGES):
        part = slice(start, start + CHUNK_IMAGES)
        # the highest threshold that a probability reaches; 1 + 1e-16 counts as 1
        prob_NC = np.exp(log_probabilities(logits_NC[part]))
        reached_NC = np.minimum(prob_NC * (thresholds - 1), thresholds - 1).astype(np.int64)
        cell_NC = reached_NC + np.arange(classes) * thresholds
        own_N = np.take_along_axis(cell_NC, readable_label_N[part, None], axis=1)[:, 0]
        all_CT += np.bincount(cell_NC.ravel(), minlength=all_CT.size).reshape(all_CT.shape)
        hit_CT += np.bincount(own_N, minlength=all_CT.size).reshape(all_CT.shape)
    # from counts by the highest threshold reached to counts of images that reach a threshold
    hit_CT, all_CT = (count_CT[:, ::-1].cumsum(axis=1)[:, ::-1] for count_CT in (hit_CT, all_CT))
    support_C = np.bincount(label_N, minlength=classes)
    return ThresholdCounts(hit_CT, all_CT - hit_CT, support_C, len(label_N))


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
