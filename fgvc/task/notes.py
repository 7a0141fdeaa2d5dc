"""An experiment and its outcome -> the notes that stand beside its numbers.

A note is one plain line of what a reader of the numbers must know: printed on the terminal, kept in
metrics.json and shown on the page and below the table. Images that cannot be read stand in
unreadable.json too, each with its split and the reason.
"""

from __future__ import annotations

import numpy as np

from fgvc.data.index import listed
from fgvc.record.page.run import UNREADABLE
from fgvc.task.experiment import Experiment, Outcome, validation_notes
from fgvc.types import BadImage, Dataset

SPLITS = ("train", "val", "test")


def notes_of(job: Experiment, outcome: Outcome) -> list[str]:
    """All notes of a run: on its dataset, its validation split, images that cannot be read, and
    those of the task."""
    return [
        *job.dataset.warnings,
        *validation_notes(job.task, job.conf, job.dataset),
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
        f"leaves them out, validation and test count them as wrong; {UNREADABLE} lists them all",
    )
