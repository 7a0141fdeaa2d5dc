"""Logistic regression regularized towards given weights, compared with a plain objective."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import OptimizeResult, minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from fgvc.learn.logistic import fit_path, newton, problem, refit
from fgvc.learn.logistic.problem import ABSENT_LOGIT

CS = np.logspace(-4, 3, 8).tolist()
ROWS, WIDTH, CLASSES = 90, 8, 5


@pytest.fixture
def gaussian_classes():
    """Overlapping classes on features of unequal scale with an offset, and an informative prior."""
    rng = np.random.default_rng(0)
    label_N = np.arange(ROWS) % CLASSES
    centre_CD = rng.normal(size=(CLASSES, WIDTH))
    scale_D = np.logspace(1, -1, WIDTH)
    x_ND = (centre_CD[label_N] + 1.5 * rng.normal(size=(ROWS, WIDTH))) * scale_D + 3.0
    prior_CD = (0.5 * centre_CD + rng.normal(size=centre_CD.shape)) / scale_D + 0.7
    return x_ND, label_N, prior_CD


def plain_objective(x_ND, label_N, c, prior_CD):
    """Objective and gradient of W and b in one vector, in the plainest form."""
    hot_NC = np.eye(len(prior_CD))[label_N]

    def value(flat):
        weight_CD = flat[: prior_CD.size].reshape(prior_CD.shape)
        logit_NC = x_ND @ weight_CD.T + flat[prior_CD.size :]
        shift_CD = weight_CD - prior_CD
        loss = -(hot_NC * log_softmax(logit_NC, axis=1)).sum()
        residual_NC = softmax(logit_NC, axis=1) - hot_NC
        gradient = np.concatenate(
            [(c * residual_NC.T @ x_ND + shift_CD).ravel(), c * residual_NC.sum(0)]
        )
        return c * loss + 0.5 * (shift_CD**2).sum(), gradient

    return value


def oracle(x_ND, label_N, c, prior_CD):
    """L-BFGS-B on centred, equally scaled coordinates of the intercept: (optimum, W, b)."""
    start = np.concatenate([prior_CD.ravel(), -prior_CD @ x_ND.mean(0)])
    result = OptimizeResult(x=start)
    options = {"maxiter": 200_000, "maxfun": 400_000, "ftol": 1e-16, "gtol": 1e-11, "maxcor": 50}
    objective = plain_objective(x_ND, label_N, c, prior_CD)
    for _ in range(3):  # it ends early on a line search; a fresh start goes on
        result = minimize(objective, result.x, jac=True, method="L-BFGS-B", options=options)
    weight_CD = result.x[: prior_CD.size].reshape(prior_CD.shape)
    return result.fun, weight_CD, result.x[prior_CD.size :]


def solve(x_ND, label_N, prior_CD, cs=CS, gap=1e-11, cap=None):
    gap_until, cap = (math.inf, 1) if cap is None else (0.0, cap)
    classes = CLASSES if prior_CD is None else len(prior_CD)
    return list(fit_path(x_ND, label_N, classes, cs, gap, gap_until, cap, prior_CD=prior_CD))


def objective_of(solution, x_ND, label_N, prior_CD):
    flat = np.concatenate([solution.weight_CD.ravel(), solution.bias_C])
    return plain_objective(x_ND, label_N, solution.c, prior_CD)(flat)[0]


@pytest.mark.parametrize("c", CS)
def test_agrees_with_the_plain_objective_solved_by_scipy(gaussian_classes, c):
    x_ND, label_N, prior_CD = gaussian_classes
    x_ND = x_ND - x_ND.mean(0)  # the oracle's conditioning, not ours
    (fitted,) = solve(x_ND, label_N, prior_CD, cs=[c])
    value, weight_CD, bias_C = oracle(x_ND, label_N, c, prior_CD)
    assert fitted.converged
    assert objective_of(fitted, x_ND, label_N, prior_CD) == pytest.approx(
        fitted.objective, rel=1e-11
    )
    assert fitted.objective <= value * (1 + 1e-10)
    assert fitted.objective == pytest.approx(value, rel=1e-7)
    fitted_NC = softmax(x_ND @ fitted.weight_CD.T + fitted.bias_C, axis=1)
    oracle_NC = softmax(x_ND @ weight_CD.T + bias_C, axis=1)
    np.testing.assert_allclose(fitted_NC, oracle_NC, atol=2e-4)


def test_the_path_is_its_single_solves_with_uncentred_features(gaussian_classes):
    x_ND, label_N, prior_CD = gaussian_classes
    for warm in solve(x_ND, label_N, prior_CD, cs=CS[::-1]):
        (single,) = solve(x_ND, label_N, prior_CD, cs=[warm.c])
        assert warm.objective == pytest.approx(single.objective, rel=1e-10)
        assert objective_of(warm, x_ND, label_N, prior_CD) == pytest.approx(
            warm.objective, rel=1e-10
        )
        np.testing.assert_allclose(warm.weight_CD, single.weight_CD, atol=2e-4)


def test_a_prior_of_zeros_is_no_prior_and_scikit_learns_model(gaussian_classes):
    x_ND, label_N, prior_CD = gaussian_classes
    zeros = solve(x_ND, label_N, np.zeros_like(prior_CD), cs=[1e-3, 0.1, 10.0])
    none = solve(x_ND, label_N, None, cs=[1e-3, 0.1, 10.0])
    for fitted, other in zip(zeros, none, strict=True):
        assert fitted.objective == pytest.approx(other.objective, rel=1e-10)
        model = LogisticRegression(C=fitted.c, tol=1e-12, max_iter=10_000).fit(x_ND, label_N)
        np.testing.assert_allclose(
            x_ND @ fitted.weight_CD.T + fitted.bias_C, model.decision_function(x_ND), atol=2e-3
        )


def test_a_prior_equal_for_all_classes_only_shifts_the_weights(gaussian_classes):
    x_ND, label_N, _ = gaussian_classes
    shift_D = np.linspace(-5, 5, WIDTH)
    shifted = solve(x_ND, label_N, np.tile(shift_D, (CLASSES, 1)), cs=[0.1])[0]
    none = solve(x_ND, label_N, None, cs=[0.1])[0]
    np.testing.assert_allclose(shifted.weight_CD - shift_D, none.weight_CD, atol=1e-5)
    np.testing.assert_allclose(shifted.bias_C, none.bias_C, atol=1e-5)


def test_without_c_the_weights_are_the_prior_and_the_intercept_is_the_best(gaussian_classes):
    x_ND, label_N, prior_CD = gaussian_classes
    (fitted,) = solve(x_ND, label_N, prior_CD, cs=[1e-12])
    np.testing.assert_allclose(fitted.weight_CD, prior_CD, atol=1e-8)
    prob_NC = softmax(x_ND @ prior_CD.T + fitted.bias_C, axis=1)
    np.testing.assert_allclose(prob_NC.sum(0), np.bincount(label_N), atol=1e-3)


@pytest.mark.parametrize("cap", [1, 2, 3, 5, 8, 13])
def test_the_certificate_never_understates_the_gap(gaussian_classes, cap):
    x_ND, label_N, prior_CD = gaussian_classes
    rough = solve(x_ND, label_N, prior_CD, cap=cap)
    exact = solve(x_ND, label_N, prior_CD)
    true = [a.objective / b.objective - 1 for a, b in zip(rough, exact, strict=True)]
    assert max(true) > 1e-9  # the cap does leave something to certify
    for solution, gap in zip(rough, true, strict=True):
        assert solution.gap >= gap - 1e-11


def test_certificate_is_the_distance_to_a_feasible_dual_value(gaussian_classes):
    x_ND, label_N, prior_CD = gaussian_classes
    frame = problem.build_problem(x_ND, label_N, CLASSES, prior_CD)
    bias_C = torch.tensor([0.3, -0.2, 0.0, 0.4, -0.5], dtype=torch.float64)
    weight_CR = -0.01 * frame.moment_CR / ROWS
    point = problem.point_at(frame, 0.1, frame.model(weight_CR, bias_C))
    # Take an equal part of the probabilities of each class whose sum is too large, and give what
    # that takes from a row to the classes whose sum is too small, in proportion to their lack.
    assert point.logit_CN is not None
    prob_CN = torch.softmax(point.logit_CN, 0).numpy()
    sum_C, count_C = prob_CN.sum(1), np.bincount(label_N)
    mix_C = np.maximum(1 - count_C / sum_C, 0)
    lack_C = np.maximum(count_C - sum_C, 0)
    mixed_CN = (1 - mix_C)[:, None] * prob_CN + np.outer(lack_C / lack_C.sum(), mix_C @ prob_CN)
    np.testing.assert_allclose(mixed_CN.sum(1), count_C)
    left_CN = mixed_CN - np.eye(CLASSES)[:, label_N]
    entropy = -(mixed_CN * np.log(mixed_CN)).sum()
    dual = 0.1 * (entropy + (left_CN * (prior_CD @ x_ND.T)).sum())
    dual -= 0.5 * 0.1**2 * ((left_CN @ x_ND) ** 2).sum()
    assert mix_C.max() > 0.01
    gradient = newton.gradient_at(frame, 0.1, point)
    gap = newton.certified_gap(frame, 0.1, point, gradient)
    assert gap == pytest.approx(point.objective - dual, rel=1e-9)


@pytest.mark.parametrize("strength", [1.0, 10.0, 50.0])
def test_a_prior_that_is_wrong_and_sure_is_overcome(gaussian_classes, strength):
    x_ND, label_N, prior_CD = gaussian_classes
    wrong_CD = -strength * prior_CD
    for solution in solve(x_ND, label_N, wrong_CD, gap=1e-8):
        assert solution.converged
        assert np.isfinite(solution.weight_CD).all()
        assert objective_of(solution, x_ND, label_N, wrong_CD) == pytest.approx(
            solution.objective, rel=1e-6
        )


def test_a_prior_that_leaves_nothing_to_learn_stays():
    x_ND, label_N = np.eye(CLASSES)[np.arange(ROWS) % CLASSES], np.arange(ROWS) % CLASSES
    for solution in solve(x_ND, label_N, 300.0 * np.eye(CLASSES), gap=1e-8):
        assert solution.converged
        np.testing.assert_allclose(solution.weight_CD, 300.0 * np.eye(CLASSES), atol=1e-6)


def test_a_prior_beyond_float64_ends_with_a_note(gaussian_classes):
    x_ND, label_N, prior_CD = gaussian_classes
    path = solve(x_ND, label_N, -1e5 * prior_CD, gap=1e-8)
    assert not all(solution.converged for solution in path)
    for solution in path:
        assert solution.converged == (solution.gap <= 1e-8)
        assert np.isfinite(solution.weight_CD).all()


def test_newton_steps_are_bounded(gaussian_classes, monkeypatch):
    monkeypatch.setattr(newton, "_MAX_STEPS", 1)
    (rough,) = solve(*gaussian_classes, cs=[1.0])
    monkeypatch.setattr(newton, "_MAX_STEPS", 2)
    (better,) = solve(*gaussian_classes, cs=[1.0])
    assert not rough.converged
    assert better.objective < rough.objective
    assert better.units > rough.units


def test_an_absent_class_changes_nothing_and_never_wins(gaussian_classes):
    x_ND, label_N, prior_CD = gaussian_classes
    shifted_N = label_N + (label_N >= 2)  # no row of class 2
    wide_CD = np.insert(prior_CD, 2, 50.0, axis=0)
    far_ND = np.concatenate([x_ND, 1e4 * np.random.default_rng(2).normal(size=x_ND.shape)])
    full = solve(x_ND, label_N, prior_CD)
    less = solve(x_ND, shifted_N, wide_CD)
    for expected, other in zip(full, less, strict=True):
        np.testing.assert_array_equal(np.delete(other.weight_CD, 2, 0), expected.weight_CD)
        logit_NC = far_ND @ other.weight_CD.T + other.bias_C
        below_N = logit_NC[:, 2] - np.delete(logit_NC, 2, 1).mean(1)
        np.testing.assert_allclose(below_N, ABSENT_LOGIT, atol=1e-5)


def test_constant_features_leave_the_prior_and_the_class_frequencies(gaussian_classes):
    _, _, prior_CD = gaussian_classes
    x_ND, label_N = np.full((60, WIDTH), 7.0), np.repeat([0, 1, 2], [10, 20, 30])
    (fitted,) = solve(x_ND, label_N, prior_CD[:3], cs=[1.0])
    np.testing.assert_array_equal(fitted.weight_CD, prior_CD[:3])
    prob_C = softmax(x_ND[0] @ fitted.weight_CD.T + fitted.bias_C)
    np.testing.assert_allclose(prob_C, [1 / 6, 2 / 6, 3 / 6], atol=1e-12)


def test_refit_reaches_the_optimum_of_all_rows_from_that_of_some(gaussian_classes):
    x_ND, label_N, prior_CD = gaussian_classes
    seen_N = (np.arange(ROWS) < 70) & (label_N != 4)  # and a class that the start had not seen
    start = solve(x_ND[seen_N], label_N[seen_N], prior_CD, cs=[0.3], gap=1e-4)[0]
    warm = refit(x_ND, label_N, CLASSES, start, 1e-11, 10.0, 1000, prior_CD)
    (single,) = solve(x_ND, label_N, prior_CD, cs=[0.3])
    assert warm.converged
    assert warm.objective == pytest.approx(single.objective, rel=1e-10)
    np.testing.assert_allclose(warm.weight_CD, single.weight_CD, atol=1e-4)


def test_the_offset_costs_one_product(gaussian_classes):
    x_ND, label_N, prior_CD = gaussian_classes
    (zeros,) = solve(x_ND, label_N, np.zeros_like(prior_CD), cs=[1e-12], gap=1e-4)
    (none,) = solve(x_ND, label_N, None, cs=[1e-12], gap=1e-4)
    assert zeros.units == none.units + 0.5


def test_between_the_text_classifier_and_plain_logistic_regression():
    """The intended use: unit features, and class names as directions in the same space."""
    rng = np.random.default_rng(4)
    label_N = np.arange(400) % CLASSES
    name_CD = rng.normal(size=(CLASSES, 6))
    name_CD /= np.linalg.norm(name_CD, axis=1, keepdims=True)
    x_ND = (name_CD + 0.3 * rng.normal(size=name_CD.shape))[label_N]
    x_ND = x_ND + 0.5 * rng.normal(size=x_ND.shape)  # classes overlap: a large C has a limit
    x_ND /= np.linalg.norm(x_ND, axis=1, keepdims=True)
    train, test_ND = (x_ND[:300], label_N[:300]), x_ND[300:]
    prior_CD = 10.0 * name_CD
    small, large = solve(*train, prior_CD, cs=[1e-9, 1e6], gap=1e-10)
    text_NC = test_ND @ prior_CD.T
    np.testing.assert_allclose(
        test_ND @ small.weight_CD.T + small.bias_C - text_NC,
        np.broadcast_to(small.bias_C, text_NC.shape),
        atol=1e-5,
    )
    ranked_NC = np.sort(text_NC, axis=1)
    clear_N = ranked_NC[:, -1] - ranked_NC[:, -2] > np.ptp(small.bias_C)
    assert clear_N.sum() > 20
    ours_N = (test_ND @ small.weight_CD.T + small.bias_C).argmax(1)
    assert (ours_N == text_NC.argmax(1))[clear_N].all()
    (plain_model,) = solve(*train, np.zeros_like(prior_CD), cs=[1e6], gap=1e-10)
    probability = [
        softmax(test_ND @ model.weight_CD.T + model.bias_C, axis=1)
        for model in (small, large, plain_model)
    ]
    agree = [(expected.argmax(1) == probability[2].argmax(1)).mean() for expected in probability]
    assert agree[0] < agree[1] == 1
    np.testing.assert_allclose(probability[1], probability[2], atol=1e-3)
