"""Multinomial logistic regression over a path of C: features -> `Solution`s -> the chosen one.

The objective is scikit-learn's, C * sum_n CE(softmax(W x_n + b), y_n) + |W - W0|^2 / 2 with b free,
where W0 is zero or a prior that the weights are drawn towards (class names as text features).
Each C starts from its predecessors, extrapolated in log C. Source of the protocol: DINOv2's
logistic regression (arXiv:2304.07193), 45 values of C from 1e-6 to 1e5. With two classes the
softmax has both rows penalised: scikit-learn's sigmoid is the same model at 2 C.
N rows, D features, C classes, R principal axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fgvc.learn.logistic.frame import Frame, build_frame
from fgvc.learn.logistic.newton import Result, minimise
from fgvc.learn.logistic.problem import Point, Problem, cold_start, point_at, threads_for
from fgvc.learn.range_end import range_end
from fgvc.types import Progress, UserError

TOLERANCE = 1e-4  # nats above the lowest validation loss that count as a tie
_HISTORY = 3  # predecessors that the extrapolation looks at


@dataclass(frozen=True)
class Solution:
    """One point of the path. weight_CD, bias_C: float64, for features as they were given.

    gap: certified upper bound of (objective - optimum) / optimum; with a prior an optimum below
    C * N * 1e-6 counts as that much. iterations: of the inner solver.
    units: products of N x R x C multiply-adds, two of them (X W^T and G^T X) making one unit.
    """

    c: float
    weight_CD: np.ndarray
    bias_C: np.ndarray
    objective: float
    gap: float
    iterations: int
    units: float
    converged: bool


@dataclass(frozen=True)
class Trial:
    """Validation of one C: mean negative log-likelihood and accuracy."""

    c: float
    loss: float
    top1: float


@dataclass(frozen=True)
class Choice:
    """The chosen solution, and the whole curve in ascending C."""

    solution: Solution
    curve: tuple[Trial, ...]

    @property
    def end(self) -> str | None:
        """Whether the chosen C is the "first" or "last" of several; None: it is neither."""
        return range_end(self.solution.c, [trial.c for trial in self.curve])


def _make_solution(frame: Frame, c: float, found: Result, gap: float) -> Solution:
    weight_CD, bias_C = frame.given(found.point)
    units, frame.problem.products = frame.problem.products / 2, 0
    return Solution(
        c,
        weight_CD,
        bias_C,
        found.point.objective,
        found.gap,
        found.iterations,
        units,
        converged=found.gap <= gap,
    )


def _lagrange_weights(knots: Sequence[float], at: float) -> list[float]:
    """Weights of the polynomial through `knots`, read at `at`."""
    return [
        math.prod((at - other) / (knot - other) for other in knots if other != knot)
        for knot in knots
    ]


def _extrapolate(problem: Problem, c: float, seen: Sequence[tuple[float, Point]]) -> Point:
    """The best of no, constant, linear and quadratic extrapolation in log C: costs no product."""
    starts = [cold_start(problem, c)]
    for order in range(1, len(seen) + 1):
        knots = seen[-order:]
        parts = _lagrange_weights([math.log(knot) for knot, _ in knots], math.log(c))
        weight, bias, logit = (
            sum(part * getattr(point, name) for part, (_, point) in zip(parts, knots, strict=True))
            for name in ("weight_CR", "bias_C", "logit_CN")
        )
        assert isinstance(weight, torch.Tensor)
        assert isinstance(bias, torch.Tensor)
        assert isinstance(logit, torch.Tensor)
        starts.append(point_at(problem, c, weight, bias, logit))
    return min(starts, key=lambda point: point.objective)


def fit_path(
    x_ND: np.ndarray,
    label_N: np.ndarray,
    classes: int,
    cs: Sequence[float],
    gap: float,
    gap_until: float,
    max_iterations: int,
    on_step: Progress | None = None,
    prior_CD: np.ndarray | None = None,
) -> Iterator[Solution]:
    """Solve for every C in ascending order, each warm-started from those before it.

    Args:
        x_ND: finite features, any float type; solved in float64.
        label_N: class indices in 0..classes-1; a class may be absent (see ABSENT_LOGIT).
        cs: positive, distinct values of C.
        gap: relative objective gap asked for.
        gap_until: up to this C only the gap ends a solve; above it max_iterations may,
            with converged=False.
        on_step: advanced by one for every solution.
        prior_CD: W0, finite, float64, for features as they are given; None: zeros.

    Raises:
        UserError: features that are not finite, labels out of range, no rows (before iterating).
    """
    assert all(c > 0 for c in cs)
    assert len(set(cs)) == len(cs)
    frame = build_frame(x_ND, label_N, classes, prior_CD)
    return _solve_path(frame, sorted(map(float, cs)), gap, gap_until, max_iterations, on_step)


def _solve_path(
    frame: Frame,
    cs: Sequence[float],
    gap: float,
    gap_until: float,
    max_iterations: int,
    on_step: Progress | None,
) -> Iterator[Solution]:
    seen: list[tuple[float, Point]] = []
    for c in cs:
        cap = None if c <= gap_until else max_iterations
        with threads_for(frame.cells):
            start = _extrapolate(frame.problem, c, seen)
            found = minimise(frame.problem, c, start, gap, cap)
            solution = _make_solution(frame, c, found, gap)
        seen = [*seen, (c, found.point)][-_HISTORY:]
        if on_step is not None:
            on_step(1, f"C={c:.3g}")
        yield solution


def choose(path: Iterable[Solution], x_val_ND: np.ndarray, label_val_N: np.ndarray) -> Choice:
    """The smallest C whose validation log-loss is at most TOLERANCE above the lowest of all.

    Reads the path once, in ascending C. It keeps the solutions that can still be chosen: those
    within TOLERANCE of the lowest loss so far whose loss is below that of every smaller C.

    Raises:
        UserError: no validation rows.
    """
    if len(x_val_ND) == 0:
        raise UserError("0 validation rows: C cannot be chosen; raise dataset.val_fraction")
    x_val = np.asarray(x_val_ND, dtype=np.float64)
    curve: list[Trial] = []
    candidates: list[tuple[float, Solution]] = []  # (loss, solution), losses falling
    for solution in path:
        trial = _validate(solution, x_val, label_val_N)
        curve.append(trial)
        if candidates and not trial.loss < candidates[-1][0]:
            continue
        near = [pair for pair in candidates if pair[0] <= trial.loss + TOLERANCE]
        candidates = [*near, (trial.loss, solution)]
    assert candidates
    return Choice(candidates[0][1], tuple(curve))


def _validate(solution: Solution, x_ND: np.ndarray, label_N: np.ndarray) -> Trial:
    logit_NC = torch.from_numpy(x_ND @ solution.weight_CD.T + solution.bias_C)
    label = torch.from_numpy(label_N.astype(np.int64))
    loss = float(torch.nn.functional.cross_entropy(logit_NC, label))
    return Trial(solution.c, loss, float((logit_NC.argmax(1) == label).double().mean()))


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
    """Solve at start.c on these rows, starting from `start`; arguments as fit_path.

    `start` may come from other rows (train, for train + val) or from a wider gap.

    Raises:
        UserError: as fit_path.
    """
    c = start.c
    frame = build_frame(x_ND, label_N, classes, prior_CD)
    cap = None if c <= gap_until else max_iterations
    with threads_for(frame.cells):
        starts = frame.taken(c, start.weight_CD, start.bias_C), cold_start(frame.problem, c)
        best = min(starts, key=lambda point: point.objective)
        return _make_solution(frame, c, minimise(frame.problem, c, best, gap, cap), gap)


def rotation_units(rows: int, width: int, classes: int) -> float:
    """What the one rotation costs, in units: flops of a thin SVD (Golub and Van Loan, 6 m n^2 +
    20 n^3) over those of a unit (4 N D C)."""
    long, short = max(rows, width), min(rows, width)
    return (6 * long * short**2 + 20 * short**3) / (4 * rows * width * classes)
