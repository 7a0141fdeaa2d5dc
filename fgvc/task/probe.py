"""task=probe: frozen features -> a head chosen on validation, refitted, and read on test once.

N images, D feature width, C classes.
"""

from __future__ import annotations

import numpy as np

from fgvc.config.compose import resolved
from fgvc.pipeline import fit_head, write_run
from fgvc.pipeline.experiment import (
    Experiment,
    Results,
    describe_fit,
    find_complete_run,
    open_experiment,
)
from fgvc.pipeline.inference import predict_features
from fgvc.pipeline.job import Job, Skipped
from fgvc.types import TEST, Features, Predictions


def run(job: Job) -> Skipped | None:
    """Run one probe into its run folder.

    Raises:
        UserError: data, weights, device or folder are not what the command says they are.
    """
    with open_experiment("probe", job.conf, resolved(job.cfg), job.command) as experiment:
        if skipped := find_complete_run(experiment):
            return skipped
        write_run.write_run(experiment, _probe(experiment))
    return None


def _probe(job: Experiment) -> Results:
    manifest, split = job.dataset.manifest, job.dataset.split
    fit_head.check_fit(job)
    features = job.extractor.extract("train", np.flatnonzero(manifest.split_N != TEST))
    train, val = _rows_of(features, split.train_N), _rows_of(features, split.val_N)
    fitted = fit_head.fit_head(job, train, val)
    splits: dict[str, Predictions] = {}
    if len(split.val_N):
        splits["val"] = predict_features(fitted.val_head, val, job.dataset)
    test = job.extractor.extract("test", split.test_N)  # read here, once, when all is chosen
    splits["test"] = predict_features(fitted.final_head, test, job.dataset)
    fitted_N = np.concatenate([train.row_N, val.row_N]) if fit_head.does_refit(job) else train.row_N
    chose_N = val.row_N if fitted.numbers["selection"] is not None else val.row_N[:0]
    return Results(
        splits,
        fitted.final_head.state_dict(),
        {**fitted.numbers, "fitted_on": len(fitted_N)},
        describe_fit(job, fitted_N, chose_N),
        features=test,
        attention_maps=job.extractor.attention_maps,
        notes=fitted.notes,
        unreadable=(*features.bad, *test.bad),
    )


def _rows_of(features: Features, row_N: np.ndarray) -> Features:
    """The features of some manifest rows, without those that could not be read (they count)."""
    kept_N = np.isin(features.row_N, row_N)
    wanted = set(row_N.tolist())
    bad = tuple(one for one in features.bad if one.row in wanted)
    return Features(features.x_ND[kept_N], features.row_N[kept_N], bad)
