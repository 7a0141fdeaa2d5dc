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
    paths, label_N, pred_N = read_test_rows(run)
    images_digest = hashlib.sha256("\n".join(paths).encode())
    images_digest.update(label_N.tobytes())
    predictions = hashlib.sha256(pred_N.tobytes()).hexdigest()
    return RunPredictions(label_N == pred_N, images_digest.hexdigest(), predictions)


def read_test_rows(run: Run) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Sorted paths of the test images, their class indices and the predicted class indices.

    Raises:
        DamageError: as `read_test_predictions`.
    """
    data = verify.read_verified(run.path, FILE, verify.read_index(run.path))
    try:
        table = prediction_tables.read_predictions(data, COLUMNS)
        # lists of Python values: the filters and sorts of Arrow import pandas, which takes longer
        path, split, *numbers = (table[name].to_pylist() for name in COLUMNS)
        test_N = np.flatnonzero([name == "test" for name in split])
        paths = [nfc(path[row]) for row in test_N.tolist()]
        label_N, pred_N = (np.array(column, np.int64)[test_N] for column in numbers)
        # rows are mostly sorted already; of equal paths, by label, then prediction
        ties = (
            np.lexsort((pred_N, label_N)) if len(set(paths)) < len(paths) else np.arange(len(paths))
        )
        order = sorted(ties.tolist(), key=paths.__getitem__)
        label_N, pred_N = label_N[order], pred_N[order]
    except READ_ERRORS as error:
        raise DamageError(f"{FILE}: not readable by this version") from error
    hits, n = int((label_N == pred_N).sum()), len(paths)
    if hits != round(run.top1 * run.n) or n != run.n:
        raise DamageError(f"{FILE}: contradicts metrics.json")
    return [paths[row] for row in order], label_N, pred_N
