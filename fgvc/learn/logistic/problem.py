"""The logistic problem in its own axes: rows and labels -> `Problem`, whose `Point`s are compared.

The features are centred and turned into their own principal axes, which changes neither the penalty
nor the optimum. Weights are held as V = W - W0, the distance from their prior: a prior is then
nothing but fixed logits W0 x, the offset, under a penalty that is the plain |V|^2 / 2.
N rows, D features, R principal axes (rank), C classes present. Everything is float64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

_RANK_TOLERANCE = 1e-13  # principal axes shorter than this part of the longest are rounding
TINY = 1e-300  # stands for a sum of probabilities that underflows
_SINGLE_THREAD_CELLS = 2e7  # multiply-adds of a product that one thread does in about 10 ms


@dataclass
class Problem:
    """Rows in principal axes. offset_CN: logits that no weight moves; None where there are none.

    products counts every N x R x C product, and smaller ones by their part of it; two are one unit.
    """

    x_NR: Tensor
    axis_DR: Tensor
    mean_D: Tensor
    label_N: Tensor
    count_C: Tensor
    moment_CR: Tensor
    products: float = 0.0
    offset_CN: Tensor | None = None
    row_N: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.row_N = torch.arange(len(self.label_N))

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


@contextmanager
def threads_for(cells: int) -> Iterator[None]:
    """One torch thread where a product is small: waking others costs more than it saves, and on a
    busy machine a hundred times more.

    Args:
        cells: multiply-adds of one product, N x D x C.
    """
    before = torch.get_num_threads()
    if cells < _SINGLE_THREAD_CELLS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Point:
    """V and intercept in principal axes, with their logits and objective at one C."""

    weight_CR: Tensor
    bias_C: Tensor
    logit_CN: Tensor
    objective: float


def build_problem(
    x_ND: Tensor, label_N: Tensor, classes: int, prior_CD: Tensor | None = None
) -> Problem:
    """Centre and rotate; labels are 0..classes-1 and every class has a row.

    prior_CD: W0 for x_ND as it is; the part of its logits that all rows share is the intercept's.
    """
    mean_D = x_ND.mean(0)
    left_NR, length_R, axis_RD = torch.linalg.svd(x_ND - mean_D, full_matrices=False)
    rank = int((length_R > _RANK_TOLERANCE * length_R[0]).sum())
    x_NR = (left_NR[:, :rank] * length_R[:rank]).contiguous()
    hot_CN = torch.zeros(classes, len(label_N), dtype=torch.float64)
    hot_CN[label_N, torch.arange(len(label_N))] = 1.0
    axis_DR = axis_RD[:rank].T.contiguous()
    problem = Problem(x_NR, axis_DR, mean_D, label_N, hot_CN.sum(1), hot_CN @ x_NR)
    if prior_CD is not None:
        problem.offset_CN = problem.forward(prior_CD @ axis_DR)
    return problem


def point_at(
    problem: Problem, c: float, weight_CR: Tensor, bias_C: Tensor, logit_CN: Tensor
) -> Point:
    """Attach the objective C * sum CE + |V|^2 / 2.

    CE is log(1 + sum over the other classes), which keeps its digits where the own class is sure.
    """
    own = (problem.label_N, problem.row_N)
    margin_CN = logit_CN - logit_CN[own]
    margin_CN[own] = -torch.inf
    entropy = torch.logaddexp(torch.logsumexp(margin_CN, 0), margin_CN.new_zeros(())).sum()
    objective = float(c * entropy + 0.5 * weight_CR.square().sum())
    return Point(weight_CR, bias_C, logit_CN, objective)


def intercept_correction(problem: Problem, logit_CN: Tensor) -> Tensor:
    """What one proportional fit of the class sums adds to the intercept: it never raises the
    objective, and without offset and weights it is the optimum."""
    sum_C = torch.softmax(logit_CN, 0).sum(1)
    return (problem.count_C / sum_C.clamp(min=TINY)).log()


def cold_start(problem: Problem, c: float) -> Point:
    """V = 0; the centred intercept that reproduces the class frequencies (over an offset: nears
    them, as there is no closed form)."""
    weight_CR = problem.moment_CR.new_zeros(problem.moment_CR.shape)
    if problem.offset_CN is None:
        bias_C, offset_CN = problem.count_C.log(), 0.0
    else:
        bias_C, offset_CN = intercept_correction(problem, problem.offset_CN), problem.offset_CN
    bias_C = bias_C - bias_C.mean()
    logit_CN = bias_C[:, None].expand(-1, len(problem.label_N)) + offset_CN
    return point_at(problem, c, weight_CR, bias_C, logit_CN)
