"""Paired comparisons, compared with scipy, integer arithmetic and their definitions."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy import stats

from fgvc import metrics
from fgvc.metrics import bootstrap


def cells(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Correct predictions of two models with these counts, in random order."""
    right_a_N = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    right_b_N = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    order_N = np.random.default_rng(0).permutation(len(right_a_N))
    return right_a_N[order_N], right_b_N[order_N]


@pytest.mark.parametrize(
    ("only_a", "only_b"), [(1, 0), (0, 5), (5, 5), (3, 12), (40, 22), (700, 610), (3000, 0)]
)
def test_mcnemar_is_the_exact_binomial_test(only_a, only_b):
    result = metrics.mcnemar(*cells(50, only_a, only_b, 7))
    assert (result.only_a, result.only_b) == (only_a, only_b)
    oracle = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue
    assert result.p == pytest.approx(oracle, rel=1e-9)


def test_mcnemar_by_hand():
    tail = sum(comb(15, k) for k in range(4))
    assert metrics.mcnemar(*cells(9, 3, 12, 0)).p == pytest.approx(Fraction(2 * tail, 2**15))


def test_mcnemar_ignores_ties_and_the_order_of_the_runs():
    few, many = cells(0, 3, 12, 0), cells(1000, 3, 12, 500)
    assert metrics.mcnemar(*few).p == metrics.mcnemar(*many).p
    assert metrics.mcnemar(few[1], few[0]).p == metrics.mcnemar(*few).p
    assert metrics.mcnemar(*cells(9, 0, 0, 3)).p == 1.0


def test_bootstrap_of_top1_is_scipys():
    right_a_N, right_b_N = cells(300, 45, 25, 60)
    actual = metrics.bootstrap_top1(right_a_N, right_b_N, draws=20_000, seed=0)
    expected = stats.bootstrap(
        (right_a_N.astype(float), right_b_N.astype(float)),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        batch=1000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert actual.value == pytest.approx(20 / 430)
    assert (actual.low, actual.high) == pytest.approx((expected.low, expected.high), abs=1.5 / 430)


def test_pairing_narrows_the_interval():
    right_a_N, right_b_N = cells(400, 12, 8, 10)
    paired = metrics.bootstrap_top1(right_a_N, right_b_N, draws=5000, seed=0)
    torn = metrics.bootstrap_top1(right_a_N, np.roll(right_b_N, 1), draws=5000, seed=0)
    assert paired.value == pytest.approx(torn.value)
    assert paired.high - paired.low < 0.75 * (torn.high - torn.low)


def test_bootstrap_of_mean_per_class_resamples_within_classes():
    rng = np.random.default_rng(3)
    label_N = np.repeat(np.arange(5), [4, 60, 30, 7, 19])
    right_a_N, right_b_N = rng.random((2, len(label_N))) < [[0.8], [0.6]]
    actual = metrics.bootstrap_mean_per_class(right_a_N, right_b_N, label_N, 20_000, seed=0)
    surplus_N = right_a_N.astype(float) - right_b_N
    mean_B, value = np.zeros(20_000), 0.0
    for of_class in (surplus_N[label_N == c] for c in range(5)):
        index_BN = rng.integers(len(of_class), size=(20_000, len(of_class)))
        mean_B += of_class[index_BN].mean(axis=1) / 5
        value += of_class.mean() / 5
    assert actual.value == pytest.approx(value)
    assert (actual.low, actual.high) == pytest.approx(np.quantile(mean_B, [0.025, 0.975]), abs=0.01)


def test_mean_per_class_follows_the_labels_in_any_order_and_ignores_gaps_between_them():
    rng = np.random.default_rng(4)
    label_N = np.array([0, 0, 0, 7, 7, 9])
    right_a_N = np.array([True, True, False, True, False, True])
    right_b_N = np.zeros(6, bool)
    order_N = rng.permutation(6)
    shuffled = metrics.bootstrap_mean_per_class(
        right_a_N[order_N], right_b_N[order_N], label_N[order_N], 100, seed=0
    )
    assert shuffled.value == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert shuffled.low > 0.3  # the third class has one image, which every resample holds


def test_a_bootstrap_repeats_by_its_seed_and_has_the_sign_of_a_minus_b():
    right_a_N, right_b_N = cells(30, 40, 10, 9)
    interval = metrics.bootstrap_top1(right_a_N, right_b_N, draws=500, seed=7)
    assert interval == metrics.bootstrap_top1(right_a_N, right_b_N, draws=500, seed=7)
    assert interval.low != metrics.bootstrap_top1(right_a_N, right_b_N, draws=501, seed=8).low
    assert 0 < interval.low < interval.value < interval.high
    other = metrics.bootstrap_top1(right_b_N, right_a_N, draws=500, seed=7)
    assert other.low < other.value == -interval.value < other.high < 0


def test_scores_of_several_seeds_are_shares():
    score_a_N = np.array([1.0, 2 / 3, 1 / 3, 0.0] * 25)
    score_b_N = np.array([1.0, 1.0, 0.0, 0.0] * 25)
    interval = metrics.bootstrap_top1(score_a_N, score_b_N, draws=4000, seed=0)
    assert interval.value == pytest.approx(0.0)
    spread = np.std(score_a_N - score_b_N) / 10
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * spread, rel=0.1)


def test_the_interval_of_the_bootstrap_agrees_with_the_exact_p_but_for_the_border():
    for only_a in range(5, 60, 5):
        right_a_N, right_b_N = cells(200, only_a, 20, 50)
        comparison = metrics.compare_top1(right_a_N[None], right_b_N[None], draws=4000, seed=0)
        if not 0.03 < comparison.p < 0.08:
            assert (comparison.p < 0.05) == (comparison.low > 0 or comparison.high < 0), only_a


def test_the_p_of_a_clear_difference_has_no_floor():
    right_a_N, right_b_N = cells(0, 500, 0, 0)
    clear = metrics.compare_top1(right_a_N[None], right_b_N[None], draws=99, seed=0)
    assert clear.p == pytest.approx(2.0**-499, rel=1e-9)


def test_holm_written_out():
    p = [0.01, 0.04, 0.03, 0.005]
    # sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and never falling: .02 .03 .06 .06
    assert metrics.holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert metrics.holm([]) == []
    assert metrics.holm([0.3]) == [0.3]
    assert metrics.holm([0.9, 0.8]) == [1.0, 1.0]


def test_holm_rejects_what_the_procedure_of_the_paper_rejects():
    rng = np.random.default_rng(5)
    for _ in range(200):
        p = (rng.random(rng.integers(1, 12)) ** 4).round(3).tolist()
        rejected: set[int] = set()
        for step, i in enumerate(np.argsort(p, kind="stable").tolist()):
            if p[i] * (len(p) - step) > 0.05:
                break
            rejected.add(i)
        assert {i for i, q in enumerate(metrics.holm(p)) if q <= 0.05} == rejected


def test_ways_to_differ_that_occur_again_are_drawn_once():
    def draws() -> int:
        return bootstrap._resample.cache_info().misses

    bootstrap._resample.cache_clear()
    a_N, b_N = np.arange(700) < 611, np.arange(700) < 600
    first = metrics.bootstrap_top1(a_N, b_N, 500, 3)
    order_N = np.random.default_rng(0).permutation(700)
    again = metrics.bootstrap_top1(a_N[order_N], b_N[order_N], 500, 3)
    assert (first, draws()) == (again, 1)
    for other in ((a_N, b_N, 501, 3), (a_N, b_N, 500, 4)):
        metrics.bootstrap_top1(*other)
    assert draws() == 3
    assert metrics.bootstrap_top1(b_N, a_N, 500, 3) == -first
    assert draws() == 3
