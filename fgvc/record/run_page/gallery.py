"""predictions.parquet and per_class.csv of a run -> the classes and errors to show on its page.

An image has the columns of predictions.parquet in COLUMNS; for an unreadable image pred is
UNREADABLE and confidence None. An example is such an image and its picture on the page.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fgvc import untrusted
from fgvc.record.prediction_tables import read_predictions
from fgvc.record.run_page.album import Album, PageImage

CONFIDENT = 12  # errors with the highest confidence
WORST, BEST = 6, 4  # classes
ERRORS, HITS = 4, 2  # images per class
COLUMNS = ["path", "split", "label", "pred", "confidence"]
Row = Mapping[str, Any]


def gallery(folder: Path, album: Album) -> dict[str, list[Any]]:
    """The classes and test images that a page shows.

    Returns:
        worst, best: the classes of lowest and highest recall (index, recall, support), with
        examples; surest: examples of the most confident errors.
    """
    images = _read_test_predictions(folder / "predictions.parquet")
    classes = sorted(_read_classes(folder / "per_class.csv"), key=lambda row: row["recall"])
    worst = [row for row in classes[:WORST] if row["recall"] < 1]
    best = [row for row in classes[::-1][:BEST] if row not in worst]
    errors = [image for image in images if image["pred"] != image["label"]]
    hits = [image for image in images if image["pred"] == image["label"]]

    def with_examples(row: Row, images: Iterable[Row], count: int) -> Row:
        of_class = [image for image in images if image["label"] == row["index"]]
        return {**row, "examples": _examples(of_class[:count], album)}

    return {
        "worst": [with_examples(row, errors, ERRORS) for row in worst],
        "best": [with_examples(row, hits, HITS) for row in best],
        "surest": _examples(errors[:CONFIDENT], album),
    }


def _examples(images: Iterable[Row], album: Album) -> list[tuple[Row, PageImage]]:
    """The images with their pictures, without those that cannot be read or exceed the budget."""
    pairs = ((image, album.test_image(image["path"])) for image in images)
    return [(image, page_image) for image, page_image in pairs if page_image is not None]


def _read_test_predictions(file: Path) -> list[Row]:
    """The test images, by descending confidence; unreadable images come last."""
    rows = read_predictions(file, COLUMNS).to_pylist()
    images = [row for row in rows if row["split"] == "test"]
    return sorted(images, key=lambda image: (-(image["confidence"] or 0.0), image["path"]))


def _read_classes(file: Path) -> list[Row]:
    """The classes with test images."""
    with io.TextIOWrapper(untrusted.open_regular(file), "utf-8", newline="") as lines:
        rows = [
            {
                "index": int(row["index"]),
                "recall": float(row["recall"]),
                "support": int(row["support"]),
            }
            for row in csv.DictReader(lines)
        ]
    return [row for row in rows if row["support"]]
