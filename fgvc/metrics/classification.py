"""Logits and labels -> the numbers of metrics.json, per_class.csv and confusion.csv.

Pure functions. A row of -inf represents an image that could not be read: it is predicted as
UNREADABLE and counts as wrong in every accuracy and in recall. Loss and ECE leave it out, because
it has no probabilities. Of equal logits, the lower class index ranks first.
N images, C classes, K predictions per image, M bins of confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

from fgvc.metrics.confidence_intervals import wilson
from fgvc.types import UserError

VERSION = "2"  # raise it with every change that can change a number
UNREADABLE = -1
BINS = 15  # of confidence, for the calibration error


class ClassRow(TypedDict):
    """One class: fractions in 0..1 (0 where the denominator is 0), counts of images.

    recall_low, recall_high: Wilson's 95 % interval of the recall.
    """

    index: int
    name: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int
    recall_low: float
    recall_high: float


class Pair(TypedDict):
    """Images of class `label` that were predicted as class `pred`."""

    label: int
    pred: int
    count: int


def readable(logits_NC: np.ndarray) -> np.ndarray:
    """bool_N: False for rows of -inf only.

    Raises:
        UserError: logits of NaN or +inf, which cannot be ranked.
    """
    bad_N = (np.isnan(logits_NC) | np.isposinf(logits_NC)).any(axis=1)
    if bad_N.any():
        raise UserError(
            f"logits of {int(bad_N.sum())} of {len(logits_NC)} images are NaN or +inf (first: row "
            f"{int(bad_N.argmax())}): check the weights, or run with precision=fp32"
        )
    return np.asarray(np.isfinite(logits_NC).any(axis=1))


def topk(logits_NC: np.ndarray, k: int) -> np.ndarray:
    """int64 index_NK of the k largest logits, largest first; UNREADABLE for unreadable rows."""
    assert 1 <= k <= logits_NC.shape[1]
    readable_N = readable(logits_NC)
    if k == 1:  # the same result without sorting thousands of classes
        index_NK = logits_NC.argmax(axis=1)[:, None]
    else:
        index_NK = np.argsort(-logits_NC, axis=1, kind="stable")[:, :k].astype(np.int64)
    return np.where(readable_N[:, None], index_NK, UNREADABLE)


def log_probabilities(logits_NC: np.ndarray) -> np.ndarray:
    """float64 log-softmax of readable rows."""
    shifted_NC = logits_NC.astype(np.float64) - logits_NC.max(axis=1, keepdims=True)
    return shifted_NC - np.log(np.exp(shifted_NC).sum(axis=1, keepdims=True))


def confusion(logits_NC: np.ndarray, label_N: np.ndarray, classes: int) -> np.ndarray:
    """int64 matrix of `classes` rows (truth) and `classes` + 1 columns (prediction).

    The last column counts the images that could not be read.
    """
    _check(logits_NC, label_N, classes)
    return tally(topk(logits_NC, 1)[:, 0], label_N, classes)


def tally(pred_N: np.ndarray, label_N: np.ndarray, classes: int) -> np.ndarray:
    """The matrix of `confusion` from class indices; the last column counts UNREADABLE.

    Raises:
        ValueError: a class index is out of range.
    """
    both = np.concatenate([label_N, pred_N])
    if len(both) and not (label_N.min() >= 0 and UNREADABLE <= both.min() <= both.max() < classes):
        raise ValueError(f"a class index that is not of the {classes} classes")
    column_N = np.where(pred_N == UNREADABLE, classes, pred_N)
    cell_N = label_N.astype(np.int64) * (classes + 1) + column_N
    return np.bincount(cell_N, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def worst_pairs(matrix: np.ndarray, k: int) -> list[Pair]:
    """The k most frequent confusions of two classes, or fewer; ties by truth, then prediction."""
    classes = len(matrix)
    wrong = matrix[:, :classes].copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:k]
    return [
        Pair(label=int(cell // classes), pred=int(cell % classes), count=int(wrong.flat[cell]))
        for cell in order
        if wrong.flat[cell] > 0
    ]


def per_class(logits_NC: np.ndarray, label_N: np.ndarray, names: Sequence[str]) -> list[ClassRow]:
    """One row for every class, in index order."""
    return class_rows(confusion(logits_NC, label_N, len(names)), names)


def class_rows(matrix: np.ndarray, names: Sequence[str]) -> list[ClassRow]:
    """The rows of `per_class` from the matrix of `confusion`."""
    support_C, predicted_C, precision_C, recall_C, f1_C = _class_scores(matrix)
    limits = [wilson(int(matrix[c, c]), int(support_C[c])) for c in range(len(names))]
    return [
        ClassRow(
            index=index,
            name=name,
            precision=float(precision_C[index]),
            recall=float(recall_C[index]),
            f1=float(f1_C[index]),
            support=int(support_C[index]),
            predicted=int(predicted_C[index]),
            recall_low=limits[index][0],
            recall_high=limits[index][1],
        )
        for index, name in enumerate(names)
    ]


def _class_scores(matrix: np.ndarray) -> tuple[np.ndarray, ...]:
    """support, predicted (counts), precision, recall, F1 (fractions) per class."""
    classes = len(matrix)
    hit_C = np.diagonal(matrix)
    support_C, predicted_C = matrix.sum(axis=1), matrix[:, :classes].sum(axis=0)
    precision_C = hit_C / np.maximum(predicted_C, 1)
    recall_C = hit_C / np.maximum(support_C, 1)
    f1_C = 2 * hit_C / np.maximum(support_C + predicted_C, 1)
    return support_C, predicted_C, precision_C, recall_C, f1_C


def evaluate(logits_NC: np.ndarray, label_N: np.ndarray, classes: int) -> dict[str, Any]:
    """The metrics of one split, as in metrics.json.

    Args:
        logits_NC: float32 or float64; log-probabilities are valid too.
        label_N: class indices.

    Returns:
        top1, top5 (of min(5, C) classes), mean_per_class (recall over classes with support),
        macro_f1 (over classes with support or predictions, as scikit-learn's default), loss (mean
        negative log-likelihood, float64), ece, n, unreadable, top1_ci95 [low, high]. Fractions in
        0..1; loss is None where no image could be read, or infinite where a label's logit is -inf.

    Raises:
        UserError: no images, labels out of range, or logits of NaN or +inf.
    """
    _check(logits_NC, label_N, classes)
    n = len(label_N)
    if n == 0:
        raise UserError("0 images to evaluate: at least 1 is needed; check the split")
    readable_N = readable(logits_NC)
    top_NK = topk(logits_NC, min(5, classes))
    logprob_NC = log_probabilities(np.where(readable_N[:, None], logits_NC, 0))
    label_logprob_N = logprob_NC[np.arange(n), label_N]
    return summary(top_NK, label_N, label_logprob_N, np.exp(logprob_NC.max(axis=1)), classes)


def summary(
    top_NK: np.ndarray,
    label_N: np.ndarray,
    label_logprob_N: np.ndarray,
    confidence_N: np.ndarray,
    classes: int,
) -> dict[str, Any]:
    """The metrics of `evaluate` from the columns of predictions.parquet.

    Args:
        top_NK: class indices, most probable first; UNREADABLE throughout for unreadable images,
            whose other values are ignored.
        label_logprob_N: of the true class. confidence_N: probability of the first prediction.
    """
    n, readable_N = len(label_N), top_NK[:, 0] != UNREADABLE
    hit_NK = top_NK == label_N[:, None]
    matrix = tally(top_NK[:, 0], label_N, classes)
    support_C, predicted_C, _, recall_C, f1_C = _class_scores(matrix)
    loss = ece = None
    if readable_N.any():
        loss = -float(label_logprob_N[readable_N].mean())
        ece = expected_calibration_error(confidence_N[readable_N], hit_NK[readable_N, 0])
    correct = int(hit_NK[:, 0].sum())
    return {
        "top1": correct / n,
        "top5": int(hit_NK.any(axis=1).sum()) / n,
        "mean_per_class": float(recall_C[support_C > 0].mean()),
        "macro_f1": float(f1_C[support_C + predicted_C > 0].mean()),
        "loss": loss,
        "ece": ece,
        "n": n,
        "unreadable": int(n - readable_N.sum()),
        "top1_ci95": list(wilson(correct, n)),
    }


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


def _check(logits_NC: np.ndarray, label_N: np.ndarray, classes: int) -> None:
    assert logits_NC.shape == (len(label_N), classes)
    if len(label_N) and not 0 <= int(label_N.min()) <= int(label_N.max()) < classes:
        label = int(label_N.min()) if label_N.min() < 0 else int(label_N.max())
        raise UserError(f"label {label} is outside 0..{classes - 1}: correct the label map")
