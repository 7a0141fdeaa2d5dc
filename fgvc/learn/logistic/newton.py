"""Newton's method for multinomial logistic regression with a free intercept, and its certificate.

`Problem` -> `Point`s of falling objective. In principal axes the diagonal of the Hessian is a good
preconditioner. The intercept is eliminated: every direction carries the intercept that answers it,
so conjugate gradients see only the weights, which here are V, the distance from their prior.
N rows, D features, R principal axes (rank), C classes present. Everything is float64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fgvc.learn.logistic.problem import TINY, Point, Problem, point_at

_FORCING = 0.03  # part of the gradient that one Newton step may leave over
_GRADIENT_TARGET = 0.5  # part of the wanted gradient norm at which conjugate gradients stop
_MAX_HALVINGS = 40
_LOSS_FLOOR = 1e-6  # mean log-loss below which a prior leaves nothing to learn
_MAX_STEPS = 200  # a sound solve takes about 10; probabilities that underflow could go on for ever
_RELATIVE_PRECISION = 4e-16  # a relative fall of the objective that float64 cannot tell from none


@dataclass(frozen=True)
class Gradient:
    """What one backward product tells about a Point. gap: absolute, certified."""

    prob_CN: Tensor
    gradient_CR: Tensor
    excess_C: Tensor
    gap: float


@dataclass(frozen=True)
class Result:
    """Where the solver stopped. gap: certified bound of (F - F*) / F*; iterations: of inner CG."""

    point: Point
    gap: float
    iterations: int


def _residual(problem: Problem, prob_CN: Tensor) -> Tensor:
    """p - y, the own class as minus the sum of the others: 1 - p loses its digits near p = 1."""
    residual_CN = prob_CN.clone()
    own = (problem.label_N, problem.row_N)
    residual_CN[own] = 0.0
    residual_CN[own] = -residual_CN.sum(0)
    return residual_CN


def gradient_at(problem: Problem, c: float, point: Point) -> Gradient:
    """Gradient and certificate, for half a unit.

    Any P' whose columns are distributions and whose class sums equal the class counts is dual
    feasible, and the gap to its dual value is |V + C (P'-Y)X|^2 / 2 + C sum KL(P' | P): an offset
    enters both values alike and cancels. P' mixes P with one distribution shared by all rows, just
    enough to repair the class sums; the rows are centred, so that its gradient costs no further
    product.
    """
    log_CN = torch.log_softmax(point.logit_CN, 0)
    prob_CN = log_CN.exp()
    residual_CN = _residual(problem, prob_CN)
    data_CR = problem.backward(residual_CN)
    excess_C = residual_CN.sum(1)
    sum_C = problem.count_C + excess_C
    mix = float((excess_C.clamp(min=0) / sum_C.clamp(min=TINY)).max())
    divergence = 0.0
    feasible_CR = data_CR
    if mix > 0:
        shared_C = ((sum_C - excess_C / mix) / len(problem.label_N)).clamp(min=0)
        feasible_CR = (1 - mix) * data_CR - mix * problem.moment_CR
        divergence = _mixed_divergence(prob_CN, log_CN, shared_C[:, None], mix)
    gap = 0.5 * float((point.weight_CR + c * feasible_CR).square().sum()) + c * divergence
    return Gradient(prob_CN, point.weight_CR + c * data_CR, excess_C, gap)


def _mixed_divergence(prob_CN: Tensor, log_CN: Tensor, shared_C1: Tensor, mix: float) -> float:
    """Sum of KL((1-mix) p + mix q | p), in the form that keeps its digits where it is tiny."""
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
    # The own term from p (1 - p) directly, for the digits; constants are in the kernel and pinned.
    scale_C = (prob_CN * (1 - prob_CN)).sum(1).clamp(min=TINY)
    coupling_CC.diagonal().copy_(scale_C * (1 + 1e-12))
    unit_C = scale_C.rsqrt()
    scaled_CC = coupling_CC * unit_C[:, None] * unit_C
    kernel_C = unit_C.reciprocal() / unit_C.reciprocal().norm()
    # a singular matrix, of probabilities that underflow, gives a step that is not taken
    lu, pivots, _ = torch.linalg.lu_factor_ex(scaled_CC + torch.outer(kernel_C, kernel_C))

    def solve(value_C: Tensor) -> Tensor:
        answer_C = unit_C * torch.linalg.lu_solve(lu, pivots, (unit_C * value_C)[:, None])[:, 0]
        return answer_C - answer_C.mean()

    return solve


def _newton_step(
    problem: Problem,
    c: float,
    at: Gradient,
    answer: Callable[[Tensor], Tensor],
    until: float,
    limit: int,
) -> tuple[Tensor, Tensor, int]:
    """Preconditioned conjugate gradients on the Newton system, the intercept eliminated.

    Returns the weights' and the intercept's step and the number of iterations.
    """
    # The gradient at the intercept that answers the excess, to first order.
    offset_C = -answer(at.excess_C)
    shift_CN = _softmax_jacobian(at.prob_CN, offset_C[:, None].expand_as(at.prob_CN))
    left_CR = -(at.gradient_CR + c * problem.backward(shift_CN))
    inverse_CR = 1 / (1 + c * problem.squares(at.prob_CN * (1 - at.prob_CN)))
    total_R = inverse_CR.sum(0)

    def preconditioned(left_CR: Tensor) -> Tensor:
        # The optimum's weights sum to 0 over classes; steps that do too need fewer of them.
        scaled_CR = inverse_CR * left_CR
        return scaled_CR - inverse_CR * (scaled_CR.sum(0) / total_R)

    step_CR, bias_C = torch.zeros_like(left_CR), offset_C
    scaled_CR = preconditioned(left_CR)
    search_CR, energy = scaled_CR, float((left_CR * scaled_CR).sum())
    taken = 0
    while taken < limit and float(left_CR.norm()) > until and energy > 0:
        spread_CN = _softmax_jacobian(at.prob_CN, problem.forward(search_CR))
        reply_C = -answer(spread_CN.sum(1))
        spread_CN += _softmax_jacobian(at.prob_CN, reply_C[:, None].expand_as(spread_CN))
        image_CR = search_CR + c * problem.backward(spread_CN)
        length = energy / float((search_CR * image_CR).sum())
        step_CR, bias_C = step_CR + length * search_CR, bias_C + length * reply_C
        left_CR = left_CR - length * image_CR
        scaled_CR = preconditioned(left_CR)
        energy, before = float((left_CR * scaled_CR).sum()), energy
        search_CR = scaled_CR + (energy / before) * search_CR
        taken += 1
    return step_CR, bias_C, taken


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


def relative_gap(gap: float, objective: float, floor: float) -> float:
    """The bound of (F - F*) / max(F*, floor) that follows from F - F* <= min(gap, F)."""
    known = max(objective - gap, floor)
    if known > 0:
        return min(gap, objective) / known
    return 0.0 if gap == 0 else float("inf")


def minimise(problem: Problem, c: float, point: Point, gap: float, cap: int | None) -> Result:
    """Newton steps from `point` until the certified relative gap is at most `gap`.

    cap: ends the solve after this many inner iterations; None: only the gap, or the floor of
    float64 (no fall of the objective and no better gap any more, or _STEPS), ends it.
    """
    steps, taken, best = 0, 0, float("inf")
    floor = 0.0 if problem.offset_CN is None else c * len(problem.label_N) * _LOSS_FLOOR
    while True:
        at = gradient_at(problem, c, point)
        bound = relative_gap(at.gap, point.objective, floor)
        if bound <= gap or steps == _MAX_STEPS or (cap is not None and taken >= cap):
            return Result(point, bound, taken)
        want = _GRADIENT_TARGET * (2 * gap * point.objective) ** 0.5
        until = max(want, _FORCING * float(at.gradient_CR.norm()))
        limit = problem.moment_CR.numel() if cap is None else cap - taken
        answer = _intercept_solver(problem, at.prob_CN)
        step_CR, step_C, inner = _newton_step(problem, c, at, answer, until, limit)
        moved = _line_search(problem, c, point, step_CR, step_C)
        fell = point.objective - moved.objective > _RELATIVE_PRECISION * point.objective
        taken += max(inner, 1)
        if not fell and bound >= best:
            return Result(point, bound, taken)
        steps, point, best = steps + 1, moved, min(best, bound)
