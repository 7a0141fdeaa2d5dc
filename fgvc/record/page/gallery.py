"""predictions.parquet and per_class.csv of a run -> the classes and mistakes worth looking at."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fgvc import untrusted
from fgvc.record.page.pictures import Album, PageImage
from fgvc.record.prediction_tables import read_predictions

SUREST = 12  # mistakes with the highest confidence
WORST, BEST = 6, 4  # classes
MISTAKES, HITS = 4, 2  # pictures of one of them
COLUMNS = ["path", "split", "label", "pred", "confidence"]


@dataclass(frozen=True)
class PredictedImage:
    """One test image. label, pred: class indices; pred is UNREADABLE, and confidence None, where
    it could not be read."""

    path: str
    label: int
    pred: int
    confidence: float | None

    @property
    def right(self) -> bool:
        return self.pred == self.label


@dataclass(frozen=True)
class ClassRow:
    """A class, its share of right answers, how many images it has, and some of them."""

    index: int
    recall: float
    support: int
    examples: tuple[tuple[PredictedImage, PageImage], ...] = ()


@dataclass(frozen=True)
class Gallery:
    """What a page shows of a run's answers."""

    worst: tuple[ClassRow, ...]
    best: tuple[ClassRow, ...]
    surest: tuple[tuple[PredictedImage, PageImage], ...]


def gallery(folder: Path, album: Album) -> Gallery:
    """The hardest and the easiest classes with pictures, and the surest mistakes of all."""
    answers = _read_test_predictions(folder / "predictions.parquet")
    classes = sorted(_read_classes(folder / "per_class.csv"), key=lambda one: one.recall)
    hard = [one for one in classes[:WORST] if one.recall < 1]
    easy = [one for one in classes[::-1][:BEST] if one not in hard]
    wrong = [one for one in answers if not one.right]
    right = [one for one in answers if one.right]
    return Gallery(
        tuple(_with(one, wrong, MISTAKES, album) for one in hard),
        tuple(_with(one, right, HITS, album) for one in easy),
        _shown(wrong, SUREST, album),
    )


def _with(row: ClassRow, answers: Iterable[PredictedImage], most: int, album: Album) -> ClassRow:
    own = [one for one in answers if one.label == row.index]
    return ClassRow(row.index, row.recall, row.support, _shown(own, most, album))


def _shown(
    answers: Sequence[PredictedImage], most: int, album: Album
) -> tuple[tuple[PredictedImage, PageImage], ...]:
    found = ((one, album.test_image(one.path)) for one in answers[:most])
    return tuple((one, shown) for one, shown in found if shown is not None)


def _read_test_predictions(file: Path) -> list[PredictedImage]:
    """Of the test images, the surest first; an unreadable one was sure of nothing."""
    table = read_predictions(file, COLUMNS)
    columns = (table[name].to_pylist() for name in COLUMNS)
    found = [
        PredictedImage(path, label, pred, confidence)
        for path, split, label, pred, confidence in zip(*columns, strict=True)
        if split == "test"
    ]
    return sorted(found, key=lambda one: (-(one.confidence or 0.0), one.path))


def _read_classes(file: Path) -> list[ClassRow]:
    """Those that the test images hold."""
    with io.TextIOWrapper(untrusted.open_regular(file), "utf-8", newline="") as opened:
        rows = [
            ClassRow(int(row["index"]), float(row["recall"]), int(row["support"]))
            for row in csv.DictReader(opened)
        ]
    return [row for row in rows if row.support]
