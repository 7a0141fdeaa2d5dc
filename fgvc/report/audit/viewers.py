"""TensorBoard and FiftyOne files of a record -> whether they show what the record states."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fgvc import untrusted
from fgvc.html.class_names import display_names
from fgvc.record.fiftyone import dataset, json_documents, samples
from fgvc.record.fiftyone.samples import RunResults
from fgvc.record.tensorboard import EVALUATION
from fgvc.record.tensorboard.events import scalars
from fgvc.record.verify import DamageError, parse_object
from fgvc.report.audit.check import UncheckedError, require_same
from fgvc.report.audit.derived_files import require_same_code
from fgvc.report.audit.record import PREDICTIONS, Record
from fgvc.report.flatten import flatten
from fgvc.types import Manifest
from fgvc.untrusted import MIB

LINE = 64 * MIB  # bytes of a sample; a longer line is cut, and then it is no JSON
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
    stored = stored_samples(record)
    first = next(stored, {})
    results = predictions_of(record, images_root(record, first))
    file, names = f"{FOLDER}/samples.json", set[str]()
    has_outcome = any(
        samples.OUTCOME in sample.get("predictions", {}) for sample in stored_samples(record)
    )
    both = (itertools.chain([first], stored), samples.sample_lines(results))
    for sample, line in itertools.zip_longest(*both):
        if sample is None or line is None:
            raise DamageError(f"{file}: {'more' if sample else 'fewer'} samples than {PREDICTIONS}")
        derived = json.loads(line)
        names |= sample.keys()
        verifiable = {key: value for key, value in sample.items() if key not in UNVERIFIED}
        if not has_outcome:  # earlier code wrote none into the predictions
            derived.get("predictions", {}).pop(samples.OUTCOME, None)
        require_same(f"{file}: {derived['filepath']}", verifiable, derived)
    for split in record.predictions:
        name = f"{FOLDER}/evaluations/{samples.EVALUATED[split]}.json"
        derived = json.loads(json_documents.json_line(samples.evaluation_results(results, split)))
        require_same(name, record.json(name), derived)
    count = sum(len(rows.path) for rows in record.predictions.values())
    file = f"{FOLDER}/metadata.json"
    try:
        require_same_code(record)
    except UncheckedError as error:
        raise UncheckedError(f"{count} samples follow; {file}: {error}") from error
    computed = [name for name in UNVERIFIED if name in names]
    require_same(file, record.json(file), expected_metadata(record, results, computed))
    return f"{count} samples, {file}"


def stored_samples(record: Record) -> Iterator[dict[str, Any]]:
    """The samples of the dataset, parsed line by line: together they take gigabytes.

    Raises:
        DamageError: the file cannot be read, or a line is not a sample.
    """
    file = f"{FOLDER}/samples.json"
    try:
        with untrusted.open_regular(record.path / file) as lines:
            lines.readline(LINE)
            for line in iter(lambda: lines.readline(LINE), b""):
                if line.startswith(b"]"):
                    return
                yield parse_object(file, line.rstrip(b",\n"))
    except OSError as error:
        raise DamageError(f"{file}: unreadable ({error.strerror})") from error


def images_root(record: Record, first_sample: Mapping[str, Any]) -> str:
    """The images' folder below the data root, from the first sample: no other file states it."""
    first = record.predictions["test"].path[0]
    path = str(first_sample["filepath"])
    if not path.endswith(first):
        raise DamageError(f"{FOLDER}/samples.json: {path} is not the first test image {first}")
    return path.removesuffix(first) or "."


def predictions_of(record: Record, root: str) -> RunResults:
    """The predictions as input for the writer of samples.

    Raises:
        UncheckedError: earlier code kept neither logits nor what samples need of them.
    """
    paths, sha256, labels, splits = [], [], [], {}
    for split, rows in record.predictions.items():
        predictions = rows.predictions(np.arange(len(paths), len(paths) + len(rows.path)))
        if predictions is None:
            raise UncheckedError(f"{FOLDER}: its samples need logits, which were not kept")
        splits[split] = predictions
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
    record: Record, results: RunResults, computed: Sequence[str]
) -> dict[str, Any]:
    """The metadata.json that follows from the record.

    Args:
        computed: those of UNVERIFIED that its samples have.
    """
    numbers = {split: record.numbers[split] for split in record.predictions}
    about = dataset.describe(flatten(record.shown_config).__getitem__, record.stamp, numbers)
    run = dataset.run_fields(results, about, computed)
    return json.loads(json.dumps(dataset.metadata([run], results.classes)))
