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
import torch

from fgvc.config.compose import resolved
from fgvc.config.schema import reads_text
from fgvc.model.backbone.load_state import first_difference
from fgvc.parallel.process_group import ProcessGroup, join_group
from fgvc.pipeline import stop_before_test, write_run
from fgvc.pipeline.experiment import (
    Experiment,
    Results,
    describe_fit,
    find_complete_run,
    open_experiment,
)
from fgvc.pipeline.features import measure_cost
from fgvc.pipeline.finetune import Finetune, FinetuneSetup
from fgvc.pipeline.job import Job, Skipped
from fgvc.pipeline.resume import NO_ORIGIN, check_resume, copy_states, find_resume_point
from fgvc.pipeline.text_features import class_text_features
from fgvc.pipeline.training_log import TrainingLog, stop_after_step
from fgvc.record import console
from fgvc.record.resume_state import States
from fgvc.record.run_dir import RESUME
from fgvc.types import UserError

KEEP = (RESUME, "run.log")  # kept from an earlier process of the same run


def run(job: Job) -> Skipped | None:
    """Finetune into a run folder, or resume where an earlier process of this run stopped.

    Raises:
        UserError: data, weights, device, state or folder do not match the command; the loss is not
            finite; memory ran out; a rank died.
        Preempted: stopped by a signal; the state is saved.
    """
    conf, plain = job.conf, resolved(job.cfg)
    check_resume(conf, plain)
    grace = conf.runtime.stop_grace
    with join_group(conf.runtime.nproc, conf.runtime.device, grace) as group:
        if stop_before_test.is_validated(conf, plain):
            group.request(None)
            return Skipped(stop_before_test.run_folder(conf, plain))
        with open_experiment("train", conf, plain, job.command, KEEP, group) as experiment:
            if skipped := find_complete_run(experiment):
                group.request(None)
                return skipped
            results = _train(experiment, plain, group)
            if conf.runtime.stop_before_test:
                stop_before_test.write_validation(experiment, results)
            else:
                write_run.write_run(experiment, results)
    return None


def _train(experiment: Experiment, plain: dict[str, Any], group: ProcessGroup) -> Results:
    states = States(experiment.run.path / RESUME, experiment.conf.runtime.keep_states)
    start = find_resume_point(experiment, plain, states)
    state = start and start.state
    setup = group.request(
        FinetuneSetup(
            experiment.conf,
            experiment.dataset,
            experiment.extractor.source,
            _text(experiment),
            state,
        )
    )
    with group.waiting(typical=False):
        finetune = Finetune(setup, group, experiment.extractor.device)
    origin = start.origin if start else NO_ORIGIN
    with (
        stop_after_step() as should_stop,
        TrainingLog(experiment, plain, states, finetune, origin) as log,
    ):
        if start is not None:
            copy_states(experiment, plain, states, start)  # it matches this model
            experiment.board.replay(tuple(point) for point in start.state["history"])
            console.say(f"resumed after step {finetune.trainer.done}")
        finetune.run(log, should_stop)
    numbers = {"resumed": start and start.record, "training": log.speed()}
    return _evaluate(experiment, finetune, states, numbers)


def _text(experiment: Experiment) -> torch.Tensor | None:
    """The initial weights of head=text_linear: the classifier made from the class names."""
    if not reads_text(experiment.conf):
        return None
    text = class_text_features(experiment)
    return text.weight_CD * text.scale


def _evaluate(
    experiment: Experiment, finetune: Finetune, states: States, numbers: dict[str, Any]
) -> Results:
    """Evaluate the selected weights on test, once, unless the run stops before test."""
    # under final_fit=trainval, a forced resume may bring weights selected on validation
    best = _best_weights(states, finetune) if finetune.data.validates else None
    best_epoch = finetune.trainer.best
    final = finetune.evaluate(best and best[1], experiment.record_test_read)
    model = finetune.trainer.evaluated_model()
    steps = best[0] if best else finetune.trainer.done
    selection: dict[str, object] = {
        "select": experiment.conf.task.select if best else None,
        "best_epoch": best_epoch.epoch,
        "best_step": steps,
        "epochs": finetune.epoch,
        "steps": finetune.trainer.done,
        "stopped_early": best_epoch.exhausted,
    }
    resumed: Mapping[str, Any] = numbers["resumed"] or {}
    if (lost := resumed.get("best_lost")) is not None:  # a forced resume continued without it
        selection["best_lost"] = lost
    unreadable_N = np.array([bad.row for bad in final.unreadable], np.int64)
    fit = describe_fit(
        experiment,
        np.setdiff1d(_fitted_rows(finetune, resumed), unreadable_N),
        np.setdiff1d(finetune.data.validation_N, unreadable_N),
        bool(resumed and resumed["forced"]),
    )
    counts: dict[str, object] = {
        "selection": selection,
        "last": {"val": final.last_val} if final.last_val else None,
        "fitted_on": len(fit.image_N),
    }
    cost = measure_cost(finetune.model.backbone, finetune.images_per_s, experiment.extractor.device)
    numbers = {**counts, **numbers}
    return Results(
        final.predictions,
        model.state_dict(),
        numbers,
        fit,
        has_backbone=True,
        cost=cost,
        steps=steps,
        features=final.features,
        attention_maps=final.attention_maps,
        notes=_notes(lost, selection),
        unreadable=final.unreadable,
    )


def _best_weights(states: States, finetune: Finetune) -> tuple[int, dict[str, torch.Tensor]] | None:
    """Step and weights that validation selected.

    Raises:
        UserError: they are damaged, or are of another model.
    """
    best = states.best()
    if best is None:
        return None
    difference = first_difference(best[1], finetune.trainer.evaluated_model().state_dict())
    if difference is not None:
        raise UserError(
            f"{states.folder}: the best weights of step {best[0]} are of another model: "
            f"{difference}. Train under a new runtime.run_id without runtime.resume"
        )
    return best


def _notes(lost: Mapping[str, Any] | None, selection: Mapping[str, Any]) -> tuple[str, ...]:
    """Notes on the selection of the weights. lost: of the best weights, epoch and step."""
    if lost is None:
        return ()
    epoch = selection["best_epoch"]
    chosen = "the last weights" if epoch is None else f"epoch {epoch}, the best of those after it"
    return (
        f"selection: the best weights of epoch {lost['epoch']} (step {lost['step']}) were lost "
        f"before a forced resume; the numbers are of {chosen}",
    )


def _fitted_rows(finetune: Finetune, resumed: Mapping[str, Any]) -> np.ndarray:
    """Rows of the images that the weights were fitted on, unreadable images included.

    The state of a forced resume may have been fitted on images that this config excludes:
    validation images under final_fit=trainval, or all of train if this run debugs on one batch.
    """
    row_N, split = finetune.data.order.row_N, finetune.dataset.split
    if changed := resumed.get("changed"):
        row_N = np.union1d(row_N, split.train_N)
        if "final_fit" in changed:
            row_N = np.union1d(row_N, split.val_N)
    return row_N
