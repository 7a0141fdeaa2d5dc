"""Newton's method for multinomial logistic regression with a free intercept, and its certificate.

`Problem` -> `Point`s of falling objective. Conjugate gradients solve for each step; the objective,
its gradient and the certificate are always float64. The weights are V, the distance from their
prior.
N rows, B rows of a block, R principal axes, K = R + 1 with the intercept, C classes present.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fgvc.learn.logistic.hessian import Hessian, stride
from fgvc.learn.logistic.problem import TINY, Model, Point, Problem, point_at, slope_at

_FORCING = 0.03  # part of the gradient that may remain after one Newton step
_GRADIENT_TARGET = 0.5  # part of the target gradient norm at which conjugate gradients stop
_MAX_HALVINGS = 40
_ROUGH_HALVINGS = 4  # limit of halvings for a step that was not exact
# A step that was not exact has to halve the gradient or lower the objective by this part. Far from
# the optimum, the curvature changes on the way, and exact steps do not lower the gradient either.
_ROUGH_GRADIENT, _ROUGH_OBJECTIVE = 0.5, 0.01
_LOSS_FLOOR = 1e-6  # mean log-loss below which a prior leaves nothing to learn
_MAX_STEPS = 200  # a solve takes about 10; with probabilities that underflow it might not end
_RELATIVE_PRECISION = 4e-16  # relative decrease of the objective below the precision of float64


@dataclass(frozen=True)
class Gradient:
    """Gradient of the objective at a Point, with its distance to a dual feasible P'.

    data_CR: (P - Y) X. excess_C: class sums of P - Y. mix_C: the part of a class's probabilities
    that P' takes away. share_C: how P' distributes it. distance: |V + C (P' - Y) X|^2 / 2.
    """

    gradient_CR: Tensor
    excess_C: Tensor
    mix_C: Tensor
    share_C: Tensor
    distance: float

    def direction(self, c: float) -> Tensor:
        """The negative gradient of weights and intercepts, C x K."""
        return -torch.cat([self.gradient_CR, c * self.excess_C[:, None]], 1)


def gradient_at(problem: Problem, c: float, point: Point) -> Gradient:
    """The gradient; half a unit, unless the point has it.

    Any P' whose columns are distributions and whose class sums equal the class counts is dual
    feasible. P' takes from each class whose sum is too large the same part of all its
    probabilities, and gives what it takes from a row to the classes whose sum is too small, in
    proportion to what they lack. The gradient of P' needs no further product.
    """
    slope = slope_at(problem, point)
    data_CR, excess_C = slope.data_CR, slope.excess_C
    mix_C = excess_C.clamp(min=0) / (problem.count_C + excess_C).clamp(min=TINY)
    lack_C = (-excess_C).clamp(min=0)
    share_C = lack_C / lack_C.sum().clamp(min=TINY)
    taken_CR = mix_C[:, None] * (data_CR + problem.moment_CR)
    feasible_CR = data_CR - taken_CR + share_C[:, None] * taken_CR.sum(0)
    distance = 0.5 * float((point.weight_CR + c * feasible_CR).square().sum())
    return Gradient(point.weight_CR + c * data_CR, excess_C, mix_C, share_C, distance)


def certified_gap(problem: Problem, c: float, point: Point, gradient: Gradient) -> float:
    """Upper bound of the objective minus the optimum: half a unit, unless the logits are kept.

    The gap to the dual value of P' is |V + C (P'-Y)X|^2 / 2 + C sum KL(P' | P); a prior cancels in
    this difference.
    """
    divergence = 0.0
    if float(gradient.mix_C.max()) > 0:
        for _, _, logit_CB in problem.logits(point):
            divergence += _divergence(logit_CB, gradient.mix_C, gradient.share_C)
    return gradient.distance + c * divergence


def _divergence(logit_CB: Tensor, mix_C: Tensor, share_C: Tensor) -> float:
    """Sum of KL(p' | p) of a block, in a form that is precise for small steps from p to p'."""
    log_CB = torch.log_softmax(logit_CB, 0)
    prob_CB = log_CB.exp()
    step_CB = torch.outer(share_C, mix_C @ prob_CB).addcmul_(mix_C[:, None], prob_CB, value=-1)
    ratio_CB = step_CB / prob_CB
    near_CB = prob_CB * ((1 + ratio_CB) * torch.log1p(ratio_CB) - ratio_CB)
    mixed_CB = prob_CB.add_(step_CB)
    far_CB = torch.xlogy(mixed_CB, mixed_CB) - mixed_CB * log_CB - step_CB
    return max(float(torch.where(ratio_CB < 1, near_CB, far_CB).sum()), 0.0)


def _newton_step(
    problem: Problem,
    c: float,
    gradient: Gradient,
    hessian: Hessian,
    tolerance: float,
    max_iterations: int,
) -> tuple[Tensor, int]:
    """Preconditioned conjugate gradients on the Newton system.

    At the end the intercepts are solved once more: the certificate grows with the first power of
    an excess of the class sums, but with the second power of any other residual.

    Returns the step and the number of iterations.
    """
    residual_CK = gradient.direction(c)
    step_CK = torch.zeros_like(residual_CK)
    scaled_CK = hessian.precondition(residual_CK)
    search_CK, energy = scaled_CK, float((residual_CK * scaled_CK).sum())
    iterations = 0
    while iterations < max_iterations and energy > 0:
        if _norm(problem, c, residual_CK) <= tolerance:
            break
        product_CK = hessian.product(search_CK)
        curvature = float((search_CK * product_CK).sum())
        iterations += 1
        if not curvature > 0:  # rounding errors
            break
        length = energy / curvature
        step_CK.add_(search_CK, alpha=length)
        residual_CK.sub_(product_CK, alpha=length)
        scaled_CK = hessian.precondition(residual_CK)
        energy, previous = float((residual_CK * scaled_CK).sum()), energy
        search_CK = scaled_CK.add_(search_CK, alpha=energy / previous)
    step_CK[:, -1] += hessian.solve_intercept(residual_CK[:, -1] / c)
    return step_CK, iterations


def _norm(problem: Problem, c: float, residual_CK: Tensor) -> float:
    """Norm of a gradient, where an excess of a class counts as it does in the certificate."""
    intercept_C = residual_CK[:, -1].square() / (c * problem.count_C)
    return float(residual_CK[:, :-1].square().sum() + intercept_C.sum()) ** 0.5


def _line_search(problem: Problem, c: float, start: Point, step_CK: Tensor, halvings: int) -> Point:
    """The first of the full, half, quarter ... step that does not raise the objective."""
    step_CR, step_C = step_CK[:, :-1], step_CK[:, -1] - step_CK[:, -1].mean()
    model = problem.model(start.weight_CR + step_CR, start.bias_C + step_C)
    for halving in range(halvings):
        point = point_at(problem, c, _between(start, model, 0.5**halving))
        if point.objective <= start.objective * (1 + _RELATIVE_PRECISION):
            return point
    return start


def _between(start: Model, end: Model, t: float) -> Model:
    """The model at a part of the way; kept logits need no product."""
    weight_CR = torch.lerp(start.weight_CR, end.weight_CR, t)
    bias_C = torch.lerp(start.bias_C, end.bias_C, t)
    if start.logit_CN is None or end.logit_CN is None:
        return Model(weight_CR, bias_C, None)
    return Model(weight_CR, bias_C, torch.lerp(start.logit_CN, end.logit_CN, t))


def minimise(
    problem: Problem,
    c: float,
    point: Point,
    gap: float,
    cap: int | None,
    on_step: Callable[[float, float], None] = lambda bound, units: None,
) -> tuple[Point, float, int]:
    """Newton steps from `point` until the certified relative gap is at most `gap`.

    The steps are exact (see Hessian) after the first one that made too little progress.

    cap: limit of inner iterations. Without a limit, the solve also ends if the objective and the
    gap no longer decrease in float64, or after _MAX_STEPS. on_step: called before each step with a
    lower bound of the certified gap, and the units up to here.

    Returns:
        the last point; the certified bound of its (F - F*) / F*; the number of inner iterations.
    """
    steps, iterations, best_bound, norm = 0, 0, float("inf"), float("inf")
    decreased, slow = True, False
    exact = problem.one_block and stride(problem) == 1
    while True:
        gradient = gradient_at(problem, c, point)
        bound = _relative(problem, c, point, gradient.distance)
        last = steps == _MAX_STEPS or (cap is not None and iterations >= cap)
        if bound <= gap or last or not decreased:
            bound = _relative(problem, c, point, certified_gap(problem, c, point, gradient))
            stalled = exact and not decreased and bound >= best_bound
            if bound <= gap or last or stalled:
                return point, bound, iterations
            best_bound = min(best_bound, bound)
        on_step(bound, problem.products / 2)
        previous, norm = norm, _norm(problem, c, gradient.direction(c))
        exact = exact or (slow and norm > _ROUGH_GRADIENT * previous)
        target = _GRADIENT_TARGET * (2 * gap * point.objective) ** 0.5
        tolerance = max(target, _FORCING * norm)
        max_iterations = problem.moment_CR.numel() if cap is None else cap - iterations
        hessian = Hessian(problem, c, point, exact)
        step_CK, step_iterations = _newton_step(
            problem, c, gradient, hessian, tolerance, max_iterations
        )
        halvings = _MAX_HALVINGS if exact else _ROUGH_HALVINGS
        next_point = _line_search(problem, c, point, step_CK, halvings)
        decrease = point.objective - next_point.objective
        decreased = decrease > _RELATIVE_PRECISION * point.objective
        slow = decrease < _ROUGH_OBJECTIVE * point.objective
        steps, iterations, point = steps + 1, iterations + max(step_iterations, 1), next_point


def _relative(problem: Problem, c: float, point: Point, gap: float) -> float:
    """A bound of (F - F*) / F*, from one of F - F*."""
    floor = 0.0 if problem.prior_CR is None else c * len(problem.rows) * _LOSS_FLOOR
    lower_bound = max(point.objective - gap, floor)  # of the optimum
    if gap == 0:
        return 0.0
    return min(gap, point.objective) / lower_bound if lower_bound > 0 else float("inf")
