"""Logits and labels -> numbers with intervals: pure functions, one version of the code for all."""

from fgvc.metrics.calibration import expected_calibration_error
from fgvc.metrics.classification import (
    UNREADABLE,
    VERSION,
    confusion,
    evaluate,
    log_probabilities,
    per_class,
    readable,
    topk,
    worst_pairs,
)
from fgvc.metrics.interval import wilson

__all__ = [
    "UNREADABLE",
    "VERSION",
    "confusion",
    "evaluate",
    "expected_calibration_error",
    "log_probabilities",
    "per_class",
    "readable",
    "topk",
    "wilson",
    "worst_pairs",
]
