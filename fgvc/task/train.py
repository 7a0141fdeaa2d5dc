"""task=train: images -> a backbone and a head that learnt together, selected on validation.

Rank 0 opens the record and writes; the steps are in finetune.py, the other ranks in follow.py.
Test is read once, at the end, with the weights that validation chose (final_fit=train) or with the
last (final_fit=trainval); with runtime.stop_before_test the run ends before that.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch

from fgvc.config.compose import resolved
from fgvc.learn.train.step import StepReport
from fgvc.model.backbone.load_state import first_difference
from fgvc.parallel import signals
from fgvc.parallel.device import peak_memory_mib
from fgvc.parallel.process_group import ProcessGroup, join_group
from fgvc.parallel.signals import second_signal_handler
from fgvc.pipeline import stop_before_test, write_run
from fgvc.pipeline.experiment import (
    Experiment,
    Results,
    describe_fit,
    find_complete_run,
    identity,
    open_experiment,
)
from fgvc.pipeline.features import measure_cost
from fgvc.pipeline.finetune import Finetune, FinetuneSetup
from fgvc.pipeline.job import Job, Skipped
from fgvc.pipeline.resume import NO_ORIGIN, check_resume, copy_states, find_resume_point
from fgvc.pipeline.text_features import class_text_features
from fgvc.record import console
from fgvc.record.resume_state import States
from fgvc.record.run_dir import RESUME, write_status
from fgvc.types import Batch, Preempted, UserError

EVERY = 10  # steps between points of the training curves
KEPT = (RESUME, "run.log")  # of an earlier process of the same run


def run(job: Job) -> Skipped | None:
    """Train into a run folder, or go on where an earlier process of this run stopped.

    Raises:
        UserError: data, weights, device, state or folder are not what the command says; the loss
            is not finite; memory ran out; a rank died.
        Preempted: asked to stop; the state is saved.
    """
    conf, plain = job.conf, resolved(job.cfg)
    check_resume(conf, plain)
    grace = conf.runtime.stop_grace
    with join_group(conf.runtime.nproc, conf.runtime.device, grace) as group:
        if stop_before_test.is_validated(conf, plain):
            group.broadcast(None)
            return Skipped(stop_before_test.run_folder(conf, plain))
        with open_experiment("train", conf, plain, job.command, KEPT, group) as experiment:
            if skipped := find_complete_run(experiment):
                group.broadcast(None)
                return skipped
            if group.watchdog is not None:
                group.watchdog.on_end = lambda reason: _mark_preempted(experiment, reason)
            outcome = _train(experiment, plain, group)
            finish = (
                stop_before_test.write_validation
                if conf.runtime.stop_before_test
                else write_run.write_run
            )
            finish(experiment, outcome)
    return None


def _train(job: Experiment, plain: dict[str, Any], group: ProcessGroup) -> Results:
    states = States(job.run.path / RESUME, job.conf.runtime.keep_states)
    start = find_resume_point(job, plain, states)
    state = start and start.state
    setup = group.broadcast(
        FinetuneSetup(job.conf, job.dataset, job.extractor.source, _text(job), state)
    )
    with group.waiting(typical=False):
        finetune = Finetune(setup, group, job.extractor.device)
    origin = start.origin if start else NO_ORIGIN
    with _asked_to_stop() as stop, _Log(job, plain, states, finetune, origin) as log:
        if start is not None:
            copy_states(job, plain, states, start)  # now that it is known to fit
            job.board.replay(tuple(point) for point in start.state["history"])
            console.say(f"resumed after step {finetune.trainer.done}")
        finetune.run(log, stop)
    numbers = {"resumed": start and start.record, "training": log.pace()}
    return _outcome(job, finetune, states, numbers)


def _text(job: Experiment) -> torch.Tensor | None:
    """head=text_linear begins as the classifier that the class names make."""
    if job.conf.head.name != "text_linear":
        return None
    text = class_text_features(job)
    return text.weight_CD * text.scale


def _outcome(
    job: Experiment, finetune: Finetune, states: States, numbers: dict[str, object]
) -> Results:
    """Read test once, with the weights that were chosen; or stop before that."""
    # under final_fit=trainval, a forced resume may bring weights that validation chose
    best = _best(states, finetune) if finetune.data.validates else None
    chosen = finetune.trainer.best
    final = finetune.evaluate(best and best[1], job.record_test_read)
    model = finetune.trainer.evaluated_model()
    steps = best[0] if best else finetune.trainer.done
    selection: dict[str, object] = {
        "select": job.conf.task.select if best else None,
        "best_epoch": chosen.epoch,
        "best_step": steps,
        "epochs": finetune.epoch,
        "steps": finetune.trainer.done,
        "stopped_early": chosen.exhausted,
    }
    lost = _lost_best(numbers)
    if lost is not None:
        selection["best_lost"] = lost
    unreadable_N = np.array([bad.row for bad in final.unreadable], np.int64)
    fit = describe_fit(
        job,
        np.setdiff1d(_fitted_rows(finetune, numbers), unreadable_N),
        np.setdiff1d(finetune.data.validation_N, unreadable_N),
        _was_forced(numbers),
    )
    counts: dict[str, object] = {
        "selection": selection,
        "last": {"val": final.last_val} if final.last_val else None,
        "fitted_on": len(fit.image_N),
    }
    cost = measure_cost(finetune.model.backbone, finetune.images_per_s, job.extractor.device)
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


def _best(states: States, finetune: Finetune) -> tuple[int, dict[str, torch.Tensor]] | None:
    """The weights that validation chose, with their step.

    Raises:
        UserError: they were damaged since they were saved, or are of another model.
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
    """Notes on the choice of the weights."""
    if lost is None:
        return ()
    epoch = selection["best_epoch"]
    chosen = "the last weights" if epoch is None else f"epoch {epoch}, the best of those after it"
    return (
        f"selection: the best weights of epoch {lost['epoch']} (step {lost['step']}) were lost "
        f"before a forced resume; the numbers are of {chosen}",
    )


def _fitted_rows(finetune: Finetune, numbers: Mapping[str, Any]) -> np.ndarray:
    """Rows of every image that the weights were fitted on, with those that cannot be read.

    The state of a forced resume may have been fitted on images that this config leaves out:
    validation images under final_fit=trainval, or all of train if this run debugs on one batch.
    """
    row_N, split = finetune.data.order.row_N, finetune.dataset.split
    if changed := (numbers["resumed"] or {}).get("changed"):
        row_N = np.union1d(row_N, split.train_N)
        if "final_fit" in changed:
            row_N = np.union1d(row_N, split.val_N)
    return row_N


def _was_forced(numbers: Mapping[str, Any]) -> bool:
    return bool(numbers["resumed"] and numbers["resumed"]["forced"])


def _lost_best(numbers: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Epoch and step of the best weights that a forced resume continued without."""
    return (numbers["resumed"] or {}).get("best_lost")


class _Log:
    """Rank 0's record of a training: console, TensorBoard, resume states."""

    def __init__(
        self,
        job: Experiment,
        plain: dict[str, Any],
        states: States,
        finetune: Finetune,
        origin: dict[str, Any],
    ) -> None:
        """origin: of the state that this training continues, for the states it saves."""
        self.job, self.plain, self.states, self.origin = job, plain, states, origin
        self.sampled, self.images, self.seconds = False, 0, 0.0
        self.bar = console.training(job.conf.task.epochs, finetune.steps, finetune.trainer.done)

    def __enter__(self) -> _Log:
        self.pulse = self.bar.__enter__()
        self.clock = time.monotonic()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)

    def log_images(self, batch: Batch) -> None:
        """The first pictures of this process, as the network gets them."""
        if self.sampled or not len(batch.row_B):
            return
        self.sampled = True
        dataset = self.job.dataset
        label_B = dataset.manifest.label_N[batch.row_B]
        captions = [dataset.labelmap.names[label] for label in label_B.tolist()]
        self.job.board.pictures("train/pictures", batch.pixels_BCHW, captions)

    def log_step(self, report: StepReport) -> None:
        now = time.monotonic()
        rate, self.clock = report.images / max(now - self.clock, 1e-9), now
        self.images, self.seconds = self.images + report.images, self.seconds + report.seconds
        memory = peak_memory_mib(self.job.extractor.device)
        self.pulse(console.Pulse(report.loss, report.learning_rate, rate, memory))
        self.job.extractor.counters.forwarded += report.images
        step = report.step + 1
        if step % EVERY and step != 1:
            return
        board = self.job.board
        board.scalar("train/loss", report.loss, step)
        board.scalar("train/top1", report.top1, step)
        board.scalar("optim/lr", report.learning_rate, step)
        board.scalar("optim/grad_norm", report.grad_norm, step)
        board.scalar("train/images_per_s", rate, step)
        board.scalar("train/memory_mib", memory, step)

    def pace(self) -> dict[str, object]:
        """What the steps of this process cost."""
        rate = self.images / self.seconds if self.seconds else None
        return {"images": self.images, "seconds": self.seconds, "images_per_s": rate}

    def log_validation(self, numbers: dict[str, Any], finetune: Finetune) -> None:
        step, best = finetune.trainer.done, finetune.trainer.best
        self.job.board.evaluation("val", numbers, step)
        self.job.board.scalar("select/best_epoch", float(best.epoch or 0), step)
        score = best.top1 if best.select == "top1" else best.loss
        self.job.board.scalar("select/best_score", score, step)
        mark = ", the best so far" if best.is_new else ""
        console.say(
            f"epoch {finetune.epoch}: validation top-1 {console.percent(numbers['top1'])} %, "
            f"loss {console.number(numbers['loss'])}{mark}"
        )
        if best.is_new:
            self.states.save_best(step, finetune.trainer.evaluated_model().state_dict())

    def save_state(self, finetune: Finetune) -> None:
        state = {
            **finetune.state(),
            "history": [list(point) for point in self.job.board.history],
            "config": self.plain,
            "identity": identity(self.job),
            "origin": self.origin,
        }
        self.states.save(finetune.trainer.done, state)


def _mark_preempted(job: Experiment, reason: str) -> None:
    """Write the status of a run that its watchdog ends."""
    if job.run.sealed is None:
        write_status(job.run.path, "preempted", job.run.started, Preempted(reason))


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """A cluster's notice and Ctrl-C ask for the end of the step; a second one ends at once."""
    asked: list[int] = []

    def notice(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for each in signals.CLUSTER_SIGNALS:
            signal.signal(each, second_signal_handler())
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        console.say(f"{signal.Signals(number).name}: stopping after this step")

    handlers = {each: signal.signal(each, notice) for each in signals.STOP_SIGNALS}
    try:
        yield lambda: bool(asked)
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
