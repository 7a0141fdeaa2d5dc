"""Numbers of a record -> whether they follow from the stored predictions.

Logits -> columns of predictions.parquet -> metrics.json, per_class.csv, confusion.csv: each step is
recomputed with fgvc.metrics. N images, C classes.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from fgvc import metrics
from fgvc.record import comparability as comparabilities
from fgvc.record import prediction_tables
from fgvc.record.run_dir import TEST_READ_LOG
from fgvc.record.verify import DamageError
from fgvc.report.audit.check import TOLERANCE, agree, require_same
from fgvc.report.audit.record import PREDICTIONS, SPLITS, Record, Rows, rows_of
from fgvc.types import Manifest, Predictions

CLASS_FILES = ("per_class.csv", "confusion.csv")
SAME_PREDICTION_KEYS = ("task", "config_hash", "git_commit", "code_patch_sha256", "weights_digest")
SAME_PREDICTION_KEYS += ("manifest_digest", "split_digest", "labelmap_digest")


def metrics_follow(record: Record) -> str:
    """Do metrics.json, per_class.csv and confusion.csv follow from the predictions?"""
    version = record.numbers["metric_version"]
    agree("metric_version", ("fgvc", metrics.VERSION), ("metrics.json", version))
    recorded = sorted(name for name in SPLITS if name in record.numbers)
    predicted = (PREDICTIONS, sorted(record.predictions))
    agree("splits with numbers", predicted, ("metrics.json", recorded))
    for split, rows in record.predictions.items():
        _check_columns(split, rows)
        columns = (rows.top_NK, rows.label_N, rows.label_logprob_N, rows.confidence_N)
        computed = metrics.summary(*columns, len(record.labelmap))
        computed |= metrics.class_intervals(record.tally(rows))
        if record.hierarchy is not None:
            computed |= metrics.hierarchical_metrics(rows.top_NK, rows.label_N, record.hierarchy)
        require_same(f"metrics.json {split}", record.numbers[split], computed)
    test = record.predictions["test"]
    computed = prediction_tables.predictions_digest(test.path, test.pred_N)
    recorded = record.numbers["predictions_digest"]
    agree("predictions_digest", (PREDICTIONS, computed), ("metrics.json", recorded))
    _check_class_files(record, record.tally(test))
    top1 = (f"{name} top-1 {record.numbers[name]['top1']:.4f}" for name in record.predictions)
    source = "logits were not kept" if test.logits_NC is None else "from logits"
    return f"recomputed from {PREDICTIONS}: {', '.join(top1)} ({source}); {', '.join(CLASS_FILES)}"


def _check_class_files(record: Record, matrix: np.ndarray) -> None:
    """Check worst_pairs, per_class.csv and confusion.csv against the confusion matrix of test."""
    labelmap, names, pairs = record.labelmap, record.labelmap.names, []
    for pair in metrics.worst_pairs(matrix, prediction_tables.WORST):
        label, pred = names[pair["label"]], names[pair["pred"]]
        pairs.append({**pair, "label_name": label, "pred_name": pred})
    require_same("metrics.json worst_pairs", record.numbers["worst_pairs"], pairs)
    per_class = prediction_tables.class_rows_csv(metrics.class_rows(matrix, names), labelmap)
    texts = (per_class, prediction_tables.confusion_csv(matrix, names))
    for file, text in zip(CLASS_FILES, texts, strict=True):
        if record.text(file) != text:
            raise DamageError(f"{file}: does not follow from {PREDICTIONS}")


def _check_columns(split: str, rows: Rows) -> None:
    """Check every column against the logits; without logits, pred and confidence against top-1, and
    the probability of a label in the top-k against its score."""
    if rows.logits_NC is not None:
        n, classes = rows.logits_NC.shape
        manifest = Manifest(Path(), rows.path, rows.label_N, np.zeros(n, np.uint8), rows.sha256)
        predictions = Predictions(np.arange(n), rows.label_N, rows.logits_NC)
        table = prediction_tables.predictions_table(manifest, {split: predictions})
        derived, columns = rows_of(table, lambda: classes), ("pred_N", "top_NK", "score_NK")
        columns += ("confidence_N", "label_logprob_N")
        pairs = [(getattr(rows, name), getattr(derived, name)) for name in columns]
    else:
        hit_NK = rows.top_NK == rows.label_N[:, None]
        pairs = [
            (rows.pred_N, rows.top_NK[:, 0]),
            (rows.confidence_N, rows.score_NK[:, 0]),
            (np.exp(rows.label_logprob_N)[hit_NK.any(axis=1)], rows.score_NK[hit_NK]),
        ]
    if not all(
        a_N.shape == b_N.shape
        and np.allclose(a_N, b_N, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        for a_N, b_N in pairs
    ):
        raise DamageError(f"{PREDICTIONS}: columns of {split} contradict each other")


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
    times = f"{reads} times, each for the same answer: earlier processes of this run were stopped"
    count = "once" if reads == 1 else times
    return f"{count}; resolution {record.stamp['resolution']} px, top-1 and loss from the last read"
