"""Features and labels -> the solution of the logistic problem for one C, or for several.

The objective is scikit-learn's, C * sum_n CE(softmax(W x_n + b), y_n) + |W - W0|^2 / 2 with b free.
W0 is zero, or a prior of the weights (the text features of the class names). The solution for each
C starts from an extrapolation in log C of those before it. With two classes the softmax penalises
both rows: scikit-learn's sigmoid is the same model at 2 C.
N rows, D features, C classes, R principal axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgvc.learn.logistic.newton import minimise
from fgvc.learn.logistic.problem import (
    Point,
    Problem,
    build_problem,
    cold_start,
    point_at,
    threads_for,
)

_HISTORY = 3  # number of solutions in the extrapolation


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
        x_ND: finite features, any float type; solved in float64.
        label_N: class indices in 0..classes-1; a class may be absent (see ABSENT_LOGIT).
        gap_until: up to this C, a solve only ends at its gap; above, it may end after
            max_iterations with converged=False.
        prior_CD: W0, finite, float64, for the input features; None: zeros.

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
    ) -> None:
        self._problem = build_problem(x_ND, label_N, classes, prior_CD)
        self._limits = gap_until, max_iterations
        self._history: list[tuple[float, Point]] = []

    def solve(self, c: float, gap: float) -> Solution:
        """The solution for `c` (positive) with a relative objective gap of at most `gap`."""
        with threads_for(self._problem.cells):
            start = _extrapolate(self._problem, c, self._history)
            solution, point = _solve(self._problem, c, start, gap, *self._limits)
        self._history = [*self._history, (c, point)][-_HISTORY:]
        return solution


def refit(
    x_ND: np.ndarray,
    label_N: np.ndarray,
    classes: int,
    start: Solution,
    gap: float,
    gap_until: float,
    max_iterations: int,
    prior_CD: np.ndarray | None = None,
) -> Solution:
    """Solve for start.c on these rows, starting from `start`; arguments as in `Solver`.

    `start` may come from other rows (train, before train + val) or from a wider gap.

    Raises:
        UserError: as `Solver`.
    """
    c = start.c
    problem = build_problem(x_ND, label_N, classes, prior_CD)
    with threads_for(problem.cells):
        starts = problem.to_point(c, start.weight_CD, start.bias_C), cold_start(problem, c)
        best = min(starts, key=lambda point: point.objective)
        return _solve(problem, c, best, gap, gap_until, max_iterations)[0]


def _solve(
    problem: Problem, c: float, start: Point, gap: float, gap_until: float, max_iterations: int
) -> tuple[Solution, Point]:
    """The solution for one C, and its point, from which others may start."""
    cap = None if c <= gap_until else max_iterations
    point, bound, iterations = minimise(problem, c, start, gap, cap)
    units, problem.products = problem.products / 2, 0
    weight_CD, bias_C = problem.to_weights(point)
    converged = bound <= gap
    solution = Solution(c, weight_CD, bias_C, point.objective, bound, iterations, units, converged)
    return solution, point


def _extrapolate(problem: Problem, c: float, history: Sequence[tuple[float, Point]]) -> Point:
    """The best of a cold start and extrapolations of order 0 to 2 in log C; needs no product."""
    starts = [cold_start(problem, c)]
    for order in range(1, len(history) + 1):
        knots = [math.log(knot) for knot, _ in history[-order:]]
        lagrange_weights = [
            math.prod((math.log(c) - other) / (knot - other) for other in knots if other != knot)
            for knot in knots
        ]
        values: list[Any] = [
            sum(
                weight * getattr(point, name)
                for weight, (_, point) in zip(lagrange_weights, history[-order:], strict=True)
            )
            for name in ("weight_CR", "bias_C", "logit_CN")
        ]
        starts.append(point_at(problem, c, *values))
    return min(starts, key=lambda point: point.objective)
