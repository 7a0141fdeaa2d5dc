"""Paired comparisons, compared with scipy, integer arithmetic and their definitions."""

from __future__ import annotations

import itertools
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


def bootstrap_top1(right_a_N: np.ndarray, right_b_N: np.ndarray) -> bootstrap.Difference:
    return metrics.bootstrap_top1(right_a_N.astype(int) - right_b_N, 1)


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
    actual = bootstrap_top1(right_a_N, right_b_N)
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
    paired = bootstrap_top1(right_a_N, right_b_N)
    torn = bootstrap_top1(right_a_N, np.roll(right_b_N, 1))
    assert paired.value == pytest.approx(torn.value)
    assert paired.high - paired.low < 0.8 * (torn.high - torn.low)


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
    label_N = np.arange(len(right_a_N)) % 3
    interval = metrics.bootstrap_mean_per_class(right_a_N, right_b_N, label_N, draws=500, seed=7)
    same = metrics.bootstrap_mean_per_class(right_a_N, right_b_N, label_N, draws=500, seed=7)
    assert interval == same
    other = metrics.bootstrap_mean_per_class(right_a_N, right_b_N, label_N, draws=501, seed=8)
    assert interval.low != other.low
    for forward, backward in (
        (interval, metrics.bootstrap_mean_per_class(right_b_N, right_a_N, label_N, 500, 7)),
        (bootstrap_top1(right_a_N, right_b_N), bootstrap_top1(right_b_N, right_a_N)),
    ):
        assert 0 < forward.low < forward.value < forward.high
        assert backward == -forward


def test_scores_of_several_seeds_are_shares():
    surplus_N = np.array([0, -1, 1, 0] * 25)  # in thirds
    interval = metrics.bootstrap_top1(surplus_N, 3)
    assert interval.value == pytest.approx(0.0)
    spread = np.std(surplus_N / 3) / 10
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * spread, rel=0.1)


@pytest.mark.parametrize("level", [0.95, 1 - 0.05 / 1225])
@pytest.mark.parametrize("surplus", [[0] * 7 + [1, 1, -1], [-3, 0, 2, 2, 0, 5], [1] * 4, [0] * 3])
def test_the_bounds_are_those_of_all_resamples(surplus, level):
    """Oracle: the distribution of the sum by exact fractions, one image at a time."""
    ways = {0: Fraction(1)}
    for _ in surplus:
        summed: dict[int, Fraction] = {}
        for total, share in ways.items():
            for value in surplus:
                more = share / len(surplus)
                summed[total + value] = summed.get(total + value, Fraction()) + more
        ways = summed
    tail, totals = (1 - level) / 2, sorted(ways)
    low = next(t for t in totals if sum(ways[x] for x in totals if x <= t) >= tail)
    high = next(t for t in totals[::-1] if sum(ways[x] for x in totals if x >= t) >= tail)
    actual = metrics.bootstrap_top1(np.array(surplus), 4, level)
    n = 4 * len(surplus)
    expected = sum(surplus) / n, low / n, high / n
    assert (actual.value, actual.low, actual.high) == pytest.approx(expected)


def test_an_interval_excludes_0_exactly_where_the_test_finds_a_difference():
    bent = 0
    for only_a, only_b in itertools.product(range(0, 60, 3), (0, 4, 20)):
        right_a_N, right_b_N = (right_N[None] for right_N in cells(200, only_a, only_b, 50))
        p = metrics.compare_top1(right_a_N, right_b_N).p
        for alpha in (0.05, 0.05 / 45, 0.05 / 1225):
            interval = metrics.interval_top1(right_a_N, right_b_N, p, alpha)
            plain = metrics.bootstrap_top1(right_a_N[0].astype(int) - right_b_N[0], 1, 1 - alpha)
            if p > alpha:
                assert interval.low <= 0 <= interval.high
            else:
                assert interval.low >= 0 or interval.high <= 0
            near = 0.05 < p / alpha < 40  # the two methods may disagree near the border
            assert interval == plain or near, (only_a, only_b, alpha)
            bent += interval != plain
    assert 0 < bent < 20


def test_the_p_of_a_clear_difference_has_no_floor():
    right_a_N, right_b_N = cells(0, 500, 0, 0)
    clear = metrics.compare_top1(right_a_N[None], right_b_N[None])
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


@pytest.mark.parametrize("hypotheses", [None, 3, 20])
def test_holm_finds_what_the_plain_p_finds_at_its_level(hypotheses):
    """The same decisions in both ways, and the level of the first step that fails for the rest."""
    rng = np.random.default_rng(6)
    for _ in range(200):
        p = (rng.random(rng.integers(1, 4 if hypotheses == 3 else 12)) ** 4).round(4).tolist()
        alphas = metrics.holm_alphas(p, 0.05, hypotheses)
        m = hypotheses or len(p)
        adjusted = metrics.holm(p, hypotheses)
        assert [q <= 0.05 for q in adjusted] == [own <= a for own, a in zip(p, alphas, strict=True)]
        assert all(0.05 / m <= a <= 0.05 for a in alphas)
        rejections = sum(q <= 0.05 for q in adjusted)
        others = {a for q, a in zip(adjusted, alphas, strict=True) if q > 0.05}
        assert others <= {0.05 / (m - rejections) if m > rejections else 0.05}


def test_holms_levels_written_out():
    # sorted .005 .01 .03 .04: rejections at .05/4 and .05/3, then the procedure stops at .05/2
    assert metrics.holm_alphas([0.01, 0.04, 0.03, 0.005], 0.05) == pytest.approx(
        [0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4]
    )
    assert metrics.holm_alphas([0.001, 0.002], 0.05) == pytest.approx([0.05 / 2, 0.05])


def test_intervals_at_holms_levels_of_equal_models_contain_0_jointly():
    """Simulation: the first of four models against two equal ones and one that is worse."""
    rng, missed = np.random.default_rng(1), 0
    accuracy_M = np.array([0.8, 0.8, 0.8, 0.7])
    for _ in range(300):
        right_MN = rng.random((4, 400)) < accuracy_M[:, None]
        pairs = [(right_MN[:1], right_MN[m : m + 1]) for m in (1, 2, 3)]
        p = [metrics.compare_top1(*pair).p for pair in pairs]
        alphas = metrics.holm_alphas(p, 0.05)
        intervals = [
            metrics.interval_top1(*pair, p_pair, alpha)
            for pair, p_pair, alpha in zip(pairs, p, alphas, strict=True)
        ]
        missed += any(not i.low <= 0 <= i.high for i in intervals[:2])
    assert missed / 300 <= 0.05


def test_ways_to_differ_that_occur_again_are_computed_once():
    def computed() -> int:
        return bootstrap._sum_of_draws.cache_info().misses

    bootstrap._sum_of_draws.cache_clear()
    a_N, b_N = np.arange(700) < 611, np.arange(700) < 600
    first = bootstrap_top1(a_N, b_N)
    order_N = np.random.default_rng(0).permutation(700)
    assert (first, computed()) == (bootstrap_top1(a_N[order_N], b_N[order_N]), 1)
    assert (bootstrap_top1(b_N, a_N), computed()) == (-first, 1)
    metrics.bootstrap_top1(a_N.astype(int) - b_N, 1, 0.99)
    assert computed() == 2
