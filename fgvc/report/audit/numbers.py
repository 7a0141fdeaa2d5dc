"""Do the numbers follow from the stored answers? Everything is computed anew with fgvc.metrics.

Logits -> columns of predictions.parquet -> metrics.json, per_class.csv, confusion.csv: each arrow
is checked. Floats may differ by 1e-9 of their size, as another processor's logarithm does.
N images, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fgvc import metrics
from fgvc.record import comparability as comparabilities
from fgvc.record import prediction_tables
from fgvc.record.run_dir import TEST_READ_LOG
from fgvc.record.verify import DamageError
from fgvc.report.audit.check import agree
from fgvc.report.audit.record import PREDICTIONS, SPLITS, Record, Rows, rows_of
from fgvc.types import Manifest, Predictions

TOLERANCE = 1e-9
SAME_ANSWER = (
    "task",
    "config_hash",
    "git_commit",
    "code_patch_sha256",
    "manifest_digest",
    "split_digest",
    "labelmap_digest",
    "weights_digest",
)


def metrics_follow(record: Record) -> str:
    """Do metrics.json, per_class.csv and confusion.csv follow from the stored answers?"""
    version = record.numbers["metric_version"]
    agree("metric_version", ("fgvc", metrics.VERSION), ("metrics.json", version))
    told = sorted(name for name in SPLITS if name in record.numbers)
    agree("what has numbers", (PREDICTIONS, sorted(record.predictions)), ("metrics.json", told))
    for split, rows in record.predictions.items():
        _columns_follow(split, rows)
        found = metrics.summary(
            rows.top_NK,
            rows.label_N,
            rows.label_logprob_N,
            rows.confidence_N,
            len(record.labelmap),
        )
        matrix = record.tally(rows)
        found |= metrics.class_intervals(matrix)
        if record.hierarchy is not None:
            found |= metrics.hierarchical_metrics(rows.top_NK, rows.label_N, record.hierarchy)
        _compare(f"metrics.json {split}", record.numbers[split], found)
    test = record.predictions["test"]
    found = prediction_tables.predictions_digest(test.path, test.pred_N)
    told = record.numbers["predictions_digest"]
    agree("predictions_digest", (PREDICTIONS, found), ("metrics.json", told))
    _classes_follow(record, record.tally(test))
    return f"computed anew from {PREDICTIONS}: {_told(record)}; per_class.csv, confusion.csv"


def _classes_follow(record: Record, matrix: np.ndarray) -> None:
    """What is told class by class, from the confusion matrix of the test images."""
    told, labelmap = record.numbers["worst_pairs"], record.labelmap
    pairs = [
        {
            **pair,
            "label_name": labelmap.names[pair["label"]],
            "pred_name": labelmap.names[pair["pred"]],
        }
        for pair in metrics.worst_pairs(matrix, prediction_tables.WORST)
    ]
    _compare("metrics.json worst_pairs", told, pairs)
    rows = metrics.class_rows(matrix, labelmap.names)
    for file, text in {
        "per_class.csv": prediction_tables.class_rows_csv(rows, labelmap),
        "confusion.csv": prediction_tables.confusion_csv(matrix, labelmap.names),
    }.items():
        if record.text(file) != text:
            raise DamageError(f"{file}: does not follow from {PREDICTIONS}")


def _told(record: Record) -> str:
    told = [f"{split} top-1 {record.numbers[split]['top1']:.4f}" for split in record.predictions]
    kept = record.predictions["test"].logits_NC is not None
    return f"{', '.join(told)} ({'from logits' if kept else 'logits were not kept'})"


def _columns_follow(split: str, rows: Rows) -> None:
    """Every column from the logits; where those were not kept, the columns from each other."""
    same = _as_logits_say(split, rows) if rows.logits_NC is not None else _as_columns_say(rows)
    if not same:
        raise DamageError(f"{PREDICTIONS}: columns of {split} contradict each other")


def _as_logits_say(split: str, rows: Rows) -> bool:
    assert rows.logits_NC is not None
    n, classes = rows.logits_NC.shape
    manifest = Manifest(Path(), rows.path, rows.label_N, np.zeros(n, np.uint8), rows.sha256)
    told = Predictions(np.arange(n), rows.label_N, rows.logits_NC)
    anew = rows_of(prediction_tables.predictions_table(manifest, {split: told}), lambda: classes)
    columns = ("pred_N", "top_NK", "score_NK", "confidence_N", "label_logprob_N")
    return all(_alike(getattr(rows, name), getattr(anew, name)) for name in columns)


def _as_columns_say(rows: Rows) -> bool:
    """pred and confidence lead the top-k; a label among them has the probability told of it."""
    hit_NK = rows.top_NK == rows.label_N[:, None]
    told_N = np.exp(rows.label_logprob_N)[hit_NK.any(axis=1)]
    return (
        _alike(rows.pred_N, rows.top_NK[:, 0])
        and _alike(rows.confidence_N, rows.score_NK[:, 0])
        and _alike(told_N, rows.score_NK[hit_NK])
    )


def _alike(told: np.ndarray, found: np.ndarray) -> bool:
    return told.shape == found.shape and np.allclose(
        told, found, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True
    )


def comparability(record: Record) -> str:
    """Does the comparability key follow from the data of fit and test, the metric and the fit?"""
    numbers = record.numbers
    parts = comparabilities.of_record(record.config, record.stamp, numbers, record.facts)
    for name, value in asdict(parts).items():
        recorded = ("metrics.json comparability", numbers["comparability"][name])
        agree(comparabilities.NAMES[name], ("the rest of the record", value), recorded)
    for name, value in (("comparability_key", parts.key), ("comparability_base", parts.base)):
        agree(name, ("the record", value), ("metrics.json", numbers[name]))
    return f"comparability_key {parts.key}"


def test_read_once(record: Record) -> str:
    """Was the test split read once, after all choices, or repeatedly for the same answer only?

    If a process is killed between reading test and sealing the record, the next process of the run
    reads test again, and the record counts both reads. This is not a leak if every read was for the
    answer that is recorded.
    """
    reads, entries = record.numbers["test_reads"], record.numbers[TEST_READ_LOG]
    agree("test_reads", (TEST_READ_LOG, len(entries)), ("metrics.json", reads))
    if not entries:
        raise DamageError(f"metrics.json: {TEST_READ_LOG} holds no read of the test split")
    for number, entry in enumerate(entries, start=1):
        place = f"metrics.json: {TEST_READ_LOG}, read {number}"
        for key in SAME_ANSWER:
            agree(key, ("the stamp", record.stamp[key]), (place, entry[key]))
    count = "once"
    if reads > 1:
        count = f"{reads} times, the same answer each: earlier processes of this run were stopped"
    return f"{count}; resolution {record.stamp['resolution']} px, top-1 and loss from the last read"


def _compare(where: str, told: Any, found: Any) -> None:
    """DamageError at the first value that differs."""
    if isinstance(found, Mapping):
        if not isinstance(told, Mapping) or told.keys() != found.keys():
            raise DamageError(f"{where}: other keys than this version writes")
        for key, value in found.items():
            _compare(f"{where} {key}", told[key], value)
    elif isinstance(found, list):
        if not isinstance(told, list) or len(told) != len(found):
            raise DamageError(f"{where}: {told}, computed anew {found}")
        for place, value in enumerate(found):
            _compare(f"{where} {place}", told[place], value)
    elif not _same(told, found):
        raise DamageError(f"{where}: {told}, computed anew {found}")


def _same(told: Any, found: Any) -> bool:
    if isinstance(found, float) and isinstance(told, int | float):
        return math.isclose(told, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return type(told) is type(found) and told == found
