"""The Hessian of the objective at a point: its products, its preconditioner, its intercepts.

A direction holds weights and intercepts in one matrix of C x K, K = R + 1, with the intercepts
last: the intercept is the weight of a feature that is 1 and has no penalty. Sums over blocks are
float64, even of products in float32.
N rows, B rows of a block, D features, R principal axes, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fgvc.learn.logistic.problem import TINY, Model, Problem


class Hessian:
    """Products with the Hessian at `model`, and what is near its inverse.

    exact: in float64, and the intercepts' block from all rows. Otherwise several blocks use
    float32, and the block comes from R / C of the rows.

    Costs a unit; the coupling of the intercepts, C / R of half a unit if exact, otherwise at most
    half a unit; and if there are several blocks, half a unit for the logits and R / C of half a
    unit for the rotation.
    """

    def __init__(self, problem: Problem, c: float, model: Model, exact: bool) -> None:
        self._problem, self._c, self._model = problem, c, model
        self._dtype = torch.float64 if exact or problem.one_block else torch.float32
        self._kept_CN = None if model.logit_CN is None else torch.softmax(model.logit_CN, 0)
        self._measure(1 if exact else stride(problem))

    def product(self, search_CK: Tensor) -> Tensor:
        """H v: a unit, and half a unit more if the logits are not kept."""
        problem, axes = self._problem, self._problem.moment_CR.shape[1]
        weight_CD = problem.rows.weights_for(search_CK[:, :axes]).to(self._dtype)
        bias_C1 = search_CK[:, axes:].to(self._dtype)
        data_CD = torch.zeros_like(weight_CD, dtype=torch.float64)
        result_CK = search_CK.clone()
        result_CK[:, axes] = 0.0
        for x_BD, prob_CB in self._probabilities():
            spread_CB = problem.forward(weight_CD, x_BD).add_(bias_C1).mul_(prob_CB)
            spread_CB.addcmul_(prob_CB, spread_CB.sum(0), value=-1)
            data_CD += problem.backward(spread_CB, x_BD)
            result_CK[:, axes] += self._c * spread_CB.sum(1)
        result_CK[:, :axes] += self._c * problem.rows.weights_from(data_CD)
        return result_CK

    def precondition(self, residual_CK: Tensor) -> Tensor:
        """Near H^-1 r: exact if, per class, axes are uncorrelated under the weights p (1 - p).

        Each class sees the axes centred on its own mean under these weights, which separates its
        intercept from its weights.
        """
        weight_CR = residual_CK[:, :-1] - self._mean_CR * residual_CK[:, -1:]
        weight_CR *= self._inverse_CR
        # the optimal weights sum to 0 over classes; steps with the same property converge faster
        weight_CR -= self._inverse_CR * (weight_CR.sum(0) / self._inverse_CR.sum(0))
        bias_C = residual_CK[:, -1] / (self._c * self._scale_C)
        bias_C -= (self._mean_CR * weight_CR).sum(1)
        return torch.cat([weight_CR, bias_C[:, None]], 1)

    def _probabilities(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks with their probabilities: half a unit, or nothing if the logits are kept."""
        for _, x_BD, logit_CB in self._problem.logits(self._model, self._dtype):
            yield x_BD, torch.softmax(logit_CB, 0) if self._kept_CN is None else self._kept_CN

    def _measure(self, step: int) -> None:
        """One pass for the preconditioner and the intercepts' block, from every step-th row."""
        problem, rows = self._problem, self._problem.rows
        mean_CD = torch.zeros_like(problem.rows.weights_for(problem.moment_CR))
        square_CR = torch.zeros_like(problem.moment_CR)
        scale_C, part_C = (torch.zeros_like(problem.count_C) for _ in range(2))
        coupling_CC = scale_C.new_zeros(len(scale_C), len(scale_C), dtype=self._dtype)
        for x_BD, prob_CB in self._probabilities():
            curve_CB = prob_CB * (1 - prob_CB)
            scale_C += curve_CB.sum(1)
            mean_CD += problem.backward(curve_CB, x_BD)
            square_CR += problem.backward(curve_CB, problem.rotated(x_BD).square())
            part_C += curve_CB[:, ::step].sum(1)
            problem.subtract_coupling(coupling_CC, prob_CB[:, ::step])
        scale_C.clamp_(min=TINY)
        self._scale_C = scale_C
        self._mean_CR = rows.weights_from(mean_CD) / scale_C[:, None]
        variance_CR = square_CR - scale_C[:, None] * self._mean_CR.square()
        self._inverse_CR = 1 / (1 + self._c * variance_CR.clamp_(min=0))
        self.solve_intercept = _intercept_solver(
            coupling_CC.double(), scale_C, part_C.clamp_(min=TINY)
        )


def stride(problem: Problem) -> int:
    """Of how many rows the intercepts' block uses one, if it is not exact."""
    return max(len(problem.count_C) // max(problem.moment_CR.shape[1], 1), 1)


def _intercept_solver(
    coupling_CC: Tensor, scale_C: Tensor, part_C: Tensor
) -> Callable[[Tensor], Tensor]:
    """v -> the centred b with sum_n (diag p - p p^T) b = v.

    coupling_CC: -P P^T of some of the rows, overwritten. scale_C, part_C: sum of p (1 - p) over all
    rows, and over those.
    """
    # the diagonal from p (1 - p), for precision; an outer product fixes the kernel, the constants
    coupling_CC.diagonal().copy_(part_C * (1 + 1e-12))
    unit_C = part_C.rsqrt()
    coupling_CC.mul_(unit_C[:, None]).mul_(unit_C)
    kernel_C = unit_C.reciprocal() / unit_C.reciprocal().norm()
    coupling_CC.addr_(kernel_C, kernel_C)
    # a singular matrix, from probabilities that underflow, gives a step that is rejected
    lu, pivots, _ = torch.linalg.lu_factor_ex(coupling_CC)
    unit_C = scale_C.rsqrt()

    def solve(value_C: Tensor) -> Tensor:
        intercept_C = unit_C * torch.linalg.lu_solve(lu, pivots, (unit_C * value_C)[:, None])[:, 0]
        return intercept_C - intercept_C.mean()

    return solve
