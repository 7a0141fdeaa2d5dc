"""Values of C -> the C that the whole path selects, from a part of its solutions.

Over log C, the validation log-loss of the path nearly always falls to a minimum and then rises.
Loose solutions, a decade apart, find where. Then only the values of C that decide are solved
further, until their losses differ by more than their errors or they have the gap of the path: the
lowest C, the smallest C that ties with it, and their neighbours.

Guaranteed: if the losses of the path fall to a minimum and then rise, and the error of no loose
loss exceeds its bound, the selected C is that of the path. (The path itself cannot tell apart
losses that differ by less than the errors at its own gap; these errors are not considered.)
The selected solution may itself be loose.

Heuristic: the bound, and noticing a second minimum. The distance to the optimum, in the norm of
the Hessian, is at most the square root of twice the gap, and to first order the error of the loss
is proportional to it. The factor is the largest that this search has seen, wherever it solved a C
to two gaps, times a safety factor, which is larger for a C that was solved once. (A strict bound
from the penalty's strong convexity is far too wide, and the intercept has no penalty.) A second
minimum is noticed if the loose solutions show it, so one that is narrower than a decade of C, or
shallower than their errors, can be missed. If one is noticed, every C is solved, as on the path.
N rows, D features, C classes.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fgvc.config.schema.task import FEW_VALUES
from fgvc.learn.logistic.path import TOLERANCE, Choice, Trial, Validation
from fgvc.learn.logistic.solver import Solution, Solver
from fgvc.types import Progress

# relative gaps of the scan: where its losses differ little from the first or rise, and elsewhere
_TAIL_GAP, _SCAN_GAP = 1e-1, 1e-3
NEAR_GAP = 1e-5  # widest gap of the lowest and of the selected C, so that their errors are seen
# largest factor from one gap of a C to its next: where the error is known, and elsewhere
_FINER, _MUCH_FINER = 0.25, 1e-2
_SHELF = 0.9  # share of the first loss above which the scan has not come near the minimum
_RISE = 1.01  # factor over the lowest loss at which the scan pauses for the search
# factor of the error bound over the largest error seen: of a C whose own error was seen, and others
_SAFETY, _UNSEEN_SAFETY = 3.0, 12.0
_MOST_SOLVES = 4  # of one C; the last is like the path
_SPARE = 0.5  # part of the gap that would just suffice

Step = tuple[int, float]  # index of a C, gap to solve it to


def fit_bracket(
    x_ND: np.ndarray,
    label_N: np.ndarray,
    classes: int,
    cs: Sequence[float],
    gap: float,
    gap_until: float,
    max_iterations: int,
    x_val_ND: np.ndarray,
    label_val_N: np.ndarray,
    on_step: Progress = lambda n, note="": None,
    prior_CD: np.ndarray | None = None,
    row_N: np.ndarray | None = None,
    device: str = "cpu",
) -> Choice:
    """Select C by a search; arguments as for `fit_path` and `choose`.

    on_step: advanced by one per solve; a C may be solved several times.

    Raises:
        UserError: as `Solver`; no validation rows.
    """
    assert all(c > 0 for c in cs)
    assert len(set(cs)) == len(cs)
    solver = Solver(x_ND, label_N, classes, gap_until, max_iterations, prior_CD, row_N, device)
    validation = Validation(x_val_ND, label_val_N)
    return _Bracket(solver, sorted(map(float, cs)), gap, validation, on_step).run()


class _Bracket:
    """The state of a search. A C is known by its index in ascending order."""

    def __init__(
        self, solver: Solver, cs: list[float], gap: float, validation: Validation, on_step: Progress
    ) -> None:
        self._solver, self._cs, self._gap = solver, cs, gap
        self._validation, self._on_step = validation, on_step
        self._trials: dict[int, Trial] = {}
        self._targets: dict[int, float] = {}  # the gap that each trial was solved to
        self._solutions: dict[int, Solution] = {}  # that can still be selected
        self._solves: Counter[int] = Counter()  # of each C
        self._factor = 0.0  # largest |change of the loss| / sqrt(gap) seen

    def run(self) -> Choice:
        whole = "few values" if len(self._cs) <= FEW_VALUES else self._search()
        if whole is not None:
            for index in range(len(self._cs)):
                if self._is_loose(index):
                    self._solve(index, self._gap)
        selected = self._edge(self._lowest())
        solution = self._solutions.get(selected)
        if solution is None:  # it was dropped when another loss seemed lower
            solution = self._solve(selected, self._targets[selected])
        curve = tuple(self._trials[index] for index in sorted(self._trials))
        return Choice(solution, curve, whole)

    def _search(self) -> str | None:
        """Solve what decides; why every C has to be solved instead, or None."""
        stride = max(1, round(1 / math.log10(self._cs[1] / self._cs[0])))
        coarse = sorted({*range(0, len(self._cs), stride), len(self._cs) - 1})
        self._scan(coarse)
        while True:
            best = self._lowest()
            step = (
                self._settle_minimum(best)
                or self._settle_edge(best)
                or next(((index, _TAIL_GAP) for index in coarse if index not in self._trials), None)
                or self._settle_shelf(best, coarse)
                or self._settle_dips(best)
            )
            if step is None:
                return "two minima" if self._dips(best) else None
            self._solve(*step)

    def _solve(self, index: int, gap: float) -> Solution:
        gap = max(gap, self._gap)
        solution = self._solver.solve(self._cs[index], gap)
        loss, top1 = self._validation.evaluate(solution)
        if (before := self._trials.get(index)) is not None:
            reached = _reached(before)
            if math.isfinite(reached) and reached > solution.gap:
                change = abs(loss - before.loss)
                self._factor = max(self._factor, change / math.sqrt(reached))
            solution = replace(  # the cost of all solves of this C
                solution,
                iterations=solution.iterations + before.convergence["iterations"],
                units=solution.units + before.convergence["units"],
            )
        loose = gap > self._gap
        self._solves[index] += 1
        self._targets[index] = gap
        self._solutions[index] = solution
        self._trials[index] = Trial(self._cs[index], loss, top1, solution.convergence, loose)
        highest = self._loss(self._lowest()) * _RISE + TOLERANCE
        self._solutions = {
            i: kept for i, kept in self._solutions.items() if self._loss(i) <= highest
        }
        self._on_step(1)
        return solution

    def _scan(self, coarse: Sequence[int]) -> None:
        """Ascending, where solutions cost least, until the losses rise."""
        gap = _TAIL_GAP
        for index in coarse:
            self._solve(index, gap)
            lowest = self._loss(self._lowest())
            if self._loss(index) > lowest * _RISE:
                return
            if lowest < _SHELF * self._loss(0):
                gap = _SCAN_GAP

    def _settle_minimum(self, best: int) -> Step | None:
        """Find the lowest, until no neighbour can be lower."""
        if self._is_near_zero(best):
            return None
        vertex = self._vertex(best)
        if self._targets.get(vertex, math.inf) > max(_SCAN_GAP, self._gap):
            return vertex, _SCAN_GAP
        if self._targets[best] > max(NEAR_GAP, self._gap):
            return best, NEAR_GAP
        for index in (best - 1, best + 1):
            if 0 <= index < len(self._cs):
                if index not in self._trials:
                    return index, _SCAN_GAP
                if (step := self._separate(index, best, 0.0)) is not None:
                    return step
        return None

    def _vertex(self, best: int) -> int:
        left = max((index for index in self._trials if index < best), default=None)
        right = min((index for index in self._trials if index > best), default=None)
        if left is None or right is None:
            return best
        fall = (self._loss(left) - self._loss(best)) / (best - left)
        rise = (self._loss(right) - self._loss(best)) / (right - best)
        if fall + rise <= 0:
            return best
        shift = ((right - best) * fall - (best - left) * rise) / (2 * (fall + rise))
        return min(max(best + round(shift), left + 1), right - 1)

    def _settle_edge(self, best: int) -> Step | None:
        """Find the smallest C that ties with the lowest, until no other can be it."""
        edge = self._edge(best)
        below = max((index for index in self._trials if index < edge), default=None)
        if below is not None and edge - below > 1:
            return self._between(below, edge, best), _SCAN_GAP
        if self._targets[edge] > max(NEAR_GAP, self._gap):
            return edge, NEAR_GAP
        if self._is_near_zero(best):
            step = self._refine(TOLERANCE - self._loss(edge), edge)
        else:
            step = self._separate(best, edge, -TOLERANCE)
        return step or (None if below is None else self._separate(below, best, TOLERANCE))

    def _edge(self, best: int) -> int:
        """The smallest solved C that ties with the lowest."""
        highest = self._loss(best) + TOLERANCE
        return min(i for i in self._trials if i <= best and self._loss(i) <= highest)

    def _is_near_zero(self, best: int) -> bool:
        """Whether the edge ties with whichever loss is the lowest, as no loss is negative."""
        return self._loss(self._edge(best)) <= TOLERANCE

    def _between(self, below: int, edge: int, best: int) -> int:
        """Where the excess over the lowest loss reaches TOLERANCE, if it falls exponentially."""
        high = self._loss(below) - self._loss(best)
        low = max(self._loss(edge) - self._loss(best), TOLERANCE * 1e-2)
        share = math.log(high / TOLERANCE) / math.log(high / low)
        return min(max(below + round(share * (edge - below)), below + 1), edge - 1)

    def _separate(self, upper: int, lower: int, height: float) -> Step | None:
        """Solve until `upper` is certainly over `height` above `lower`, or both like the path."""
        return self._refine(self._loss(upper) - self._loss(lower) - height, upper, lower)

    def _refine(self, margin: float, *indices: int) -> Step | None:
        """Solve these until their errors are within the margin, or all like the path.

        If the errors are known and a little too large, the next gap is that which would suffice.
        """
        errors = {index: self._error(index) for index in indices}
        index = max(errors, key=lambda i: (errors[i], i))
        error, reached = errors[index], _reached(self._trials[index])
        if error == 0 or sum(errors.values()) < margin:
            return None
        if self._solves[index] == _MOST_SOLVES - 1:
            return index, self._gap
        if margin > 0 and error < math.inf:
            return index, min(_FINER, _SPARE * (margin / error) ** 2) * reached
        gap = _MUCH_FINER * min(self._targets[index], reached)
        return index, gap if margin > 0 else min(gap, self._gap)

    def _settle_shelf(self, best: int, coarse: Sequence[int]) -> Step | None:
        """If no loss is much below the first, solve further what seems to be as low.

        Features that say little about the classes have a minimum that loose solutions do not show.
        """
        if self._loss(best) < _SHELF * self._loss(0):
            return None
        near = (index for index in coarse if self._loss(index) <= _RISE * self._loss(best))
        gap = max(NEAR_GAP, self._gap)
        return next(((index, gap) for index in near if self._targets[index] > gap), None)

    def _settle_dips(self, best: int) -> Step | None:
        """Solve the pairs that contradict a single minimum until this is certain."""
        steps = (self._separate(*pair, 0.0) for pair in self._dips(best))
        return next((step for step in steps if step is not None), None)

    def _dips(self, best: int) -> list[tuple[int, int]]:
        """Neighbours among the solved of which the one farther from `best` is lower."""
        solved = sorted(self._trials)
        pairs = [(i, j) if i >= best else (j, i) for i, j in itertools.pairwise(solved)]
        return [pair for pair in pairs if self._loss(pair[0]) > self._loss(pair[1]) + TOLERANCE]

    def _lowest(self) -> int:
        """The C with the lowest loss; the smallest of equals."""
        return min(self._trials, key=lambda index: (self._loss(index), index))

    def _loss(self, index: int) -> float:
        return self._trials[index].loss

    def _is_loose(self, index: int) -> bool:
        """Whether it is not solved to the gap of the path."""
        return index not in self._trials or self._trials[index].loose

    def _error(self, index: int) -> float:
        """Bound of the error of a loss; infinite before any error was seen."""
        if not self._is_loose(index):
            return 0.0
        reached = _reached(self._trials[index])
        if self._factor == 0:
            return math.inf
        safety = _SAFETY if self._solves[index] > 1 else _UNSEEN_SAFETY
        return safety * self._factor * math.sqrt(reached)


def _reached(trial: Trial) -> float:
    """The certified gap of a trial; infinite if unknown."""
    gap = trial.convergence["gap"]
    return math.inf if gap is None else float(gap)
