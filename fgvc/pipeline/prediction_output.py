"""What a checkpoint says of pictures -> a table for a person, JSON or CSV for a program."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fgvc.record import console
from fgvc.store import atomic
from fgvc.untrusted.escape import csv_text, visible

Classes = Sequence[tuple[str, str]]  # the dataset's own id and the name of each class, by index
COLUMNS: tuple[str, ...] = ("path", "rank", "index", "id", "class", "probability", "error")


@dataclass(frozen=True)
class ImagePrediction:
    """One picture. path: relative to the folder. best: class index and probability, the most
    probable first. error: why it could not be read, in place of an answer."""

    path: str
    best: Sequence[tuple[int, float]] = ()
    error: str | None = None


def printable(text: str) -> str:
    """Text that can be written anywhere: bytes of a file name that are no UTF-8 become escapes."""
    return text.encode(errors="backslashreplace").decode()


def table(answers: Sequence[ImagePrediction], classes: Classes, about: Mapping[str, str]) -> str:
    """One row per picture, its classes one below the other."""
    rows = []
    for answer in answers:
        names = [visible(classes[index][1]) for index, _ in answer.best]
        shares = [console.percent(share) for _, share in answer.best]
        text = "\n".join(names) if answer.error is None else f"error: {visible(answer.error)}"
        rows.append((visible(answer.path), text, "\n".join(f"{share:>5}" for share in shares)))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        console.table(about["title"], ("picture", "class", "%"), rows, numbers=False)
    return out.getvalue()


def as_json(answers: Sequence[ImagePrediction], classes: Classes, about: Mapping[str, str]) -> str:
    """Who answered, and under `images` every picture with its predictions or its error."""
    images = [
        {
            "path": printable(one.path),
            "predictions": [
                {"index": index, **_named(classes[index]), "probability": share}
                for index, share in one.best
            ],
            "error": one.error and printable(one.error),
        }
        for one in answers
    ]
    who = {key: printable(about[key]) for key in ("checkpoint", "config_hash", "root")}
    return atomic.json_bytes({**who, "images": images}).decode()


def as_csv(answers: Sequence[ImagePrediction], classes: Classes, about: Mapping[str, str]) -> str:
    """One line per predicted class of a picture, or one line with its error.

    Names that a spreadsheet would take for formulas are escaped; `fgvc.untrusted.escape.uncell`
    reverses it.
    """
    rows: list[dict[str, object]] = []
    for answer in answers:
        path = printable(answer.path)
        if answer.error is not None:
            rows.append({"path": path, "error": printable(answer.error)})
        for rank, (index, share) in enumerate(answer.best, start=1):
            row = {"path": path, "rank": rank, "index": index, "probability": share}
            rows.append({**row, **_named(classes[index])})
    return csv_text([COLUMNS, *([row.get(name) for name in COLUMNS] for row in rows)])


def _named(of_class: tuple[str, str]) -> dict[str, str]:
    return {"id": of_class[0], "class": of_class[1]}


FORMATS: dict[str, Callable[[Sequence[ImagePrediction], Classes, Mapping[str, str]], str]] = {
    "table": table,
    "json": as_json,
    "csv": as_csv,
}
