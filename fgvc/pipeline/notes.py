"""An experiment and its outcome -> notes on its numbers.

A note is one line that a reader of the numbers must know. It is printed on the terminal, recorded
in metrics.json, and shown on the page and below the table. Images that cannot be read are also
listed in unreadable.json, each with its split and the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fgvc.data.index import list_first
from fgvc.model.backbone import hf_config
from fgvc.pipeline import validation, weights_overlap
from fgvc.pipeline.experiment import Experiment, Outcome
from fgvc.pipeline.features import WEIGHTS_NOTES
from fgvc.record import privacy
from fgvc.record.page.run import UNREADABLE_FILE
from fgvc.types import BadImage, Dataset

SPLITS = ("train", "val", "test")


def notes_of(job: Experiment, outcome: Outcome) -> list[str]:
    """All notes of a run: on the dataset, the validation split, unreadable images and the task.

    Tables, pages and model cards show them on other machines: they name no place of this machine.
    """
    notes = [
        *job.dataset.warnings,
        *validation.notes(job.task, job.conf, job.dataset),
        *_unreadable_note(job, outcome, SPLITS, f"; {UNREADABLE_FILE} lists them all"),
        *_lost_class_notes(job, outcome.unreadable),
        *_weights_notes(job, outcome),
        *hf_config.assumed_eps_note(job.conf.backbone, job.extractor.source),
        *weights_overlap.notes(job.extractor.source, job.backbone_N, job.dataset),
        *outcome.notes,
    ]
    return [privacy.without_user_paths(note) for note in notes]


def notes_of_fit(job: Experiment, outcome: Outcome) -> list[str]:
    """The notes that also hold for an evaluation of the head on other images.

    They are stored in its checkpoint.
    """
    notes = [
        *validation.notes(job.task, job.conf, job.dataset),
        *_unreadable_note(job, outcome, ("train", "val")),
        *_lost_class_notes(job, outcome.unreadable),
        *_weights_notes(job, outcome),
        *hf_config.assumed_eps_note(job.conf.backbone, job.extractor.source),
        *weights_overlap.notes(job.extractor.source, job.backbone_N, job.dataset),
        *outcome.notes,
    ]
    return [privacy.without_user_paths(note) for note in notes]


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


def _weights_notes(job: Experiment, outcome: Outcome) -> Iterator[str]:
    """Which part of the weights file the backbone was filled from, if not all of it."""
    notes: Any = (outcome.cost or job.extractor.cost()).get(WEIGHTS_NOTES, ())
    for note in notes:
        if f"of the fit: {note}" not in outcome.notes:
            yield note


def _by_split(dataset: Dataset, unreadable: tuple[BadImage, ...]) -> dict[str, list[BadImage]]:
    """The images of each split, rows ascending, each once."""
    once = {bad.row: bad for bad in unreadable}
    row_N = np.array(sorted(once), np.int64)
    found = {name: row_N[np.isin(row_N, getattr(dataset.split, f"{name}_N"))] for name in SPLITS}
    return {name: [once[row] for row in rows.tolist()] for name, rows in found.items()}


def _unreadable_note(
    job: Experiment, outcome: Outcome, splits: Sequence[str], end: str = ""
) -> tuple[str, ...]:
    """Counts and names of the images of some splits that cannot be read, and the consequences."""
    found = _by_split(job.dataset, outcome.unreadable)
    by_split = {name: found[name] for name in splits}
    counts = [f"{len(bad)} of {name}" for name, bad in by_split.items() if bad]
    if not counts:
        return ()
    total = sum(map(len, by_split.values()))
    path = job.dataset.manifest.path
    return (
        f"{total} image{'s' * (total != 1)} cannot be read ({', '.join(counts)}): "
        f"{list_first(path[bad.row] for rows in by_split.values() for bad in rows)}; "
        f"{'; '.join(_consequences(job, outcome, by_split))}{end}",
    )


def _consequences(
    job: Experiment, outcome: Outcome, by_split: Mapping[str, list[BadImage]]
) -> Iterator[str]:
    """What a run does with its unreadable images, per kind of split."""
    fits_on = ("train", "val") if job.conf.final_fit == "trainval" else ("train",)
    if fitted := [name for name in fits_on if by_split[name]]:
        yield f"the fit leaves out those of {' and '.join(fitted)}"
    if predicted := [name for name in outcome.splits if by_split.get(name)]:
        yield f"those of {' and '.join(predicted)} count as wrong"


def _lost_class_notes(job: Experiment, unreadable: tuple[BadImage, ...]) -> Iterator[str]:
    """Notes on classes whose images in train, or in validation, are all unreadable."""
    effects = {"train": "the head cannot learn them"}
    if validation.reads_validation(job.task, job.conf):
        effects["val"] = "validation says nothing about them"
    manifest, names = job.dataset.manifest, job.dataset.labelmap.names
    bad_N = np.array([bad.row for bad in unreadable], np.int64)
    for split, effect in effects.items():
        row_N = getattr(job.dataset.split, f"{split}_N")
        lost = np.setdiff1d(
            manifest.label_N[row_N], manifest.label_N[np.setdiff1d(row_N, bad_N)]
        ).tolist()
        if lost:
            yield (
                f"{len(lost)} of {len(names)} classes have no readable image in {split} "
                f"({list_first(names[label] for label in lost)}), so {effect}; replace these images"
            )
