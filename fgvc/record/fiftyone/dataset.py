"""The results of a run -> fiftyone/, a FiftyOneDataset folder; needs no FiftyOne and no database.

    metadata.json               fields, classes, saved views, runs, and the identity of the run
    samples.json                one sample per line, paths relative to the data root
    evaluations/, brain/        the results of the runs that metadata.json lists

The same run gives the same bytes. N images, D feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fgvc import metrics
from fgvc.record.fiftyone import appearance, display_text, json_documents, samples
from fgvc.record.fiftyone.json_documents import Document
from fgvc.record.fiftyone.run_fields import MAP, TRUTH, RunFields
from fgvc.record.fiftyone.samples import RunResults
from fgvc.record.principal_components import principal_components
from fgvc.store import atomic

FOLDER = "fiftyone"
PAIRS = 5  # most confused pairs of classes that have a saved view
VERSION = "1.0.0"  # of FiftyOne: any later 1.x migrates from it where needed
STAMP_KEYS = ("task", "dataset", "partial", "run_id", "config_hash", "started", "manifest_digest")


def write(folder: Path, results: RunResults, about: Mapping[str, Any]) -> None:
    """Write the dataset of one run.

    Args:
        folder: is created; its files are replaced.
        about: the identity of the run, as of `describe`.

    Raises:
        OSError: the disk refuses; one line with the path.
    """
    computed = {"embedding": results.features, "attention": results.heat}
    run = run_fields(results, about, [name for name in computed if computed[name] is not None])
    for split in results.splits:
        file = folder / "evaluations" / f"{run.key(samples.EVALUATED[split])}.json"
        evaluation = samples.evaluation_results(results, split)
        atomic.write_bytes(file, json_documents.json_line(evaluation))
    if (features := results.features) is not None:
        ids = [samples.sample_id(results.manifest.path[row]) for row in features.row_N.tolist()]
        plane = {
            "cls": "fiftyone.brain.visualization.VisualizationResults",
            "reducer_blob": None,
            "points": json_documents.pack_array(principal_plane(features.x_ND)),
            "sample_ids": json_documents.pack_array(np.array(ids, dtype="<U24")),
            "label_ids": None,
        }
        file = folder / "brain" / f"{run.key(MAP)}.json"
        atomic.write_bytes(file, json_documents.json_line(plane))
    write_samples(folder, samples.sample_lines(results))
    atomic.write_json(folder / "metadata.json", metadata([run], results.classes))


def describe(
    value_at: Callable[[str], Any], stamp: Mapping[str, Any], numbers: Mapping[str, Any]
) -> Document:
    """The identity of a run.

    Args:
        value_at: the value at a place in the run's config, such as "head.name".
        stamp: env_stamp.json. numbers: by split.
    """
    axes = display_text.axes(value_at)
    shown = ("backbone", "size", "head", "resolution", "part_attention")
    words = [stamp["dataset"], *(axes[axis] for axis in shown if axes[axis] != "off")]
    words += ["finetuned"] * (axes["task"] == "train")
    facts = {key: stamp[key] for key in STAMP_KEYS}
    return {"name": " ".join(words), "axes": axes, **facts, "metrics": dict(numbers)}


def run_fields(results: RunResults, about: Mapping[str, Any], computed: Sequence[str]) -> RunFields:
    """The fields of a run. computed: those of embedding and attention that its samples have."""
    evaluated = [samples.EVALUATED[split] for split in sorted(results.splits)]
    test, names = results.splits["test"], results.classes
    matrix = metrics.tally(test.pred_N, test.label_N, len(names))
    info = {
        **about,
        "checkpoint_id": results.checkpoint_id,
        "fields": ["predictions", *evaluated, "hardness", *computed],
        "confused": [
            {"label": names[pair["label"]], "pred": names[pair["pred"]], "count": pair["count"]}
            for pair in metrics.worst_pairs(matrix, PAIRS)
        ],
    }
    return RunFields(info)


def write_samples(folder: Path, lines: Iterable[bytes]) -> None:
    with atomic.open_atomic(folder / "samples.json") as out:
        out.write(b'{"samples": [')
        for number, line in enumerate(lines):
            out.write((b",\n" if number else b"\n") + line)
        out.write(b"\n]}\n")


def metadata(
    runs: Sequence[RunFields], classes: Sequence[str], views: Sequence[Document] = ()
) -> Document:
    """The content of metadata.json, which FiftyOne reads before any sample.

    Args:
        runs: one run, or two runs with a label each.
        views: saved views that come before the views of the runs.
    """
    truth = json_documents.label_field(
        TRUTH, json_documents.CLASSIFICATION, {"label": "String"}, "the dataset's label"
    )
    infos = [dict(run.info) for run in runs]
    return {
        "name": display_text.dataset_name(infos),
        "version": VERSION,
        "media_type": "image",
        "sample_fields": [
            *json_documents.default_fields(),
            truth,
            *(field for run in runs for field in run.declarations()),
        ],
        "default_classes": list(classes),
        "info": infos[0] if len(infos) == 1 else {run.label: run.info for run in runs},
        "tags": [],
        "saved_views": [*views, *(view for run in runs for view in run.views())],
        "evaluations": {entry["key"]: entry for run in runs for entry in run.evaluations()},
        "brain_methods": {entry["key"]: entry for run in runs for entry in run.brain_methods()},
        "app_config": appearance.app_config(runs),
        "workspaces": appearance.workspaces(runs),
    }


def principal_plane(x_ND: np.ndarray) -> np.ndarray:
    """The first two principal components, float32 (N, 2).

    PCA rather than t-SNE: t-SNE of 2,000 images takes a minute, and its bits depend on the number
    of threads. With fewer than two images or features, the missing components are 0.
    """
    xy_N2 = np.zeros((len(x_ND), 2), np.float32)
    if len(x_ND) > 1:
        components_NK = principal_components(x_ND, 2)
        xy_N2[:, : components_NK.shape[1]] = components_NK
    return xy_N2
