"""Logits, batch by batch -> the columns of Predictions; Predictions -> the metrics of their split.

No array of images x classes outlives a block of BLOCK_CELLS, unless the logits are kept. A row has
the same bits in any block.
N images, B batch, M images of a block, C classes, K predictions per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import entr

from fgvc.metrics.classification import (
    UNREADABLE,
    check_labels,
    log_probabilities,
    refuse_logits,
    summary,
    topk,
)
from fgvc.metrics.precision_recall import ThresholdCounter, add_counts
from fgvc.types import Predictions

TOP = 5  # predictions per image
THRESHOLDS = 127  # of the precision-recall curves, as in TensorBoard's own summaries
# Largest number of classes, and of images x classes in the largest split (128 MiB), at which logits
# are kept. More would take kilobytes per image, and most of the memory of a run.
LOGITS_UP_TO, LOGIT_CELLS = 1000, 2**25
BLOCK_CELLS = 2**21  # images x classes whose probabilities are in memory together


def keeps_logits(images: int, classes: int) -> bool:
    """Whether the logits of a run are kept; images: in the largest of its evaluated splits."""
    return classes <= LOGITS_UP_TO and images * classes <= LOGIT_CELLS


class PredictionCollector:
    """Collects logits in any order of the images, and reduces them to the columns of Predictions.

    Attributes:
        label_of_row: class index of each manifest row.
        classes: C.
        keep_logits: whether Predictions hold the logits, or else the counts of the curves.
    """

    def __init__(self, label_of_row: np.ndarray, classes: int, keep_logits: bool) -> None:
        self.label_of_row, self.classes, self.keep_logits = label_of_row, classes, keep_logits
        self._counter = None if keep_logits else ThresholdCounter(classes, THRESHOLDS)
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._columns: list[tuple[np.ndarray, ...]] = []  # of readable images; the first: rows
        self._invalid: list[np.ndarray] = []  # rows whose logits cannot be ranked

    def add(self, row_B: np.ndarray, logits_BC: np.ndarray) -> None:
        """Add readable images, or unreadable ones whose logits are -inf.

        Raises:
            UserError: a label that is not a class.
        """
        assert logits_BC.shape == (len(row_B), self.classes)
        check_labels(self.label_of_row[row_B], self.classes)
        self._waiting.append((row_B, logits_BC))
        if sum(len(row_B) for row_B, _ in self._waiting) * self.classes >= BLOCK_CELLS:
            self._reduce()

    def _reduce(self) -> None:
        """Reduce the waiting logits, in blocks: small batches together, a large one in parts."""
        if not self._waiting:
            return
        row_N, logits_NC = (
            parts[0] if len(parts) == 1 else np.concatenate(parts)
            for parts in zip(*self._waiting, strict=True)
        )
        self._waiting = []
        step = max(1, BLOCK_CELLS // self.classes)
        for start in range(0, len(row_N), step):
            self._reduce_block(row_N[start : start + step], logits_NC[start : start + step])

    def _reduce_block(self, row_B: np.ndarray, logits_BC: np.ndarray) -> None:
        highest_B = logits_BC.max(axis=1)
        invalid_B = np.isnan(highest_B) | np.isposinf(highest_B)
        if invalid_B.any():
            self._invalid.append(row_B[invalid_B])
        readable_B = np.isfinite(highest_B)
        if not readable_B.all():
            row_B, logits_BC = row_B[readable_B], logits_BC[readable_B]
        label_B = self.label_of_row[row_B]
        top_BK = topk(logits_BC, min(TOP, self.classes))
        logprob_BC = log_probabilities(logits_BC)
        label_logprob_B = logprob_BC[np.arange(len(row_B)), label_B]
        prob_BC = np.exp(logprob_BC, out=logprob_BC)
        score_BK = np.take_along_axis(prob_BC, top_BK, axis=1)
        if self._counter is not None:
            self._counter.add(prob_BC, label_B)
        entropy_B = entr(prob_BC).sum(axis=1)
        columns = (row_B, top_BK, score_BK, label_logprob_B, entropy_B)
        self._columns.append((*columns, logits_BC) if self.keep_logits else columns)

    def result(self, row_N: np.ndarray) -> Predictions:
        """Predictions in the order of these manifest rows; rows that were not added are unreadable.

        Args:
            row_N: distinct, and among them every row that was added.

        Raises:
            UserError: a label that is not a class, or logits of NaN or +inf.
        """
        label_N = self.label_of_row[row_N]
        check_labels(label_N, self.classes)
        self._reduce()
        order_N = np.argsort(row_N, kind="stable")

        def place(row_M: np.ndarray) -> np.ndarray:
            return order_N[np.searchsorted(row_N, row_M, sorter=order_N)]

        if self._invalid:
            place_M = place(np.concatenate(self._invalid))
            refuse_logits(len(place_M), len(row_N), int(place_M.min()))
        n, top = len(row_N), min(TOP, self.classes)
        columns = [
            np.full((n, top), UNREADABLE),
            np.full((n, top), np.nan),
            np.full(n, np.nan),
            np.full(n, np.nan),
        ]
        if self.keep_logits:
            columns.append(np.full((n, self.classes), -np.inf, np.float32))
        for row_M, *parts in self._columns:
            place_M = place(row_M)
            for column_N, part_M in zip(columns, parts, strict=True):
                column_N[place_M] = part_M
        top_NK, score_NK, label_logprob_N, entropy_N, *kept = columns
        return Predictions(
            row_N,
            label_N,
            top_NK,
            score_NK,
            label_logprob_N,
            entropy_N,
            logits_NC=kept[0] if kept else None,
            curves=None if self._counter is None else self._counter.counts(label_N),
        )


def from_logits(
    row_N: np.ndarray, label_N: np.ndarray, logits_NC: np.ndarray, keep: bool | None = None
) -> Predictions:
    """The Predictions of a split whose logits are in memory.

    Args:
        row_N: distinct manifest rows. label_N: class indices of these rows.
        keep: whether to keep the logits; None: as `keeps_logits`.

    Raises:
        UserError: a label that is not a class, or logits of NaN or +inf.
    """
    n, classes = logits_NC.shape
    label_of_row = np.zeros(int(row_N.max(initial=-1)) + 1, np.int64)
    label_of_row[row_N] = label_N
    keep = keeps_logits(n, classes) if keep is None else keep
    collector = PredictionCollector(label_of_row, classes, keep)
    collector.add(row_N, logits_NC)
    return collector.result(row_N)


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of disjoint sets of images, in the given order; at least one set."""
    names = ("row_N", "label_N", "top_NK", "score_NK", "label_logprob_N", "entropy_N")
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in (*names, *(("logits_NC",) if parts[0].logits_NC is not None else ()))
    }
    curves = [part.curves for part in parts if part.curves is not None]
    return Predictions(**columns, curves=add_counts(curves) if curves else None)


def evaluate(predictions: Predictions, classes: int) -> dict[str, Any]:
    """The metrics of one split, as `summary`."""
    return summary(
        predictions.top_NK,
        predictions.label_N,
        predictions.label_logprob_N,
        predictions.score_NK[:, 0],
        classes,
    )
