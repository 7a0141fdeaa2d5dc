"""Class indices -> the nonzero cells of their confusion matrix, its scores and its worst pairs.

The work grows with the number of images and of classes, not with the square of the classes: 95,986
images of 5,089 classes have some 15,000 nonzero cells of 26 million. N images, C classes, V cells.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from fgvc.types import ConfusionCounts

UNREADABLE = -1


class Pair(TypedDict):
    """Images of class `label` that were predicted as class `pred`."""

    label: int
    pred: int
    count: int


def tally(pred_N: np.ndarray, label_N: np.ndarray, classes: int) -> ConfusionCounts:
    """The confusion matrix of predicted and true class indices.

    Args:
        pred_N: UNREADABLE for images that could not be read.

    Raises:
        ValueError: a class index is out of range.
    """
    both = np.concatenate([label_N, pred_N])
    if len(both) and not (label_N.min() >= 0 and UNREADABLE <= both.min() <= both.max() < classes):
        raise ValueError(f"a class index that is not of the {classes} classes")
    column_N = np.where(pred_N == UNREADABLE, classes, pred_N)
    cell_V, count_V = np.unique(
        label_N.astype(np.int64) * (classes + 1) + column_N, return_counts=True
    )
    return ConfusionCounts(classes, *np.divmod(cell_V, classes + 1), count_V.astype(np.int64))


def worst_pairs(counts: ConfusionCounts, k: int) -> list[Pair]:
    """The k most frequent confusions of two classes, or fewer; ties by truth, then prediction."""
    wrong_V = (counts.truth_V != counts.pred_V) & (counts.pred_V < counts.classes)
    truth_V, pred_V, count_V = (
        values_V[wrong_V] for values_V in (counts.truth_V, counts.pred_V, counts.count_V)
    )
    order = np.argsort(-count_V, kind="stable")[:k]
    return [
        Pair(label=int(truth_V[cell]), pred=int(pred_V[cell]), count=int(count_V[cell]))
        for cell in order
    ]


def class_scores(counts: ConfusionCounts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """precision, recall and F1 per class: fractions, 0 where the denominator is 0."""
    precision_C = counts.hit_C / np.maximum(counts.predicted_C, 1)
    recall_C = counts.hit_C / np.maximum(counts.support_C, 1)
    f1_C = 2 * counts.hit_C / np.maximum(counts.support_C + counts.predicted_C, 1)
    return precision_C, recall_C, f1_C
