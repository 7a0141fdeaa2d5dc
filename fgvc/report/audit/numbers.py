"""Numbers of a record -> whether they follow from the stored predictions.

Logits -> columns of predictions.parquet -> metrics.json, per_class.csv, confusion.csv: each step is
recomputed with fgvc.metrics. N images, M of them readable, K top predictions.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from scipy.special import entr

from fgvc import metrics
from fgvc.record import comparability as comparabilities
from fgvc.record import prediction_tables
from fgvc.record.run_dir import TEST_READ_LOG
from fgvc.record.verify import DamageError
from fgvc.report.audit.check import TOLERANCE, agree, require_same
from fgvc.report.audit.record import PREDICTIONS, SPLITS, Record, Rows
from fgvc.types import ConfusionCounts

DERIVED = ("top_NK", "score_NK", "label_logprob_N")  # columns of Rows that follow from logits
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
        _check_columns(split, rows, len(record.labelmap))
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
    source = "from logits"
    if test.logits_NC is None:
        source = "from its columns, which agree with each other: logits were not kept"
    evidence = f"{', '.join(top1)} ({source}), to {TOLERANCE:g}; {', '.join(CLASS_FILES)}"
    return f"recomputed from {PREDICTIONS}: {evidence}"


def _check_class_files(record: Record, counts: ConfusionCounts) -> None:
    """Check worst_pairs, per_class.csv and confusion.csv against the confusion matrix of test."""
    labelmap, names, pairs = record.labelmap, record.labelmap.names, []
    for pair in metrics.worst_pairs(counts, prediction_tables.WORST):
        label, pred = names[pair["label"]], names[pair["pred"]]
        pairs.append({**pair, "label_name": label, "pred_name": pred})
    require_same("metrics.json worst_pairs", record.numbers["worst_pairs"], pairs)
    per_class = prediction_tables.class_rows_csv(metrics.class_rows(counts, names), labelmap)
    texts = (per_class, prediction_tables.confusion_csv(counts, names))
    for file, text in zip(CLASS_FILES, texts, strict=True):
        if record.text(file) != text:
            raise DamageError(f"{file}: does not follow from {PREDICTIONS}")


def _check_columns(split: str, rows: Rows, classes: int) -> None:
    """Check every column against the logits; without logits, the columns against each other."""
    if rows.logits_NC is not None:
        derived = rows.predictions(np.arange(len(rows.label_N)))
        assert derived is not None
        pairs = [
            (rows.pred_N, derived.pred_N),
            (rows.confidence_N, derived.score_NK[:, 0]),
            *((getattr(rows, name), getattr(derived, name)) for name in DERIVED),
        ]
    else:
        pairs = _related_columns(rows, classes)
    if not all(
        a_N.shape == b_N.shape
        and np.allclose(a_N, b_N, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        for a_N, b_N in pairs
    ):
        raise DamageError(f"{PREDICTIONS}: columns of {split} contradict each other")


def _related_columns(rows: Rows, classes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of arrays that are equal in columns of the same logits, whatever the logits are.

    The top K are distinct classes; pred and confidence are those of top-1; the score of a label in
    the top K is its probability, a label outside has at most the K-th score; scores descend, and
    sum to at most 1; the entropy lies between those of the most and the least concentrated rest,
    and only readable images have one.
    """
    readable_N = rows.pred_N != metrics.UNREADABLE
    top_MK, score_MK = rows.top_NK[readable_N], rows.score_NK[readable_N]
    label_logprob_M, hit_NK = rows.label_logprob_N[readable_N], rows.top_NK == rows.label_N[:, None]
    last_M, rest_M = score_MK[:, -1], (1 - score_MK.sum(axis=1)).clip(0)
    outside_M = ~hit_NK[readable_N].any(axis=1)
    label_M = np.exp(label_logprob_M)
    order_MK = np.sort(top_MK, axis=1)
    distinct = (np.diff(order_MK) > 0).all() and (order_MK >= 0).all() and (top_MK < classes).all()
    pairs = [
        (np.array([distinct]), np.array([True])),
        (rows.pred_N, rows.top_NK[:, 0]),
        (rows.confidence_N, rows.score_NK[:, 0]),
        (np.exp(rows.label_logprob_N)[hit_NK.any(axis=1)], rows.score_NK[hit_NK]),
        (label_M[outside_M], np.minimum(label_M, np.minimum(last_M, rest_M))[outside_M]),
        (score_MK, np.minimum.accumulate(score_MK, axis=1)),
        (score_MK.sum(axis=1), score_MK.sum(axis=1).clip(0, 1)),
    ]
    if rows.entropy_N is not None:
        known_M = entr(score_MK).sum(axis=1)
        # each class of the rest has at most the K-th score, and together they have `rest`
        least_M = known_M - rest_M * np.log(np.maximum(last_M, 1e-300))
        most_M = known_M + entr(rest_M) + rest_M * np.log(max(classes - top_MK.shape[1], 1))
        entropy_M = rows.entropy_N[readable_N]
        pairs.append((entropy_M, entropy_M.clip(least_M, np.maximum(least_M, most_M))))
        pairs.append((np.isfinite(rows.entropy_N), readable_N))
    return pairs


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
