"""The nonzero cells of a confusion matrix: what the dense matrix says, without its memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from fgvc import metrics
from fgvc.metrics.confusion_counts import class_scores
from fgvc.metrics.macro_f1 import count_classes
from fgvc.types import ConfusionCounts


def dense(pred_N: np.ndarray, label_N: np.ndarray, classes: int) -> np.ndarray:
    """Every cell; the last column counts unreadable images."""
    matrix = np.zeros((classes, classes + 1), int)
    np.add.at(matrix, (label_N, np.where(pred_N < 0, classes, pred_N)), 1)
    return matrix


def drawn() -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Predictions, labels, classes: some classes without images or predictions, some unreadable."""
    rng = np.random.default_rng(0)
    for classes, images in ((1, 3), (3, 1), (7, 40), (60, 50), (60, 900), (400, 3000)):
        label_N = rng.integers(0, (classes + 1) // 2 + 1, images) % classes
        pred_N = np.where(rng.random(images) < 0.6, label_N, rng.integers(-1, classes, images))
        yield pred_N, label_N, classes


def test_the_sums_and_scores_are_those_of_the_matrix():
    for pred_N, label_N, classes in drawn():
        counts, matrix = metrics.tally(pred_N, label_N, classes), dense(pred_N, label_N, classes)
        np.testing.assert_array_equal(counts.dense(), matrix)
        hit_C, support_C = np.diagonal(matrix), matrix.sum(axis=1)
        predicted_C = matrix[:, :classes].sum(axis=0)
        for mine_C, theirs_C in (
            (counts.hit_C, hit_C),
            (counts.support_C, support_C),
            (counts.predicted_C, predicted_C),
        ):
            assert mine_C.dtype == np.int64
            np.testing.assert_array_equal(mine_C, theirs_C)
        assert counts.errors == (pred_N != label_N).sum()
        precision_C, recall_C, f1_C = class_scores(counts)
        np.testing.assert_array_equal(precision_C, hit_C / np.maximum(predicted_C, 1))
        np.testing.assert_array_equal(recall_C, hit_C / np.maximum(support_C, 1))
        np.testing.assert_array_equal(f1_C, 2 * hit_C / np.maximum(support_C + predicted_C, 1))
        again = ConfusionCounts.of(matrix)
        for name in ("truth_V", "pred_V", "count_V"):
            np.testing.assert_array_equal(getattr(again, name), getattr(counts, name))


def test_the_intervals_begin_with_the_numbers_of_the_matrix_in_its_order():
    """Equal arrays in an equal order: every sum of floats has the same last bit."""
    for pred_N, label_N, classes in drawn():
        counts, averaged = count_classes(metrics.tally(pred_N, label_N, classes))
        matrix = dense(pred_N, label_N, classes)
        support_all, predicted_all = matrix.sum(axis=1), matrix[:, :classes].sum(axis=0)
        (supported_C,) = np.nonzero(support_all)
        position = np.full(classes + 1, len(supported_C))
        position[supported_C] = np.arange(len(supported_C))
        truth, predicted = np.nonzero(matrix)
        wrong = truth != predicted
        hit_C = np.diagonal(matrix)[supported_C]
        expected = {
            "support_C": support_all[supported_C],
            "hit_C": hit_C,
            "false_C": predicted_all[supported_C] - hit_C,
            "truth_M": position[truth[wrong]],
            "predicted_M": position[predicted[wrong]],
            "count_M": matrix[truth[wrong], predicted[wrong]],
        }
        for name, values in expected.items():
            np.testing.assert_array_equal(getattr(counts, name), values)
        assert averaged == (support_all + predicted_all > 0).sum()


def test_worst_pairs_are_the_largest_cells_beside_the_diagonal():
    for pred_N, label_N, classes in drawn():
        wrong = dense(pred_N, label_N, classes)[:, :classes]
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")
        cells = [divmod(int(cell), classes) for cell in order if wrong.flat[cell]]
        expected = [{"label": a, "pred": b, "count": int(wrong[a, b])} for a, b in cells]
        for most in (3, 10_000):
            pairs = metrics.worst_pairs(metrics.tally(pred_N, label_N, classes), most)
            assert pairs == expected[:most]


def test_worst_pairs_leave_out_the_diagonal_and_the_unreadable():
    counts = ConfusionCounts.of(np.array([[90, 2, 3, 50], [3, 80, 0, 0], [0, 1, 70, 0]]))
    pairs = [(p["label"], p["pred"], p["count"]) for p in metrics.worst_pairs(counts, 3)]
    assert pairs == [(0, 2, 3), (1, 0, 3), (0, 1, 2)]
    assert len(metrics.worst_pairs(counts, 99)) == 4


@pytest.mark.parametrize("classes", [5_000, 50_000])
def test_memory_grows_with_images_and_classes_and_not_with_their_pairs(classes):
    """A matrix of 50,000 classes would take 20 GB."""
    rng = np.random.default_rng(1)
    label_N = rng.integers(0, classes, 20_000)
    pred_N = np.where(rng.random(len(label_N)) < 0.85, label_N, rng.integers(0, classes, 20_000))
    tracemalloc.start()
    counts = metrics.tally(pred_N, label_N, classes)
    pairs, intervals = metrics.worst_pairs(counts, 10), metrics.class_intervals(counts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(pairs) == 10
    assert intervals["mean_per_class_ci95"][0] > 0.8
    assert peak < 8 * (100 * classes + 20 * len(label_N))
