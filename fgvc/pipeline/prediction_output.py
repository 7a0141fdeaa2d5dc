"""Predictions for images -> a table for a person, JSON or CSV for a program."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fgvc.html.formats import percent, plain
from fgvc.record import console
from fgvc.store import atomic
from fgvc.untrusted.escape import csv_text, visible

Classes = Sequence[tuple[str, str]]  # the dataset's id and the name of each class, by index
COLUMNS: tuple[str, ...] = ("path", "rank", "index", "id", "class", "probability", "error")


@dataclass(frozen=True)
class PredictionRow:
    """The prediction for one image.

    path: relative to the folder. best: class index and probability, most probable first. error: why
    the image could not be read; `best` is then empty.
    """

    path: str
    best: Sequence[tuple[int, float]] = ()
    error: str | None = None


def as_table(
    predictions: Sequence[PredictionRow], classes: Classes, about: Mapping[str, str]
) -> str:
    """One row per image, its classes below each other."""
    rows = []
    for prediction in predictions:
        text = "\n".join(visible(classes[index][1]) for index, _ in prediction.best)
        if prediction.error is not None:
            text = f"error: {visible(prediction.error)}"
        percents = "\n".join(f"{percent(probability):>5}" for _, probability in prediction.best)
        rows.append((visible(prediction.path), text, percents))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        console.table(about["title"], ("image", "class", "%"), rows, numbers=False)
    return out.getvalue()


def as_json(
    predictions: Sequence[PredictionRow], classes: Classes, about: Mapping[str, str]
) -> str:
    """The checkpoint, and under `images` every image with its predictions or its error."""
    images = [
        {
            "path": plain(prediction.path),
            "predictions": [
                {"index": index, **_named(classes[index]), "probability": probability}
                for index, probability in prediction.best
            ],
            "error": prediction.error and plain(prediction.error),
        }
        for prediction in predictions
    ]
    header = {key: plain(about[key]) for key in ("checkpoint", "config_hash", "root")}
    return atomic.json_bytes({**header, "images": images}).decode()


def as_csv(predictions: Sequence[PredictionRow], classes: Classes, about: Mapping[str, str]) -> str:
    """One line per predicted class of an image, or one line with its error.

    Names that a spreadsheet would take for formulas are escaped; `fgvc.untrusted.escape.uncell`
    reverses it.
    """
    rows: list[dict[str, object]] = []
    for prediction in predictions:
        path = plain(prediction.path)
        if prediction.error is not None:
            rows.append({"path": path, "error": plain(prediction.error)})
        for rank, (index, probability) in enumerate(prediction.best, start=1):
            row = {"path": path, "rank": rank, "index": index, "probability": probability}
            rows.append({**row, **_named(classes[index])})
    return csv_text([COLUMNS, *([row.get(name) for name in COLUMNS] for row in rows)])


def _named(id_and_name: tuple[str, str]) -> dict[str, str]:
    return {"id": id_and_name[0], "class": id_and_name[1]}


FORMATS: dict[str, Callable[[Sequence[PredictionRow], Classes, Mapping[str, str]], str]] = {
    "table": as_table,
    "json": as_json,
    "csv": as_csv,
}
