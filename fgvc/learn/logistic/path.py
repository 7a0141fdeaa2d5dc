"""Multinomial logistic regression over a path of C: features -> `Solution`s -> the selected one.

The objective is scikit-learn's, C * sum_n CE(softmax(W x_n + b), y_n) + |W - W0|^2 / 2 with b free.
W0 is zero, or a prior of the weights (the text features of the class names). The solution for each
C starts from an extrapolation of its predecessors in log C. Source of the protocol: DINOv2's
logistic regression (arXiv:2304.07193), 45 values of C from 1e-6 to 1e5. With two classes the
softmax penalises both rows: scikit-learn's sigmoid is the same model at 2 C.
N rows, D features, C classes, R principal axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fgvc.learn.logistic.newton import minimise
from fgvc.learn.logistic.problem import (
    Point,
    Problem,
    build_problem,
    cold_start,
    point_at,
    threads_for,
)
from fgvc.types import Progress, UserError

TOLERANCE = 1e-4  # nats above the lowest validation loss that count as a tie
_HISTORY = 3  # number of predecessors in the extrapolation


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


@dataclass(frozen=True)
class Trial:
    """Validation of one C: mean log-loss and accuracy. convergence: of its solution."""

    c: float
    loss: float
    top1: float
    convergence: dict[str, object]


@dataclass(frozen=True)
class Choice:
    """The selected solution, and the validation curve in ascending C."""

    solution: Solution
    curve: tuple[Trial, ...]

    @property
    def end(self) -> str | None:
        """Whether the selected C is the "first" or "last" of several; None: neither."""
        return range_end(self.solution.c, [trial.c for trial in self.curve])


def range_end(chosen: float, tried: Iterable[float]) -> str | None:
    """The end of the range of tried values that was selected; a better value may be beyond it.

    Returns:
        "first": the smallest of at least two distinct values; "last": the largest; None otherwise.
    """
    values = sorted(set(tried))
    if len(values) < 2 or chosen not in (values[0], values[-1]):
        return None
    return "first" if chosen == values[0] else "last"


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


def fit_path(
    x_ND: np.ndarray,
    label_N: np.ndarray,
    classes: int,
    cs: Sequence[float],
    gap: float,
    gap_until: float,
    max_iterations: int,
    on_step: Progress = lambda n, note="": None,
    prior_CD: np.ndarray | None = None,
) -> Iterator[Solution]:
    """Solve for every C in ascending order, each warm-started from those before it.

    Args:
        x_ND: finite features, any float type; solved in float64.
        label_N: class indices in 0..classes-1; a class may be absent (see ABSENT_LOGIT).
        cs: positive, distinct values of C.
        gap: target of the relative objective gap.
        gap_until: up to this C, a solve only ends at the gap; above, it may end after
            max_iterations with converged=False.
        on_step: advanced by one per solution.
        prior_CD: W0, finite, float64, for the input features; None: zeros.

    Raises:
        UserError: features that are not finite, labels out of range, no rows (before iterating).
    """
    assert all(c > 0 for c in cs)
    assert len(set(cs)) == len(cs)
    problem = build_problem(x_ND, label_N, classes, prior_CD)

    def solve_path() -> Iterator[Solution]:
        history: list[tuple[float, Point]] = []
        for c in sorted(map(float, cs)):
            with threads_for(problem.cells):
                start = _extrapolate(problem, c, history)
                solution, point = _solve(problem, c, start, gap, gap_until, max_iterations)
            history = [*history, (c, point)][-_HISTORY:]
            on_step(1)
            yield solution

    return solve_path()


def choose(path: Iterable[Solution], x_val_ND: np.ndarray, label_val_N: np.ndarray) -> Choice:
    """The smallest C whose validation log-loss is at most TOLERANCE above the lowest of all.

    Reads the path once, in ascending C, and only stores solutions that can still be selected: those
    within TOLERANCE of the lowest loss so far whose loss is below the loss of every smaller C.

    Raises:
        UserError: no validation rows.
    """
    if len(x_val_ND) == 0:
        raise UserError("0 validation rows: C cannot be chosen; raise dataset.val_fraction")
    x_ND, label_N = np.asarray(x_val_ND, np.float64), torch.from_numpy(label_val_N.astype(np.int64))
    curve: list[Trial] = []
    candidates: list[tuple[float, Solution]] = []  # (loss, solution), losses falling
    for solution in path:
        logit_NC = torch.from_numpy(x_ND @ solution.weight_CD.T + solution.bias_C)
        loss = float(torch.nn.functional.cross_entropy(logit_NC, label_N))
        top1 = float((logit_NC.argmax(1) == label_N).double().mean())
        curve.append(Trial(solution.c, loss, top1, solution.convergence))
        if candidates and not loss < candidates[-1][0]:
            continue
        near = [pair for pair in candidates if pair[0] <= loss + TOLERANCE]
        candidates = [*near, (loss, solution)]
    assert candidates
    return Choice(candidates[0][1], tuple(curve))


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
    """Solve for start.c on these rows, starting from `start`; arguments as in fit_path.

    `start` may come from other rows (train, before train + val) or from a wider gap.

    Raises:
        UserError: as fit_path.
    """
    c = start.c
    problem = build_problem(x_ND, label_N, classes, prior_CD)
    with threads_for(problem.cells):
        starts = problem.to_point(c, start.weight_CD, start.bias_C), cold_start(problem, c)
        best = min(starts, key=lambda point: point.objective)
        return _solve(problem, c, best, gap, gap_until, max_iterations)[0]
