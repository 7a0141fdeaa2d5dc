"""The order of classes in a confusion matrix: groups that are confused stand side by side."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fgvc.html import confusion_order
from fgvc.types import ConfusionCounts


def cluster_order(matrix: np.ndarray) -> np.ndarray:
    return confusion_order.cluster_order(ConfusionCounts.of(matrix))


def worst_block(matrix: np.ndarray, most: int) -> np.ndarray:
    return confusion_order.worst_block(ConfusionCounts.of(matrix), most)


def grouped(classes: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A matrix whose errors lie in groups of `size` classes, shuffled, and group_C."""
    rng = np.random.default_rng(seed)
    group_C = rng.permutation(classes) // size
    matrix = np.zeros((classes, classes + 1), int)
    for label in range(classes):
        others = np.flatnonzero(group_C == group_C[label])
        matrix[label, others] = rng.integers(2, 6, len(others))
        matrix[label, label] = 20
    return matrix, group_C


@pytest.mark.parametrize(("classes", "size"), [(3, 3), (20, 4), (200, 5)])
def test_groups_of_confused_classes_are_contiguous(classes, size):
    matrix, group_C = grouped(classes, size)
    matrix[0, classes - 1] += 1  # an error between two groups
    order_C = cluster_order(matrix)
    assert sorted(order_C.tolist()) == list(range(classes))
    assert np.count_nonzero(np.diff(group_C[order_C])) == classes // size - 1
    np.testing.assert_array_equal(order_C, cluster_order(matrix.copy()))


def test_a_chain_of_confusions_is_unrolled_and_the_rest_follows_by_index():
    chain = [5, 1, 7, 3]
    matrix = np.eye(9, 10, dtype=int) * 30
    for (label, pred), count in zip(itertools.pairwise(chain), (3, 9, 3), strict=True):
        matrix[label, pred] = count
    order = cluster_order(matrix).tolist()
    assert order[:4] in (chain, chain[::-1])
    assert order[4:] == [0, 2, 4, 6, 8]
    assert cluster_order(np.eye(4, 5, dtype=int)).tolist() == [0, 1, 2, 3]


def test_very_many_classes_keep_the_order_of_their_indices(monkeypatch):
    matrix, _ = grouped(12, 3)
    assert cluster_order(matrix).tolist() != list(range(12))
    monkeypatch.setattr(confusion_order, "ORDERED_UP_TO", 11)
    assert cluster_order(matrix).tolist() == list(range(12))


def test_the_worst_block_holds_whole_groups_and_never_too_many_classes():
    matrix, group_C = grouped(200, 5)
    matrix[group_C == 17] *= 3
    matrix[group_C == 31] *= 2
    worst = worst_block(matrix, 10)
    assert set(group_C[worst]) == {17, 31}
    assert worst.tolist() == sorted(worst)
    assert len(worst_block(matrix, 11)) <= 11
    assert worst_block(np.eye(50, 51, dtype=int), 10).size == 0


def test_a_block_keeps_the_totals_of_its_rows():
    matrix, _ = grouped(20, 4)
    matrix[:, 20] = 1  # unreadable
    index_K = np.array([2, 7, 11])
    cells = confusion_order.block(ConfusionCounts.of(matrix), index_K).dense()
    np.testing.assert_array_equal(cells[:, :3], matrix[np.ix_(index_K, index_K)])
    np.testing.assert_array_equal(cells.sum(axis=1), matrix[index_K].sum(axis=1))
