"""A path of C: solutions -> validation curve -> the selected one.

Source of the protocol: DINOv2's logistic regression (arXiv:2304.07193), 45 values of C from 1e-6 to
1e5.
N rows, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fgvc.learn.logistic.rows import check_finite
from fgvc.learn.logistic.solver import Solution, Solver
from fgvc.types import Progress, UserError

BLOCK_CELLS = 2**24  # rows x classes of one block of validation logits, float64
TOLERANCE = 1e-4  # nats above the lowest validation loss that count as a tie


@dataclass(frozen=True)
class Trial:
    """Validation of one C: mean log-loss and accuracy. convergence: of its solution, with the cost
    of all its solves. loose: solved to a wider gap than the path; the loss is then approximate."""

    c: float
    loss: float
    top1: float
    convergence: dict[str, Any]
    loose: bool = False


@dataclass(frozen=True)
class Choice:
    """The selected solution, and the solved part of the validation curve in ascending C.

    whole: why every C was solved; None: only a part was.
    """

    solution: Solution
    curve: tuple[Trial, ...]
    whole: str | None

    @property
    def end(self) -> str | None:
        """Whether the selected C is the "first" or "last" of several; None: neither."""
        return range_end(self.solution.c, [trial.c for trial in self.curve])

    @property
    def units(self) -> float:
        """The cost of all solves."""
        return sum(trial.convergence["units"] for trial in self.curve)


class Validation:
    """The rows on which solutions are compared.

    Args:
        x_ND: features, any float type. label_N: class indices.

    Raises:
        UserError: no rows, or features that are not finite: every C would have the same loss, NaN.
    """

    def __init__(self, x_ND: np.ndarray, label_N: np.ndarray) -> None:
        if len(x_ND) == 0:
            raise UserError("0 validation rows: C cannot be chosen; raise dataset.val_fraction")
        check_finite(x_ND, None, "validation rows")
        self._x_ND, self._label_N = x_ND, torch.from_numpy(label_N.astype(np.int64))

    def evaluate(self, solution: Solution) -> tuple[float, float]:
        """Mean log-loss and accuracy, in blocks of rows."""
        rows = max(1, BLOCK_CELLS // len(solution.bias_C))
        loss, right = 0.0, 0.0
        for start in range(0, len(self._x_ND), rows):
            x_BD = np.asarray(self._x_ND[start : start + rows], np.float64)
            label_B = self._label_N[start : start + rows]
            logit_BC = torch.from_numpy(x_BD @ solution.weight_CD.T + solution.bias_C)
            share = len(label_B) / len(self._label_N)
            loss += share * float(torch.nn.functional.cross_entropy(logit_BC, label_B))
            right += share * float((logit_BC.argmax(1) == label_B).double().mean())
        return loss, right


def range_end(chosen: float, tried: Iterable[float]) -> str | None:
    """The end of the range of tried values that was selected; a better value may be beyond it.

    Returns:
        "first": the smallest of at least two distinct values; "last": the largest; None otherwise.
    """
    values = sorted(set(tried))
    if len(values) < 2 or chosen not in (values[0], values[-1]):
        return None
    return "first" if chosen == values[0] else "last"


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
    row_N: np.ndarray | None = None,
    device: str = "cpu",
) -> Iterator[Solution]:
    """Solve for every C in ascending order, each warm-started from those before it.

    Args:
        x_ND, label_N, classes, gap_until, max_iterations, prior_CD, row_N, device: as for `Solver`.
        cs: positive, distinct values of C.
        gap: target of the relative objective gap.
        on_step: advanced by one per solution.

    Raises:
        UserError: as `Solver` (before iterating).
    """
    assert all(c > 0 for c in cs)
    assert len(set(cs)) == len(cs)
    solver = Solver(x_ND, label_N, classes, gap_until, max_iterations, prior_CD, row_N, device)

    def solve_path() -> Iterator[Solution]:
        for c in sorted(map(float, cs)):
            solution = solver.solve(c, gap)
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
    validation = Validation(x_val_ND, label_val_N)
    curve: list[Trial] = []
    candidates: list[tuple[float, Solution]] = []  # (loss, solution), losses falling
    for solution in path:
        loss, top1 = validation.evaluate(solution)
        curve.append(Trial(solution.c, loss, top1, solution.convergence))
        if candidates and not loss < candidates[-1][0]:
            continue
        near = [pair for pair in candidates if pair[0] <= loss + TOLERANCE]
        candidates = [*near, (loss, solution)]
    assert candidates
    return Choice(candidates[0][1], tuple(curve), "path")
