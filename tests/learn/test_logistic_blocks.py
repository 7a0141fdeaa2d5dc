"""Logistic regression in blocks of rows: the same solutions, certificate and errors as in one."""

import math
import weakref

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fgvc.learn.logistic import Solver, hessian, newton, problem, refit, rows
from fgvc.learn.logistic import solver as solver_module
from fgvc.learn.logistic.hessian import Hessian
from fgvc.types import UserError

ROWS, WIDTH, CLASSES = 150, 12, 6
CS = [1e-6, 1e-3, 0.1, 10.0, 1e5]


def gaussian_classes(classes=CLASSES, count=ROWS, spread=1.5, seed=0):
    """Overlapping classes, unbalanced, on float32 features of unequal scale with an offset."""
    rng = np.random.default_rng(seed)
    label_N = rng.permutation(np.r_[np.arange(classes), rng.integers(0, classes, count)][:count])
    label_N[rng.random(count) < 0.3] = 0
    label_N[:classes] = np.arange(classes)
    centre_CD = rng.normal(size=(classes, WIDTH))
    x_ND = centre_CD[label_N] + spread * rng.normal(size=(count, WIDTH))
    prior_CD = 0.3 * centre_CD + 0.3 * rng.normal(size=centre_CD.shape)
    return (x_ND * np.logspace(0.5, -0.5, WIDTH) + 3).astype(np.float32), label_N, prior_CD


@pytest.fixture
def in_blocks(monkeypatch):
    """Blocks of 16 rows for float64, 32 for float32."""
    monkeypatch.setattr(rows, "ONE_BLOCK_BYTES", 0)
    monkeypatch.setattr(rows, "BLOCK_BYTES", 8 * WIDTH * 16)


def solver(x_ND, label_N, classes=CLASSES, prior_CD=None, **options):
    return Solver(x_ND, label_N, classes, math.inf, 1, prior_CD, **options)


def assert_same(solutions, references, x_ND):
    """Objectives within their gaps, and the same predictions wherever the margin allows it."""
    for solution, reference in zip(solutions, references, strict=True):
        assert solution.converged
        assert solution.objective == pytest.approx(reference.objective, rel=1e-9)
        logit_NC = x_ND @ reference.weight_CD.T + reference.bias_C
        ranked_NC = np.sort(logit_NC, axis=1)
        clear_N = ranked_NC[:, -1] - ranked_NC[:, -2] > 1e-3
        ours_NC = x_ND @ solution.weight_CD.T + solution.bias_C
        assert clear_N.mean() > 0.9
        assert (ours_NC.argmax(1) == logit_NC.argmax(1))[clear_N].all()


@pytest.mark.parametrize(("classes", "with_prior"), [(2, True), (6, True), (40, False)])
def test_blocks_solve_the_problem_that_one_block_solves(monkeypatch, classes, with_prior):
    x_ND, label_N, prior_CD = gaussian_classes(classes)
    prior_CD = prior_CD if with_prior else None
    one = solver(x_ND, label_N, classes, prior_CD)
    references = [one.solve(c, 1e-11) for c in CS]
    monkeypatch.setattr(rows, "ONE_BLOCK_BYTES", 0)
    monkeypatch.setattr(rows, "BLOCK_BYTES", 8 * 40 * 16)
    several = solver(x_ND, label_N, classes, prior_CD)
    assert_same([several.solve(c, 1e-11) for c in CS], references, x_ND)


def test_blocks_agree_with_scikit_learn(in_blocks):
    x_ND, label_N, _ = gaussian_classes()
    several = solver(x_ND, label_N)
    for c in (1e-3, 0.1, 1.0):
        solution = several.solve(c, 1e-11)
        model = LogisticRegression(C=c, tol=1e-10, max_iter=10_000)
        model.fit(x_ND.astype(np.float64), label_N)
        logit_NC = x_ND @ solution.weight_CD.T + solution.bias_C
        np.testing.assert_allclose(logit_NC, model.decision_function(x_ND), atol=2e-3)


def test_the_certificate_of_blocks_is_that_of_one_block(monkeypatch):
    x_ND, label_N, prior_CD = gaussian_classes()
    rng = np.random.default_rng(1)
    weight_CD, bias_C = 0.1 * rng.normal(size=(CLASSES, WIDTH)), rng.normal(size=CLASSES)
    gaps = []
    for limit in (1 << 20, 0):
        monkeypatch.setattr(rows, "ONE_BLOCK_BYTES", limit)
        monkeypatch.setattr(rows, "BLOCK_BYTES", 8 * WIDTH * 16)
        frame = problem.build_problem(x_ND, label_N, CLASSES, prior_CD)
        point = problem.point_at(frame, 0.1, frame.to_model(weight_CD, bias_C))
        gradient = newton.gradient_at(frame, 0.1, point)
        assert float(gradient.mix_C.max()) > 0.01
        gaps.append((point.objective, newton.certified_gap(frame, 0.1, point, gradient)))
    assert gaps[0] == pytest.approx(gaps[1], rel=1e-9)


@pytest.mark.parametrize("exact", [False, True])
def test_the_product_is_the_hessian_of_the_objective(in_blocks, exact):
    x_ND, label_N, prior_CD = gaussian_classes()
    frame = problem.build_problem(x_ND, label_N, CLASSES, prior_CD)
    rng = np.random.default_rng(2)
    weight_CR, search_CR = (torch.from_numpy(0.1 * rng.normal(size=(2, CLASSES, WIDTH)))).unbind()
    bias_C, search_C = torch.from_numpy(rng.normal(size=(2, CLASSES))).unbind()

    def gradient(t):
        model = frame.model(weight_CR + t * search_CR, bias_C + t * search_C)
        point = problem.point_at(frame, 0.1, model)
        return -newton.gradient_at(frame, 0.1, point).direction(0.1)

    search_CK = torch.cat([search_CR, search_C[:, None]], 1)
    operator = Hessian(frame, 0.1, frame.model(weight_CR, bias_C), exact)
    expected_CK = (gradient(1e-4) - gradient(-1e-4)) / 2e-4
    torch.testing.assert_close(operator.product(search_CK), expected_CK, rtol=1e-5, atol=1e-4)
    assert float((search_CK * operator.precondition(search_CK)).sum()) > 0


def test_a_memory_mapped_file_and_selected_rows_are_their_copy(tmp_path, in_blocks):
    x_ND, label_N, _ = gaussian_classes()
    np.save(tmp_path / "x.npy", x_ND)
    mapped_ND = np.load(tmp_path / "x.npy", mmap_mode="r")
    row_N = np.random.default_rng(3).permutation(ROWS)[:110]
    copied = solver(x_ND[row_N], label_N[row_N]).solve(0.1, 1e-9)
    selected = solver(mapped_ND, label_N[row_N], row_N=row_N).solve(0.1, 1e-9)
    np.testing.assert_array_equal(selected.weight_CD, copied.weight_CD)
    again = refit(mapped_ND, label_N[row_N], CLASSES, copied, 1e-9, 10.0, 9, row_N=row_N)
    assert again.iterations == 0
    assert again.objective == pytest.approx(copied.objective, rel=1e-8)


def test_an_absent_class_and_a_refit_that_learns_it(in_blocks):
    x_ND, label_N, _ = gaussian_classes()
    row_N = np.flatnonzero(label_N != 4)
    start = solver(x_ND, label_N[row_N], row_N=row_N).solve(0.3, 1e-6)
    assert start.bias_C[4] == problem.ABSENT_LOGIT
    warm = refit(x_ND, label_N, CLASSES, start, 1e-11, 10.0, 1000)
    cold = solver(x_ND, label_N).solve(0.3, 1e-11)
    assert warm.objective == pytest.approx(cold.objective, rel=1e-10)


def test_rows_that_are_not_finite_are_counted_over_all_blocks(in_blocks):
    x_ND, label_N, _ = gaussian_classes()
    x_ND[[40, 90], 2] = math.nan, math.inf
    with pytest.raises(UserError, match="2 of 150 rows are not finite .first: row 40."):
        solver(x_ND, label_N)
    assert solver(x_ND, label_N[:40], row_N=np.arange(40)).solve(0.1, 1e-3).converged


def test_a_c_solved_again_to_a_smaller_gap_starts_from_its_solution(in_blocks):
    x_ND, label_N, _ = gaussian_classes()
    several = solver(x_ND, label_N)
    rough = several.solve(0.1, 1e-3)
    assert several.solve(0.1, 1e-3).iterations == 0
    fine = several.solve(0.1, 1e-9)
    assert 0 < fine.units < solver(x_ND, label_N).solve(0.1, 1e-9).units
    assert fine.objective <= rough.objective
    assert_same(
        [several.solve(c, 1e-11) for c in (10.0, 0.1, 0.1000001)],
        [solver(x_ND, label_N).solve(c, 1e-11) for c in (10.0, 0.1, 0.1000001)],
        x_ND,
    )


def test_only_the_nearest_solutions_are_kept(monkeypatch):
    monkeypatch.setattr(solver_module, "_KEPT_BYTES", 0)
    x_ND, label_N, _ = gaussian_classes()
    small = solver(x_ND, label_N)
    for c in (1e-4, 1e-3, 1e-2, 1.0, 0.1):
        small.solve(c, 1e-3)
    assert sorted(small._solved) == [1e-2, 0.1, 1.0]


def test_float32_products_give_way_to_float64_where_they_fail(in_blocks, monkeypatch):
    x_ND, label_N, _ = gaussian_classes()
    reference = solver(x_ND, label_N).solve(1.0, 1e-11)
    product, exact_products = Hessian.product, []

    def broken(self, search_CK):
        if self._dtype == torch.float32:
            return search_CK  # as if the data did not matter
        exact_products.append(1)
        return product(self, search_CK)

    monkeypatch.setattr(hessian.Hessian, "product", broken)
    assert_same([solver(x_ND, label_N).solve(1.0, 1e-11)], [reference], x_ND)
    assert exact_products


class MemoryMode(TorchDispatchMode):
    """Counts the bytes of the tensors that exist at the same time, and of the largest of them."""

    def __init__(self):
        super().__init__()
        self.alive = self.peak = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves(args) if torch.is_tensor(t)}
        for tensor in tree_leaves(result):
            if torch.is_tensor(tensor) and tensor.untyped_storage().data_ptr() not in given:
                self.add(tensor.untyped_storage().nbytes())
                weakref.finalize(tensor, self.add, -tensor.untyped_storage().nbytes())
        return result

    def add(self, size):
        self.alive += size
        self.peak, self.largest = max(self.peak, self.alive), max(self.largest, size)


def test_memory_does_not_grow_with_rows(monkeypatch):
    """No matrix of rows x classes exists, and none of a block outlives it."""
    monkeypatch.setattr(rows, "ONE_BLOCK_BYTES", 0)
    monkeypatch.setattr(rows, "BLOCK_BYTES", 8 * 30 * 20)
    modes = []
    for count in (100, 400):
        x_ND, label_N, prior_CD = gaussian_classes(30, count)
        with MemoryMode() as mode:
            several = solver(x_ND, label_N, 30, prior_CD)
            for c in (0.001, 0.002):
                several.solve(c, 1e-2)
        modes.append(mode)
    few, many = modes
    assert many.largest == few.largest <= 8 * 30 * 30  # a matrix of C x C, or of a block
    assert many.peak <= 1.1 * few.peak
    assert many.peak < 8 * 30 * 400
