"""Multinomial logistic regression over a path of C: features -> `Solution`s -> the chosen one.

The objective is scikit-learn's: C * sum_n CE(softmax(W x_n + b), y_n) + |W|^2 / 2, b free.
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

from fgvc.learn.newton import (
    Point,
    Problem,
    Result,
    minimise,
    point_at,
    prior,
    rotated,
    threads_for,
)
from fgvc.types import Progress, UserError

# A class without a row has probability 0 at the optimum. Its intercept is put at this log instead;
# the other logits of an image sum to 0, so that the largest of them is at least 0 and wins.
ABSENT_LOGIT = math.log(1e-12)
TIE = 1e-9  # relative difference of validation losses that counts as none
_HISTORY = 3  # predecessors that the extrapolation looks at


@dataclass(frozen=True)
class Solution:
    """One point of the path. weight_CD, bias_C: float64, for features as they were given.

    gap: certified upper bound of (objective - optimum) / optimum; iterations: of the inner solver;
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
    """The solution of lowest validation loss, and the whole curve in ascending C."""

    solution: Solution
    curve: tuple[Trial, ...]


@dataclass(frozen=True)
class _Frame:
    """A Problem over the classes that have rows, and the way back to all classes."""

    problem: Problem
    present_K: np.ndarray
    classes: int

    @property
    def cells(self) -> int:
        """Multiply-adds of one product at full size."""
        return len(self.problem.label_N) * len(self.problem.mean_D) * len(self.present_K)

    def solution(self, c: float, found: Result, gap: float) -> Solution:
        """What the solver found, for features as they were given and all classes."""
        point = found.point
        weight_KD = point.weight_CR @ self.problem.axis_DR.T
        bias_K = point.bias_C - weight_KD @ self.problem.mean_D
        weight_CD = np.zeros((self.classes, weight_KD.shape[1]))
        bias_C = np.full(self.classes, ABSENT_LOGIT)
        weight_CD[self.present_K] = (weight_KD - weight_KD.mean(0)).numpy()
        bias_C[self.present_K] = (bias_K - bias_K.mean()).numpy()
        units = self.problem.products / 2
        self.problem.products = 0
        return Solution(
            c,
            weight_CD,
            bias_C,
            point.objective,
            found.gap,
            found.iterations,
            units,
            converged=found.gap <= gap,
        )


def _checked(x_ND: np.ndarray, label_N: np.ndarray, classes: int) -> None:
    assert x_ND.ndim == 2
    assert label_N.shape == (len(x_ND),)
    if len(x_ND) == 0:
        raise UserError("0 training rows: logistic regression needs at least 1; enlarge the split")
    bad_N = ~np.isfinite(x_ND).all(axis=1)
    if bad_N.any():
        raise UserError(
            f"features of {int(bad_N.sum())} of {len(x_ND)} rows are not finite (first: row "
            f"{int(bad_N.argmax())}): extract them again in fp32, or remove those images"
        )
    low, high = int(label_N.min()), int(label_N.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise UserError(f"label {wrong} is outside 0..{classes - 1}: correct the label map")


def _frame(x_ND: np.ndarray, label_N: np.ndarray, classes: int) -> _Frame:
    _checked(x_ND, label_N, classes)
    present_K, index_N = np.unique(label_N, return_inverse=True)
    x = torch.from_numpy(np.ascontiguousarray(x_ND, dtype=np.float64))
    with threads_for(x_ND.size * len(present_K)):
        problem = rotated(x, torch.from_numpy(index_N.astype(np.int64)), len(present_K))
    return _Frame(problem, present_K, classes)


def _lagrange(knots: Sequence[float], at: float) -> list[float]:
    """Weights of the polynomial through `knots`, read at `at`."""
    return [
        math.prod((at - other) / (knot - other) for other in knots if other != knot)
        for knot in knots
    ]


def _start(problem: Problem, c: float, seen: Sequence[tuple[float, Point]]) -> Point:
    """The best of no, constant, linear and quadratic extrapolation in log C: costs no product."""
    starts = [prior(problem, c)]
    for order in range(1, len(seen) + 1):
        knots = seen[-order:]
        parts = _lagrange([math.log(knot) for knot, _ in knots], math.log(c))
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

    Raises:
        UserError: features that are not finite, labels out of range, no rows (before iterating).
    """
    assert all(c > 0 for c in cs)
    assert len(set(cs)) == len(cs)
    frame = _frame(x_ND, label_N, classes)
    return _solved(frame, sorted(map(float, cs)), gap, gap_until, max_iterations, on_step)


def _solved(
    frame: _Frame,
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
            start = _start(frame.problem, c, seen)
            found = minimise(frame.problem, c, start, gap, cap)
            solution = frame.solution(c, found, gap)
        seen = [*seen, (c, found.point)][-_HISTORY:]
        if on_step is not None:
            on_step(1, f"C={c:.3g}")
        yield solution


def choose(path: Iterable[Solution], x_val_ND: np.ndarray, label_val_N: np.ndarray) -> Choice:
    """The C of lowest validation log-loss; a tie (TIE, relative) goes to the smaller C.

    Reads the path once, in ascending C, and keeps one solution.

    Raises:
        UserError: no validation rows.
    """
    if len(x_val_ND) == 0:
        raise UserError("0 validation rows: C cannot be chosen; raise dataset.val_fraction")
    x_val = np.asarray(x_val_ND, dtype=np.float64)
    curve: list[Trial] = []
    best: Solution | None = None
    lowest = math.inf
    for solution in path:
        trial = _trial(solution, x_val, label_val_N)
        curve.append(trial)
        if best is None or trial.loss < lowest * (1 - TIE):
            best, lowest = solution, trial.loss
    assert best is not None
    return Choice(best, tuple(curve))


def _trial(solution: Solution, x_ND: np.ndarray, label_N: np.ndarray) -> Trial:
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
) -> Solution:
    """Solve at start.c on these rows (train + val), starting from `start`; arguments as fit_path.

    Raises:
        UserError: as fit_path.
    """
    frame = _frame(x_ND, label_N, classes)
    cap = None if start.c <= gap_until else max_iterations
    with threads_for(frame.cells):
        found = minimise(frame.problem, start.c, _warm(frame, start), gap, cap)
        return frame.solution(start.c, found, gap)


def _warm(frame: _Frame, start: Solution) -> Point:
    """`start` on the rows of `frame`, or the prior where that is better."""
    problem = frame.problem
    weight_KD = torch.from_numpy(start.weight_CD[frame.present_K])
    weight_KD = weight_KD - weight_KD.mean(0)
    weight_KR = weight_KD @ problem.axis_DR
    bias_K = torch.from_numpy(start.bias_C[frame.present_K]) + weight_KD @ problem.mean_D
    logit_KN = problem.forward(weight_KR) + bias_K[:, None]
    # One proportional fit of the class sums, for a class that `start` had not seen.
    fit_K = (problem.count_C / torch.softmax(logit_KN, 0).sum(1)).log()
    bias_K, logit_KN = bias_K + fit_K, logit_KN + fit_K[:, None]
    warm = point_at(problem, start.c, weight_KR, bias_K, logit_KN)
    cold = prior(problem, start.c)
    return min(warm, cold, key=lambda point: point.objective)


def rotation_units(rows: int, width: int, classes: int) -> float:
    """What the one rotation costs, in units: flops of a thin SVD (Golub and Van Loan, 6 m n^2 +
    20 n^3) over those of a unit (4 N D C)."""
    long, short = max(rows, width), min(rows, width)
    return (6 * long * short**2 + 20 * short**3) / (4 * rows * width * classes)
