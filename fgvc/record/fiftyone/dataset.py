"""What a run says -> fiftyone/, a FiftyOneDataset folder, without FiftyOne and without a database.

    metadata.json               fields, classes, saved views, runs, and the way back to the run
    samples.json                a sample a line, paths relative to the data root
    evaluations/, brain/        the results of the runs that metadata.json names

The same run gives the same bytes. N images, D feature width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fgvc import metrics
from fgvc.record.fiftyone import json_documents, samples
from fgvc.record.fiftyone.json_documents import Document
from fgvc.record.fiftyone.run_fields import MAP, TRUTH, RunFields
from fgvc.record.fiftyone.samples import RunResults
from fgvc.store import atomic
from fgvc.types import Features

FOLDER = "fiftyone"
PAIRS = 5  # worst confused pairs that have a view
VERSION = "1.0.0"  # of FiftyOne: any later 1.x migrates from it, if it has to
SHOWN = (TRUTH, "predictions", "eval")  # fields ticked in the App's sidebar at first


def write(folder: Path, said: RunResults, about: Mapping[str, Any]) -> None:
    """Write the dataset of one run.

    Args:
        folder: is made; its files replace what stands there.
        about: what the run tells of itself: name, run_id, config_hash, started, …

    Raises:
        OSError: the disk refuses; one line with the path.
    """
    answer = RunFields(
        {
            **about,
            "checkpoint_id": said.checkpoint_id,
            "fields": list(_fields(said)),
            "confused": confused_pairs(said),
        }
    )
    for split in said.splits:
        key = answer.key(samples.EVALUATED[split])
        _write(
            folder / "evaluations" / f"{key}.json",
            [json_documents.json_line(samples.evaluation_results(said, split))],
        )
    if said.features is not None:
        found = json_documents.json_line(_map(said, said.features))
        _write(folder / "brain" / f"{answer.key(MAP)}.json", [found])
    write_samples(folder, samples.sample_lines(said))
    write_metadata(folder, metadata([answer], said.classes))


def write_samples(folder: Path, lines: Iterable[bytes]) -> None:
    """samples.json from its lines, held one at a time."""

    def parts() -> Iterable[bytes]:
        yield b'{"samples": ['
        for place, one in enumerate(lines):
            yield b",\n" if place else b"\n"
            yield one
        yield b"\n]}\n"

    _write(folder / "samples.json", parts())


def write_metadata(folder: Path, found: Document) -> None:
    """metadata.json, for people to read as well."""
    atomic.write_json(folder / "metadata.json", found)


def metadata(
    answers: Sequence[RunFields],
    classes: Sequence[str],
    views: Sequence[Document] = (),
) -> Document:
    """What FiftyOne knows of a dataset before it reads a sample.

    Args:
        answers: one, or those of two runs by their names.
        views: saved ones that come before those of the answers.
    """
    truth = json_documents.label_field(
        TRUTH,
        json_documents.CLASSIFICATION,
        [json_documents.field("label", "String")],
        "the dataset's label",
    )
    infos = [dict(answer.info) for answer in answers]
    shown = [TRUTH] + [
        answer.key(name) for answer in answers for name in SHOWN if name in answer.fields
    ]
    return {
        "name": " and ".join(info["name"] for info in infos),
        "version": VERSION,
        "media_type": "image",
        "sample_fields": [
            *json_documents.default_fields(),
            truth,
            *(field for answer in answers for field in answer.declared()),
        ],
        "default_classes": list(classes),
        "info": infos[0] if len(infos) == 1 else {answer.name: answer.info for answer in answers},
        "tags": [],
        "saved_views": [*views, *(view for answer in answers for view in answer.views())],
        "evaluations": _joined(answer.evaluations() for answer in answers),
        "brain_methods": _joined(answer.brain() for answer in answers),
        "app_config": {"active_fields": {"exclude": False, "paths": shown}},
        "workspaces": [],
    }


def _joined(parts: Iterable[Mapping[str, Document]]) -> dict[str, Document]:
    return {key: value for part in parts for key, value in part.items()}


def _fields(said: RunResults) -> Iterable[str]:
    yield "predictions"
    yield from (samples.EVALUATED[split] for split in sorted(said.splits))
    yield "hardness"
    if said.features is not None:
        yield "embedding"
    if said.heat is not None:
        yield "attention"


def confused_pairs(said: RunResults) -> list[Document]:
    """The most frequent confusions of the test images, by the names of the classes."""
    test = said.splits["test"]
    matrix = metrics.confusion(test.logits_NC, test.label_N, len(said.classes))
    return [
        {
            "label": said.classes[pair["label"]],
            "pred": said.classes[pair["pred"]],
            "count": pair["count"],
        }
        for pair in metrics.worst_pairs(matrix, PAIRS)
    ]


def _map(said: RunResults, features: Features) -> Document:
    """The plane in which test features vary most, as FiftyOne keeps a visualization."""
    ids = [samples.sample_id(said.manifest.path[row]) for row in features.row_N.tolist()]
    return {
        "cls": "fiftyone.brain.visualization.VisualizationResults",
        "reducer_blob": None,
        "points": json_documents.pack_array(principal_plane(features.x_ND)),
        "sample_ids": json_documents.pack_array(np.array(ids, dtype="<U24")),
        "label_ids": None,
    }


def principal_plane(x_ND: np.ndarray) -> np.ndarray:
    """Principal components, float32 (N, 2).

    By them, as t-SNE of 2,000 images takes a minute and gives other bits on other numbers of
    threads. Of fewer than two images or features what is missing is 0.
    """
    from sklearn.decomposition import PCA

    xy_N2 = np.zeros((len(x_ND), 2), np.float32)
    most = min(2, *x_ND.shape)
    if len(x_ND) > 1:
        found = PCA(most, svd_solver="covariance_eigh").fit_transform(x_ND.astype(np.float64))
        xy_N2[:, :most] = found
    return xy_N2


def _write(file: Path, parts: Iterable[bytes]) -> None:
    with atomic.open_atomic(file) as out:
        for part in parts:
            out.write(part)
