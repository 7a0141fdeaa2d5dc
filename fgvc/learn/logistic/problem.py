"""The logistic problem in principal axes: rows and labels -> `Problem`, with `Point`s to compare.

The features are centred and rotated into their principal axes, which changes neither the penalty
nor the optimum. The weights are V = W - W0, the distance from their prior. A prior thus only adds
fixed logits W0 x, the offset, and the penalty is |V|^2 / 2.
N rows, D features, R principal axes (rank), A all classes, C classes that have rows. Weights with
axis R are V; weights with axis D are W. Everything is float64 on the CPU.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fgvc.types import UserError

_RANK_TOLERANCE = 1e-13  # shorter principal axes, relative to the longest, are rounding errors
# A class without a row has probability 0 at the optimum. Its logit is the mean of the other logits
# plus this value, so that the largest of the others wins on any image.
ABSENT_LOGIT = math.log(1e-12)
TINY = 1e-300  # lower bound for sums of probabilities that underflow
_SINGLE_THREAD_CELLS = 2e7  # multiply-adds of a product that one thread does in about 10 ms


@dataclass
class Problem:
    """Rows in principal axes.

    classes: A. present_C: the classes that have rows. prior_CD: W0; zeros without a prior.
    offset_CN: fixed logits of the prior; None without a prior. products: number of N x R x C
    products, where smaller products count as a fraction; two are one unit.
    """

    x_NR: Tensor
    axis_DR: Tensor
    mean_D: Tensor
    label_N: Tensor
    count_C: Tensor
    moment_CR: Tensor
    classes: int
    present_C: np.ndarray
    prior_CD: Tensor
    products: float = 0.0
    offset_CN: Tensor | None = None

    @functools.cached_property
    def own(self) -> tuple[Tensor, Tensor]:
        """The index of the true class of each row, in a matrix of C x N."""
        return self.label_N, torch.arange(len(self.label_N))

    @property
    def cells(self) -> int:
        """Multiply-adds of a full product."""
        return len(self.label_N) * self.prior_CD.numel()

    def forward(self, weight_CR: Tensor) -> Tensor:
        """V X^T: half a unit."""
        self.products += 1
        return weight_CR @ self.x_NR.T

    def logits(self, weight_CR: Tensor, bias_C: Tensor) -> Tensor:
        """V X^T + b + offset: half a unit."""
        logit_CN = self.forward(weight_CR) + bias_C[:, None]
        return logit_CN if self.offset_CN is None else logit_CN + self.offset_CN

    def backward(self, value_CN: Tensor) -> Tensor:
        """G X: half a unit."""
        self.products += 1
        return value_CN @ self.x_NR

    def squares(self, value_CN: Tensor) -> Tensor:
        """G X^2: half a unit."""
        self.products += 1
        return value_CN @ self.x_NR.square()

    def coupling(self, prob_CN: Tensor) -> Tensor:
        """P P^T: C / R of half a unit."""
        self.products += len(prob_CN) / max(self.x_NR.shape[1], 1)
        return prob_CN @ prob_CN.T

    def to_weights(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        """weight_AD and bias_A, for the input features."""
        shift_CD = point.weight_CR @ self.axis_DR.T
        bias_C = point.bias_C - (self.prior_CD + shift_CD) @ self.mean_D
        bias_C = bias_C - bias_C.mean()
        # at the optimum V sums to 0 over the classes, for any W0
        weight_CD = self.prior_CD + (shift_CD - shift_CD.mean(0))
        weight_AD = self.prior_CD.mean(0).expand(self.classes, -1).numpy().copy()
        bias_A = np.full(self.classes, ABSENT_LOGIT)
        weight_AD[self.present_C], bias_A[self.present_C] = weight_CD.numpy(), bias_C.numpy()
        return weight_AD, bias_A

    def to_point(self, c: float, weight_AD: np.ndarray, bias_A: np.ndarray) -> Point:
        """A model of all classes as a Point.

        The intercept is corrected once to the class sums, for classes that the model lacked.
        """
        shift_CD = torch.from_numpy(weight_AD[self.present_C]) - self.prior_CD
        shift_CD = shift_CD - shift_CD.mean(0)
        shift_CR = shift_CD @ self.axis_DR
        bias_C = torch.from_numpy(bias_A[self.present_C])
        bias_C = bias_C + (self.prior_CD + shift_CD) @ self.mean_D
        logit_CN = self.logits(shift_CR, bias_C)
        correction_C = intercept_correction(self, logit_CN)
        logit_CN = logit_CN + correction_C[:, None]
        return point_at(self, c, shift_CR, bias_C + correction_C, logit_CN)


@contextmanager
def threads_for(cells: int) -> Iterator[None]:
    """Use a single torch thread for small products, for which waking other threads is slower.

    On a busy machine it is slower by a factor of a hundred.

    cells: multiply-adds of a product, N x D x C.
    """
    previous = torch.get_num_threads()
    if cells < _SINGLE_THREAD_CELLS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


@dataclass(frozen=True)
class Point:
    """V and intercept in principal axes, with their logits and their objective for one C."""

    weight_CR: Tensor
    bias_C: Tensor
    logit_CN: Tensor
    objective: float


def build_problem(
    x_ND: np.ndarray, label_N: np.ndarray, classes: int, prior_AD: np.ndarray | None = None
) -> Problem:
    """Check the rows, centre and rotate them.

    prior_AD: W0 for x_ND before centring, float64; None: zeros. The intercept absorbs logits that
    all rows share.

    Raises:
        UserError: as check_rows.
    """
    check_rows(x_ND, label_N, classes)
    present_C, index_N = np.unique(label_N, return_inverse=True)
    x = torch.from_numpy(np.ascontiguousarray(x_ND, dtype=np.float64))
    index = torch.from_numpy(index_N.astype(np.int64))
    prior_CD = x.new_zeros(len(present_C), x_ND.shape[1])
    if prior_AD is not None:
        assert prior_AD.shape == (classes, x_ND.shape[1])
        assert np.isfinite(prior_AD).all()
        prior_CD = torch.from_numpy(np.asarray(prior_AD, dtype=np.float64)[present_C])
    with threads_for(x_ND.size * len(present_C)):
        mean_D = x.mean(0)
        left_NR, length_R, axis_RD = torch.linalg.svd(x - mean_D, full_matrices=False)
        rank = int((length_R > _RANK_TOLERANCE * length_R[0]).sum())
        x_NR = (left_NR[:, :rank] * length_R[:rank]).contiguous()
        one_hot_CN = torch.zeros(len(present_C), len(index), dtype=torch.float64)
        one_hot_CN[index, torch.arange(len(index))] = 1.0
        axis_DR = axis_RD[:rank].T.contiguous()
        count_C, moment_CR = one_hot_CN.sum(1), one_hot_CN @ x_NR
        problem = Problem(
            x_NR, axis_DR, mean_D, index, count_C, moment_CR, classes, present_C, prior_CD
        )
        if prior_AD is not None:
            problem.offset_CN = problem.forward(prior_CD @ axis_DR)
    return problem


def point_at(
    problem: Problem, c: float, weight_CR: Tensor, bias_C: Tensor, logit_CN: Tensor
) -> Point:
    """A Point with its objective C * sum CE + |V|^2 / 2.

    CE is log(1 + sum over the other classes), which is precise for confident predictions.
    """
    margin_CN = logit_CN - logit_CN[problem.own]
    margin_CN[problem.own] = -torch.inf
    entropy = torch.logaddexp(torch.logsumexp(margin_CN, 0), margin_CN.new_zeros(())).sum()
    objective = float(c * entropy + 0.5 * weight_CR.square().sum())
    return Point(weight_CR, bias_C, logit_CN, objective)


def intercept_correction(problem: Problem, logit_CN: Tensor) -> Tensor:
    """The change of the intercept by one proportional fit of the class sums.

    It never raises the objective, and without offset and weights it gives the optimum.
    """
    sum_C = torch.softmax(logit_CN, 0).sum(1)
    return (problem.count_C / sum_C.clamp(min=TINY)).log()


def cold_start(problem: Problem, c: float) -> Point:
    """V = 0, with the centred intercept that reproduces the class frequencies.

    With an offset there is no closed form, and the intercept only approximates them.
    """
    weight_CR = problem.moment_CR.new_zeros(problem.moment_CR.shape)
    if problem.offset_CN is None:
        bias_C, offset_CN = problem.count_C.log(), 0.0
    else:
        bias_C, offset_CN = intercept_correction(problem, problem.offset_CN), problem.offset_CN
    bias_C = bias_C - bias_C.mean()
    logit_CN = bias_C[:, None].expand(-1, len(problem.label_N)) + offset_CN
    return point_at(problem, c, weight_CR, bias_C, logit_CN)


def check_rows(x_ND: np.ndarray, label_N: np.ndarray, classes: int) -> None:
    """Refuse rows that no head can be fitted on.

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
