"""Features and labels -> the solution of the logistic problem for one C, or for several.

The objective is scikit-learn's, C * sum_n CE(softmax(W x_n + b), y_n) + |W - W0|^2 / 2 with b free.
W0 is zero, or a prior of the weights (the text features of the class names). The solution for each
C starts from an extrapolation in log C of those before it. With two classes the softmax penalises
both rows: scikit-learn's sigmoid is the same model at 2 C.
N rows, D features, C classes, R principal axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from fgvc.learn.logistic.newton import minimise
from fgvc.learn.logistic.problem import (
    Model,
    Problem,
    build_problem,
    point_at,
    threads_for,
)

_KNOTS = 3  # number of solutions in the extrapolation
_KEPT_BYTES = 256 << 20  # solutions beyond _KNOTS are kept up to this size

OnStep = Callable[[float, float], None]


@dataclass(frozen=True)
class Solution:
    """The solution for one C. weight_CD, bias_C: float64, for the input features.

    gap: certified upper bound of (objective - optimum) / optimum; with a prior, the denominator is
    at least C * N * 1e-6. iterations: of the inner solver. units: cost; two products of N x R x C
    multiply-adds (X W^T and G^T X) are one unit.
    """

    c: float
    weight_CD: np.ndarray
    bias_C: np.ndarray
    objective: float
    gap: float
    iterations: int
    units: float
    converged: bool

    @property
    def convergence(self) -> dict[str, object]:
        """How well the problem was solved, as plain data."""
        return {
            "c": self.c,
            "gap": self.gap if math.isfinite(self.gap) else None,
            "iterations": self.iterations,
            "units": self.units,
            "converged": self.converged,
        }


class Solver:
    """Solves one problem for values of C in any order, each from the solutions nearest to it.

    Args:
        x_ND: finite features, any float type, in memory or memory-mapped; solved in float64.
        label_N: class indices in 0..classes-1; a class may be absent (see ABSENT_LOGIT).
        gap_until: up to this C, a solve only ends at its gap; above, it may end after
            max_iterations with converged=False.
        prior_CD: W0, finite, float64, for the input features; None: zeros.
        row_N: the rows of x_ND that take part, with the labels label_N; None: all.
        device: "cuda" to solve problems of several blocks there.
        on_step: called before each Newton step with a lower bound of the certified relative gap,
            and with the units of this solve so far.

    Raises:
        UserError: features that are not finite, labels out of range, no rows.
    """

    def __init__(
        self,
        x_ND: np.ndarray,
        label_N: np.ndarray,
        classes: int,
        gap_until: float,
        max_iterations: int,
        prior_CD: np.ndarray | None = None,
        row_N: np.ndarray | None = None,
        device: str = "cpu",
        on_step: OnStep = lambda bound, units: None,
    ) -> None:
        self._problem = build_problem(x_ND, label_N, classes, prior_CD, row_N, device)
        self._limits = gap_until, max_iterations, on_step
        self._solved: dict[float, Model] = {}
        self._gaps: dict[float, float] = {}

    def solve(self, c: float, gap: float) -> Solution:
        """The solution for `c` (positive) with a relative objective gap of at most `gap`."""
        problem = self._problem
        with threads_for(problem.cells):
            starts = [problem.cold, *_extrapolations(c, self._solved)]
            exact = {knot: model for knot, model in self._solved.items() if self._gaps[knot] <= gap}
            if 0 < len(exact) < len(self._solved):  # loose ones spoil an extrapolation
                starts += _extrapolations(c, exact)
            solution, model = _solve(problem, c, starts, gap, *self._limits)
        self._gaps[c] = gap
        self._keep(c, model)
        return solution

    def _keep(self, c: float, model: Model) -> None:
        """Keep the solution as a start for others; forget those farthest away."""
        self._solved[c] = model
        tensors = (model.weight_CR, model.logit_CN)
        size = sum(tensor.nbytes for tensor in tensors if tensor is not None)
        limit = max(_KEPT_BYTES // max(size, 1), _KNOTS)
        while len(self._solved) > limit:
            self._solved.pop(max(self._solved, key=lambda knot: abs(math.log(knot / c))))


def refit(
    x_ND: np.ndarray,
    label_N: np.ndarray,
    classes: int,
    start: Solution,
    gap: float,
    gap_until: float,
    max_iterations: int,
    prior_CD: np.ndarray | None = None,
    row_N: np.ndarray | None = None,
    device: str = "cpu",
    on_step: OnStep = lambda bound, units: None,
) -> Solution:
    """Solve for start.c on these rows, starting from `start`; arguments as in `Solver`.

    `start` may come from other rows (train, before train + val) or from a wider gap.

    Raises:
        UserError: as `Solver`.
    """
    problem = build_problem(x_ND, label_N, classes, prior_CD, row_N, device)
    with threads_for(problem.cells):
        starts = [problem.to_model(start.weight_CD, start.bias_C), problem.cold]
        return _solve(problem, start.c, starts, gap, gap_until, max_iterations, on_step)[0]


def _solve(
    problem: Problem,
    c: float,
    starts: Sequence[Model],
    gap: float,
    gap_until: float,
    max_iterations: int,
    on_step: OnStep,
) -> tuple[Solution, Model]:
    """The solution for one C from the best of `starts`, and its model, from which others start."""
    cap = None if c <= gap_until else max_iterations
    best = min(starts, key=lambda model: problem.sampled_objective(c, model))
    point, bound, iterations = minimise(problem, c, point_at(problem, c, best), gap, cap, on_step)
    units, problem.products = problem.products / 2, 0.0
    weight_CD, bias_C = problem.to_weights(point)
    converged = bound <= gap
    solution = Solution(c, weight_CD, bias_C, point.objective, bound, iterations, units, converged)
    return solution, Model(point.weight_CR, point.bias_C, point.logit_CN)


def _extrapolations(c: float, solved: Mapping[float, Model]) -> Iterator[Model]:
    """Polynomials of order 0 to 2 in log C through the nearest solutions; needs no product."""
    nearest = sorted(solved, key=lambda knot: abs(math.log(knot / c)))[:_KNOTS]
    if nearest and nearest[0] == c:
        nearest = nearest[:1]
    for count in range(1, len(nearest) + 1):
        knots = nearest[:count]
        weights = [
            math.prod(
                math.log(c / other) / math.log(knot / other) for other in knots if other != knot
            )
            for knot in knots
        ]
        models = [solved[knot] for knot in knots]
        yield Model(
            _combine(weights, [model.weight_CR for model in models]),
            _combine(weights, [model.bias_C for model in models]),
            _combine(weights, [m.logit_CN for m in models if m.logit_CN is not None]),
        )


def _combine(weights: Sequence[float], tensors: Sequence[Tensor]) -> Any:
    """The weighted sum; None without tensors."""
    pairs = zip(weights, tensors, strict=False)
    return sum(weight * tensor for weight, tensor in pairs) if tensors else None
