"""Steps and validations of a finetune -> console, TensorBoard and resume states, on rank 0."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fgvc.html.formats import number, percent
from fgvc.learn.train.step import StepReport
from fgvc.parallel import signals
from fgvc.parallel.device import peak_memory_mib
from fgvc.pipeline.experiment import Experiment, identity
from fgvc.pipeline.finetune import Finetune
from fgvc.record import console
from fgvc.record.resume_state import States
from fgvc.types import Batch

LOG_EVERY = 10  # steps between points of the training curves


class TrainingLog:
    """Console, TensorBoard and resume states of one finetune."""

    def __init__(
        self,
        experiment: Experiment,
        plain: dict[str, Any],
        states: States,
        finetune: Finetune,
        origin: dict[str, Any],
    ) -> None:
        """origin: where the state of this training comes from; stored in the states it saves."""
        self.experiment, self.plain, self.states, self.origin = experiment, plain, states, origin
        self.sampled, self.images, self.seconds = False, 0, 0.0
        self.bar = console.training(
            experiment.conf.task.epochs, finetune.steps, finetune.trainer.done
        )

    def __enter__(self) -> TrainingLog:
        self.pulse = self.bar.__enter__()
        self.clock = time.monotonic()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)

    def log_images(self, batch: Batch) -> None:
        """Write the first images of this process as the network sees them."""
        if self.sampled or not len(batch.row_B):
            return
        self.sampled = True
        dataset = self.experiment.dataset
        label_B = dataset.manifest.label_N[batch.row_B]
        captions = [dataset.labelmap.names[label] for label in label_B.tolist()]
        self.experiment.board.images("train/pictures", batch.pixels_BCHW, captions)

    def log_step(self, report: StepReport) -> None:
        now = time.monotonic()
        rate, self.clock = report.images / max(now - self.clock, 1e-9), now
        self.images, self.seconds = self.images + report.images, self.seconds + report.seconds
        memory = peak_memory_mib(self.experiment.extractor.device)
        self.pulse(console.Pulse(report.loss, report.learning_rate, rate, memory))
        self.experiment.extractor.counters.forwarded += report.images
        step = report.step + 1
        if step % LOG_EVERY and step != 1:
            return
        board = self.experiment.board
        board.scalar("train/loss", report.loss, step)
        board.scalar("train/top1", report.top1, step)
        board.scalar("optim/lr", report.learning_rate, step)
        board.scalar("optim/grad_norm", report.grad_norm, step)
        board.scalar("train/images_per_s", rate, step)
        board.scalar("train/memory_mib", memory, step)

    def speed(self) -> dict[str, object]:
        """Images, seconds and images per second of the steps of this process."""
        rate = self.images / self.seconds if self.seconds else None
        return {"images": self.images, "seconds": self.seconds, "images_per_s": rate}

    def log_validation(self, numbers: dict[str, Any], finetune: Finetune) -> None:
        step, best = finetune.trainer.done, finetune.trainer.best
        self.experiment.board.evaluation("val", numbers, step)
        self.experiment.board.scalar("select/best_epoch", float(best.epoch or 0), step)
        score = best.top1 if best.select == "top1" else best.loss
        self.experiment.board.scalar("select/best_score", score, step)
        mark = ", the best so far" if best.is_new else ""
        console.say(
            f"epoch {finetune.epoch}: validation top-1 {percent(numbers['top1'])} %, "
            f"loss {number(numbers['loss'])}{mark}"
        )
        if best.is_new:
            self.states.save_best(step, finetune.trainer.evaluated_model().state_dict())

    def save_state(self, finetune: Finetune) -> None:
        state = {
            **finetune.state(),
            "history": [list(point) for point in self.experiment.board.history],
            "config": self.plain,
            "identity": identity(self.experiment),
            "origin": self.origin,
        }
        self.states.save(finetune.trainer.done, state)


@contextmanager
def stop_after_step() -> Iterator[Callable[[], bool]]:
    """On a cluster's signal or Ctrl-C, stop after the step; a second signal stops at once."""
    reported: list[str] = []

    def report(name: str) -> None:
        reported.append(f"{name}: stopping after this step")
        with suppress(OSError):  # not print(), which fails if the signal has interrupted a print()
            os.write(1, f"{reported[-1]}\n".encode())

    try:
        with signals.report_first_signal(report):
            yield lambda: bool(reported)
    finally:
        for line in reported:
            console.log.info(line)
