"""task=eval: a checkpoint -> its config -> the same evaluation again, in a new run folder.

The config comes from the checkpoint; the command may only set paths and `runtime.*`.
"""

from __future__ import annotations

import os
from functools import partial

import numpy as np

from fgvc.config.compose import resolved
from fgvc.config.errors import ConfigError
from fgvc.config.schema import is_exact
from fgvc.parallel.cpu_load import cpu_times
from fgvc.pipeline import cascade, certify, restore, write_run
from fgvc.pipeline.experiment import Experiment, Results, open_experiment
from fgvc.pipeline.features import measure_cost
from fgvc.pipeline.inference import classify, predict_features
from fgvc.pipeline.job import Job, Skipped
from fgvc.pipeline.reference import ReferenceExtractor, exact, exact_products
from fgvc.pipeline.restore import StoredCheckpoint
from fgvc.record import console
from fgvc.types import Predictions, UserError


def run(job: Job) -> Skipped | None:
    """Evaluate a checkpoint on its dataset's test images.

    Raises:
        ConfigError: several processes for a checkpoint that holds its backbone.
        UserError: the checkpoint is damaged, or its label map, weights or preprocessing differ
            from those found here.
    """
    stored = restore.load_checkpoint(job)
    cfg = restore.merge_config(stored, job)
    conf = restore.checked_config(stored, cfg)
    processes = int(os.environ.get("WORLD_SIZE", conf.runtime.nproc))  # torchrun sets it
    if stored.whole and processes != 1:
        raise ConfigError(
            f"runtime.nproc={processes}: {stored.file} holds a finetuned backbone, whose "
            "features are not cached: task=eval runs it in 1 process"
        )
    plain = stored.metadata["hashed"] if stored.whole else resolved(cfg)
    restore.check_config_hash(stored, plain)
    source = restore.find_weights(stored, conf, job)
    with open_experiment("eval", job, conf, plain, source=source) as experiment:
        if skipped := experiment.find_complete_run(stored.id):
            return skipped
        write_run.write_run(experiment, _evaluate(experiment, stored, job.conf.task.certify))
    return None


def _evaluate(experiment: Experiment, stored: StoredCheckpoint, count: int | None) -> Results:
    """count: task.certify of this command."""
    conf, dataset, extractor = experiment.conf, experiment.dataset, experiment.extractor
    recorded, here = stored.metadata["labelmap"], dataset.labelmap
    if recorded["ids"] != list(here.ids) or recorded["names"] != list(here.names):
        raise UserError(
            f"{stored.file}: made for {len(recorded['ids'])} classes ({recorded['names'][0]} …), "
            f"{conf.dataset.root} has {len(here)} ({here.names[0]} …): another label map"
        )
    stored.check(extractor.source, extractor.preprocess)
    if stored.metadata["answer"]["manifest_digest"] != dataset.manifest.digest:
        console.say("note: the images here are not the ones the checkpoint was evaluated on")
    if count is not None and is_exact(conf):
        console.say(f"note: task.certify={count}: the checkpoint computes every image in fp32")
        count = None
    row_N, bound, cost = dataset.split.test_N, cascade.stored_bound(stored), None
    if stored.whole:
        model = stored.classifier(conf, None, extractor.device)
        experiment.record_test_read()
        start = cpu_times()
        results = classify(
            model, conf, dataset, row_N, extractor.device, extractor.check_readable, features=True
        )
        rate = extractor.measured_rate(len(row_N), cpu_times() - start)
        extractor.counters.forwarded += len(row_N)
        cost = measure_cost(model.backbone, rate, extractor.device)
        fast, features, maps = results.predictions, results.features, results.attention_maps
        assert features is not None

        def predict(row_N: np.ndarray) -> Predictions:
            extractor.counters.forwarded += len(row_N)
            with exact_products(conf):
                return classify(
                    model, exact(conf), dataset, row_N, extractor.device, extractor.check_readable
                ).predictions

        test, checks = certify.check_predictions(experiment, fast, predict, count)
    else:
        head, reference = stored.head(conf), ReferenceExtractor(extractor)
        features = extractor.extract("test", row_N)
        fast = predict_features(head, features, dataset)
        predict, repeat = (
            partial(reference.predict, head),
            partial(reference.repeat, head, features),
        )
        test, checks = certify.check_predictions(experiment, fast, predict, count, bound, repeat)
        reference.end()
        maps = extractor.attention_maps
    return Results(
        {"test": test},
        stored.file,
        {"selection": None, "fitted_on": len(stored.fitted_images.image_N), **checks},
        stored.fitted_images,
        cost=cost,
        features=features,
        attention_maps=maps,
        notes=tuple(f"of the fit: {note}" for note in stored.metadata["fit"]["notes"]),
        unreadable=features.bad,
    )
