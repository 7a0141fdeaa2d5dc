"""Numbers of a record -> whether they follow from the stored predictions.

Logits -> columns of predictions.parquet -> metrics.json, per_class.csv, confusion.csv: each step is
recomputed with fgvc.metrics. Floats may differ by a relative 1e-9, because logarithms differ
between processors. N images, C classes.
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
SAME_PREDICTION_KEYS = (
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
    """Do metrics.json, per_class.csv and confusion.csv follow from the predictions?"""
    version = record.numbers["metric_version"]
    agree("metric_version", ("fgvc", metrics.VERSION), ("metrics.json", version))
    recorded = sorted(name for name in SPLITS if name in record.numbers)
    agree(
        "splits with numbers", (PREDICTIONS, sorted(record.predictions)), ("metrics.json", recorded)
    )
    for split, rows in record.predictions.items():
        _check_columns(split, rows)
        computed = metrics.summary(
            rows.top_NK,
            rows.label_N,
            rows.label_logprob_N,
            rows.confidence_N,
            len(record.labelmap),
        )
        matrix = record.tally(rows)
        computed |= metrics.class_intervals(matrix)
        if record.hierarchy is not None:
            computed |= metrics.hierarchical_metrics(rows.top_NK, rows.label_N, record.hierarchy)
        _compare(f"metrics.json {split}", record.numbers[split], computed)
    test = record.predictions["test"]
    computed = prediction_tables.predictions_digest(test.path, test.pred_N)
    recorded = record.numbers["predictions_digest"]
    agree("predictions_digest", (PREDICTIONS, computed), ("metrics.json", recorded))
    _check_class_files(record, record.tally(test))
    top1 = ", ".join(
        f"{name} top-1 {record.numbers[name]['top1']:.4f}" for name in record.predictions
    )
    source = "logits were not kept" if test.logits_NC is None else "from logits"
    return f"recomputed from {PREDICTIONS}: {top1} ({source}); per_class.csv, confusion.csv"


def _check_class_files(record: Record, matrix: np.ndarray) -> None:
    """Check worst_pairs, per_class.csv and confusion.csv against the confusion matrix of test."""
    recorded, labelmap = record.numbers["worst_pairs"], record.labelmap
    pairs = [
        {
            **pair,
            "label_name": labelmap.names[pair["label"]],
            "pred_name": labelmap.names[pair["pred"]],
        }
        for pair in metrics.worst_pairs(matrix, prediction_tables.WORST)
    ]
    _compare("metrics.json worst_pairs", recorded, pairs)
    rows = metrics.class_rows(matrix, labelmap.names)
    for file, text in {
        "per_class.csv": prediction_tables.class_rows_csv(rows, labelmap),
        "confusion.csv": prediction_tables.confusion_csv(matrix, labelmap.names),
    }.items():
        if record.text(file) != text:
            raise DamageError(f"{file}: does not follow from {PREDICTIONS}")


def _check_columns(split: str, rows: Rows) -> None:
    """Check every column against the logits or, without logits, the columns against each other."""
    same = (
        _columns_match_logits(split, rows)
        if rows.logits_NC is not None
        else _columns_match_each_other(rows)
    )
    if not same:
        raise DamageError(f"{PREDICTIONS}: columns of {split} contradict each other")


def _columns_match_logits(split: str, rows: Rows) -> bool:
    assert rows.logits_NC is not None
    n, classes = rows.logits_NC.shape
    manifest = Manifest(Path(), rows.path, rows.label_N, np.zeros(n, np.uint8), rows.sha256)
    predictions = Predictions(np.arange(n), rows.label_N, rows.logits_NC)
    derived = rows_of(
        prediction_tables.predictions_table(manifest, {split: predictions}), lambda: classes
    )
    columns = ("pred_N", "top_NK", "score_NK", "confidence_N", "label_logprob_N")
    return all(_alike(getattr(rows, name), getattr(derived, name)) for name in columns)


def _columns_match_each_other(rows: Rows) -> bool:
    """Whether pred and confidence are top-1, and a label in the top-k has its probability."""
    hit_NK = rows.top_NK == rows.label_N[:, None]
    label_prob_N = np.exp(rows.label_logprob_N)[hit_NK.any(axis=1)]
    return (
        _alike(rows.pred_N, rows.top_NK[:, 0])
        and _alike(rows.confidence_N, rows.score_NK[:, 0])
        and _alike(label_prob_N, rows.score_NK[hit_NK])
    )


def _alike(stored: np.ndarray, computed: np.ndarray) -> bool:
    return stored.shape == computed.shape and np.allclose(
        stored, computed, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True
    )


def comparability(record: Record) -> str:
    """Does the comparability key follow from the rest of the record?"""
    numbers = record.numbers
    parts = comparabilities.of_record(record.config, record.stamp, numbers, record.facts)
    for name, value in asdict(parts).items():
        recorded = ("metrics.json comparability", numbers["comparability"][name])
        agree(comparabilities.NAMES[name], ("the rest of the record", value), recorded)
    for name, value in (("comparability_key", parts.key), ("comparability_base", parts.base)):
        agree(name, ("the record", value), ("metrics.json", numbers[name]))
    return f"comparability_key {parts.key}"


def test_read_once(record: Record) -> str:
    """Was the test split read once, or repeatedly for the same answer only?

    If a process is killed between reading test and completing the record, the next process of the
    run reads test again, and the record counts both reads. This is not a leak if config, code, data
    and weights of every read are those of the record.
    """
    reads, entries = record.numbers["test_reads"], record.numbers[TEST_READ_LOG]
    agree("test_reads", (TEST_READ_LOG, len(entries)), ("metrics.json", reads))
    if not entries:
        raise DamageError(f"metrics.json: {TEST_READ_LOG} lists no read of the test split")
    for number, entry in enumerate(entries, start=1):
        place = f"metrics.json: {TEST_READ_LOG}, read {number}"
        for key in SAME_PREDICTION_KEYS:
            agree(key, ("the stamp", record.stamp[key]), (place, entry[key]))
    count = "once"
    if reads > 1:
        count = (
            f"{reads} times, each for the same answer: earlier processes of this run were stopped"
        )
    return f"{count}; resolution {record.stamp['resolution']} px, top-1 and loss from the last read"


def _compare(where: str, stored: Any, computed: Any) -> None:
    """Raise DamageError at the first stored value that differs from the computed value."""
    if isinstance(computed, Mapping):
        if not isinstance(stored, Mapping) or stored.keys() != computed.keys():
            raise DamageError(f"{where}: its keys differ from those that this version writes")
        for key, value in computed.items():
            _compare(f"{where} {key}", stored[key], value)
    elif isinstance(computed, list):
        if not isinstance(stored, list) or len(stored) != len(computed):
            raise DamageError(f"{where}: {stored}, recomputed {computed}")
        for place, value in enumerate(computed):
            _compare(f"{where} {place}", stored[place], value)
    elif not _same(stored, computed):
        raise DamageError(f"{where}: {stored}, recomputed {computed}")


def _same(stored: Any, computed: Any) -> bool:
    if isinstance(computed, float) and isinstance(stored, int | float):
        return math.isclose(stored, computed, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return type(stored) is type(computed) and stored == computed
