"""task=eval: a checkpoint -> its own config -> the same evaluation again, in a new run folder.

The config comes from the checkpoint; the command may only say where things lie and how to run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from fgvc.config.compose import resolved, typed
from fgvc.config.errors import ConfigError
from fgvc.config.overrides import declared_values
from fgvc.pipeline import restore, write_run
from fgvc.pipeline.experiment import Experiment, Results, find_complete_run, open_experiment
from fgvc.pipeline.features import measure_cost
from fgvc.pipeline.inference import classify, predict_features
from fgvc.pipeline.job import Job, Skipped
from fgvc.pipeline.restore import StoredCheckpoint
from fgvc.record import console
from fgvc.types import AttentionMaps, Features, Predictions, UserError


def run(job: Job) -> Skipped | None:
    """Evaluate a checkpoint on its dataset's test images.

    Raises:
        ConfigError: several processes for a checkpoint that holds its backbone.
        UserError: the checkpoint is damaged, or its label map, weights or preprocessing are not
            those found here.
    """
    kept = restore.load_checkpoint(job)
    cfg = restore.merge_config(kept, job)
    conf = restore.set_norm_eps(kept, typed(cfg))
    restore.check_weights_found(kept, conf)
    if kept.embedded_weights and conf.runtime.nproc != 1:
        raise ConfigError(
            f"runtime.nproc={conf.runtime.nproc}: {kept.file} holds a finetuned backbone, whose "
            "features are not cached; task=eval runs it as 1"
        )
    plain = kept.metadata["hashed"] if kept.embedded_weights else resolved(cfg)
    restore.check_config_hash(kept, plain)
    given = declared_values(job.overrides).get("backbone.weights")
    source = restore.find_weights(kept, conf, given)
    with open_experiment("eval", conf, plain, job.command, source=source) as experiment:
        if skipped := find_complete_run(experiment, kept.id):
            return skipped
        _check(experiment, kept)
        outcome = _whole(experiment, kept) if kept.embedded_weights else _head(experiment, kept)
        write_run.write_run(experiment, outcome)
    return None


def _check(job: Experiment, kept: StoredCheckpoint) -> None:
    recorded, here = kept.metadata["labelmap"], job.dataset.labelmap
    if recorded["ids"] != list(here.ids) or recorded["names"] != list(here.names):
        raise UserError(
            f"{kept.file} was made for {len(recorded['ids'])} classes ({recorded['names'][0]} …), "
            f"{job.conf.dataset.root} has {len(here)} ({here.names[0]} …): another label map"
        )
    kept.check(job.extractor.source, job.extractor.preprocess)
    if kept.metadata["answer"]["manifest_digest"] != job.dataset.manifest.digest:
        console.say("note: the images here are not the ones the checkpoint was evaluated on")


def _head(job: Experiment, kept: StoredCheckpoint) -> Results:
    features = job.extractor.extract("test", job.dataset.split.test_N)
    test = predict_features(kept.head(job.conf), features, job.dataset)
    return _outcome(kept, test, features, job.extractor.attention_maps)


def _whole(job: Experiment, kept: StoredCheckpoint) -> Results:
    device, row_N = job.extractor.device, job.dataset.split.test_N
    model = kept.classifier(job.conf, job.extractor.source, device)
    job.record_test_read()
    start = time.monotonic()
    results = classify(
        model, job.conf, job.dataset, row_N, device, job.extractor.check_readable, features=True
    )
    rate = len(row_N) / max(time.monotonic() - start, 1e-9)
    job.extractor.counters.forwarded += len(row_N)
    cost = measure_cost(model.backbone, rate, device)
    assert results.features is not None
    return _outcome(kept, results.predictions, results.features, results.attention_maps, cost)


def _outcome(
    kept: StoredCheckpoint,
    test: Predictions,
    features: Features,
    looks: AttentionMaps | None,
    cost: Mapping[str, object] | None = None,
) -> Results:
    return Results(
        {"test": test},
        kept.file,
        {"selection": None, "fitted_on": len(kept.fit.image_N)},
        kept.fit,
        cost=cost,
        features=features,
        attention_maps=looks,
        notes=tuple(f"of the fit: {note}" for note in kept.metadata["fit"]["notes"]),
        unreadable=features.bad,
    )
