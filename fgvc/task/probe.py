"""task=probe: frozen features -> a head selected on validation, refitted, evaluated once on test.

N images, D feature width, C classes.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from fgvc.config.config_hash import hashed
from fgvc.pipeline import cascade, certify, feature_rows, fit_head, write_run
from fgvc.pipeline.experiment import Experiment, Results, open_experiment
from fgvc.pipeline.inference import predict_features
from fgvc.pipeline.job import Job, Skipped
from fgvc.pipeline.reference import ReferenceExtractor
from fgvc.types import TEST, Predictions


def run(job: Job) -> Skipped | None:
    """Fit and evaluate a head, and write the run folder.

    Raises:
        UserError: data, weights, device or folder do not match the command.
    """
    with open_experiment("probe", job, job.conf, hashed(job.conf)) as experiment:
        if skipped := experiment.find_complete_run():
            return skipped
        write_run.write_run(experiment, _probe(experiment))
    return None


def _probe(experiment: Experiment) -> Results:
    manifest, split = experiment.dataset.manifest, experiment.dataset.split
    fit_head.check_fit(experiment)
    features = experiment.extractor.extract("train", np.flatnonzero(manifest.split_N != TEST))
    train, val = (feature_rows.select(features, row_N) for row_N in (split.train_N, split.val_N))
    fitted = fit_head.fit_head(experiment, train, val)
    predictions: dict[str, Predictions] = {} if fitted.val is None else {"val": fitted.val}
    head, task, bound = fitted.final_head, experiment.conf.task, None
    reference = ReferenceExtractor(experiment.extractor)
    if task.cascade is not None:
        bound = cascade.learn_bound(experiment, head, features, reference, task.cascade)
    # test is read here, once, after all choices
    test = experiment.extractor.extract("test", split.test_N)
    fast = predict_features(head, test, experiment.dataset)
    predictions["test"], checks = certify.check_predictions(
        experiment,
        fast,
        partial(reference.predict, head),
        task.certify,
        bound,
        partial(reference.repeat, head, test),
    )
    reference.end()
    refitted_N = val.row_N if fit_head.does_refit(experiment) else val.row_N[:0]
    fitted_N = np.concatenate([train.row_N, refitted_N])
    selection_N = val.row_N if fitted.numbers["selection"] is not None else val.row_N[:0]
    return Results(
        predictions,
        head.state_dict(),
        {**fitted.numbers, "fitted_on": len(fitted_N), **checks},
        experiment.digest_fitted_images(fitted_N, selection_N),
        features=test,
        attention_maps=experiment.extractor.attention_maps,
        notes=fitted.notes,
        unreadable=(*features.bad, *test.bad),
        class_means=experiment.class_means(feature_rows.select(features, fitted_N)),
        cascade=bound,
    )
