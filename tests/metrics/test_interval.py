"""Wilson's interval against scipy; intervals over classes against a plain bootstrap."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as oracle

from fgvc import metrics
from fgvc.metrics import class_intervals, wilson


@pytest.mark.parametrize("n", [1, 2, 7, 40, 5794])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_agrees_with_scipy(n, level):
    for successes in {0, 1, n // 3, n // 2, n - 1, n}:
        theirs = binomtest(successes, n).proportion_ci(level, method="wilson")
        low, high = wilson(successes, n, level)
        assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
        assert 0 <= low <= successes / n <= high <= 1


def test_nothing_counted_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


def test_width_at_the_size_of_cub():
    low, high = wilson(round(0.9 * 5794), 5794)
    assert (high - low) / 2 == pytest.approx(0.0077, abs=1e-4)


# --- intervals of what averages over classes ---


def drawn(rng, support):
    """label_N, pred_N of a classifier that is better at some classes; the last one is unread."""
    label_N = np.repeat(np.arange(len(support)), support)
    wrong_N = rng.integers(len(support), size=len(label_N))
    pred_N = np.where(rng.random(len(label_N)) < 0.5 + label_N / 12, label_N, wrong_N)
    pred_N[-1] = metrics.UNREADABLE
    return label_N, pred_N


def counted(label_N, pred_N, classes):
    matrix = np.zeros((classes, classes + 1), int)
    np.add.at(matrix, (label_N, np.where(pred_N < 0, classes, pred_N)), 1)
    return matrix


def scored(label_N, pred_N):
    """Macro recall and macro-F1, straight from the counts of one sample of six classes."""
    support, hit = np.bincount(label_N, minlength=6), label_N[label_N == pred_N]
    hit, said = np.bincount(hit, minlength=6), np.bincount(pred_N[pred_N >= 0], minlength=6)
    seen = support + said > 0
    recall = (hit[support > 0] / support[support > 0]).mean()
    return recall, (2 * hit[seen] / (support + said)[seen]).mean()


def test_class_intervals_are_those_of_a_plain_stratified_bootstrap():
    """Images drawn again one by one, and every resample scored anew."""
    rng = np.random.default_rng(0)
    support = [4, 60, 30, 0, 19, 11]
    label_N, pred_N = drawn(rng, support)
    seen = np.union1d(label_N, pred_N[pred_N >= 0])
    theirs = [
        oracle.recall_score(label_N, pred_N, average="macro", labels=np.unique(label_N)),
        oracle.f1_score(label_N, pred_N, average="macro", labels=seen, zero_division=0),
    ]
    assert scored(label_N, pred_N) == pytest.approx(theirs)
    rows_C = [np.flatnonzero(label_N == c) for c in range(6) if support[c]]
    scores = []
    for _ in range(4000):
        pick_N = np.concatenate([rows[rng.integers(len(rows), size=len(rows))] for rows in rows_C])
        scores.append(scored(label_N[pick_N], pred_N[pick_N]))
    moved = np.array(scores) - np.mean(scores, axis=0) + theirs
    limits = np.quantile(moved, [0.025, 0.975], axis=0).T
    mine = class_intervals(counted(label_N, pred_N, 6))
    for key, expected in zip(("mean_per_class_ci95", "macro_f1_ci95"), limits, strict=True):
        assert mine[key] == pytest.approx(expected, abs=0.01), key
        assert mine[key][1] - mine[key][0] > 0.1


def test_the_interval_of_mean_per_class_is_that_of_a_sum_of_binomials():
    """Where no class is near 0 or 1, a normal interval of the exact variance."""
    matrix = np.array([[70, 20, 10, 0], [30, 120, 50, 0], [100, 60, 240, 0]])
    share_C = np.diagonal(matrix) / matrix.sum(1)
    deviation = np.sqrt((share_C * (1 - share_C) / matrix.sum(1)).sum()) / 3
    low, high = class_intervals(matrix, draws=20_000)["mean_per_class_ci95"]
    limits = share_C.mean() - 1.96 * deviation, share_C.mean() + 1.96 * deviation
    assert (low, high) == pytest.approx(limits, abs=0.003)


def test_class_intervals_repeat_and_hold_the_value():
    label_N, pred_N = drawn(np.random.default_rng(1), [25] * 6)
    matrix = counted(label_N, pred_N, 6)
    found = class_intervals(matrix)
    assert found == class_intervals(matrix)
    assert found != class_intervals(matrix, seed=1)
    value = oracle.recall_score(label_N, pred_N, average="macro", labels=range(6))
    assert found["mean_per_class_ci95"][0] < value < found["mean_per_class_ci95"][1]


def test_macro_f1_lies_within_its_interval_with_few_images_a_class():
    """Resampled, such a macro-F1 is lower by more than half the interval is wide."""
    rng = np.random.default_rng(2)
    label_N = np.repeat(np.arange(400), 5)
    wrong_N = rng.integers(400, size=2000)
    pred_N = np.where(rng.random(2000) < 0.45, label_N, wrong_N)
    value = oracle.f1_score(label_N, pred_N, average="macro", zero_division=0)
    low, high = class_intervals(counted(label_N, pred_N, 400))["macro_f1_ci95"]
    assert (low + high) / 2 == pytest.approx(value, abs=0.002)
    assert 0.02 < high - low < 0.06


def test_perfect_answers_have_no_spread():
    found = class_intervals(np.hstack([np.diag([5, 9]), np.zeros((2, 1), int)]))
    assert found == {"mean_per_class_ci95": [1.0, 1.0], "macro_f1_ci95": [1.0, 1.0]}
