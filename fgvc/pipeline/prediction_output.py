"""Predictions for images -> a table for a person, JSON or CSV for a program."""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fgvc.html.class_names import display_names
from fgvc.html.formats import percent, plain
from fgvc.record import class_means, console
from fgvc.record.class_means import ClassMeans
from fgvc.store import atomic
from fgvc.untrusted.escape import csv_text, visible

Classes = Sequence[tuple[str, str]]  # the dataset's id and the name of each class, by index
COLUMNS: tuple[str, ...] = (
    *("path", "rank", "index", "id", "class", "probability", "error"),
    *("distance", "far"),
)
FLAGS = {True: "true", False: "false", None: None}
WIDTH = 80  # of the lines below the table


@dataclass(frozen=True)
class PredictionRow:
    """The prediction for one image.

    path: relative to the folder. best: class index and probability, most probable first. error: why
    the image could not be read; `best` is then empty. distance: from the nearest class mean, as
    `ClassMeans.relative_distance`; None if the checkpoint has no class means.
    """

    path: str
    best: Sequence[tuple[int, float]] = ()
    error: str | None = None
    distance: float | None = None

    @property
    def far(self) -> bool | None:
        """Whether the image is unlike all training images; None: unknown."""
        return None if self.distance is None else self.distance > 1


@dataclass(frozen=True)
class PredictionHeader:
    """What the predictions share. root: of the paths. title: of the table. means: of the
    checkpoint, or why it has none."""

    checkpoint: str
    config_hash: str
    root: str
    title: str
    means: ClassMeans | str


def as_table(
    predictions: Sequence[PredictionRow], classes: Classes, header: PredictionHeader
) -> str:
    """One row per image, its classes below each other; marks are explained below the table."""
    rows, names = [], display_names([name for _, name in classes])
    for prediction in predictions:
        text = "\n".join(visible(names[index]) for index, _ in prediction.best)
        if prediction.error is not None:
            text = f"error: {visible(prediction.error)}"
        percents = "\n".join(f"{percent(probability):>5}" for _, probability in prediction.best)
        mark = "far" if prediction.far else ""
        rows.append((visible(prediction.path), text, percents, mark))
    columns = ("image", "class", "%", "")
    if not any(prediction.far for prediction in predictions):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        console.table(header.title, columns, rows, numbers=False)
    notes = (textwrap.fill(note, WIDTH) for note in _notes(predictions, names, header))
    return out.getvalue() + "".join(f"{note}\n" for note in notes)


def _notes(
    predictions: Sequence[PredictionRow], names: Sequence[str], header: PredictionHeader
) -> Iterator[str]:
    """What a reader of the table must know about images that show none of the classes."""
    yield f'There is no "none of these": every image gets one of the {len(names)} classes.'
    if isinstance(header.means, str):
        yield f"No image is marked as far from the training images: {header.means}."
    elif count := sum(bool(prediction.far) for prediction in predictions):
        yield (
            f"far: farther from the mean of every class than {100 * class_means.QUANTILE:.0f} % of "
            f"held-out images, so probably none of the classes ({count} of {len(predictions)})."
        )


def as_json(
    predictions: Sequence[PredictionRow], classes: Classes, header: PredictionHeader
) -> str:
    """The checkpoint, and under `images` every image with its predictions or its error."""
    means = header.means
    images = [
        {
            "path": plain(prediction.path),
            "predictions": [
                {"index": index, **_named(classes[index]), "probability": probability}
                for index, probability in prediction.best
            ],
            "error": prediction.error and plain(prediction.error),
            "distance": prediction.distance,
            "far": prediction.far,
        }
        for prediction in predictions
    ]
    document = {
        **{key: plain(getattr(header, key)) for key in ("checkpoint", "config_hash", "root")},
        class_means.FACTS: {"reason": means} if isinstance(means, str) else means.facts(),
        "images": images,
    }
    return atomic.json_bytes(document).decode()


def as_csv(predictions: Sequence[PredictionRow], classes: Classes, header: PredictionHeader) -> str:
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
            far = {"distance": prediction.distance, "far": FLAGS[prediction.far]}
            rows.append({**row, **_named(classes[index]), **far})
    return csv_text([COLUMNS, *([row.get(name) for name in COLUMNS] for row in rows)])


def _named(id_and_name: tuple[str, str]) -> dict[str, str]:
    return {"id": id_and_name[0], "class": id_and_name[1]}


FORMATS: Mapping[str, Callable[[Sequence[PredictionRow], Classes, PredictionHeader], str]] = {
    "table": as_table,
    "json": as_json,
    "csv": as_csv,
}
