"""Fast test predictions -> cascade and certificate: small margins repeated, and a check in float32.

task.certify: how many predictions differ in float32, and the upper limit that follows.

The images are drawn by the digest of config, images, weights and predictions. The float32
predictions are those of the same head.
N images, n drawn images, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fgvc import metrics
from fgvc.pipeline import cascade
from fgvc.pipeline.cascade import Repeat
from fgvc.pipeline.experiment import Experiment
from fgvc.record import precision_checks, prediction_tables
from fgvc.types import Predictions

Predict = Callable[[np.ndarray], Predictions]  # manifest rows, ascending -> theirs in float32


def check_predictions(
    experiment: Experiment,
    fast: Predictions,
    predict: Predict,
    count: int | None,
    bound: Mapping[str, Any] | None = None,
    repeat: Repeat | None = None,
) -> tuple[Predictions, dict[str, Any]]:
    """The test predictions of the record, and the entries of metrics.json on their precision.

    Args:
        count: task.certify; None: nothing is checked.
        bound, repeat: of the cascade; None: no image is repeated.
    """
    numbers: dict[str, Any] = {}
    if bound is not None:
        assert repeat is not None
        fast, numbers[precision_checks.CASCADE] = cascade.repeat_small_margins(fast, repeat, bound)
    if count is not None:
        numbers[precision_checks.CERTIFICATE] = certify(experiment, fast, predict, count)
    return fast, numbers


def certify(
    experiment: Experiment, test: Predictions, predict: Predict, count: int
) -> dict[str, Any]:
    """The certificate of the test predictions, as plain data for metrics.json.

    Args:
        test: the predictions of the record.
        count: readable test images to check; all, if there are fewer.
    """
    manifest, weights = experiment.dataset.manifest, experiment.extractor.source
    path = [manifest.path[row] for row in test.row_N.tolist()]
    pred_N = test.pred_N
    seed = precision_checks.digest(
        experiment.config_hash,
        manifest.digest,
        weights.sha256,
        prediction_tables.predictions_digest(path, pred_N),
    )
    index_N = np.flatnonzero(pred_N != metrics.UNREADABLE)
    drawn_n = index_N[precision_checks.draw(seed, [path[index] for index in index_N], count)]
    reference_n = predict(test.row_N[drawn_n]).pred_N
    differing = [
        {"path": path[index], "pred": int(pred_N[index]), "fp32": int(exact)}
        for index, exact in zip(drawn_n.tolist(), reference_n.tolist(), strict=True)
        if pred_N[index] != exact
    ]
    return {
        "images": len(drawn_n),
        "of": len(index_N),
        "differing": differing,
        "limit": precision_checks.limit(len(differing), len(drawn_n), len(index_N)),
        "level": precision_checks.LEVEL,
        "seed": seed,
        "drawn": precision_checks.digest_paths([path[index] for index in drawn_n]),
    }
