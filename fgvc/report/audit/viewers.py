"""TensorBoard and FiftyOne files of a record -> whether they show what the record states.

N images, C classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fgvc.record.fiftyone import dataset, json_documents, samples
from fgvc.record.fiftyone.run_fields import RunFields
from fgvc.record.fiftyone.samples import RunResults
from fgvc.record.tensorboard import EVALUATION
from fgvc.record.tensorboard.scalars import scalars
from fgvc.record.verify import DamageError, parse_object
from fgvc.report.audit.check import UNCHECKED, Verdict, agree
from fgvc.report.audit.derived_files import require_same_code
from fgvc.report.audit.record import Record
from fgvc.types import Manifest, Predictions

SINGLE = 1e-6  # relative: curves are stored in float32
RELATIVE = 1e-9
FOLDER = dataset.FOLDER
OF_STAMP = ("task", "dataset", "partial", "run_id", "config_hash", "started", "manifest_digest")
NOT_SAID = ("embedding", "attention")  # fields of a sample that only the features can verify


def curves_follow(record: Record) -> str:
    """Do the curves of TensorBoard hold the numbers of metrics.json and the path of C?"""
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
    """DamageError unless the curve holds the value (at that step)."""
    points = [held for at, held in curves.get(tag, []) if step is None or at == step]
    if not any(math.isclose(held, value, rel_tol=SINGLE, abs_tol=SINGLE) for held in points):
        raise DamageError(f"tb: {tag} lacks {value}, which metrics.json states")


def viewer_follows(record: Record) -> str | Verdict:
    """Do the samples, evaluations and descriptions of FiftyOne follow from the predictions?"""
    if any(rows.logits_NC is None for rows in record.predictions.values()):
        return Verdict(UNCHECKED, f"{FOLDER}: logits were not kept, its samples hold them")
    lines = record.text(f"{FOLDER}/samples.json").splitlines()
    stored = [parse_object(f"{FOLDER}/samples.json", _line(line)) for line in lines[1:-1]]
    answers = predictions_of(record, images_root(record, stored))
    count = 0
    for count, derived in enumerate(samples.sample_lines(answers), 1):
        _compare_sample(stored[count - 1] if count <= len(stored) else {}, json.loads(derived))
    agree("samples", ("predictions.parquet", count), (f"{FOLDER}/samples.json", len(stored)))
    for split in record.predictions:
        name = f"{FOLDER}/evaluations/{samples.EVALUATED[split]}.json"
        derived = json.loads(json_documents.json_line(samples.evaluation_results(answers, split)))
        if not _alike(record.json(name), derived):
            raise DamageError(f"{name}: does not follow from predictions.parquet")
    if isinstance(other := require_same_code(record), Verdict):
        return Verdict(
            UNCHECKED, f"{count} samples follow; {FOLDER}/metadata.json: {other.evidence}"
        )
    held, file = record.json(f"{FOLDER}/metadata.json"), f"{FOLDER}/metadata.json"
    expected = description(record, answers, stored)
    for key in sorted(expected.keys() | held.keys()):
        if expected.get(key) != held.get(key):
            raise DamageError(f"{file}: {key} does not follow from the record")
    return f"{count} samples, {FOLDER}/metadata.json"


def _line(text: str) -> bytes:
    return text.removesuffix(",").encode()


def images_root(record: Record, stored: list[dict[str, Any]]) -> str:
    """Where the images lie below the data root, from the first sample: no other file states it."""
    first = record.predictions["test"].path[0]
    path = str(stored[0]["filepath"])
    if not path.endswith(first):
        raise DamageError(f"{FOLDER}/samples.json: {path} is not the first test image {first}")
    return path.removesuffix(first) or "."


def predictions_of(record: Record, below: str) -> RunResults:
    """The predictions as the writer of samples takes them."""
    paths, sha256, splits = [], [], {}
    labels = []
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
    return RunResults(manifest, below, record.labelmap.names, checkpoint_id, splits)


def _compare_sample(stored: Mapping[str, Any], derived: Mapping[str, Any]) -> None:
    kept = {key: value for key, value in stored.items() if key not in NOT_SAID}
    path = PurePosixPath(str(derived["filepath"]))
    if kept.keys() != derived.keys():
        raise DamageError(f"{FOLDER}/samples.json: {path} has other fields")
    for key, value in derived.items():
        if not _alike(kept[key], value):
            raise DamageError(f"{FOLDER}/samples.json: {key} of {path} does not follow")


def _alike(stored: Any, derived: Any) -> bool:
    """Equal up to the last digits of a logarithm, which differ by processor."""
    if isinstance(derived, dict) and isinstance(stored, dict):
        same = stored.keys() == derived.keys()
        return same and all(_alike(stored[key], value) for key, value in derived.items())
    if isinstance(derived, list) and isinstance(stored, list):
        pairs = zip(stored, derived, strict=True)
        return len(stored) == len(derived) and all(_alike(*pair) for pair in pairs)
    if isinstance(derived, float) and isinstance(stored, float):
        return math.isclose(stored, derived, rel_tol=RELATIVE, abs_tol=RELATIVE)
    return type(stored) is type(derived) and stored == derived


def description(
    record: Record, answers: RunResults, stored: list[dict[str, Any]]
) -> dict[str, Any]:
    """The expected metadata.json of the record; stored: its samples."""
    shown, stamp = record.shown_config, record.stamp
    backbone, head, name = (str(shown[axis]["name"]) for axis in ("backbone", "head", "dataset"))
    info = {
        "name": " ".join((backbone, str(shown["backbone"]["size"]), head, name)),
        **{key: stamp[key] for key in OF_STAMP},
        "metrics": {split: record.numbers[split] for split in record.predictions},
        "checkpoint_id": answers.checkpoint_id,
        "fields": list(_fields(record, stored)),
        "confused": dataset.confused_pairs(answers),
    }
    return json.loads(json.dumps(dataset.metadata([RunFields(info)], answers.classes)))


def _fields(record: Record, stored: list[dict[str, Any]]) -> Iterator[str]:
    yield "predictions"
    yield from (samples.EVALUATED[split] for split in sorted(record.predictions))
    yield "hardness"
    yield from (name for name in NOT_SAID if any(name in sample for sample in stored))
