"""An experiment and its results -> notes on its numbers.

A note is one line that a reader of the numbers must know. It is printed on the terminal, recorded
in metrics.json, and shown on the page and below the table. Images that cannot be read are also
listed in unreadable.json, each with its split and the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fgvc.data.index import list_first
from fgvc.html.class_names import display_names
from fgvc.model.backbone import hf_config
from fgvc.pipeline import validation
from fgvc.pipeline.experiment import Experiment, Results, describe_earlier_runs
from fgvc.pipeline.features import WEIGHTS_NOTES
from fgvc.record import fitted_images, privacy
from fgvc.record.run_dir import UNREADABLE_FILE
from fgvc.types import BadImage, Dataset

SPLITS = ("train", "val", "test")


def notes_of(experiment: Experiment, results: Results, of_fit: bool = False) -> list[str]:
    """The notes of a run: on the dataset, the validation split, unreadable images and the task.

    Tables, pages and model cards show them on other machines, so they contain no path of this
    machine.

    of_fit: only those that also hold for an evaluation of the head on other images, which are
    stored in its checkpoint.
    """
    conf, dataset, source = experiment.conf, experiment.dataset, experiment.extractor.source
    notes = [] if of_fit else [*dataset.warnings]
    notes += validation.notes(experiment.task, conf, dataset)
    notes += _unreadable_notes(experiment, results, of_fit)
    notes += _lost_class_notes(experiment, results.unreadable)
    cost: Any = results.cost or experiment.extractor.cost()
    weights_notes = cost.get(WEIGHTS_NOTES, ())
    notes += [note for note in weights_notes if f"of the fit: {note}" not in results.notes]
    notes += hf_config.assumed_eps_note(conf.backbone, source)
    val_N = fitted_images.short_digests(dataset.manifest.sha256, dataset.split.val_N)
    if count := fitted_images.overlap(experiment.backbone_image_N, val_N):
        notes.append(
            f"{count} of the {len(val_N)} validation images fitted or chose the backbone "
            f"({describe_earlier_runs(source)}): numbers on validation, and what is chosen on "
            "them, favour it"
        )
    return [privacy.without_user_paths(note) for note in (*notes, *results.notes)]


def unreadable_counts(dataset: Dataset, unreadable: tuple[BadImage, ...]) -> dict[str, int]:
    return {split: len(bad) for split, bad in _by_split(dataset, unreadable).items()}


def unreadable_rows(dataset: Dataset, unreadable: tuple[BadImage, ...]) -> list[dict[str, str]]:
    """The rows of unreadable.json: path, split and reason, by split and path."""
    return [
        {"path": dataset.manifest.path[image.row], "split": split, "reason": image.message}
        for split, bad in _by_split(dataset, unreadable).items()
        for image in bad
    ]


def _by_split(dataset: Dataset, unreadable: tuple[BadImage, ...]) -> dict[str, list[BadImage]]:
    """The unreadable images of each split without duplicates, rows ascending."""
    image_of_row = {image.row: image for image in unreadable}
    row_N = np.array(sorted(image_of_row), np.int64)
    return {
        split: [
            image_of_row[row]
            for row in row_N[np.isin(row_N, getattr(dataset.split, f"{split}_N"))].tolist()
        ]
        for split in SPLITS
    }


def _unreadable_notes(experiment: Experiment, results: Results, of_fit: bool) -> Iterator[str]:
    """Counts and names of the unreadable images, and the consequences."""
    by_split = _by_split(experiment.dataset, results.unreadable)
    end = "" if of_fit else f"; {UNREADABLE_FILE} lists them all"
    if of_fit:
        del by_split["test"]
    counts = [f"{len(bad)} of {split}" for split, bad in by_split.items() if bad]
    if not counts:
        return
    total = sum(map(len, by_split.values()))
    path = experiment.dataset.manifest.path
    fits_on = ("train", "val") if experiment.conf.final_fit == "trainval" else ("train",)
    consequences = []
    if fitted := [split for split in fits_on if by_split[split]]:
        consequences.append(f"the fit leaves out those of {' and '.join(fitted)}")
    if predicted := [split for split in results.predictions if by_split.get(split)]:
        consequences.append(f"those of {' and '.join(predicted)} count as wrong")
    yield (
        f"{total} image{'s' * (total != 1)} cannot be read ({', '.join(counts)}): "
        f"{list_first(path[image.row] for bad in by_split.values() for image in bad)}; "
        f"{'; '.join(consequences)}{end}"
    )


def _lost_class_notes(experiment: Experiment, unreadable: tuple[BadImage, ...]) -> Iterator[str]:
    """Notes on classes whose images in train, or in validation, are all unreadable."""
    effects = {"train": "the head cannot learn them"}
    if validation.reads_validation(experiment.task, experiment.conf):
        effects["val"] = "validation says nothing about them"
    manifest = experiment.dataset.manifest
    names = display_names(experiment.dataset.labelmap.names)
    bad_N = np.array([image.row for image in unreadable], np.int64)
    for split, effect in effects.items():
        row_N = getattr(experiment.dataset.split, f"{split}_N")
        readable_N = np.setdiff1d(row_N, bad_N)
        lost = np.setdiff1d(manifest.label_N[row_N], manifest.label_N[readable_N]).tolist()
        if lost:
            yield (
                f"{len(lost)} of {len(names)} classes have no readable image in {split} "
                f"({list_first(names[label] for label in lost)}), so {effect}; replace these images"
            )
