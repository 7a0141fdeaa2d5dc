"""predictions.parquet of a run -> which test images are right, in an order that all runs share.

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
# errors of reading a Parquet file with unexpected content; a wrong header raises OSError
READ_ERRORS = (pa.ArrowException, OSError, LookupError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class RunPredictions:
    """Predictions for the test images, sorted by path.

    right_N: bool. images_digest: of paths and labels; runs with equal digests are paired image by
    image. predictions_digest: of the predicted classes.
    """

    right_N: np.ndarray
    images_digest: str
    predictions_digest: str


def read_test_predictions(run: Run) -> RunPredictions:
    """Read the predictions for the test images.

    Raises:
        DamageError: the file is missing, changed, not Parquet, or contradicts metrics.json.
    """
    data = verify.read_verified(run.path, FILE, verify.read_index(run.path))
    try:
        predictions = _sort_by_path(prediction_tables.read_predictions(data, COLUMNS))
    except READ_ERRORS as error:
        raise DamageError(f"{FILE}: not readable by this version") from error
    hits, n = int(predictions.right_N.sum()), len(predictions.right_N)
    if hits != round(run.top1 * run.n) or n != run.n:
        raise DamageError(f"{FILE}: contradicts metrics.json")
    return predictions


def _sort_by_path(table: pa.Table) -> RunPredictions:
    # lists of Python values: the filters and sorts of Arrow import pandas, which takes longer
    columns = zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)
    test_rows = sorted(
        (nfc(path), label, pred) for path, split, label, pred in columns if split == "test"
    )
    label_N, pred_N = (np.array([row[at] for row in test_rows], np.int64) for at in (1, 2))
    images_digest = hashlib.sha256("\n".join(path for path, _, _ in test_rows).encode())
    images_digest.update(label_N.tobytes())
    predictions = hashlib.sha256(pred_N.tobytes()).hexdigest()
    return RunPredictions(label_N == pred_N, images_digest.hexdigest(), predictions)
