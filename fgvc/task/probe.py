"""task=probe: frozen features -> a head chosen on validation, refitted, and read on test once.

N images, D feature width, C classes.
"""

from __future__ import annotations

import numpy as np
import torch

from fgvc.config.compose import resolved
from fgvc.pipeline import fit_head, write_run
from fgvc.pipeline.experiment import (
    Experiment,
    Outcome,
    find_complete_run,
    fit_record,
    open_experiment,
    predictions,
)
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


def _probe(job: Experiment) -> Outcome:
    manifest, split = job.dataset.manifest, job.dataset.split
    fit_head.check_fit(job)
    features = job.extractor.features("train", np.flatnonzero(manifest.split_N != TEST))
    train, val = _rows_of(features, split.train_N), _rows_of(features, split.val_N)
    fitted = fit_head.fit_head(job, train, val)
    splits: dict[str, Predictions] = {}
    if len(split.val_N):
        splits["val"] = predict(job, fitted.val_head, val)
    test = job.extractor.features("test", split.test_N)  # read here, once, when all is chosen
    splits["test"] = predict(job, fitted.final_head, test)
    fitted_N = np.concatenate([train.row_N, val.row_N]) if fit_head.does_refit(job) else train.row_N
    chose_N = val.row_N if fitted.numbers["selection"] is not None else val.row_N[:0]
    return Outcome(
        splits,
        fitted.final_head.state_dict(),
        {**fitted.numbers, "fitted_on": len(fitted_N)},
        fit_record(job, fitted_N, chose_N),
        features=test,
        looks=job.extractor.looks,
        notes=fitted.notes,
        unreadable=(*features.bad, *test.bad),
    )


@torch.inference_mode()
def predict(job: Experiment, head: torch.nn.Module, features: Features) -> Predictions:
    """What a head says of features."""
    return predictions(features, job.dataset, score(head, features.x_ND, job.classes))


@torch.inference_mode()
def score(head: torch.nn.Module, x_ND: np.ndarray, classes: int, chunk: int = 4096) -> np.ndarray:
    """Logits of cached features, in fixed chunks on the CPU: they repeat to the last bit."""
    parts = [head(torch.from_numpy(x_ND[i : i + chunk])) for i in range(0, len(x_ND), chunk)]
    return torch.cat(parts).numpy() if parts else np.empty((0, classes), np.float32)


def _rows_of(features: Features, row_N: np.ndarray) -> Features:
    """The features of some manifest rows, without those that could not be read (they count)."""
    kept_N = np.isin(features.row_N, row_N)
    wanted = set(row_N.tolist())
    bad = tuple(one for one in features.bad if one.row in wanted)
    return Features(features.x_ND[kept_N], features.row_N[kept_N], bad)
