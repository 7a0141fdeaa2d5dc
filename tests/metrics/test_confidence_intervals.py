"""Wilson's interval against scipy; coverage and properties of the intervals over classes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, binomtest, poisson
from sklearn import metrics as sklearn_metrics

from fgvc import metrics
from fgvc.metrics import class_intervals, wilson
from fgvc.metrics.macro_f1 import f1_moments
from fgvc.types import ConfusionCounts

oracle: Any = sklearn_metrics  # without annotations: pyright would guess them from the defaults
KEYS = ("mean_per_class_ci95", "macro_f1_ci95")


@pytest.mark.parametrize("n", [1, 2, 7, 40, 5794])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_agrees_with_scipy(n, level):
    for successes in {0, 1, n // 3, n // 2, n - 1, n}:
        expected = binomtest(successes, n).proportion_ci(level, method="wilson")
        low, high = wilson(successes, n, level)
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert 0 <= low <= successes / n <= high <= 1


def test_zero_counts_give_the_whole_interval():
    assert wilson(0, 0) == (0.0, 1.0)


def test_width_at_the_size_of_cub():
    low, high = wilson(round(0.9 * 5794), 5794)
    assert (high - low) / 2 == pytest.approx(0.0077, abs=1e-4)


# --- intervals of what averages over classes ---


def confusion(rng, support_C, accuracy):
    """A confusion matrix with mistakes spread evenly over all classes, and its two numbers."""
    classes = len(support_C)
    label_N = np.repeat(np.arange(classes), support_C)
    mistake_N = (label_N + rng.integers(1, classes, size=len(label_N))) % classes
    pred_N = np.where(rng.random(len(label_N)) < accuracy, label_N, mistake_N)
    return metrics.tally(pred_N, label_N, classes), scored(pred_N, label_N)


def scored(pred_N, label_N):
    """Mean per class and macro-F1 by scikit-learn."""
    present = np.union1d(label_N, pred_N[pred_N >= 0])
    return (
        oracle.recall_score(label_N, pred_N, average="macro", labels=np.unique(label_N)),
        oracle.f1_score(label_N, pred_N, average="macro", labels=present, zero_division=0),
    )


@pytest.mark.parametrize(("classes", "images", "accuracy"), [(20, 26, 0.99), (8, 2, 0.8)])
def test_intervals_cover_the_value_of_a_large_test_set(classes, images, accuracy):
    """With mistakes spread evenly, both numbers of a large test set equal the accuracy.

    The bootstrap of version 1 covered 86 % and 77 %.
    """
    rng = np.random.default_rng(0)
    support_C = np.full(classes, images)
    label_N = np.repeat(np.arange(classes), support_C)
    covered = np.zeros(2)
    widths = []
    for _ in range(600):
        mistake_N = (label_N + rng.integers(1, classes, size=len(label_N))) % classes
        pred_N = np.where(rng.random(len(label_N)) < accuracy, label_N, mistake_N)
        intervals = class_intervals(metrics.tally(pred_N, label_N, classes))
        limits = np.array([intervals[key] for key in KEYS])
        covered += (limits[:, 0] <= accuracy) & (accuracy <= limits[:, 1])
        widths.append(limits[:, 1] - limits[:, 0])
    assert (covered / 600 >= 0.94).all()
    spread = 2 * 1.96 * (accuracy * (1 - accuracy) / (classes * images)) ** 0.5
    assert (np.mean(widths, axis=0) < 1.2 * spread).all()


def test_the_interval_of_macro_f1_is_for_a_large_test_set():
    """800 images of 400 classes: macro-F1 is too low on average."""
    matrix, (_, macro_f1) = confusion(np.random.default_rng(2), np.full(400, 2), 0.5)
    low, high = class_intervals(matrix)["macro_f1_ci95"]
    assert macro_f1 < 0.48
    assert low <= macro_f1 < 0.5 < high
    assert high - low < 0.12


def test_the_reported_macro_f1_is_in_its_interval_at_any_bias():
    """All mistakes fall on one class: the corrected value is several deviations higher."""
    label_N = np.repeat(np.arange(1000), 2)
    pred_N = np.where(np.random.default_rng(0).random(2000) < 0.5, label_N, 0)
    low, high = class_intervals(metrics.tally(pred_N, label_N, 1000))["macro_f1_ci95"]
    _, macro_f1 = scored(pred_N, label_N)
    assert low == pytest.approx(macro_f1)
    assert low < 2 / 3 < high  # of a large test set: 2 * .5 / (1 + .5) of nearly all classes


@pytest.mark.parametrize(
    ("n", "recall", "false"),
    [(1, 0.5, 0.5), (2, 0.5, 1.0), (2, 0.9, 0.0), (5, 0.1, 20.0), (26, 0.99, 0.3), (300, 0.8, 60)],
)
def test_moments_of_f1_are_those_of_the_enumerated_distribution(n, recall, false):
    hits = np.arange(n + 1)[:, None]
    wrong = np.arange(int(false + 12 * false**0.5 + 30))[None]
    for dispersion in (1.0, 0.5):
        trials = round(2 * false)
        of_wrong = poisson.pmf(wrong, false) if dispersion == 1 else binom.pmf(wrong, trials, 0.5)
        share = binom.pmf(hits, n, recall) * of_wrong
        f1 = 2 * hits / (n + hits + wrong)
        mean = (share * f1).sum()
        false_1 = np.array([false if dispersion == 1 else trials / 2])
        found_1, variance_1 = f1_moments(np.array([n]), np.array([recall]), false_1, dispersion)
        assert found_1[0] == pytest.approx(mean, abs=1e-10)
        assert variance_1[0] == pytest.approx((share * f1**2).sum() - mean**2, abs=1e-10)


def test_the_interval_of_mean_per_class_is_that_of_a_sum_of_binomials():
    """If no class is near 0 or 1, the normal interval of the exact variance."""
    matrix = np.array([[700, 200, 100, 0], [300, 1200, 500, 0], [1000, 600, 2400, 0]])
    share_C = np.diagonal(matrix) / matrix.sum(1)
    deviation = np.sqrt((share_C * (1 - share_C) / matrix.sum(1)).sum()) / 3
    low, high = class_intervals(ConfusionCounts.of(matrix))["mean_per_class_ci95"]
    limits = share_C.mean() - 1.96 * deviation, share_C.mean() + 1.96 * deviation
    assert (low, high) == pytest.approx(limits, abs=0.002)


@pytest.mark.parametrize(("classes", "images"), [(1, 1), (1, 9), (8, 2), (20, 26)])
def test_perfect_answers_have_the_interval_of_clopper_and_pearson(classes, images):
    intervals = class_intervals(ConfusionCounts.of(images * np.eye(classes, dtype=int)))
    low = binomtest(classes * images, classes * images).proportion_ci().low
    for key in KEYS:
        assert intervals[key] == pytest.approx([low, 1.0], abs=1e-9), key
    assert "0 of" in intervals["intervals_note"]


def matrices():
    """Random matrices: empty and tiny classes, mistakes everywhere or none, unreadable images."""
    rng = np.random.default_rng(3)
    for classes in (1, 2, 3, 7, 40):
        for mean in (0.3, 2, 30):
            for accuracy in (0, 0.02, 0.6, 0.99):
                support_C = rng.poisson(mean * rng.gamma(1, size=classes))
                support_C[rng.integers(classes)] += 1
                label_N = np.repeat(np.arange(classes), support_C)
                pred_N = rng.integers(-1, classes, size=len(label_N))  # -1: unreadable
                yield (
                    np.where(rng.random(len(label_N)) < accuracy, label_N, pred_N),
                    label_N,
                    classes,
                )


def test_intervals_are_within_0_to_1_and_hold_the_reported_value():
    count = 0
    for pred_N, label_N, classes in matrices():
        intervals = class_intervals(metrics.tally(pred_N, label_N, classes))
        for key, value in zip(KEYS, scored(pred_N, label_N), strict=True):
            low, high = intervals[key]
            assert 0 <= low <= value + 1e-12, key
            assert value - 1e-12 <= high <= 1, key
            assert low < high
        count += 1
    assert count == 60


def test_intervals_do_not_depend_on_the_order_of_the_classes():
    rng = np.random.default_rng(4)
    for pred_N, label_N, classes in matrices():
        order = np.append(rng.permutation(classes), metrics.UNREADABLE)  # -1 stays -1
        intervals = class_intervals(metrics.tally(pred_N, label_N, classes))
        again = class_intervals(metrics.tally(order[pred_N], order[label_N], classes))
        for key in KEYS:
            assert again[key] == pytest.approx(intervals[key], abs=1e-9), key
        assert again["intervals_note"] == intervals["intervals_note"]


def test_intervals_shrink_with_more_images():
    for pred_N, label_N, classes in matrices():
        counts = metrics.tally(pred_N, label_N, classes)
        more = replace(counts, count_V=25 * counts.count_V)
        few, many = class_intervals(counts), class_intervals(more)
        for key in KEYS:
            assert many[key][1] - many[key][0] < few[key][1] - few[key][0], key


def test_classes_without_support_count_in_macro_f1_if_they_are_predicted():
    """Class 2 has no images: if it is predicted, its F1 is 0; otherwise it is left out."""
    unpredicted = np.array([[40, 10, 0, 0], [10, 40, 0, 0], [0, 0, 0, 0]])
    predicted = np.array([[40, 10, 0, 0], [5, 40, 5, 0], [0, 0, 0, 0]])
    both = (unpredicted, predicted)
    without, with_it = (class_intervals(ConfusionCounts.of(matrix)) for matrix in both)
    assert without["macro_f1_ci95"][1] > 0.85
    assert with_it["macro_f1_ci95"][1] < 0.62
    assert with_it["mean_per_class_ci95"] == without["mean_per_class_ci95"]


def test_a_note_names_what_makes_the_intervals_doubtful():
    rng = np.random.default_rng(5)
    for images in (5, 26):
        enough = confusion(rng, np.full(20, images), 0.8)[0]
        assert class_intervals(enough)["intervals_note"] is None
    few = class_intervals(confusion(rng, np.full(20, 2), 0.6)[0])["intervals_note"]
    assert few.startswith("2 images per class")
    unread = np.array([[0, 0, 50], [0, 0, 50]])
    assert class_intervals(ConfusionCounts.of(unread))["intervals_note"].startswith(
        "0 of 100 images right"
    )
    one_wrong = np.array([[49, 1, 0], [0, 50, 0]])
    note = class_intervals(ConfusionCounts.of(one_wrong))["intervals_note"]
    assert note.startswith("1 of 100 images wrong")


def test_a_note_on_few_images_states_each_consequence_once():
    """With 3 images, both mistakes and correct predictions are few."""
    note = class_intervals(ConfusionCounts.of(np.array([[1, 0, 0], [1, 1, 0]])))["intervals_note"]
    assert note.startswith("1 of 3 images wrong and 2 of 3 images right: the intervals of mean")
    assert note.count("macro-F1 can be several times as wide") == 1
