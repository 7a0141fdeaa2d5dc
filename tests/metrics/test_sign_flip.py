"""The exact test for several seeds: enumeration, agreement with McNemar's test, and its level."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product
from math import comb, prod

import numpy as np
import pytest
from scipy import stats

from benchmarks.family_wise_error import Setting, family_wise_error
from fgvc import metrics
from fgvc.metrics import paired_tests


def draw(seeds: int, images: int, rng: np.random.Generator, accuracy: float = 0.6) -> np.ndarray:
    """right_SN"""
    return rng.random((seeds, images)) < accuracy


def enumerated(surplus_N: np.ndarray) -> float:
    """P(|sum| is at least the observed one) over all flips of signs, one by one."""
    flips = np.array(list(product((1, -1), repeat=len(surplus_N))))
    return float(np.mean(np.abs(flips @ surplus_N) >= abs(surplus_N.sum())))


def convolved(counts: dict[int, int], total: int) -> Fraction:
    """The same from counts by magnitude, in integers."""
    ways = {0: 1}
    for magnitude, n in counts.items():
        step = {magnitude * (2 * k - n): comb(n, k) for k in range(n + 1)}
        summed: dict[int, int] = {}
        for at, times in ways.items():
            for more, others in step.items():
                summed[at + more] = summed.get(at + more, 0) + times * others
        ways = summed
    hit = sum(times for at, times in ways.items() if abs(at) >= total)
    return Fraction(hit, prod(2**n for n in counts.values()))


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_the_p_is_that_of_all_flips(seeds):
    rng = np.random.default_rng(seeds)
    for _ in range(10):
        a_SN, b_SN = draw(seeds, 10, rng), draw(seeds, 10, rng, 0.3)
        surplus_N = a_SN.sum(axis=0) - b_SN.sum(axis=0)
        assert metrics.sign_flip(a_SN, b_SN) == pytest.approx(enumerated(surplus_N), rel=1e-12)


@pytest.mark.parametrize(
    ("counts", "total"),
    [
        ({1: 7, 2: 1}, 9),
        ({1: 40, 2: 30, 3: 20}, 160),
        ({1: 1, 5: 60}, 301),
        ({1: 120, 2: 80, 3: 60}, 0),
        ({2: 50, 3: 50}, 17),
        ({1: 300, 3: 90}, 570),
    ],
)
def test_the_smallest_p_keeps_its_digits(counts, total):
    p = paired_tests._tail(tuple(counts), tuple(counts.values()), total)
    assert p == pytest.approx(float(convolved(counts, total)), rel=1e-11)


@pytest.mark.parametrize("repeats", [(1, 1), (3, 3), (1, 3), (4, 2)])
@pytest.mark.parametrize("images", [6, 300, 24_633])
def test_it_is_mcnemar_where_the_seeds_agree(repeats, images):
    """Repeating a deterministic run with other seeds changes nothing."""
    rng = np.random.default_rng(images)
    a_N, b_N = draw(1, images, rng, 0.70)[0], draw(1, images, rng, 0.69)[0]
    a_SN, b_SN = np.tile(a_N, (repeats[0], 1)), np.tile(b_N, (repeats[1], 1))
    exact = metrics.mcnemar(a_N, b_N)
    assert metrics.sign_flip(a_SN, b_SN) == exact.p
    oracle = stats.binomtest(exact.only_a, exact.only_a + exact.only_b).pvalue
    assert exact.p == pytest.approx(oracle, rel=1e-9)
    single_seed = metrics.compare_top1(a_SN[:1], b_SN[:1])
    assert single_seed.test == "mcnemar"
    assert metrics.compare_top1(a_SN, b_SN) == single_seed


def test_seeds_that_repeat_half_of_each_other_are_not_dropped():
    rng = np.random.default_rng(0)
    x_N, y_N, z_N = draw(3, 50, rng)
    assert len(paired_tests.remove_repeats(np.stack([x_N, y_N, x_N]))) == 3
    assert paired_tests.remove_repeats(np.stack([x_N, y_N, y_N, x_N])).tolist() == [
        x_N.tolist(),
        y_N.tolist(),
    ]
    assert len(paired_tests.remove_repeats(np.stack([x_N, z_N, y_N]))) == 3


def test_fewer_seeds_on_one_side_enter_as_the_geometric_mean_of_exact_tests():
    rng = np.random.default_rng(2)
    a_SN, b_SN = draw(1, 200, rng), draw(3, 200, rng, 0.5)
    exact = [metrics.mcnemar(a_SN[0], right_N).p for right_N in b_SN]
    comparison = metrics.compare_top1(a_SN, b_SN)
    assert comparison.test == "sign_flip_subsets"
    assert comparison.p == pytest.approx(stats.gmean(exact), rel=1e-12)
    assert comparison.value == pytest.approx(a_SN.mean() - b_SN.mean())


@pytest.mark.parametrize("seeds", [(2, 5), (5, 2), (1, 3), (3, 6)])
def test_the_p_does_not_depend_on_the_numbers_of_the_seeds(seeds):
    rng = np.random.default_rng(sum(seeds))
    a_SN, b_SN = draw(seeds[0], 60, rng, 0.8), draw(seeds[1], 60, rng)
    expected = {metrics.sign_flip(a_SN, b_SN)}
    for _ in range(20):
        assert {metrics.sign_flip(rng.permutation(a_SN), rng.permutation(b_SN))} == expected


def test_every_choice_of_equally_many_seeds_enters_once():
    rng = np.random.default_rng(3)
    a_SN, b_SN = draw(2, 60, rng), draw(5, 60, rng, 0.5)
    exact = [metrics.sign_flip(a_SN, b_SN[list(rows)]) for rows in combinations(range(5), 2)]
    assert metrics.sign_flip(a_SN, b_SN) == pytest.approx(stats.gmean(exact), rel=1e-12)


def test_of_very_many_choices_cyclic_windows_enter():
    """924 choices of 6 seeds of 12."""
    rng = np.random.default_rng(4)
    a_SN, b_SN = draw(6, 40, rng), draw(12, 40, rng, 0.5)
    windows = [np.roll(b_SN, -first, axis=0)[:6] for first in range(12)]
    exact = [metrics.sign_flip(a_SN, right_SN) for right_SN in windows]
    assert metrics.sign_flip(a_SN, b_SN) == pytest.approx(stats.gmean(exact), rel=1e-12)


@pytest.mark.parametrize("seeds", [(1, 1), (1, 3), (2, 2), (3, 3), (2, 5), (4, 2)])
def test_swapping_the_models_changes_the_sign_and_nothing_else(seeds):
    rng = np.random.default_rng(sum(seeds))
    for images in (5, 60, 400):
        label_N = rng.integers(4, size=images)
        a_SN, b_SN = draw(seeds[0], images, rng), draw(seeds[1], images, rng, 0.55)
        here = metrics.compare_top1(a_SN, b_SN)
        there = metrics.compare_top1(b_SN, a_SN)
        assert (here.test, here.p, here.same_right) == (there.test, there.p, there.same_right)
        assert (here.value, here.low, here.high) == (-there.value, -there.high, -there.low)
        scores = a_SN.mean(axis=0), b_SN.mean(axis=0)
        here = metrics.bootstrap_mean_per_class(*scores, label_N, 500, 0)
        there = metrics.bootstrap_mean_per_class(scores[1], scores[0], label_N, 500, 0)
        assert (here.value, here.low, here.high) == (-there.value, -there.high, -there.low)


def test_a_difference_that_is_its_own_opposite_has_a_symmetric_interval():
    a_SN = np.array([[True, False, True, False, True, True]])
    b_SN = np.array([[False, True, False, True, True, True]])
    comparison = metrics.compare_top1(a_SN, b_SN)
    assert (comparison.value, comparison.p) == (0.0, 1.0)
    assert comparison.low == -comparison.high < 0
    same = metrics.compare_top1(a_SN, a_SN)
    assert (same.value, same.low, same.high, same.p, same.same_right) == (0, 0, 0, 1, True)
    assert not comparison.same_right


def test_holm_over_a_family_of_which_some_are_not_tested():
    p = [0.01, 0.04, 0.03, 0.005]
    adjusted = metrics.holm([*p, *[1.0] * 6])
    assert metrics.holm(p, 10) == adjusted[:4] == pytest.approx([0.09, 0.28, 0.24, 0.05])
    assert [metrics.all_pairs(models) for models in (1, 2, 3, 50)] == [0, 1, 3, 1225]
    assert metrics.holm([], 0) == []


@pytest.mark.parametrize(
    ("setting", "tables", "before"),
    [
        (Setting(10, 500), 400, 0.07),
        (Setting(6, 200, (3,)), 40, 0.0),
        (Setting(6, 200, (1, 3), shape=(9, 0.3)), 40, 0.0),
    ],
)
def test_tables_without_a_difference_show_none(setting, tables, before):
    """A small fixed case; the full table is in LOG.md. before: the least that Holm's procedure over
    the comparisons shown would reject."""
    outcome = family_wise_error(setting, tables, seed=1)
    assert outcome.error <= 0.05 + 2 * (0.05 * 0.95 / tables) ** 0.5
    assert outcome.before >= before
