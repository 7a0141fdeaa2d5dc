"""The confusion plot: a single error is visible with any number of classes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fgvc.record import confusion_plot


def draw(classes, mistakes, of=30):
    """A plot of correct predictions except one error per (true, predicted)."""
    matrix = np.hstack([np.eye(classes, dtype=int) * of, np.zeros((classes, 1), int)])
    for label, pred in mistakes:
        matrix[label, label] -= 1
        matrix[label, pred] += 1
    names = [f"{i}.A_$bird_{i}" for i in range(classes)]
    png = confusion_plot.confusion_png(matrix, names, "birds")
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int), png


@pytest.mark.parametrize("classes", [12, 40, 200, 1000])
def test_one_mistake_of_thirty_leaves_a_mark(classes):
    clean_HWC, _ = draw(classes, [])
    marked_HWC, png = draw(classes, [(classes // 8, classes - 1 - classes // 8)])
    height, width, _ = clean_HWC.shape
    assert min(height, width) > 400
    assert max(height, width) < 1800
    # the upper right of the axes, without the list beside a large plot
    right = width if classes <= confusion_plot.NAMED_UP_TO else int(0.75 * width)
    differ_HW = np.abs(clean_HWC - marked_HWC).max(axis=2)[: height // 2, width // 3 : right] > 40
    assert differ_HW.sum() >= 4
    assert len(png) < 400_000


def test_the_same_matrix_gives_the_same_bytes():
    assert draw(41, [(0, 1)])[1] == draw(41, [(0, 1)])[1]


def test_a_large_picture_names_its_worst_pairs(monkeypatch):
    texts = []
    monkeypatch.setattr(
        "matplotlib.axes.Axes.text", lambda self, x, y, text, **rest: texts.append(text)
    )
    draw(60, [(7, 9), (7, 9), (3, 4)])
    (listed,) = texts
    assert listed.splitlines() == [
        "3 mistakes; the most frequent:",
        "",
        "2 of 30:  7  7.A $bird 7",
        "      taken for 9  9.A $bird 9",
        "1 of 30:  3  3.A $bird 3",
        "      taken for 4  4.A $bird 4",
    ]
