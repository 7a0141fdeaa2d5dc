"""Logits and labels -> the numbers of metrics.json, per_class.csv and confusion.csv.

Pure functions. A row of -inf represents an image that could not be read: it is predicted as
UNREADABLE and counts as wrong in every accuracy and in recall. Loss and ECE leave it out, because
it has no probabilities. Of equal logits, the lower class index ranks first.
N images, C classes, K predictions per image, M bins of confidence or images with ties, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, TypedDict

import numpy as np

from fgvc.metrics.confidence_intervals import wilson
from fgvc.metrics.confusion_counts import UNREADABLE, class_scores, tally
from fgvc.types import ConfusionCounts, UserError

VERSION = "2"  # raise it with every change that can change a number
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


def readable(logits_NC: np.ndarray) -> np.ndarray:
    """bool_N: False for rows of -inf only.

    Raises:
        UserError: logits of NaN or +inf, which cannot be ranked.
    """
    highest_N = logits_NC.max(axis=1)  # NaN if any is, +inf if any is: without masks of all cells
    bad_N = np.isnan(highest_N) | np.isposinf(highest_N)
    if bad_N.any():
        refuse_logits(int(bad_N.sum()), len(logits_NC), int(bad_N.argmax()))
    return np.isfinite(highest_N)


def refuse_logits(count: int, images: int, first: int) -> NoReturn:
    """Raise the UserError of `readable`. first: the first row with such a logit."""
    raise UserError(
        f"logits of {count} of {images} images are NaN or +inf (first: row {first}): check the "
        "weights, or run with precision=fp32"
    )


def topk(logits_NC: np.ndarray, k: int) -> np.ndarray:
    """int64 index_NK of the k largest logits, largest first; UNREADABLE for unreadable rows."""
    assert 1 <= k <= logits_NC.shape[1]
    readable_N = readable(logits_NC)
    if k == 1:
        index_NK = logits_NC.argmax(axis=1)[:, None]
    else:
        index_NK = _largest(logits_NC, k)
    return np.where(readable_N[:, None], index_NK, UNREADABLE)


def _largest(logits_NC: np.ndarray, k: int) -> np.ndarray:
    """index_NK as of `topk`, without sorting thousands of classes."""
    least_N1 = np.partition(logits_NC, -k, axis=1)[:, -k, None]
    chosen_NC = logits_NC >= least_N1
    (tied_M,) = np.nonzero(chosen_NC.sum(axis=1) > k)
    if len(tied_M):  # of the classes with the k-th largest logit, the first ones
        above_MC = logits_NC[tied_M] > least_N1[tied_M]
        equal_MC = chosen_NC[tied_M] & ~above_MC
        wanted_M1 = k - above_MC.sum(axis=1, keepdims=True)
        chosen_NC[tied_M] = above_MC | (equal_MC & (equal_MC.cumsum(axis=1) <= wanted_M1))
    index_NK = np.nonzero(chosen_NC)[1].reshape(-1, k)
    order_NK = np.argsort(-np.take_along_axis(logits_NC, index_NK, axis=1), axis=1, kind="stable")
    return np.take_along_axis(index_NK, order_NK, axis=1)


def log_probabilities(logits_NC: np.ndarray) -> np.ndarray:
    """float64 log-softmax of readable rows."""
    shifted_NC = logits_NC.astype(np.float64) - logits_NC.max(axis=1, keepdims=True)
    return shifted_NC - np.log(np.exp(shifted_NC).sum(axis=1, keepdims=True))


def confusion(logits_NC: np.ndarray, label_N: np.ndarray, classes: int) -> ConfusionCounts:
    """The confusion matrix of `classes` classes."""
    assert logits_NC.shape == (len(label_N), classes)
    check_labels(label_N, classes)
    return tally(topk(logits_NC, 1)[:, 0], label_N, classes)


def per_class(logits_NC: np.ndarray, label_N: np.ndarray, names: Sequence[str]) -> list[ClassRow]:
    """One row for every class, in index order."""
    return class_rows(confusion(logits_NC, label_N, len(names)), names)


def class_rows(counts: ConfusionCounts, names: Sequence[str]) -> list[ClassRow]:
    """The rows of `per_class` from the confusion matrix."""
    precision_C, recall_C, f1_C = class_scores(counts)
    limits = [
        wilson(hits, support)
        for hits, support in zip(counts.hit_C.tolist(), counts.support_C.tolist(), strict=True)
    ]
    return [
        ClassRow(
            index=index,
            name=name,
            precision=float(precision_C[index]),
            recall=float(recall_C[index]),
            f1=float(f1_C[index]),
            support=int(counts.support_C[index]),
            predicted=int(counts.predicted_C[index]),
            recall_low=limits[index][0],
            recall_high=limits[index][1],
        )
        for index, name in enumerate(names)
    ]


def summary(
    top_NK: np.ndarray,
    label_N: np.ndarray,
    label_logprob_N: np.ndarray,
    confidence_N: np.ndarray,
    classes: int,
) -> dict[str, Any]:
    """The metrics of one split, as in metrics.json, from the columns of predictions.parquet.

    Args:
        top_NK: class indices, most probable first; UNREADABLE throughout for unreadable images,
            whose other values are ignored.
        label_logprob_N: of the true class. confidence_N: probability of the first prediction.

    Returns:
        top1, top5 (of min(5, C) classes), mean_per_class (recall over classes with support),
        macro_f1 (over classes with support or predictions, as scikit-learn's default), loss (mean
        negative log-likelihood, float64), ece, n, unreadable, top1_ci95 [low, high]. Fractions in
        0..1; loss is None where no image could be read, or infinite where a label's logit is -inf.

    Raises:
        UserError: no images.
        ValueError: as `tally`.
    """
    if len(label_N) == 0:
        raise UserError("0 images to evaluate: at least 1 is needed; check the split")
    n, readable_N = len(label_N), top_NK[:, 0] != UNREADABLE
    hit_NK = top_NK == label_N[:, None]
    counts = tally(top_NK[:, 0], label_N, classes)
    _, recall_C, f1_C = class_scores(counts)
    loss = ece = None
    if readable_N.any():
        loss = -float(label_logprob_N[readable_N].mean())
        ece = expected_calibration_error(confidence_N[readable_N], hit_NK[readable_N, 0])
    correct = int(hit_NK[:, 0].sum())
    return {
        "top1": correct / n,
        "top5": int(hit_NK.any(axis=1).sum()) / n,
        "mean_per_class": float(recall_C[counts.support_C > 0].mean()),
        "macro_f1": float(f1_C[counts.support_C + counts.predicted_C > 0].mean()),
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


def check_labels(label_N: np.ndarray, classes: int) -> None:
    """Raise UserError for a label that is not a class."""
    if len(label_N) and not 0 <= int(label_N.min()) <= int(label_N.max()) < classes:
        label = int(label_N.min()) if label_N.min() < 0 else int(label_N.max())
        raise UserError(f"label {label} is outside 0..{classes - 1}: correct the label map")
