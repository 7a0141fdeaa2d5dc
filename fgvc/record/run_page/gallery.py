"""predictions.parquet and per_class.csv of a run -> the classes and errors to show on its page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fgvc import untrusted
from fgvc.record.prediction_tables import read_predictions
from fgvc.record.run_page.album import Album, PageImage

CONFIDENT = 12  # errors with the highest confidence
WORST, BEST = 6, 4  # classes
ERRORS, HITS = 4, 2  # images per class
COLUMNS = ["path", "split", "label", "pred", "confidence"]


@dataclass(frozen=True)
class PredictedImage:
    """One test image. label, pred: class indices; for an unreadable image pred is UNREADABLE and
    confidence None."""

    path: str
    label: int
    pred: int
    confidence: float | None

    @property
    def right(self) -> bool:
        return self.pred == self.label


Example = tuple[PredictedImage, PageImage]


@dataclass(frozen=True)
class ClassRow:
    """A class: its recall, the number of its test images, and examples."""

    index: int
    recall: float
    support: int
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Gallery:
    """The classes and test images that a page shows."""

    worst: tuple[ClassRow, ...]
    best: tuple[ClassRow, ...]
    surest: tuple[Example, ...]


def gallery(folder: Path, album: Album) -> Gallery:
    """The classes of lowest and highest recall with examples, and the most confident errors."""
    predicted = _read_test_predictions(folder / "predictions.parquet")
    classes = sorted(_read_classes(folder / "per_class.csv"), key=lambda row: row.recall)
    worst = [row for row in classes[:WORST] if row.recall < 1]
    best = [row for row in classes[::-1][:BEST] if row not in worst]
    errors = [image for image in predicted if not image.right]
    hits = [image for image in predicted if image.right]
    return Gallery(
        tuple(_add_examples(row, errors, ERRORS, album) for row in worst),
        tuple(_add_examples(row, hits, HITS, album) for row in best),
        _examples(errors, CONFIDENT, album),
    )


def _add_examples(
    row: ClassRow, images: Iterable[PredictedImage], count: int, album: Album
) -> ClassRow:
    of_class = [image for image in images if image.label == row.index]
    return replace(row, examples=_examples(of_class, count, album))


def _examples(images: Sequence[PredictedImage], count: int, album: Album) -> tuple[Example, ...]:
    """The first `count` images, without those that cannot be read or exceed the budget."""
    pairs = ((image, album.test_image(image.path)) for image in images[:count])
    return tuple((image, page_image) for image, page_image in pairs if page_image is not None)


def _read_test_predictions(file: Path) -> list[PredictedImage]:
    """The test images, by descending confidence; unreadable images come last."""
    table = read_predictions(file, COLUMNS)
    columns = (table[name].to_pylist() for name in COLUMNS)
    images = [
        PredictedImage(path, label, pred, confidence)
        for path, split, label, pred, confidence in zip(*columns, strict=True)
        if split == "test"
    ]
    return sorted(images, key=lambda image: (-(image.confidence or 0.0), image.path))


def _read_classes(file: Path) -> list[ClassRow]:
    """The classes with test images."""
    with io.TextIOWrapper(untrusted.open_regular(file), "utf-8", newline="") as lines:
        rows = [
            ClassRow(int(row["index"]), float(row["recall"]), int(row["support"]))
            for row in csv.DictReader(lines)
        ]
    return [row for row in rows if row.support]
