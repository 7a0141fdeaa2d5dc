"""TensorBoard and FiftyOne files of a record -> whether they show what the record states.

N images, C classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fgvc.html.class_names import display_names
from fgvc.record.fiftyone import dataset, json_documents, samples
from fgvc.record.fiftyone.samples import RunResults
from fgvc.record.tensorboard import EVALUATION
from fgvc.record.tensorboard.events import scalars
from fgvc.record.verify import DamageError, parse_object
from fgvc.report.audit.check import UncheckedError, agree, require_same
from fgvc.report.audit.derived_files import require_same_code
from fgvc.report.audit.record import Record
from fgvc.report.flatten import flatten
from fgvc.types import Manifest, Predictions

SINGLE = 1e-6  # relative: curves are stored in float32
FOLDER = dataset.FOLDER
UNVERIFIED = ("embedding", "attention")  # fields of a sample that need the features


def curves_follow(record: Record) -> str:
    """Do the TensorBoard curves hold the numbers of metrics.json and the path of C?"""
    curves = scalars(record.path)
    for split in record.predictions:
        for name in EVALUATION:
            value = record.numbers[split][name]
            if value is not None:
                _check_point(curves, f"{split}/{name}", value)
        if split == "test" and len(curves["test/top1"]) != 1:
            raise DamageError("tb: test/top1 has more than one point")
    selection = record.numbers["selection"] or {}
    for step, row in enumerate(selection.get("path", [])):
        for tag, value in {
            "select/val_loss": row["val_loss"],
            "select/val_top1": row["val_top1"],
            "select/log10_c": math.log10(row["c"]),
        }.items():
            _check_point(curves, tag, value, step)
    return f"{len(curves)} curves"


def _check_point(
    curves: Mapping[str, list[tuple[int, float]]], tag: str, value: float, step: int | None = None
) -> None:
    """Raise DamageError unless the curve holds the value, at any step or at the given one."""
    points = [stored for at, stored in curves.get(tag, []) if step is None or at == step]
    if not any(math.isclose(stored, value, rel_tol=SINGLE, abs_tol=SINGLE) for stored in points):
        raise DamageError(f"tb: {tag} lacks {value}, which metrics.json states")


def viewer_follows(record: Record) -> str:
    """Do the FiftyOne samples, evaluations and metadata follow from the predictions?"""
    if any(rows.logits_NC is None for rows in record.predictions.values()):
        raise UncheckedError(f"{FOLDER}: its samples need logits, which were not kept")
    lines = record.text(f"{FOLDER}/samples.json").splitlines()
    stored = [
        parse_object(f"{FOLDER}/samples.json", line.removesuffix(",").encode())
        for line in lines[1:-1]
    ]
    results = predictions_of(record, images_root(record, stored))
    # earlier code wrote no outcome into the predictions
    has_outcome = any(samples.OUTCOME in sample.get("predictions", {}) for sample in stored)
    count = 0
    for count, derived in enumerate(samples.sample_lines(results), 1):
        sample = stored[count - 1] if count <= len(stored) else {}
        verifiable = {key: value for key, value in sample.items() if key not in UNVERIFIED}
        plain = json.loads(derived)
        if not has_outcome:
            plain.get("predictions", {}).pop(samples.OUTCOME, None)
        require_same(f"{FOLDER}/samples.json: {plain['filepath']}", verifiable, plain)
    agree("samples", ("predictions.parquet", count), (f"{FOLDER}/samples.json", len(stored)))
    for split in record.predictions:
        name = f"{FOLDER}/evaluations/{samples.EVALUATED[split]}.json"
        derived = json.loads(json_documents.json_line(samples.evaluation_results(results, split)))
        require_same(name, record.json(name), derived)
    file = f"{FOLDER}/metadata.json"
    try:
        require_same_code(record)
    except UncheckedError as error:
        raise UncheckedError(f"{count} samples follow; {file}: {error}") from error
    require_same(file, record.json(file), expected_metadata(record, results, stored))
    return f"{count} samples, {file}"


def images_root(record: Record, stored: list[dict[str, Any]]) -> str:
    """The images' folder below the data root, from the first sample: no other file states it."""
    first = record.predictions["test"].path[0]
    path = str(stored[0]["filepath"])
    if not path.endswith(first):
        raise DamageError(f"{FOLDER}/samples.json: {path} is not the first test image {first}")
    return path.removesuffix(first) or "."


def predictions_of(record: Record, root: str) -> RunResults:
    """The predictions as input for the writer of samples."""
    paths, sha256, labels, splits = [], [], [], {}
    for split, rows in record.predictions.items():
        assert rows.logits_NC is not None
        row_N = np.arange(len(paths), len(paths) + len(rows.path))
        splits[split] = Predictions(row_N, rows.label_N, rows.logits_NC)
        paths += rows.path
        sha256 += rows.sha256
        labels.append(rows.label_N)
    split_N = np.zeros(len(paths), np.uint8)
    manifest = Manifest(Path(), tuple(paths), np.concatenate(labels), split_N, tuple(sha256))
    checkpoint_id = record.artifacts["ckpt.bin"]["sha256"]
    return RunResults(manifest, root, _class_names(record), checkpoint_id, splits)


def _class_names(record: Record) -> list[str]:
    """The names of the classes in the samples; earlier code wrote the dataset's own names."""
    names = list(record.labelmap.names)
    own = record.json(f"{FOLDER}/metadata.json").get("default_classes") == names
    return names if own else display_names(names)


def expected_metadata(
    record: Record, results: RunResults, stored: list[dict[str, Any]]
) -> dict[str, Any]:
    """The metadata.json that follows from the record and its stored samples."""
    numbers = {split: record.numbers[split] for split in record.predictions}
    about = dataset.describe(flatten(record.shown_config).__getitem__, record.stamp, numbers)
    computed = [name for name in UNVERIFIED if any(name in sample for sample in stored)]
    run = dataset.run_fields(results, about, computed)
    return json.loads(json.dumps(dataset.metadata([run], results.classes)))
