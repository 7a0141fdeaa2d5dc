"""Newton's method for multinomial logistic regression with a free intercept, and its certificate.

`Problem` -> `Point`s of falling objective. In principal axes the diagonal of the Hessian is a good
preconditioner. The intercept is eliminated: each direction of the weights determines the step of
the intercept, so conjugate gradients run over the weights only. The weights are V, the distance
from their prior.
N rows, D features, R principal axes (rank), C classes present. Everything is float64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fgvc.learn.logistic.problem import TINY, Point, Problem, point_at

_FORCING = 0.03  # part of the gradient that may remain after one Newton step
_GRADIENT_TARGET = 0.5  # part of the target gradient norm at which conjugate gradients stop
_MAX_HALVINGS = 40
_LOSS_FLOOR = 1e-6  # mean log-loss below which a prior leaves nothing to learn
_MAX_STEPS = 200  # a solve takes about 10; with probabilities that underflow it might not end
_RELATIVE_PRECISION = 4e-16  # relative decrease of the objective below the precision of float64


@dataclass(frozen=True)
class Gradient:
    """Gradient of the objective at a Point, with the certified absolute gap."""

    prob_CN: Tensor
    gradient_CR: Tensor
    excess_C: Tensor
    gap: float


def gradient_at(problem: Problem, c: float, point: Point) -> Gradient:
    """Gradient and certified gap; costs half a unit.

    Any P' whose columns are distributions and whose class sums equal the class counts is dual
    feasible. The gap to its dual value is |V + C (P'-Y)X|^2 / 2 + C sum KL(P' | P); an offset
    cancels in this difference. P' mixes P with a distribution shared by all rows, just enough to
    correct the class sums. The rows are centred, so the gradient of P' needs no further product.
    """
    log_CN = torch.log_softmax(point.logit_CN, 0)
    prob_CN = log_CN.exp()
    # p - y; for the true class, minus the sum of the others, because 1 - p loses digits near 1
    residual_CN = prob_CN.clone()
    residual_CN[problem.own] = 0.0
    residual_CN[problem.own] = -residual_CN.sum(0)
    data_CR = problem.backward(residual_CN)
    excess_C = residual_CN.sum(1)
    sum_C = problem.count_C + excess_C
    mix = float((excess_C.clamp(min=0) / sum_C.clamp(min=TINY)).max())
    divergence, feasible_CR = 0.0, data_CR
    if mix > 0:
        shared_C = ((sum_C - excess_C / mix) / len(problem.label_N)).clamp(min=0)
        feasible_CR = (1 - mix) * data_CR - mix * problem.moment_CR
        divergence = _mixed_divergence(prob_CN, log_CN, shared_C[:, None], mix)
    gap = 0.5 * float((point.weight_CR + c * feasible_CR).square().sum()) + c * divergence
    return Gradient(prob_CN, point.weight_CR + c * data_CR, excess_C, gap)


def _mixed_divergence(prob_CN: Tensor, log_CN: Tensor, shared_C1: Tensor, mix: float) -> float:
    """Sum of KL((1-mix) p + mix q | p), in a form that is precise for tiny values."""
    step_CN = mix * (shared_C1 - prob_CN)
    ratio_CN = step_CN / prob_CN
    near_CN = prob_CN * ((1 + ratio_CN) * torch.log1p(ratio_CN) - ratio_CN)
    mixed_CN = prob_CN + step_CN
    far_CN = torch.xlogy(mixed_CN, mixed_CN) - mixed_CN * log_CN - step_CN
    return max(float(torch.where(ratio_CN < 1, near_CN, far_CN).sum()), 0.0)


def _softmax_jacobian(prob_CN: Tensor, value_CN: Tensor) -> Tensor:
    """(diag p - p p^T) v, column by column."""
    spread_CN = prob_CN * value_CN
    return spread_CN - prob_CN * spread_CN.sum(0)


def _intercept_solver(problem: Problem, prob_CN: Tensor) -> Callable[[Tensor], Tensor]:
    """v -> the centred b with sum_n (diag p - p p^T) b = v."""
    coupling_CC = -problem.coupling(prob_CN)
    # the diagonal from p (1 - p), for precision; an outer product fixes the kernel, the constants
    scale_C = (prob_CN * (1 - prob_CN)).sum(1).clamp(min=TINY)
    coupling_CC.diagonal().copy_(scale_C * (1 + 1e-12))
    unit_C = scale_C.rsqrt()
    scaled_CC = coupling_CC * unit_C[:, None] * unit_C
    kernel_C = unit_C.reciprocal() / unit_C.reciprocal().norm()
    # a singular matrix, from probabilities that underflow, gives a step that is rejected
    lu, pivots, _ = torch.linalg.lu_factor_ex(scaled_CC + torch.outer(kernel_C, kernel_C))

    def solve(value_C: Tensor) -> Tensor:
        intercept_C = unit_C * torch.linalg.lu_solve(lu, pivots, (unit_C * value_C)[:, None])[:, 0]
        return intercept_C - intercept_C.mean()

    return solve


def _newton_step(
    problem: Problem,
    c: float,
    gradient: Gradient,
    solve_intercept: Callable[[Tensor], Tensor],
    tolerance: float,
    max_iterations: int,
) -> tuple[Tensor, Tensor, int]:
    """Preconditioned conjugate gradients on the Newton system, the intercept eliminated.

    Returns the weights' and the intercept's step and the number of iterations.
    """
    # the gradient at the intercept that corrects the excess, to first order
    offset_C = -solve_intercept(gradient.excess_C)
    shift_CN = _softmax_jacobian(gradient.prob_CN, offset_C[:, None].expand_as(gradient.prob_CN))
    residual_CR = -(gradient.gradient_CR + c * problem.backward(shift_CN))
    inverse_CR = 1 / (1 + c * problem.squares(gradient.prob_CN * (1 - gradient.prob_CN)))
    total_R = inverse_CR.sum(0)

    def preconditioned(residual_CR: Tensor) -> Tensor:
        # the optimal weights sum to 0 over classes; steps with the same property converge faster
        scaled_CR = inverse_CR * residual_CR
        return scaled_CR - inverse_CR * (scaled_CR.sum(0) / total_R)

    step_CR, bias_C = torch.zeros_like(residual_CR), offset_C
    scaled_CR = preconditioned(residual_CR)
    search_CR, energy = scaled_CR, float((residual_CR * scaled_CR).sum())
    iterations = 0
    while iterations < max_iterations and float(residual_CR.norm()) > tolerance and energy > 0:
        spread_CN = _softmax_jacobian(gradient.prob_CN, problem.forward(search_CR))
        intercept_C = -solve_intercept(spread_CN.sum(1))
        spread_CN += _softmax_jacobian(gradient.prob_CN, intercept_C[:, None].expand_as(spread_CN))
        product_CR = search_CR + c * problem.backward(spread_CN)
        length = energy / float((search_CR * product_CR).sum())
        step_CR, bias_C = step_CR + length * search_CR, bias_C + length * intercept_C
        residual_CR = residual_CR - length * product_CR
        scaled_CR = preconditioned(residual_CR)
        energy, previous = float((residual_CR * scaled_CR).sum()), energy
        search_CR = scaled_CR + (energy / previous) * search_CR
        iterations += 1
    return step_CR, bias_C, iterations


def _line_search(
    problem: Problem, c: float, start: Point, step_CR: Tensor, step_C: Tensor
) -> Point:
    """The first of the full, half, quarter ... step that does not raise the objective."""
    weight_CR, bias_C = start.weight_CR + step_CR, start.bias_C + step_C
    logit_CN = problem.logits(weight_CR, bias_C)
    for halving in range(_MAX_HALVINGS):
        t = 0.5**halving
        point = point_at(
            problem,
            c,
            torch.lerp(start.weight_CR, weight_CR, t),
            torch.lerp(start.bias_C, bias_C, t),
            torch.lerp(start.logit_CN, logit_CN, t),
        )
        if point.objective <= start.objective * (1 + _RELATIVE_PRECISION):
            return point
    return start


def minimise(
    problem: Problem, c: float, point: Point, gap: float, cap: int | None
) -> tuple[Point, float, int]:
    """Newton steps from `point` until the certified relative gap is at most `gap`.

    cap: limit of inner iterations. Without a limit, the solve also ends if the objective and the
    gap no longer decrease in float64, or after _MAX_STEPS.

    Returns:
        the last point; the certified bound of its (F - F*) / F*; the number of inner iterations.
    """
    steps, iterations, best_bound = 0, 0, float("inf")
    floor = 0.0 if problem.offset_CN is None else c * len(problem.label_N) * _LOSS_FLOOR
    while True:
        gradient = gradient_at(problem, c, point)
        lower_bound = max(point.objective - gradient.gap, floor)  # of the optimum
        bound = 0.0 if gradient.gap == 0 else float("inf")
        if lower_bound > 0:
            bound = min(gradient.gap, point.objective) / lower_bound
        if bound <= gap or steps == _MAX_STEPS or (cap is not None and iterations >= cap):
            return point, bound, iterations
        target = _GRADIENT_TARGET * (2 * gap * point.objective) ** 0.5
        tolerance = max(target, _FORCING * float(gradient.gradient_CR.norm()))
        max_iterations = problem.moment_CR.numel() if cap is None else cap - iterations
        solve_intercept = _intercept_solver(problem, gradient.prob_CN)
        step_CR, step_C, step_iterations = _newton_step(
            problem, c, gradient, solve_intercept, tolerance, max_iterations
        )
        next_point = _line_search(problem, c, point, step_CR, step_C)
        decreased = point.objective - next_point.objective > _RELATIVE_PRECISION * point.objective
        iterations += max(step_iterations, 1)
        if not decreased and bound >= best_bound:
            return point, bound, iterations
        steps, point, best_bound = steps + 1, next_point, min(best_bound, bound)
