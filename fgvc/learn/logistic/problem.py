"""The logistic problem in principal axes: rows and labels -> `Problem`, with `Point`s to compare.

The features are centred and rotated into their principal axes, which changes neither the penalty
nor the optimum. The weights are V = W - W0, the distance from their prior, and the penalty is
|V|^2 / 2. A problem of one block of rows keeps its matrices of C x N from one use to the next;
otherwise such a matrix ends with its block, and logits are computed again where they are needed.
N rows, B rows of a block, D features, R principal axes, A all classes, C classes that have rows.
Weights with axis R are V; weights with axis D are W. Everything is float64 unless it says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fgvc.learn.logistic.rows import Rows, build_rows, check_rows

# A class without a row has probability 0 at the optimum. Its logit is the mean of the other logits
# plus this value, so that the largest of the others wins on any image.
ABSENT_LOGIT = math.log(1e-12)
TINY = 1e-300  # lower bound for sums of probabilities that underflow
_SINGLE_THREAD_CELLS = 2e7  # multiply-adds of a product that one thread does in about 10 ms


@dataclass(frozen=True)
class Model:
    """V and intercept in principal axes. logit_CN: their logits, if the rows are one block."""

    weight_CR: Tensor
    bias_C: Tensor
    logit_CN: Tensor | None


@dataclass(frozen=True)
class Slope:
    """Gradient of the cross-entropy: (P - Y) X, and the class sums of P - Y."""

    data_CR: Tensor
    excess_C: Tensor


@dataclass(frozen=True)
class Point(Model):
    """A model with its objective for one C.

    slope: None if the rows are one block, because the kept logits give it later without a product.
    """

    objective: float
    slope: Slope | None


@dataclass
class Problem:
    """Rows in principal axes, and their labels.

    classes: A. present_C: the classes that have rows. prior_CD: W0; zeros without a prior.
    prior_CR: W0 in principal axes; None without a prior. moment_CR: Y X. cold: the model with
    V = 0. products: number of N x R x C products, where smaller products count as a fraction; two
    are one unit.
    """

    rows: Rows
    label_N: Tensor
    count_C: Tensor
    moment_CR: Tensor
    prior_CD: Tensor
    prior_CR: Tensor | None
    classes: int
    present_C: np.ndarray
    products: float = 0.0

    def __post_init__(self) -> None:
        self.cold = self._cold_model()

    @property
    def one_block(self) -> bool:
        return self.rows.one_block

    @property
    def cells(self) -> int:
        """Multiply-adds of a full product."""
        return len(self.rows) * self.prior_CD.numel()

    def forward(self, weight_CD: Tensor, x_BD: Tensor) -> Tensor:
        """W X^T of a block, for weights from `rows.weights_for`: half a unit for all blocks."""
        self.products += len(x_BD) / len(self.rows)
        return weight_CD @ x_BD.T

    def backward(self, value_CB: Tensor, x_BD: Tensor) -> Tensor:
        """G X of a block, for `rows.weights_from`: half a unit for all blocks."""
        self.products += len(x_BD) / len(self.rows)
        return value_CB @ x_BD

    def rotated(self, x_BD: Tensor) -> Tensor:
        """The rows of a block in principal axes: R / C of half a unit for several blocks."""
        if self.one_block:
            return x_BD
        axis_DR = self.rows.axis_DR.to(x_BD.dtype)
        self.products += axis_DR.shape[1] / len(self.count_C) * len(x_BD) / len(self.rows)
        return x_BD @ axis_DR

    def subtract_coupling(self, total_CC: Tensor, prob_CB: Tensor) -> None:
        """Subtract P P^T of some rows of a block: C / R of half a unit for all rows."""
        cost = len(prob_CB) / max(self.moment_CR.shape[1], 1)
        self.products += cost * prob_CB.shape[1] / len(self.rows)
        total_CC.addmm_(prob_CB, prob_CB.T, alpha=-1)

    def logits(
        self, model: Model, dtype: torch.dtype = torch.float64
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Blocks with their logits: half a unit, or nothing if the model has its logits.

        Yields:
            the block's place, its x_BD and its logit_CB; the caller must not change the logits.
        """
        weight_CD = None
        if model.logit_CN is None:
            weight_CD = self._row_weights(model.weight_CR).to(dtype)
        for rows, x_BD in self.rows.blocks(dtype):
            if weight_CD is None:
                assert model.logit_CN is not None
                yield rows, x_BD, model.logit_CN
            else:
                logit_CB = self.forward(weight_CD, x_BD)
                yield rows, x_BD, logit_CB.add_(model.bias_C.to(dtype)[:, None])

    def model(self, weight_CR: Tensor, bias_C: Tensor) -> Model:
        """A model with its logits, if they are kept: half a unit then."""
        model = Model(weight_CR, bias_C, None)
        if self.one_block:
            ((_, _, logit_CN),) = self.logits(model)
            model = Model(weight_CR, bias_C, logit_CN)
        return model

    def sampled_objective(self, c: float, model: Model) -> float:
        """The objective, from one block of evenly spread rows if there are several blocks."""
        if self.one_block:
            return point_at(self, c, model).objective
        at_B, x_BD = self.rows.sample()
        logit_CB = self.forward(self._row_weights(model.weight_CR), x_BD) + model.bias_C[:, None]
        label_B = self.label_N[torch.from_numpy(at_B).to(self.label_N.device)]
        entropy = _loss(logit_CB, label_B)[0] * len(self.rows) / len(at_B)
        return c * entropy + 0.5 * float(model.weight_CR.square().sum())

    def to_weights(self, model: Model) -> tuple[np.ndarray, np.ndarray]:
        """weight_AD and bias_A, for the input features."""
        shift_CD = model.weight_CR @ self.rows.axis_DR.T
        bias_C = model.bias_C - (self.prior_CD + shift_CD) @ self.rows.mean_D
        bias_C = bias_C - bias_C.mean()
        # at the optimum V sums to 0 over the classes, for any W0
        weight_CD = self.prior_CD + (shift_CD - shift_CD.mean(0))
        weight_AD = self.prior_CD.mean(0).expand(self.classes, -1).cpu().numpy().copy()
        bias_A = np.full(self.classes, ABSENT_LOGIT)
        weight_AD[self.present_C] = weight_CD.cpu().numpy()
        bias_A[self.present_C] = bias_C.cpu().numpy()
        return weight_AD, bias_A

    def to_model(self, weight_AD: np.ndarray, bias_A: np.ndarray) -> Model:
        """A model of all classes for the input features, in principal axes.

        The intercept is corrected once to the class sums, for classes that the model lacked.
        """
        device = self.moment_CR.device
        shift_CD = torch.from_numpy(weight_AD[self.present_C]).to(device) - self.prior_CD
        shift_CD = shift_CD - shift_CD.mean(0)
        bias_C = torch.from_numpy(bias_A[self.present_C]).to(device)
        bias_C = bias_C + (self.prior_CD + shift_CD) @ self.rows.mean_D
        return self._corrected(self.model(shift_CD @ self.rows.axis_DR, bias_C))

    def _row_weights(self, weight_CR: Tensor) -> Tensor:
        total_CR = weight_CR if self.prior_CR is None else weight_CR + self.prior_CR
        return self.rows.weights_for(total_CR)

    def _corrected(self, model: Model) -> Model:
        """One proportional fit of the class sums: half a unit unless the logits are kept.

        It never raises the objective, and without prior and weights it gives the optimum.
        """
        sum_C = torch.zeros_like(self.count_C)
        for _, _, logit_CB in self.logits(model):
            sum_C += torch.softmax(logit_CB, 0).sum(1)
        shift_C = (self.count_C / sum_C.clamp(min=TINY)).log()
        logit_CN = None if model.logit_CN is None else model.logit_CN + shift_C[:, None]
        return Model(model.weight_CR, model.bias_C + shift_C, logit_CN)

    def _cold_model(self) -> Model:
        """V = 0, with the centred intercept that reproduces the class frequencies.

        With a prior there is no closed form, and the intercept only approximates them.
        """
        weight_CR = torch.zeros_like(self.moment_CR)
        if self.prior_CR is not None:
            model = self._corrected(self.model(weight_CR, torch.zeros_like(self.count_C)))
            mean = model.bias_C.mean()
            logit_CN = None if model.logit_CN is None else model.logit_CN - mean
            return Model(weight_CR, model.bias_C - mean, logit_CN)
        bias_C = self.count_C.log()
        bias_C = bias_C - bias_C.mean()
        logit_CN = bias_C[:, None].expand(-1, len(self.rows)) if self.one_block else None
        return Model(weight_CR, bias_C, logit_CN)


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


def build_problem(
    x_ND: np.ndarray,
    label_N: np.ndarray,
    classes: int,
    prior_AD: np.ndarray | None = None,
    row_N: np.ndarray | None = None,
    device: str = "cpu",
) -> Problem:
    """Check the rows, centre them, and find their principal axes.

    x_ND is read in blocks and never copied whole, unless it is small enough for one block.

    prior_AD: W0 for x_ND before centring, float64; None: zeros. The intercept absorbs logits that
    all rows share. row_N: the rows of x_ND with the labels label_N; None: all. device: "cuda"
    computes the blocks of a problem of several blocks there; any other device is the CPU.

    Raises:
        UserError: as check_rows.
    """
    check_rows(x_ND, label_N, classes, row_N)
    count_A = np.bincount(label_N, minlength=classes)
    present_C = np.flatnonzero(count_A)
    index_N = torch.from_numpy((np.cumsum(count_A > 0) - 1)[label_N])
    width = x_ND.shape[1]
    prior_CD = torch.zeros(len(present_C), width, dtype=torch.float64)
    if prior_AD is not None:
        assert prior_AD.shape == (classes, width)
        assert np.isfinite(prior_AD).all()
        prior_CD = torch.from_numpy(np.asarray(prior_AD, dtype=np.float64)[present_C])
    with threads_for(len(label_N) * prior_CD.numel()):
        rows = build_rows(x_ND, row_N, len(present_C))
        moment_CD = torch.zeros(len(present_C), width, dtype=torch.float64)
        for block, x_BD in rows.blocks(torch.float64):
            moment_CD[:, : x_BD.shape[1]].index_add_(0, index_N[block], x_BD)
        moment_CR = rows.weights_from(moment_CD)[:, : rows.axis_DR.shape[1]].contiguous()
        count_C = torch.from_numpy(count_A[present_C].astype(np.float64))
        if device == "cuda" and not rows.one_block:
            rows.move(device)
        index_N, count_C, moment_CR, prior_CD = (
            tensor.to(rows.device) for tensor in (index_N, count_C, moment_CR, prior_CD)
        )
        prior_CR = None if prior_AD is None else prior_CD @ rows.axis_DR
        return Problem(rows, index_N, count_C, moment_CR, prior_CD, prior_CR, classes, present_C)


def point_at(problem: Problem, c: float, model: Model) -> Point:
    """The model with its objective C * sum CE + |V|^2 / 2.

    Costs nothing if the logits are kept; otherwise a unit, because the gradient comes with it.
    """
    entropy, slope = 0.0, None
    data_CD = torch.zeros_like(problem.prior_CD)
    excess_C = torch.zeros_like(problem.count_C)
    for rows, x_BD, logit_CB in problem.logits(model):
        loss, residual_CB = _loss(logit_CB, problem.label_N[rows])
        entropy += loss
        if not problem.one_block:
            data_CD += problem.backward(residual_CB, x_BD)
            excess_C += residual_CB.sum(1)
    if not problem.one_block:
        slope = Slope(problem.rows.weights_from(data_CD), excess_C)
    objective = c * entropy + 0.5 * float(model.weight_CR.square().sum())
    return Point(model.weight_CR, model.bias_C, model.logit_CN, objective, slope)


def slope_at(problem: Problem, point: Point) -> Slope:
    """The gradient of the cross-entropy: half a unit, unless the point has it."""
    if point.slope is not None:
        return point.slope
    ((_, x_NR, logit_CN),) = problem.logits(point)
    _, residual_CN = _loss(logit_CN, problem.label_N)
    return Slope(problem.backward(residual_CN, x_NR), residual_CN.sum(1))


def _loss(logit_CB: Tensor, label_B: Tensor) -> tuple[float, Tensor]:
    """Sum of the cross-entropies, and p - y.

    Both are precise for confident predictions: the loss is log(1 + sum over the other classes), and
    p - y of the true class is minus the sum of the others.
    """
    own = label_B, torch.arange(len(label_B), device=label_B.device)
    other_CB = logit_CB - logit_CB[own]
    other_CB[own] = -torch.inf
    top_B = other_CB.amax(0).clamp_(min=0)
    other_CB.sub_(top_B).exp_()
    sum_B = other_CB.sum(0)
    excess_B = sum_B + top_B.neg().expm1_()  # total of the exponentials, minus 1
    other_CB.div_(1 + excess_B)
    other_CB[own] = -sum_B / (1 + excess_B)
    return float((top_B + excess_B.log1p_()).sum()), other_CB
