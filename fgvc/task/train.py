"""task=train: images -> a backbone and a head, finetuned together and selected on validation.

This module runs on rank 0, which writes the record. The steps are in pipeline/finetune.py, the
other ranks in launch/ddp_worker.py. Test is read once, at the end: with the weights that validation
selected (final_fit=train), or with the last (final_fit=trainval). With runtime.stop_before_test the
run ends before that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fgvc.config.config_hash import hashed
from fgvc.config.schema import reads_text
from fgvc.learn.train.optimiser import learning_rate
from fgvc.model.backbone.load_state import first_difference
from fgvc.parallel.process_group import ProcessGroup, join_group
from fgvc.pipeline import stop_before_test, write_run
from fgvc.pipeline.experiment import Experiment, Results, open_experiment
from fgvc.pipeline.feature_rows import select
from fgvc.pipeline.features import measure_cost
from fgvc.pipeline.finetune import Finetune, FinetuneSetup
from fgvc.pipeline.job import Job, Skipped
from fgvc.pipeline.resume import NO_ORIGIN, check_resume, copy_states, find_resume_point
from fgvc.pipeline.text_features import class_text_features
from fgvc.pipeline.training_log import TrainingLog, stop_after_step
from fgvc.record import console
from fgvc.record.fitted_images import FittedImages
from fgvc.record.resume_state import States
from fgvc.record.run_dir import RESUME
from fgvc.types import BadImage, UserError

KEEP = (RESUME, "run.log")  # kept from an earlier process of the same run


def run(job: Job) -> Skipped | None:
    """Finetune into a run folder, or resume where an earlier process of this run stopped.

    Raises:
        UserError: data, weights, device, state or folder do not match the command; the loss is not
            finite; memory ran out; a rank died.
        Preempted: stopped by a signal; the state is saved.
    """
    conf, plain = job.conf, hashed(job.conf)
    check_resume(conf, plain)
    grace = conf.runtime.stop_grace
    with join_group(conf.runtime.nproc, conf.runtime.device, grace) as group:
        if stop_before_test.is_validated(conf, plain):
            group.request(None)
            return Skipped(stop_before_test.run_folder(conf, plain))
        with open_experiment("train", job, conf, plain, KEEP, group) as experiment:
            if skipped := experiment.find_complete_run():
                group.request(None)
                return skipped
            results = _train(experiment, group)
            if conf.runtime.stop_before_test:
                stop_before_test.write_validation(experiment, results)
            else:
                write_run.write_run(experiment, results)
    return None


def _train(experiment: Experiment, group: ProcessGroup) -> Results:
    conf, dataset, extractor = experiment.conf, experiment.dataset, experiment.extractor
    states = States(experiment.run.path / RESUME, conf.runtime.keep_states)
    start, text_CD = find_resume_point(experiment, states), None
    if reads_text(conf):
        weight_CD, scale = class_text_features(experiment)
        text_CD = weight_CD * scale
    setup = FinetuneSetup(conf, dataset, extractor.source, text_CD, start and start.state)
    group.request(setup)
    with group.waiting(typical=False):
        finetune = Finetune(setup, group, extractor.device)
    for note in _schedule_notes(finetune):
        console.say(f"note: {note}")
    epochs, done = conf.task.epochs, finetune.trainer.done
    with stop_after_step() as should_stop, console.training(epochs, finetune.steps, done) as pulse:
        log = TrainingLog(experiment, states, start.origin if start else NO_ORIGIN, pulse)
        if start is not None:
            copy_states(experiment, states, start)  # it matches this model
            experiment.board.replay(tuple(point) for point in start.state["history"])
            console.say(f"resumed after step {done}")
        finetune.run(log, should_stop)
    return _evaluate(experiment, finetune, states, start and start.record, log.speed())


def _evaluate(
    experiment: Experiment,
    finetune: Finetune,
    states: States,
    resumed: dict[str, Any] | None,
    speed: dict[str, object],
) -> Results:
    """Evaluate the selected weights on test, once, unless the run stops before test."""
    model, best_epoch = finetune.trainer.evaluated_model(), finetune.trainer.best
    # under final_fit=trainval, a forced resume may bring weights selected on validation
    best = states.best() if finetune.data.validates else None
    steps, best_weights = best or (finetune.trainer.done, None)
    if best_weights and (difference := first_difference(best_weights, model.state_dict())):
        raise UserError(
            f"{states.folder}: the best weights of step {steps} are of another model: "
            f"{difference}. Train under a new runtime.run_id without runtime.resume"
        )
    final = finetune.evaluate(best_weights, experiment.record_test_read)
    lost = (resumed or {}).get("best_lost")  # a forced resume continued without it
    fitted_images = _digest_fitted_images(experiment, finetune, resumed or {}, final.unreadable)
    selection = {
        "select": experiment.conf.task.select if best else None,
        "best_epoch": best_epoch.epoch,
        "best_step": steps,
        "epochs": finetune.epoch,
        "steps": finetune.trainer.done,
        "stopped_early": best_epoch.exhausted,
        **({"best_lost": lost} if lost else {}),
    }
    rate = experiment.extractor.measured_rate(*finetune.evaluated, experiment.group.local_size)
    numbers = {
        "selection": selection,
        "last": {"val": final.last_val} if final.last_val else None,
        "fitted_on": len(fitted_images.image_N),
        "resumed": resumed,
        "training": speed,
    }
    by_split = {"val": final.val, "test": final.test}
    val = final.val and final.val.features
    return Results(
        {split: results.predictions for split, results in by_split.items() if results},
        model.state_dict(),
        numbers,
        fitted_images,
        has_backbone=True,
        cost=measure_cost(finetune.model.backbone, rate, experiment.extractor.device),
        steps=steps,
        features=final.test and final.test.features,
        attention_maps=final.test and final.test.attention_maps,
        notes=(*_schedule_notes(finetune), *(_lost_note(lost, best_epoch.epoch) if lost else ())),
        unreadable=final.unreadable,
        class_means=experiment.class_means(val and select(val, val.row_N), fitted_images),
    )


def _schedule_notes(finetune: Finetune) -> tuple[str, ...]:
    """Notes on a training that ends during warm-up, or whose batches leave images out."""
    task, steps, notes = finetune.conf.task, finetune.trainer.total, []
    if steps <= task.warmup_steps:
        peak = learning_rate(steps - 1, steps, task.learning_rate, task.warmup_steps, 0.0)
        notes.append(
            f"task.warmup_steps={task.warmup_steps}: the training has {steps} "
            f"step{'s' * (steps != 1)}, so the learning rate ends at {peak:.2g}, below "
            f"task.learning_rate={task.learning_rate:g}, and the model is hardly trained. "
            "Lower task.warmup_steps, or raise task.epochs"
        )
    order = finetune.data.order
    undrawn = 0 if finetune.data.overfits else len(order.undrawn(steps))
    if undrawn:
        notes.append(
            f"task.batch_size={task.batch_size}: {undrawn} of {len(order.row_N)} training images "
            "are in no batch, because an epoch has whole batches only. "
            "Lower task.batch_size, or raise task.epochs"
        )
    return tuple(notes)


def _lost_note(lost: Mapping[str, Any], epoch: int | None) -> tuple[str, ...]:
    chosen = "the last weights" if epoch is None else f"epoch {epoch}, the best of those after it"
    return (
        f"selection: the best weights of epoch {lost['epoch']} (step {lost['step']}) were lost "
        f"before a forced resume; the numbers are of {chosen}",
    )


def _digest_fitted_images(
    experiment: Experiment,
    finetune: Finetune,
    resumed: Mapping[str, Any],
    unreadable: tuple[BadImage, ...],
) -> FittedImages:
    """The images that fitted and selected the weights.

    The state of a forced resume may have been fitted on images that this config excludes:
    validation images under final_fit=trainval, or all of train if this run debugs on one batch.
    """
    row_N, split = finetune.data.order.row_N, finetune.dataset.split
    if changed := resumed.get("changed"):
        row_N = np.union1d(row_N, split.train_N)
        if "final_fit" in changed:
            row_N = np.union1d(row_N, split.val_N)
    bad_N = np.array([image.row for image in unreadable], np.int64)
    validation_N = np.setdiff1d(finetune.data.validation_N, bad_N)
    forced = bool(resumed.get("forced"))
    return experiment.digest_fitted_images(np.setdiff1d(row_N, bad_N), validation_N, forced)
