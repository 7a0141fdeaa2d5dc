"""confusion.csv and confusion.svg of few and of many classes."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from fgvc import metrics
from fgvc.record import prediction_tables
from fgvc.types import Hierarchy
from fgvc.untrusted.escape import uncell

NAMES = ("Song Sparrow", "=SUM(A1)", 'a "b", c', "Song Sparrow")
LABEL_N = np.array([0, 0, 1, 1, 2, 3, 3, 3])
PRED_N = np.array([0, 3, 1, 1, -1, 3, 0, 0])


@pytest.fixture
def many(monkeypatch) -> None:
    """Four classes count as many."""
    monkeypatch.setattr(prediction_tables, "MATRIX_UP_TO", 3)


def test_with_many_classes_a_line_stands_for_each_nonzero_cell(many):
    """Two classes may share a name; their indices differ."""
    text = prediction_tables.confusion_csv(metrics.tally(PRED_N, LABEL_N, 4), NAMES)
    head, *lines = csv.reader(io.StringIO(text, newline=""))
    assert head == ["true_index", "true", "predicted_index", "predicted", "count"]
    cells = [(int(i), uncell(a), int(j), uncell(b), int(n)) for i, a, j, b, n in lines]
    assert cells == [
        (0, NAMES[0], 0, NAMES[0], 1),
        (0, NAMES[0], 3, NAMES[3], 1),
        (1, NAMES[1], 1, NAMES[1], 2),
        (2, NAMES[2], -1, "(unreadable)", 1),
        (3, NAMES[3], 0, NAMES[0], 2),
        (3, NAMES[3], 3, NAMES[3], 1),
    ]
    matrix = np.zeros((4, 5), int)
    for truth, _, pred, _, count in cells:
        matrix[truth, pred] = count
    np.testing.assert_array_equal(matrix, metrics.tally(PRED_N, LABEL_N, 4).dense())


def test_with_few_classes_it_is_the_whole_matrix():
    text = prediction_tables.confusion_csv(metrics.tally(PRED_N, LABEL_N, 4), NAMES)
    head, *lines = csv.reader(io.StringIO(text, newline=""))
    assert head[0] == "true \\ predicted"
    assert head[-1] == "(unreadable)"
    matrix = [[int(cell) for cell in line[1:]] for line in lines]
    np.testing.assert_array_equal(matrix, metrics.tally(PRED_N, LABEL_N, 4).dense())


def test_the_file_of_many_classes_has_a_line_per_image_at_most():
    """A matrix of 5,089 classes has 26 million cells."""
    classes, rng = 5_089, np.random.default_rng(0)
    label_N = rng.integers(0, classes, 9_000)
    pred_N = np.where(rng.random(9_000) < 0.85, label_N, rng.integers(0, classes, 9_000))
    counts = metrics.tally(pred_N, label_N, classes)
    text = prediction_tables.confusion_csv(counts, [f"name {k}" for k in range(classes)])
    assert text.count("\n") == 1 + len(counts.count_V) <= 9_001
    assert len(text) < 400_000


def test_with_many_classes_the_plot_shows_their_super_categories(many):
    counts, about = metrics.tally(PRED_N, LABEL_N, 4), ("vit base", "birds", False)
    tree = Hierarchy((("x",), ("x",), ("y",), ("y",)), {"x": "finches", "y": "owls"})
    plot = prediction_tables.confusion_plot(counts, NAMES, tree, *about)
    assert "4 classes in 2 groups" in plot
    assert plot.count(">finches</text>") == 2
    assert "2 of 3:  3  Song Sparrow" in plot  # the most confused pair is one of classes
    assert "groups" not in prediction_tables.confusion_plot(counts, NAMES, None, *about)
