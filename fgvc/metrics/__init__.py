"""Logits and labels -> numbers with intervals: pure functions, one version of the code for all."""

from fgvc.metrics.bootstrap import Difference, bootstrap_mean_per_class, bootstrap_top1
from fgvc.metrics.calibration import expected_calibration_error
from fgvc.metrics.classification import (
    UNREADABLE,
    VERSION,
    ClassRow,
    class_rows,
    confusion,
    evaluate,
    log_probabilities,
    per_class,
    readable,
    summary,
    tally,
    topk,
    worst_pairs,
)
from fgvc.metrics.confidence_intervals import class_intervals, wilson
from fgvc.metrics.hierarchy import Tree, build_tree, hierarchical_metrics
from fgvc.metrics.multiple_testing import all_pairs, holm
from fgvc.metrics.paired_tests import (
    NULL_HYPOTHESIS,
    Discordance,
    Top1Comparison,
    compare_top1,
    mcnemar,
    sign_flip,
)

__all__ = [
    "NULL_HYPOTHESIS",
    "UNREADABLE",
    "VERSION",
    "ClassRow",
    "Difference",
    "Discordance",
    "Top1Comparison",
    "Tree",
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
