"""Logits and labels -> numbers with intervals: pure functions, one version of the code for all."""

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
from fgvc.metrics.hierarchy import Tree, hierarchical, tree
from fgvc.metrics.interval import class_intervals, wilson
from fgvc.metrics.paired import (
    Difference,
    Discordance,
    bootstrap_mean_per_class,
    bootstrap_top1,
    holm,
    mcnemar,
)

__all__ = [
    "UNREADABLE",
    "VERSION",
    "ClassRow",
    "Difference",
    "Discordance",
    "Tree",
    "bootstrap_mean_per_class",
    "bootstrap_top1",
    "class_intervals",
    "class_rows",
    "confusion",
    "evaluate",
    "expected_calibration_error",
    "hierarchical",
    "holm",
    "log_probabilities",
    "mcnemar",
    "per_class",
    "readable",
    "summary",
    "tally",
    "topk",
    "tree",
    "wilson",
    "worst_pairs",
]
