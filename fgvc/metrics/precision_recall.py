"""Logits and labels -> precision and recall of each class, at every threshold.

N images, C classes, K of them, T thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fgvc.metrics.classification import log_probabilities, readable

CHUNK_IMAGES = 4096  # images whose probabilities are held at once


@dataclass(frozen=True)
class ThresholdCounts:
    """Every class against the rest, of all `images`.

    hit_CT, false_CT: images whose probability of the class reaches the threshold and that show
    that class, or another one. support_C: images that show it.
    """

    hit_CT: np.ndarray
    false_CT: np.ndarray
    support_C: np.ndarray
    images: int


@dataclass(frozen=True)
class Curve:
    """Precision (1 where nothing is found) and recall by threshold, and the counts behind them.

    hit_T, false_T: found rightly and wrongly. missed_T, passed_T: left out wrongly and rightly.
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
    """Every class against the rest, at thresholds evenly spaced from 0 to 1.

    An unreadable image is found at no threshold and missed at each: it stays in the support.
    """
    classes = logits_NC.shape[1]
    all_CT = np.zeros((classes, thresholds), np.int64)
    hit_CT = np.zeros((classes, thresholds), np.int64)
    readable_N = readable(logits_NC)
    logits_NC, known_N = logits_NC[readable_N], label_N[readable_N]
    for start in range(0, len(known_N), CHUNK_IMAGES):
        part = slice(start, start + CHUNK_IMAGES)
        # the highest threshold that a probability reaches; one of 1 + 1e-16 is 1
        prob_NC = np.exp(log_probabilities(logits_NC[part]))
        reached_NC = np.minimum(prob_NC * (thresholds - 1), thresholds - 1).astype(np.int64)
        cell_NC = reached_NC + np.arange(classes) * thresholds
        own_N = np.take_along_axis(cell_NC, known_N[part, None], axis=1)[:, 0]
        all_CT += np.bincount(cell_NC.ravel(), minlength=all_CT.size).reshape(all_CT.shape)
        hit_CT += np.bincount(own_N, minlength=all_CT.size).reshape(all_CT.shape)
    hit_CT, all_CT = (_at_least(count_CT) for count_CT in (hit_CT, all_CT))
    support_C = np.bincount(label_N, minlength=classes)
    return ThresholdCounts(hit_CT, all_CT - hit_CT, support_C, len(label_N))


def of_class(found: ThresholdCounts, label: int) -> Curve:
    """The curve of one class."""
    return _curve(found, np.array([label]))


def micro(found: ThresholdCounts) -> Curve:
    """All classes as if they were one: each image and class is an item."""
    return _curve(found, np.arange(len(found.support_C)))


def macro(found: ThresholdCounts) -> Curve:
    """The mean of the classes' curves, threshold by threshold, beside the counts of `micro`.

    Recall is the mean over classes with images, precision over those of them that anything was
    found of.
    """
    held_C = found.support_C > 0
    hit_CT, false_CT = found.hit_CT[held_C], found.false_CT[held_C]
    total_CT = hit_CT + false_CT
    finding_T = (total_CT > 0).sum(axis=0)
    precision_T = (hit_CT / np.maximum(total_CT, 1)).sum(axis=0) / np.maximum(finding_T, 1)
    recall_T = (hit_CT / found.support_C[held_C, None]).mean(axis=0)
    return replace(
        micro(found), precision_T=np.where(finding_T > 0, precision_T, 1), recall_T=recall_T
    )


def _curve(found: ThresholdCounts, label_K: np.ndarray) -> Curve:
    hit_T, false_T = found.hit_CT[label_K].sum(axis=0), found.false_CT[label_K].sum(axis=0)
    support = int(found.support_C[label_K].sum())
    total_T = hit_T + false_T
    return Curve(
        hit_T,
        false_T,
        found.images * len(label_K) - support - false_T,
        support - hit_T,
        np.where(total_T > 0, hit_T / np.maximum(total_T, 1), 1),
        hit_T / max(support, 1),
    )


def _at_least(count_CT: np.ndarray) -> np.ndarray:
    """How many reach a threshold, from how many have it as their highest."""
    return count_CT[:, ::-1].cumsum(axis=1)[:, ::-1]
