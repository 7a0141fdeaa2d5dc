"""Features and labels as they are given -> a `Frame`: the problem that is solved, and the way back.

N rows, D features, C classes, K of them present in the rows, R principal axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fgvc.learn.logistic.problem import (
    Point,
    Problem,
    build_problem,
    intercept_correction,
    point_at,
    threads_for,
)
from fgvc.types import UserError

# A class without a row has probability 0 at the optimum. Its logit is the mean of the others' and
# this log instead, so that the largest of them wins on any image.
ABSENT_LOGIT = math.log(1e-12)


def check_rows(x_ND: np.ndarray, label_N: np.ndarray, classes: int) -> None:
    """Refuse rows that no head can be fitted to.

    Raises:
        UserError: no rows, features that are not finite, labels out of range.
    """
    assert x_ND.ndim == 2
    assert label_N.shape == (len(x_ND),)
    if len(x_ND) == 0:
        raise UserError("0 training rows: fitting a head needs at least 1; enlarge the split")
    bad_N = ~np.isfinite(x_ND).all(axis=1)
    if bad_N.any():
        raise UserError(
            f"features of {int(bad_N.sum())} of {len(x_ND)} rows are not finite (first: row "
            f"{int(bad_N.argmax())}): extract them again in fp32, or remove those images"
        )
    low, high = int(label_N.min()), int(label_N.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise UserError(f"label {wrong} is outside 0..{classes - 1}: correct the label map")


@dataclass(frozen=True)
class Frame:
    """A Problem over the classes that have rows. prior_KD: W0 of these, zeros where none is given.

    Weights with a C are W, those with an R are V = W - W0.
    """

    problem: Problem
    present_K: np.ndarray
    classes: int
    prior_KD: Tensor

    @property
    def cells(self) -> int:
        """Multiply-adds of one product at full size."""
        return len(self.problem.label_N) * self.prior_KD.numel()

    def given(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        """weight_CD, bias_C of all classes, for features as they were given."""
        moved_KD = point.weight_CR @ self.problem.axis_DR.T
        bias_K = point.bias_C - (self.prior_KD + moved_KD) @ self.problem.mean_D
        bias_K = bias_K - bias_K.mean()
        # at the optimum V sums to 0 over the classes, whatever W0 does
        weight_KD = self.prior_KD + (moved_KD - moved_KD.mean(0))
        weight_CD = self.prior_KD.mean(0).expand(self.classes, -1).numpy().copy()
        bias_C = np.full(self.classes, ABSENT_LOGIT)
        weight_CD[self.present_K], bias_C[self.present_K] = weight_KD.numpy(), bias_K.numpy()
        return weight_CD, bias_C

    def taken(self, c: float, weight_CD: np.ndarray, bias_C: np.ndarray) -> Point:
        """The way there: a model of all classes as a Point, its intercept fitted once to the class
        sums, for a class that the model had not seen."""
        problem = self.problem
        moved_KD = torch.from_numpy(weight_CD[self.present_K]) - self.prior_KD
        moved_KD = moved_KD - moved_KD.mean(0)
        moved_KR = moved_KD @ problem.axis_DR
        bias_K = torch.from_numpy(bias_C[self.present_K])
        bias_K = bias_K + (self.prior_KD + moved_KD) @ problem.mean_D
        logit_KN = problem.logits(moved_KR, bias_K)
        fit_K = intercept_correction(problem, logit_KN)
        return point_at(problem, c, moved_KR, bias_K + fit_K, logit_KN + fit_K[:, None])


def build_frame(
    x_ND: np.ndarray, label_N: np.ndarray, classes: int, prior_CD: np.ndarray | None
) -> Frame:
    """Check the rows and rotate them.

    prior_CD: W0, float64, one row for each of `classes`; None: zeros.

    Raises:
        UserError: as check_rows.
    """
    check_rows(x_ND, label_N, classes)
    present_K, index_N = np.unique(label_N, return_inverse=True)
    x = torch.from_numpy(np.ascontiguousarray(x_ND, dtype=np.float64))
    index = torch.from_numpy(index_N.astype(np.int64))
    prior_KD = None
    if prior_CD is not None:
        assert prior_CD.shape == (classes, x_ND.shape[1])
        assert np.isfinite(prior_CD).all()
        prior_KD = torch.from_numpy(np.asarray(prior_CD, dtype=np.float64)[present_K])
    with threads_for(x_ND.size * len(present_K)):
        problem = build_problem(x, index, len(present_K), prior_KD)
    if prior_KD is None:
        prior_KD = x.new_zeros(len(present_K), x_ND.shape[1])
    return Frame(problem, present_K, classes, prior_KD)
