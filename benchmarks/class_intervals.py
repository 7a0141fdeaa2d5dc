"""Simulated test sets -> coverage and width of the intervals of mean per class and macro-F1.

The target is the value on a very large test set with the same class proportions. The oracle width
is the width of the central 95 % of the reported number over the simulated test sets. If the
classifier makes no mistake, the oracle width is 0, and the width is compared with the interval of
Clopper and Pearson for the same number of images.
C classes, N images, R repetitions.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.stats import binomtest

from benchmarks.side_by_side import Row
from fgvc.metrics import class_intervals
from fgvc.types import ConfusionCounts

CLASSES, IMAGES, ACCURACIES = (8, 20, 200), (2, 5, 26), (0.5, 0.8, 0.93, 0.99, 1.0)
REPETITIONS = 5000
COVERAGE, WIDTH = 0.94, 1.5
NUMBERS = {"mean_per_class_ci95": "mean per class", "macro_f1_ci95": "macro-F1"}
KINDS = (
    "partner",  # each class is mistaken for one other class, pairwise
    "sink",  # all classes are mistaken for the first
    "dirichlet",  # mistakes over other classes are Dirichlet(0.1)
    "spread",  # accuracies of the classes are beta-distributed
    "few",  # a few classes of half the accuracy make all mistakes
    "unequal",  # images per class are lognormal, 0.8 standard deviations of the logarithm
    "unequal_spread",
    "small_worse",  # and small classes have the most mistakes
)


@dataclass(frozen=True)
class Population:
    """support_C: images per class; accuracy_C; mistake_CC: rows sum to 1, diagonal 0."""

    support_C: np.ndarray
    accuracy_C: np.ndarray
    mistake_CC: np.ndarray

    @property
    def values(self) -> tuple[float, float]:
        """Mean per class and macro-F1 of a very large test set."""
        predicted_CC = self.mistake_CC * (1 - self.accuracy_C)[:, None]
        np.fill_diagonal(predicted_CC, self.accuracy_C)
        return _values(self.support_C[:, None] * predicted_CC)


def rows(repetitions: int = REPETITIONS) -> list[Row]:
    """The grid: classes of the same size and accuracy, mistakes spread evenly."""
    return _rows(("even",), repetitions)


def unlike_rows(repetitions: int = REPETITIONS) -> list[Row]:
    """Classes that differ, and mistakes that concentrate."""
    return _rows(KINDS, repetitions)


def _rows(kinds: tuple[str, ...], repetitions: int) -> list[Row]:
    cells = product(kinds, CLASSES, IMAGES, ACCURACIES)
    return [row for cell in cells for row in _cell(*cell, repetitions)]


def _cell(kind: str, classes: int, images: int, accuracy: float, repetitions: int) -> list[Row]:
    name = f"{kind} {classes} x {images}, accuracy {accuracy:g}"
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    population = _population(kind, classes, images, accuracy, rng)
    numbers, intervals, notes = [], {key: [] for key in NUMBERS}, 0
    for matrix in _matrices(population, repetitions, rng):
        numbers.append(_values(matrix))
        measured = class_intervals(ConfusionCounts.of(matrix))
        notes += measured["intervals_note"] is not None
        for key in NUMBERS:
            intervals[key].append(measured[key])
    note_share = f"note in {notes / repetitions:.0%}"
    results = []
    for index, (key, number) in enumerate(NUMBERS.items()):
        low_R, high_R = np.array(intervals[key]).T
        truth = population.values[index]
        coverage = float(((low_R <= truth + 1e-9) & (truth - 1e-9 <= high_R)).mean())
        oracle = float(np.ptp(np.quantile([value[index] for value in numbers], [0.025, 0.975])))
        width = float((high_R - low_R).mean())
        detail = f"{coverage:.1%}, {note_share}; width {width:.4f}, oracle {oracle:.4f}"
        work = f"{number}, {name}"
        if oracle == 0:
            exact = binomtest(int(population.support_C.sum()), int(population.support_C.sum()))
            detail += f", Clopper-Pearson {1 - exact.proportion_ci().low:.4f}"
        results.append(Row(f"{work}: coverage", "nominal 95 %", coverage, COVERAGE, detail))
        if oracle > 0:
            ratio = width / oracle
            results.append(
                Row(f"{work}: width", "oracle", ratio, WIDTH, note_share, upper_bound=True)
            )
    return results


def _values(matrix: np.ndarray) -> tuple[float, float]:
    """Mean per class and macro-F1 as `metrics.evaluate` defines them, all classes with support."""
    support_C, hit_C = matrix.sum(axis=1), np.diagonal(matrix)
    predicted_C = matrix[:, : len(matrix)].sum(axis=0)
    f1_C = 2 * hit_C / (support_C + predicted_C)
    return float((hit_C / support_C).mean()), float(f1_C.mean())


def _population(
    kind: str, classes: int, images: int, accuracy: float, rng: np.random.Generator
) -> Population:
    support_C = np.full(classes, images)
    if kind in ("unequal", "unequal_spread", "small_worse"):
        factor_C = rng.lognormal(-0.32, 0.8, size=classes)  # 1 on average
        support_C = np.maximum(1, np.round(images * factor_C)).astype(np.int64)
    accuracy_C = np.full(classes, accuracy)
    if kind in ("spread", "unequal_spread") and accuracy < 1:
        accuracy_C = rng.beta(2 * accuracy, 2 * (1 - accuracy), size=classes)
    elif kind == "few" and accuracy < 1:
        few = max(1, round(2 * (1 - accuracy) * classes))
        accuracy_C = np.ones(classes)
        accuracy_C[:few] = max(0.0, 1 - (1 - accuracy) * classes / few)
    elif kind == "small_worse":
        weight_C = support_C**-0.5 / (support_C**-0.5).mean()
        accuracy_C = 1 - np.minimum((1 - accuracy) * weight_C, 1)
    return Population(support_C, accuracy_C, _mistakes(kind, classes, rng))


def _mistakes(kind: str, classes: int, rng: np.random.Generator) -> np.ndarray:
    mistake_CC = np.ones((classes, classes))
    if kind == "partner":
        mistake_CC = np.eye(classes)[np.arange(classes) ^ 1]
    elif kind == "sink":
        mistake_CC = np.eye(classes)[np.eye(classes, dtype=np.int64)[0]]
    elif kind == "dirichlet":
        mistake_CC = rng.dirichlet(np.full(classes, 0.1), size=classes)
    np.fill_diagonal(mistake_CC, 0)
    return mistake_CC / mistake_CC.sum(axis=1, keepdims=True)


def _matrices(
    population: Population, repetitions: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Confusion matrices of test sets, a column of unreadable images (none) last."""
    classes = len(population.support_C)
    label_N = np.repeat(np.arange(classes), population.support_C)
    cumulative_CC = np.cumsum(population.mistake_CC, axis=1)
    cumulative_CC /= cumulative_CC[:, -1:]
    ladder = (cumulative_CC + np.arange(classes)[:, None]).ravel()  # a search for all rows at once
    for _ in range(repetitions):
        pred_N = label_N.copy()
        (wrong_M,) = np.nonzero(rng.random(len(label_N)) >= population.accuracy_C[label_N])
        truth_M = label_N[wrong_M]
        place_M = np.searchsorted(ladder, truth_M + rng.random(len(wrong_M)), side="right")
        pred_N[wrong_M] = np.minimum(place_M - truth_M * classes, classes - 1)
        cell_N = label_N * (classes + 1) + pred_N
        yield np.bincount(cell_N, minlength=classes * (classes + 1)).reshape(classes, classes + 1)
