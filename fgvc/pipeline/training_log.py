"""Steps and validations of a finetune -> console, TensorBoard and resume states, on rank 0."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from fgvc.html.class_names import display_names
from fgvc.html.formats import number, percent
from fgvc.learn.train.step import StepReport
from fgvc.parallel import signals
from fgvc.parallel.device import peak_memory_mib
from fgvc.pipeline.experiment import Experiment
from fgvc.pipeline.finetune import Finetune
from fgvc.record import console
from fgvc.record.resume_state import States
from fgvc.record.tensorboard import TRAINING_IMAGES
from fgvc.types import Batch

LOG_EVERY = 10  # steps between points of the training curves


@dataclass
class TrainingLog:
    """Console, TensorBoard and resume states of one finetune.

    origin: where the state of this training comes from; stored in the states it saves. pulse: shows
    a step on the terminal. images, seconds: of the steps of this process.
    """

    experiment: Experiment
    states: States
    origin: dict[str, Any]
    pulse: Callable[[console.Pulse], None]
    sampled: bool = False
    images: int = 0
    seconds: float = 0.0
    clock: float = field(default_factory=time.monotonic)

    def log_images(self, batch: Batch) -> None:
        """Write the first images of this process as the network sees them."""
        if self.sampled or not len(batch.row_B):
            return
        self.sampled = True
        dataset = self.experiment.dataset
        labels = dataset.manifest.label_N[batch.row_B].tolist()
        names = display_names(dataset.labelmap.names)
        captions = [names[label] for label in labels]
        self.experiment.board.images(TRAINING_IMAGES, batch.pixels_BCHW, captions)

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
        scalars = {
            "train/loss": report.loss,
            "train/top1": report.top1,
            "optim/lr": report.learning_rate,
            "optim/grad_norm": report.grad_norm,
            "train/images_per_s": rate,
            "train/memory_mib": memory,
        }
        for tag, value in scalars.items():
            self.experiment.board.scalar(tag, value, step)

    def speed(self) -> dict[str, object]:
        """Images, seconds and images per second of the steps of this process."""
        rate = self.images / self.seconds if self.seconds else None
        return {"images": self.images, "seconds": self.seconds, "images_per_s": rate}

    def log_validation(self, numbers: dict[str, Any], finetune: Finetune) -> None:
        step, best, board = finetune.trainer.done, finetune.trainer.best, self.experiment.board
        board.evaluation("val", numbers, step)
        board.scalar("select/best_epoch", float(best.epoch or 0), step)
        board.scalar("select/best_score", getattr(best, best.select), step)
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
            "config": self.experiment.plain,
            "identity": self.experiment.identity,
            "origin": self.origin,
        }
        self.states.save(finetune.trainer.done, state)


@contextmanager
def stop_after_step() -> Iterator[Callable[[], bool]]:
    """On the first signal to stop (also Ctrl-C), the block stops after its step or validation."""
    reported: list[str] = []

    def report(name: str) -> None:
        reported.append(f"{name}: stopping after this step or validation")
        with suppress(OSError):  # not print(), which fails if the signal has interrupted a print()
            os.write(1, f"{reported[-1]}\n".encode())

    try:
        with signals.report_first_signal(report):
            yield lambda: bool(reported)
    finally:
        for line in reported:
            console.log.info(line)
