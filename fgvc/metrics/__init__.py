"""Logits and labels -> metrics with intervals: pure functions with one code version for all."""

from fgvc.metrics.bootstrap import bootstrap_mean_per_class, bootstrap_top1
from fgvc.metrics.classification import (
    UNREADABLE,
    VERSION,
    ClassRow,
    class_rows,
    confusion,
    evaluate,
    expected_calibration_error,
    log_probabilities,
    per_class,
    readable,
    summary,
    tally,
    topk,
    worst_pairs,
)
from fgvc.metrics.confidence_intervals import class_intervals, wilson
from fgvc.metrics.hierarchy import build_tree, hierarchical_metrics
from fgvc.metrics.paired_tests import (
    NULL_HYPOTHESIS,
    all_pairs,
    compare_top1,
    holm,
    mcnemar,
    sign_flip,
)

__all__ = [
    "NULL_HYPOTHESIS",
    "UNREADABLE",
    "VERSION",
    "ClassRow",
    "all_pairs",
    "bootstrap_mean_per_class",
    "bootstrap_top1",
    "build_tree",
    "class_intervals",
    "class_rows",
    "compare_top1",
    "confusion",
    "evaluate",
    "expected_calibration_error",
    "hierarchical_metrics",
    "holm",
    "log_probabilities",
    "mcnemar",
    "per_class",
    "readable",
    "sign_flip",
    "summary",
    "tally",
    "topk",
    "wilson",
    "worst_pairs",
]
