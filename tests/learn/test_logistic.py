"""Logistic regression over a path of C: compared with scikit-learn, its certificate, edge cases."""

import gc
import math
import weakref

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from benchmarks.heads import rotation_units
from fgvc.learn.logistic import Solution, choose, fit_path, newton, problem, refit, rows
from fgvc.learn.logistic.problem import ABSENT_LOGIT
from fgvc.types import UserError

CS = np.logspace(-5, 3, 9).tolist()


@pytest.fixture(params=["one block", "blocks"])
def blocks(request, monkeypatch):
    """Whether the rows are in one block, or in blocks of 16 with 10 features."""
    if request.param == "blocks":
        monkeypatch.setattr(rows, "ONE_BLOCK_BYTES", 0)
        monkeypatch.setattr(rows, "BLOCK_BYTES", 8 * 10 * 16)
    return request.param == "blocks"


def gaussian_classes(rows=120, width=10, classes=5, seed=0, spread=1.5):
    """Overlapping Gaussian classes on features of very unequal scale and an offset."""
    rng = np.random.default_rng(seed)
    label_N = np.arange(rows) % classes
    centre_CD = rng.normal(size=(classes, width))
    x_ND = (centre_CD[label_N] + spread * rng.normal(size=(rows, width))) * np.logspace(
        1, -1, width
    )
    return x_ND + 3.0, label_N


def objective(solution, x_ND, label_N):
    logit_NC = x_ND @ solution.weight_CD.T + solution.bias_C
    entropy_N = np.logaddexp.reduce(logit_NC, axis=1) - logit_NC[np.arange(len(x_ND)), label_N]
    return solution.c * entropy_N.sum() + 0.5 * (solution.weight_CD**2).sum()


def solve(x_ND, label_N, classes, cs=CS, gap=1e-9, gap_until=math.inf, max_iterations=500):
    return list(fit_path(x_ND, label_N, classes, cs, gap, gap_until, max_iterations))


def certified_gap(frame, c, point):
    return newton.certified_gap(frame, c, point, newton.gradient_at(frame, c, point))


def fit_sklearn(x_ND, label_N, c):
    model = LogisticRegression(C=c, tol=1e-12, max_iter=10_000)
    return model.fit(np.asarray(x_ND, dtype=np.float64), label_N)


@pytest.mark.parametrize("shape", [(120, 10, 5), (40, 60, 4), (90, 1, 3)])
def test_every_c_agrees_with_scikit_learn(shape):
    x_ND, label_N = gaussian_classes(*shape)
    for solution in solve(x_ND, label_N, shape[2], gap=1e-12):
        model = fit_sklearn(x_ND, label_N, solution.c)
        logit_NC = x_ND @ solution.weight_CD.T + solution.bias_C
        assert solution.converged
        sklearn_units = Solution(solution.c, model.coef_, model.intercept_, 0, 0, 0, 0, True)
        assert solution.objective <= objective(sklearn_units, x_ND, label_N) * (1 + 1e-10)
        sklearn_NC = model.decision_function(x_ND)
        ranked_NC = np.sort(sklearn_NC, axis=1)
        clear_N = ranked_NC[:, -1] - ranked_NC[:, -2] > 1e-3
        assert clear_N.any()
        assert (logit_NC.argmax(1) == sklearn_NC.argmax(1))[clear_N].all()
        if solution.c <= 10:  # above it scikit-learn's own error exceeds this
            assert np.abs(logit_NC - sklearn_NC).max() < 2e-3


def test_two_classes_are_scikit_learns_sigmoid_at_twice_the_c():
    x_ND, label_N = gaussian_classes(80, 4, 2)
    for solution in solve(x_ND, label_N, 2, cs=[0.01, 1.0], gap=1e-12):
        model = fit_sklearn(x_ND, label_N, 2 * solution.c)
        logit_NC = x_ND @ solution.weight_CD.T + solution.bias_C
        np.testing.assert_allclose(
            logit_NC[:, 1] - logit_NC[:, 0], model.decision_function(x_ND), atol=1e-4
        )


def test_recorded_objective_is_that_of_the_returned_weights():
    x_ND, label_N = gaussian_classes()
    for solution in solve(x_ND, label_N, 5, gap=1e-4):
        assert objective(solution, x_ND, label_N) == pytest.approx(solution.objective, rel=1e-11)


@pytest.mark.parametrize("cap", [1, 2, 3, 5, 8, 13, 21])
def test_the_certificate_never_understates_the_gap(cap):
    x_ND, label_N = gaussian_classes()
    rough = solve(x_ND, label_N, 5, gap=1e-12, gap_until=0.0, max_iterations=cap)
    exact = solve(x_ND, label_N, 5, gap=1e-12)
    true = [a.objective / b.objective - 1 for a, b in zip(rough, exact, strict=True)]
    assert max(true) > 1e-9  # the cap does leave something to certify
    for solution, gap in zip(rough, true, strict=True):
        assert solution.gap >= gap - 1e-11


def test_certificate_holds_for_any_intercept():
    x_ND, label_N = gaussian_classes()
    best = solve(x_ND, label_N, 5, cs=[0.1])[0].objective
    frame = problem.build_problem(x_ND, label_N, 5)
    rng = np.random.default_rng(1)
    for scale in (1e-6, 1e-2, 1.0, 5.0):
        bias_C = torch.from_numpy(scale * rng.normal(size=5))
        weight_CR = torch.from_numpy(scale * rng.normal(size=frame.moment_CR.shape))
        point = problem.point_at(frame, 0.1, frame.model(weight_CR, bias_C))
        assert certified_gap(frame, 0.1, point) >= point.objective - best


def test_certificate_is_the_distance_to_a_feasible_dual_value():
    x_ND, label_N = gaussian_classes()
    frame = problem.build_problem(x_ND, label_N, 5)
    bias_C = torch.tensor([0.3, -0.2, 0.0, 0.4, -0.5], dtype=torch.float64)
    weight_CR = -0.01 * frame.moment_CR / len(x_ND)
    point = problem.point_at(frame, 0.1, frame.model(weight_CR, bias_C))
    # Take an equal part of the probabilities of each class whose sum is too large, and give what
    # that takes from a row to the classes whose sum is too small, in proportion to their lack.
    assert point.logit_CN is not None
    prob_CN = torch.softmax(point.logit_CN, 0).numpy()
    sum_C, count_C = prob_CN.sum(1), np.bincount(label_N)
    mix_C = np.maximum(1 - count_C / sum_C, 0)
    lack_C = np.maximum(count_C - sum_C, 0)
    mixed_CN = (1 - mix_C)[:, None] * prob_CN + np.outer(lack_C / lack_C.sum(), mix_C @ prob_CN)
    np.testing.assert_allclose(mixed_CN.sum(0), 1)
    np.testing.assert_allclose(mixed_CN.sum(1), count_C)
    data_CD = (mixed_CN - np.eye(5)[:, label_N]) @ x_ND
    entropy = -(mixed_CN * np.log(mixed_CN)).sum()
    dual = 0.1 * entropy - 0.5 * (0.1**2) * (data_CD**2).sum()
    assert mix_C.max() > 0.01
    gradient = newton.gradient_at(frame, 0.1, point)
    gap = newton.certified_gap(frame, 0.1, point, gradient)
    assert gap == pytest.approx(point.objective - dual, rel=1e-9)


def test_gap_rules_up_to_its_c_and_the_cap_above():
    x_ND, label_N = gaussian_classes(spread=0.8)
    path = solve(x_ND, label_N, 5, gap=1e-10, gap_until=1.0, max_iterations=1)
    assert all(s.converged and s.gap <= 1e-10 for s in path if s.c <= 1.0)
    above = [s for s in path if s.c > 1.0]
    assert above
    assert all(s.iterations == 1 and not s.converged and s.gap > 1e-10 for s in above)


def test_units_count_every_full_product(monkeypatch, blocks):
    x_ND, label_N = gaussian_classes()
    spent = []
    for name in ("forward", "backward"):
        product = getattr(problem.Problem, name)

        def spy(self, first, second, product=product):
            x_BD = second
            spent.append(0.5 * len(x_BD) / len(x_ND))
            return product(self, first, second)

        monkeypatch.setattr(problem.Problem, name, spy)
    rotated, subtract = problem.Problem.rotated, problem.Problem.subtract_coupling

    def count_rotation(self, x_BD):
        spent.append(0.5 * len(x_BD) / len(x_ND) * 10 / 5 if blocks else 0)
        return rotated(self, x_BD)

    def count_coupling(self, total_CC, prob_CB):
        spent.append(0.5 * prob_CB.shape[1] / len(x_ND) * 5 / 10)
        return subtract(self, total_CC, prob_CB)

    monkeypatch.setattr(problem.Problem, "rotated", count_rotation)
    monkeypatch.setattr(problem.Problem, "subtract_coupling", count_coupling)
    path = solve(x_ND, label_N, 5, gap=1e-6)
    assert sum(s.units for s in path) == pytest.approx(sum(spent))


def test_warm_path_needs_a_twentieth_of_independent_solves():
    x_ND, label_N = gaussian_classes(300, 40, 8, spread=1.0)
    cs = np.logspace(-6, 2, 17)
    units = sum(s.units for s in solve(x_ND, label_N, 8, cs=cs, gap=1e-4))
    sklearn_units = sum(int(fit_sklearn(x_ND, label_N, c).n_iter_[0]) for c in cs)
    assert sklearn_units >= 20 * units


def test_same_input_same_bytes_and_order_of_cs_is_no_input():
    x_ND, label_N = gaussian_classes()
    first, second = solve(x_ND, label_N, 5), solve(x_ND, label_N, 5, cs=CS[::-1])
    assert [s.weight_CD.tobytes() + s.bias_C.tobytes() for s in first] == [
        s.weight_CD.tobytes() + s.bias_C.tobytes() for s in second
    ]
    assert first[0].weight_CD.any()


def test_float32_features_are_solved_in_float64():
    x_ND, label_N = gaussian_classes()
    x_ND = x_ND.astype(np.float32)
    single = solve(x_ND, label_N, 5)[-1]
    double = solve(x_ND.astype(np.float64), label_N, 5)[-1]
    assert single.weight_CD.dtype == np.float64
    np.testing.assert_array_equal(single.weight_CD, double.weight_CD)


def test_progress_advances_once_a_solution():
    x_ND, label_N = gaussian_classes()
    steps = []
    list(fit_path(x_ND, label_N, 5, CS, 1e-3, 10, 50, lambda n, note="": steps.append(n)))
    assert steps == [1] * len(CS)


def test_absent_class_changes_nothing_and_never_wins():
    x_ND, label_N = gaussian_classes()
    shifted_N = label_N + (label_N >= 2)  # no row of class 2
    far_ND = np.concatenate([x_ND, 1e4 * np.random.default_rng(2).normal(size=x_ND.shape)])
    for full, less in zip(solve(x_ND, label_N, 5), solve(x_ND, shifted_N, 6), strict=True):
        np.testing.assert_array_equal(np.delete(less.weight_CD, 2, 0), full.weight_CD)
        assert not less.weight_CD[2].any()
        assert less.bias_C[2] == ABSENT_LOGIT
        assert not ((far_ND @ less.weight_CD.T + less.bias_C).argmax(1) == 2).any()


def test_one_class_only():
    x_ND, _ = gaussian_classes()
    (solution,) = solve(x_ND, np.full(len(x_ND), 1), 3, cs=[1.0])
    assert solution.converged
    assert solution.objective == solution.gap == 0
    assert not solution.weight_CD.any()
    assert solution.bias_C.argmax() == 1


def test_constant_features_leave_the_class_frequencies():
    label_N = np.repeat([0, 1, 2], [10, 20, 30])
    (solution,) = solve(np.full((60, 4), 7.0), label_N, 3, cs=[1.0])
    assert solution.converged
    assert not solution.weight_CD.any()
    share_C = np.exp(solution.bias_C) / np.exp(solution.bias_C).sum()
    np.testing.assert_allclose(share_C, [1 / 6, 2 / 6, 3 / 6], atol=1e-12)


def test_duplicated_columns_share_the_weight():
    x_ND, label_N = gaussian_classes(width=3)
    second = solve(np.concatenate([x_ND, x_ND], axis=1), label_N, 5, cs=[0.1], gap=1e-12)[0]
    first = solve(x_ND, label_N, 5, cs=[0.2], gap=1e-12)[0]  # |w|^2 + |w|^2 for 2 w
    np.testing.assert_allclose(second.weight_CD[:, :3], second.weight_CD[:, 3:], atol=1e-9)
    np.testing.assert_allclose(2 * second.weight_CD[:, :3], first.weight_CD, atol=1e-4)


def test_separable_rows_at_huge_c_stay_finite():
    x_ND, label_N = gaussian_classes(60, 80, 3, spread=0.1)
    path = solve(x_ND, label_N, 3, cs=np.logspace(-6, 8, 15).tolist(), gap=1e-6, gap_until=10)
    assert all(np.isfinite(s.weight_CD).all() and np.isfinite(s.gap) for s in path)
    assert all(s.converged for s in path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_are_refused_before_solving(value):
    x_ND, label_N = gaussian_classes()
    x_ND[7, 3] = value
    with pytest.raises(UserError, match="1 of 120 rows are not finite .first: row 7."):
        fit_path(x_ND, label_N, 5, CS, 1e-4, 10, 100)


@pytest.mark.parametrize("label", [-1, 5])
def test_labels_out_of_range_are_refused(label):
    x_ND, label_N = gaussian_classes()
    label_N[0] = label
    with pytest.raises(UserError, match=rf"label {label} is outside 0\.\.4"):
        fit_path(x_ND, label_N, 5, CS, 1e-4, 10, 100)


def test_no_rows_are_refused():
    with pytest.raises(UserError, match="0 training rows"):
        fit_path(np.zeros((0, 3)), np.zeros(0, int), 2, CS, 1e-4, 10, 100)


def make_solution(c, weight):
    return Solution(c, np.array([[weight], [-weight]]), np.zeros(2), 0.0, 0.0, 0, 0.0, True)


ONE_RIGHT = np.array([[1.0], [-1.0]]), np.array([0, 1])


def solution_with_loss(c, loss):
    """A solution at C whose validation loss on ONE_RIGHT is `loss`, a number of nats below ln 2."""
    return make_solution(c, -0.5 * math.log(math.expm1(loss)))


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.5, 0.3, 0.4], 2),
        ([0.5, 0.30005, 0.3, 0.4], 2),  # within 1e-4 of the lowest: the smallest of them
        ([0.5, 0.3002, 0.3, 0.3], 3),
        ([0.30015, 0.30008, 0.3], 2),  # near the lowest so far, but not near the lowest of all
        ([0.30008, 0.30016, 0.3, 0.30004], 1),
        ([0.30008, 0.3, 0.29995], 2),
        ([4e-4, 2e-4, 9e-5, 4e-5, 2e-5, 1e-9], 3),  # all right: more C only lowers a loss near 0
        ([0.3], 1),
    ],
)
def test_choose_takes_the_smallest_c_within_a_tolerance_of_the_lowest_loss(losses, expected):
    path = [solution_with_loss(c, loss) for c, loss in enumerate(losses, start=1)]
    choice = choose(iter(path), *ONE_RIGHT)
    assert choice.solution is path[expected - 1]
    assert [trial.loss for trial in choice.curve] == pytest.approx(losses, abs=1e-12)


def test_choose_keeps_only_solutions_that_can_still_be_chosen():
    solutions: list[weakref.ref] = []

    def path():
        for c, loss in enumerate(np.linspace(0.6, 0.1, 20), start=1):
            gc.collect()
            assert (
                sum(solution() is not None for solution in solutions) <= 2
            )  # the lowest, and ours
            solution = solution_with_loss(c, loss)
            solutions.append(weakref.ref(solution))
            yield solution
            del solution

    gc.collect()
    gc.freeze()  # so that a collection looks only at what this test makes
    try:
        assert choose(path(), *ONE_RIGHT).solution.c == 20
    finally:
        gc.unfreeze()


def test_choose_keeps_the_whole_curve():
    path = [make_solution(1, 0.5), make_solution(2, 2.0), make_solution(4, -1.0)]
    choice = choose(iter(path), *ONE_RIGHT)
    assert [trial.c for trial in choice.curve] == [1, 2, 4]
    assert choice.curve[0].loss == pytest.approx(math.log1p(math.exp(-1)))
    assert [trial.top1 for trial in choice.curve] == [1, 1, 0]


@pytest.mark.parametrize(
    ("losses", "end"),
    [
        ([0.3, 0.4, 0.5], "first"),
        ([0.5, 0.4, 0.3], "last"),
        ([0.5, 0.3, 0.4], None),
        ([0.4, 0.30005, 0.3], None),  # the last is lowest, but no better than the one before it
        ([0.4, 0.3], "last"),
        ([0.3], None),  # nothing to choose from
    ],
)
def test_a_choice_states_whether_it_is_at_an_end_of_the_range(losses, end):
    choice = choose(
        [solution_with_loss(c, loss) for c, loss in enumerate(losses, start=1)], *ONE_RIGHT
    )
    assert choice.end == end


def test_choose_refuses_an_empty_validation_split():
    with pytest.raises(UserError, match="0 validation rows"):
        choose([make_solution(1, 0.5)], np.zeros((0, 1)), np.zeros(0, int))


def test_refit_reaches_the_optimum_of_all_rows_from_that_of_some():
    x_ND, label_N = gaussian_classes()
    start = solve(x_ND[:90], label_N[:90], 5, cs=[0.3], gap=1e-4)[0]
    warm = refit(x_ND, label_N, 5, start, 1e-11, 10.0, 1000)
    cold = solve(x_ND, label_N, 5, cs=[0.3], gap=1e-11)[0]
    assert warm.converged
    assert warm.c == 0.3
    assert warm.objective == pytest.approx(cold.objective, rel=1e-10)


def test_refit_learns_a_class_that_the_start_had_not_seen():
    x_ND, label_N = gaussian_classes()
    seen_N = label_N != 4
    start = solve(x_ND[seen_N], label_N[seen_N], 5, cs=[0.3])[0]
    warm = refit(x_ND, label_N, 5, start, 1e-11, 10.0, 1000)
    cold = solve(x_ND, label_N, 5, cs=[0.3], gap=1e-11)[0]
    np.testing.assert_allclose(warm.weight_CD, cold.weight_CD, atol=1e-4)


def test_rotation_is_priced_in_units():
    assert rotation_units(6000, 768, 200) == pytest.approx(
        (6 * 6000 * 768**2 + 20 * 768**3) / (4 * 6000 * 768 * 200)
    )
    assert rotation_units(10, 50, 5) == rotation_units(50, 10, 5)
