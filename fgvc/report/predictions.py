"""predictions.parquet of a run -> which test images it got right, in an order all runs share.

N test images.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fgvc.record import prediction_tables, verify
from fgvc.record.verify import DamageError
from fgvc.report.run_rows import Run
from fgvc.types import nfc

FILE = "predictions.parquet"
COLUMNS = ["path", "split", "label", "pred"]
# what reading a Parquet file of odd content raises: its header alone gives a bare OSError
ODD = (pa.ArrowException, OSError, LookupError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class TestPredictions:
    """right_N: bool, by path. images: digest of the paths and labels behind it, so that two runs
    are joined on path by comparing one text. predictions: digest of the predicted classes by path;
    runs on the same images with equal digests have identical predictions."""

    right_N: np.ndarray
    images: str
    predictions: str


def read_test_predictions(run: Run) -> TestPredictions:
    """The answers to the test images.

    Raises:
        DamageError: the file is missing, changed, no Parquet, or contradicts metrics.json.
    """
    data = verify.read_verified(run.path, FILE, verify.read_index(run.path))
    try:
        answers = _by_path(prediction_tables.read_predictions(data, COLUMNS))
    except ODD as error:
        raise DamageError(f"{FILE}: not one that this version reads") from error
    if int(answers.right_N.sum()) != round(run.top1 * run.n) or len(answers.right_N) != run.n:
        raise DamageError(f"{FILE}: contradicts metrics.json")
    return answers


def _by_path(table: pa.Table) -> TestPredictions:
    # plain lists: Arrow's own filters and sorts wait for pandas, which takes longer than they do
    columns = zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)
    test = sorted(
        (nfc(path), label, pred) for path, split, label, pred in columns if split == "test"
    )
    label_N, pred_N = (np.array([row[at] for row in test], np.int64) for at in (1, 2))
    running = hashlib.sha256("\n".join(path for path, _, _ in test).encode())
    running.update(label_N.tobytes())
    predictions = hashlib.sha256(pred_N.tobytes()).hexdigest()
    return TestPredictions(label_N == pred_N, running.hexdigest(), predictions)
