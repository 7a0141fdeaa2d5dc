"""An experiment and its outcome -> notes on its numbers.

A note is one line that a reader of the numbers must know. It is printed on the terminal, recorded
in metrics.json, and shown on the page and below the table. Images that cannot be read are also
listed in unreadable.json, each with its split and the reason.
"""

from __future__ import annotations

import numpy as np

from fgvc.data.index import listed
from fgvc.record.page.run import UNREADABLE_FILE
from fgvc.task.experiment import Experiment, Outcome, notes_on_validation
from fgvc.types import BadImage, Dataset

SPLITS = ("train", "val", "test")


def notes_of(job: Experiment, outcome: Outcome) -> list[str]:
    """All notes of a run: on the dataset, the validation split, unreadable images and the task."""
    return [
        *job.dataset.warnings,
        *notes_on_validation(job.task, job.conf, job.dataset),
        *_unreadable_note(job.dataset, outcome.unreadable),
        *outcome.notes,
    ]


def unreadable_counts(dataset: Dataset, unreadable: tuple[BadImage, ...]) -> dict[str, int]:
    """How many images of each split could not be read."""
    return {name: len(bad) for name, bad in _by_split(dataset, unreadable).items()}


def unreadable_rows(dataset: Dataset, unreadable: tuple[BadImage, ...]) -> list[dict[str, str]]:
    """The rows of unreadable.json: path, split and reason, by split and path."""
    return [
        {"path": dataset.manifest.path[bad.row], "split": name, "reason": bad.message}
        for name, found in _by_split(dataset, unreadable).items()
        for bad in found
    ]


def _by_split(dataset: Dataset, unreadable: tuple[BadImage, ...]) -> dict[str, list[BadImage]]:
    """The images of each split, rows ascending, each once."""
    once = {bad.row: bad for bad in unreadable}
    row_N = np.array(sorted(once), np.int64)
    found = {name: row_N[np.isin(row_N, getattr(dataset.split, f"{name}_N"))] for name in SPLITS}
    return {name: [once[row] for row in rows.tolist()] for name, rows in found.items()}


def _unreadable_note(dataset: Dataset, unreadable: tuple[BadImage, ...]) -> tuple[str, ...]:
    found = _by_split(dataset, unreadable)
    if not any(found.values()):
        return ()
    counts = ", ".join(f"{len(bad)} of {name}" for name, bad in found.items() if bad)
    names = listed(dataset.manifest.path[bad.row] for rows in found.values() for bad in rows)
    return (
        f"{sum(map(len, found.values()))} images cannot be read ({counts}): {names}; training "
        "leaves them out, validation and test count them as wrong; "
        f"{UNREADABLE_FILE} lists them all",
    )
