"""The search for C: the C of the whole path at a third of its cost, two minima, few values."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from fgvc.learn import logistic
from fgvc.learn.logistic import Solution, choose, fit_bracket, fit_path, path, search
from fgvc.learn.logistic.path import TOLERANCE, Validation
from fgvc.learn.logistic.solver import Solver
from fgvc.types import UserError

CS = np.logspace(-6, 5, 45).tolist()
GAP = 1e-8


@dataclass
class CurveSolver:
    """Stands for a solver: the "solution" of a C is its loss, off by up to scale * sqrt(gap)."""

    losses: np.ndarray
    scale: float
    seed: int
    solved: list[tuple[int, float]]

    def solve(self, c: float, gap: float) -> Solution:
        index = int(np.argmin(np.abs(np.log(CS[: len(self.losses)]) - math.log(c))))
        self.solved.append((index, gap))
        random = np.random.default_rng([self.seed, index, len(self.solved)])
        size = self.scale * math.sqrt(gap) if gap > GAP else 0.0
        loss = self.losses[index] + size * random.uniform(0.5, 1.0) * random.choice([-1, 1])
        return Solution(c, np.array([[loss]]), np.zeros(1), 0.0, gap, 1, 1.0, True)


class LossOfSolution:
    def evaluate(self, solution):
        return float(solution.weight_CD[0, 0]), 0.5


def searched(losses, scale=0.1, seed=0):
    solver: Any = CurveSolver(np.asarray(losses, float), scale, seed, [])
    validation: Any = LossOfSolution()
    cs = CS[: len(losses)]
    choice = search._Bracket(solver, cs, GAP, validation, lambda n, note="": None).run()
    return cs.index(choice.solution.c), choice, solver


def rule(losses):
    """The selected index, written out."""
    return next(i for i, loss in enumerate(losses) if loss <= min(losses) + TOLERANCE)


def unimodal(random, count=45):
    """Falls by random steps of very different size, with a flat start, and rises again."""
    minimum = int(random.integers(0, count))
    steps = 10 ** random.uniform(-7, -0.5, count)
    steps[: random.integers(0, 8)] = 1e-9
    left = np.cumsum(steps[:minimum][::-1])[::-1]
    right = np.cumsum(steps[minimum + 1 :])
    return 0.3 + np.concatenate([left, [0.0], right])


@pytest.mark.parametrize("scale", [1e-3, 0.02, 0.2])
def test_it_selects_the_c_of_the_path_on_any_curve_with_one_minimum(scale):
    random = np.random.default_rng(5)
    for trial in range(40):
        losses = unimodal(random)
        index, choice, _ = searched(losses, scale, trial)
        assert index == rule(losses), (trial, losses.tolist())
        assert choice.solution.gap <= search.NEAR_GAP


@pytest.mark.parametrize(
    ("losses", "least"),
    [
        (np.full(45, 0.7), 0),  # all tie
        (np.linspace(0.1, 2, 45), 0),
        (np.linspace(2, 0.1, 45), 44),
        (np.r_[np.linspace(2, 0.1, 23), np.full(22, 0.1)], 22),  # ties up to the largest
        (np.r_[np.full(22, 0.1), np.linspace(0.1, 2, 23)], 0),
        (0.2 + 0.003 * (np.arange(45) - 30.2) ** 2, 30),
    ],
)
def test_plateaus_resolve_to_the_smallest_c(losses, least):
    index, choice, solver = searched(losses)
    assert index == rule(losses) == least
    assert choice.whole is None
    assert choice.end == {0: "first", 44: "last"}.get(least)
    assert len({at for at, gap in solver.solved if gap < search.NEAR_GAP}) <= 22


def test_the_values_that_decide_are_solved_further_and_most_are_not():
    index, choice, _ = searched(0.2 + 0.003 * (np.arange(45) - 30.2) ** 2)
    near = [CS.index(trial.c) for trial in choice.curve if trial.convergence["gap"] <= 1e-5]
    assert index in near
    assert len(near) < 6 < len(choice.curve) < 20
    assert [trial.c for trial in choice.curve] == sorted(trial.c for trial in choice.curve)
    assert (choice.curve[0].c, choice.curve[-1].c) == (CS[0], CS[-1])


def test_losses_closer_than_their_errors_are_solved_like_the_path():
    losses = 0.2 + 0.003 * np.abs(np.arange(45) - 24.0)
    for excess in (0.999999e-4, 1.000001e-4):  # of the neighbour below: a tie, or just none
        losses[23] = losses[24] + excess
        index, choice, _ = searched(losses)
        assert index == rule(losses)
        assert not {trial.c: trial.loose for trial in choice.curve}[CS[23]]


def test_a_loss_near_zero_needs_no_lowest():
    """No loss is negative, so the smallest C at most the tolerance above 0 is selected."""
    losses = np.r_[np.linspace(2, 0.01, 20), 5e-5 * 0.5 ** np.arange(25)]
    index, _, solver = searched(losses, scale=1e-5)
    assert index == rule(losses) == 20
    assert {at for at, gap in solver.solved if gap <= search.NEAR_GAP} == {20}


@pytest.mark.parametrize(("loss", "expected"), [(0.9e-4, 20), (1.1e-4, 21)])
def test_a_loss_that_may_be_near_zero_is_solved_until_it_is_certain(loss, expected):
    losses = np.r_[np.linspace(2, 0.01, 20), loss, np.linspace(8e-6, 5e-6, 24)]
    assert rule(losses) == expected
    for seed in range(8):
        assert searched(losses, scale=0.02, seed=seed)[0] == expected


def test_a_solution_that_was_dropped_is_solved_again(monkeypatch):
    losses = 0.2 + 0.003 * (np.arange(45) - 30.2) ** 2
    expected, _, _ = searched(losses)
    monkeypatch.setattr(search, "_RISE", 0.0)  # nothing but a loss below the tolerance is kept
    index, _, solver = searched(losses)
    assert index == expected
    assert solver.solved[-1][0] == index


@pytest.mark.parametrize("second", [10, 38])
@pytest.mark.parametrize("depth", [-0.05, 0.05])
def test_a_curve_with_two_minima_is_solved_whole(second, depth):
    """The second minimum is lower or higher; the lower of both is selected."""
    index_N = np.arange(45)
    losses = 0.5 + 0.02 * np.minimum(np.abs(index_N - 24), np.abs(index_N - second))
    losses += depth * (np.abs(index_N - second) < np.abs(index_N - 24))
    index, choice, _ = searched(losses)
    assert choice.whole == "two minima"
    assert index == rule(losses)
    assert len(choice.curve) == 45
    assert not any(trial.loose for trial in choice.curve)


def test_few_values_are_all_solved_once_and_one_value_is_no_search():
    for count in (1, 2, search.FEW_VALUES):
        losses = np.linspace(0.5, 0.3, count)
        index, choice, solver = searched(losses)
        assert solver.solved == [(i, GAP) for i in range(count)]
        assert (index, choice.whole) == (rule(losses), "few values")
    assert searched(np.linspace(0.5, 0.3, count + 1))[1].whole is None


def test_the_cost_counts_every_solve():
    _, choice, solver = searched(0.2 + 0.003 * (np.arange(45) - 30.2) ** 2)
    assert choice.units == len(solver.solved) > len(choice.curve)


def features(rows, width, classes, spread, seed, scale=1.0, decay=0.5, tail=0.0, mixed=False):
    """Gaussian classes: training and validation rows with labels."""
    random = np.random.default_rng(seed)
    centre_CD = random.normal(size=(classes, width))
    share_C = np.arange(1, classes + 1) ** -tail
    splits = []
    for count in (rows, max(rows // 5, 12)):
        label_N = random.choice(classes, count, p=share_C / share_C.sum())
        x_ND = centre_CD[label_N] + spread * random.normal(size=(count, width))
        x_ND = scale * (x_ND * np.logspace(0, -decay, width) + 1)
        splits += [x_ND.astype(np.float32), random.permutation(label_N) if mixed else label_N]
    return *splits, classes


SETS = {
    "overlapping": features(120, 12, 4, 1.5, 0),
    "few validation rows": features(60, 16, 4, 2.0, 1),
    "unbalanced": features(120, 12, 5, 1.8, 2, tail=1.2),
    "random labels": features(60, 16, 3, 1.5, 3, mixed=True),
    "small features": features(90, 12, 4, 2.0, 5, scale=1e-3),
}


def test_it_selects_the_c_of_the_path_at_a_third_of_its_cost():
    units = np.zeros(2)
    for name, (x_ND, label_N, x_val_ND, label_val_N, classes) in SETS.items():
        arguments = (x_ND, label_N, classes, CS, GAP, 10.0, 1000)
        whole = choose(fit_path(*arguments), x_val_ND, label_val_N)
        choice = fit_bracket(*arguments, x_val_ND, label_val_N)
        assert choice.solution.c == whole.solution.c, name
        assert choice.whole is None, name
        of_path = {trial.c: trial.loss for trial in whole.curve}
        for trial in choice.curve:
            if not trial.loose:
                assert trial.loss == pytest.approx(of_path[trial.c], abs=1e-4), name
        units += choice.units, whole.units
    assert units[0] <= units[1] / 3


def test_a_prior_reaches_the_search():
    x_ND, label_N, x_val_ND, label_val_N, classes = SETS["few validation rows"]
    prior_CD = np.random.default_rng(8).normal(size=(classes, x_ND.shape[1]))
    arguments = (x_ND, label_N, classes, CS[:30], GAP, 10.0, 1000)
    whole = choose(fit_path(*arguments, prior_CD=prior_CD), x_val_ND, label_val_N)
    choice = fit_bracket(*arguments, x_val_ND, label_val_N, prior_CD=prior_CD)
    assert choice.solution.c == whole.solution.c
    np.testing.assert_allclose(choice.solution.weight_CD, whole.solution.weight_CD, atol=1e-2)


def test_no_validation_rows_are_refused():
    x_ND, label_N, *_, classes = SETS["few validation rows"]
    with pytest.raises(UserError, match="0 validation rows"):
        fit_bracket(x_ND, label_N, classes, CS, GAP, 10.0, 1000, x_ND[:0], label_N[:0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_validation_rows_that_are_not_finite_are_refused_before_solving(value):
    x_ND, label_N, x_val_ND, label_val_N, classes = SETS["few validation rows"]
    x_val_ND = x_val_ND.copy()
    x_val_ND[1, 0] = value
    arguments = (x_ND, label_N, classes, CS[:5], GAP, 10.0, 1000)
    message = "1 of .* validation rows are not finite .first: row 1."
    with pytest.raises(UserError, match=message):
        fit_bracket(*arguments, x_val_ND, label_val_N)
    with pytest.raises(UserError, match=message):
        choose(fit_path(*arguments), x_val_ND, label_val_N)


def test_validation_in_blocks_is_the_mean_over_all_rows(monkeypatch):
    x_ND, label_N, x_val_ND, label_val_N, classes = SETS["overlapping"]
    (solution,) = logistic.fit_path(x_ND, label_N, classes, [0.1], GAP, 10.0, 1000)
    logit_NC = torch.from_numpy(
        x_val_ND.astype(np.float64) @ solution.weight_CD.T + solution.bias_C
    )
    label = torch.from_numpy(label_val_N)
    loss = float(torch.nn.functional.cross_entropy(logit_NC, label))
    top1 = float((logit_NC.argmax(1) == label).double().mean())
    validation = Validation(x_val_ND, label_val_N)
    assert validation.evaluate(solution) == (loss, top1)  # one block: to the last bit
    monkeypatch.setattr(path, "BLOCK_CELLS", 7 * classes)
    assert validation.evaluate(solution) == pytest.approx((loss, top1), rel=1e-13)


def test_a_c_that_is_solved_again_continues_and_does_not_spoil_the_next_start():
    x_ND, label_N, *_, classes = SETS["overlapping"]
    fresh, again = (Solver(x_ND, label_N, classes, 10.0, 1000) for _ in range(2))
    for solver, gaps in ((fresh, (1e-8,)), (again, (1e-2, 1e-5, 1e-8))):
        solver.solve(0.01, 1e-8)
        units = [solver.solve(0.02, gap).units for gap in gaps]
    assert again.solve(0.02, 1e-8).units < units[0]
    assert again.solve(0.04, 1e-8).units <= 1.3 * fresh.solve(0.04, 1e-8).units


def test_a_loose_solution_does_not_spoil_the_start_of_an_exact_one():
    x_ND, label_N, *_, classes = SETS["overlapping"]
    walked, searched = (Solver(x_ND, label_N, classes, 10.0, 1000) for _ in range(2))
    cs = [0.5, 0.9, 1.6]
    for c in cs:
        walked.solve(c, 1e-8)
    for c in (3.0, 5.0, 9.0):
        searched.solve(c, 0.3)
    for c in cs:
        searched.solve(c, 1e-8)
    assert searched.solve(2.8, 1e-8).units <= walked.solve(2.8, 1e-8).units


def test_a_shallow_minimum_of_features_that_say_little_is_found():
    """Solved to a gap of 0.1, the best C has the loss of the smallest."""
    x_ND, label_N, x_val_ND, label_val_N, classes = features(70, 32, 24, 4.9, 3, scale=1e-2)
    arguments = (x_ND, label_N, classes, CS, GAP, 10.0, 1000)
    whole = choose(fit_path(*arguments), x_val_ND, label_val_N)
    lowest = min(trial.loss for trial in whole.curve)
    assert 0.98 * whole.curve[0].loss < lowest < whole.curve[0].loss - 100 * TOLERANCE
    choice = fit_bracket(*arguments, x_val_ND, label_val_N)
    assert choice.solution.c == whole.solution.c
