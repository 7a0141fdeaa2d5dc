"""The finetuning loop of one rank: training steps, validation after each epoch, resume states.

Every rank runs the same loop, because each step and each validation is a collective operation;
only rank 0 has a log. The position of a training is (steps taken, epochs validated). The order of
the images and their augmentation follow from the position, so a resumed run can continue in the
middle of an epoch.
B batch, K classes, N images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fgvc import metrics
from fgvc.config.schema import Config
from fgvc.data.manifest import SKIP_HINT
from fgvc.data.sampler import Draws
from fgvc.learn.train import BestEpoch, LoaderBatch, Trainer
from fgvc.model.build_head import new_head
from fgvc.model.classifier import Classifier, checkpoint_blocks
from fgvc.parallel.cpu_load import CpuTimes, cpu_times
from fgvc.parallel.process_group import ProcessGroup
from fgvc.pipeline.build_model import build_model
from fgvc.pipeline.compile_errors import one_line
from fgvc.pipeline.inference import InferenceResults, classify, concat_results
from fgvc.pipeline.training_data import TrainingData
from fgvc.types import BadImage, Batch, Dataset, Preempted, UserError, WeightsSource

if TYPE_CHECKING:  # it writes files, which only rank 0 does
    from fgvc.pipeline.training_log import TrainingLog


@dataclass(frozen=True)
class FinetuneSetup:
    """What rank 0 broadcasts to all ranks before the training.

    text_CD: initial weights of head=text_linear. state: the resume state; None: start from step 0.
    """

    conf: Config
    dataset: Dataset
    source: WeightsSource
    text_CD: Tensor | None = None
    state: dict[str, Any] | None = None


@dataclass(frozen=True)
class FinetuneResults:
    """The results of a training on rank 0; empty on other ranks.

    val, test: of the chosen weights; None where the split is not read. last_val: numbers of the
    last weights on validation. unreadable: images of any split.
    """

    val: InferenceResults | None
    test: InferenceResults | None
    last_val: dict[str, Any] | None
    unreadable: tuple[BadImage, ...]


class Finetune:
    """The training of one setup on one rank."""

    def __init__(self, setup: FinetuneSetup, group: ProcessGroup, device: torch.device) -> None:
        self.setup, self.group, self.device = setup, group, device
        if group.watchdog is not None:
            group.watchdog.state_saved = setup.state is not None
        self.conf, self.dataset = setup.conf, setup.dataset
        self.data = TrainingData(
            self.conf, self.dataset, group.rank, group.size, pin=device.type == "cuda"
        )
        self.steps = self.data.order.steps_per_epoch
        self.num_classes = len(self.dataset.labelmap)
        parts = self.conf.part_attention
        # weight and margin of the contrastive loss; no weight where part attention is off
        contrastive = getattr(parts, "contrastive", 0.0), getattr(parts, "margin", 0.0)
        self.model = self._build_model()
        self.model.returns_features = contrastive[0] > 0
        model, key_N = self.model, self.dataset.manifest.key_N

        def before_forward(row_B: np.ndarray, key_B: torch.Tensor) -> None:
            """Set the images of a forward pass, from which random patches and layers are drawn."""
            if model.selector is not None:
                model.selector.set_images(key_N[row_B])
            model.random_layers.set_keys(key_B)

        self.trainer = Trainer(
            torch.compile(self.model) if self.conf.runtime.compile else self.model,  # type: ignore[arg-type]
            self.conf.task,
            self.num_classes,
            self.model.depth_of,
            self.steps,
            device,
            self.conf.precision,
            self.conf.seed,
            group.size,
            contrastive,
            self.conf.runtime.micro_batch,
            before_forward,
        )
        self.validated_epochs = 0
        self.unreadable: dict[int, str] = {}  # manifest row -> message
        self.evaluated = (0, CpuTimes())  # images and time of the last evaluation, over all ranks
        if setup.state is not None:
            self._load_state(setup.state)

    def _build_model(self) -> Classifier:
        conf = self.conf
        backbone, selector = build_model(conf, self.setup.source)
        head = new_head(conf.head, backbone.feature_dim, self.num_classes, conf.seed)
        if (text_CD := self.setup.text_CD) is not None:
            head.load_state_dict({"weight_CD": text_CD, "bias_C": torch.zeros(len(text_CD))})
        model = Classifier(backbone, head, selector)
        model.thaw(conf.task)
        model.randomize(conf.task.drop_path)
        if conf.runtime.grad_checkpointing:
            checkpoint_blocks(backbone)
        return model.to(self.device)

    @property
    def epoch(self) -> int:
        """Whole epochs behind the weights."""
        return self.trainer.done // self.steps

    def run(self, log: TrainingLog | None, should_stop: Callable[[], bool]) -> None:
        """Train to the end.

        should_stop: called after each step and validation; true: save the state and stop.

        Raises:
            Preempted: on all ranks together; the state is saved.
            UserError: the loss is not finite, memory ran out, or an image cannot be read.
        """
        while True:
            if self.epoch > self.validated_epochs:
                self._validate(log)
                if self.group.any(should_stop()):
                    raise Preempted("stopped after an epoch")
            if self.epoch >= self.conf.task.epochs or self.trainer.best.exhausted:
                return
            self._train_epoch(log, should_stop)

    def _train_epoch(self, log: TrainingLog | None, should_stop: Callable[[], bool]) -> None:
        epoch, start = divmod(self.trainer.done, self.steps)
        parts = self.data.parts(epoch, start)
        batches, save_every = self.data.read(parts, epoch), self.conf.runtime.save_every
        for part in parts:
            with self.group.waiting(), one_line(self.conf.runtime.compile):
                report = self.trainer.step(self._micro_batches(batches, part, log))
            if log is not None:
                log.log_step(report)
            stopping, done = self.group.any(should_stop()), self.trainer.done
            # a validated epoch saves its own state
            epoch_ends = done % self.steps == 0 and not self.data.validates
            if stopping or epoch_ends or (save_every is not None and done % save_every == 0):
                self._save_state(log)
            if stopping:
                raise Preempted("stopped after a step")

    def _micro_batches(
        self, batches: Iterator[Batch], part: Draws, log: TrainingLog | None
    ) -> Iterator[LoaderBatch]:
        """The normalised units of one step; one empty unit where this rank has no image."""
        side = self.conf.resolution.side
        if not len(part):
            empty_N = np.empty(0, np.int64)
            yield LoaderBatch(
                torch.empty(0, 3, side, side), torch.empty(0).long(), empty_N, empty_N
            )
        for _ in self.data.sizes(part):
            batch = next(batches)
            if self.group.watchdog is not None:
                self.group.watchdog.mark()
            self._record_unreadable(batch.bad)
            if log is not None:
                log.log_images(batch)
            assert batch.place_B is not None
            pixels_BCHW = batch.pixels_BCHW.to(self.device, non_blocking=True)
            label_B = torch.from_numpy(self.dataset.manifest.label_N[batch.row_B])
            yield LoaderBatch(
                self.data.evaluation.normalize(pixels_BCHW), label_B, batch.place_B, batch.row_B
            )

    def _validate(self, log: TrainingLog | None) -> None:
        """Validate the epoch that has just ended; keep its weights if they are the best so far."""
        self.validated_epochs = self.epoch
        if not self.data.validates:
            return
        numbers = self._metrics(self._classify(self.data.validation_N))
        if numbers is not None and numbers["loss"] is None:
            what = "validation images can be read, so no epoch can be chosen"
            way_out = ", raise dataset.val_fraction, or set final_fit=trainval"
            if self.data.overfits:
                what, way_out = "images of task.debug=overfit can be read", ", or set another seed"
            raise _none_readable(self.data.validation_N, what, way_out)
        top1, loss = self.group.broadcast(numbers and (numbers["top1"], numbers["loss"]))
        self.trainer.best = self.trainer.best.after(self.epoch, top1, loss)
        if log is not None:
            assert numbers is not None
            log.log_validation(dict(numbers), self)
        self._save_state(log)

    def state(self) -> dict[str, Any]:
        return {
            "trainer": self.trainer.state(),
            "epochs_judged": self.validated_epochs,
            "steps_per_epoch": self.steps,
            "unreadable": sorted(self.unreadable.items()),
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        done, epochs = state["trainer"]["step"], self.conf.task.epochs
        if self.group.is_main and done > epochs * self.steps:
            raise UserError(
                f"task.epochs={epochs}: the resume state is at step {done}, past the end of this "
                f"training (steps per epoch: {self.steps}; in total: {epochs * self.steps}). Set "
                f"task.epochs={-(-done // self.steps)} or more, or resume an earlier state"
            )
        try:
            if not (mismatches := self.trainer.mismatches(state["trainer"])):
                self.trainer.load(state["trainer"])
        except (RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
            mismatches = [f"its content ({' '.join(str(error).split())[:150]})"]
        if mismatches:
            if not self.group.is_main:
                self.group.broadcast(None)  # fails, because rank 0 reports the error and ends
            path = self.conf.runtime.resume
            key = "the resume state" if path is None else f"runtime.resume={path}"
            count = f" ({len(mismatches)} such tensors)" if len(mismatches) > 1 else ""
            raise UserError(
                f"{key}: {mismatches[0]}{count}. Give the backbone, resolution, part_attention, "
                "head and task.tune of the state, or train under a new runtime.run_id without "
                "runtime.resume"
            )
        self.validated_epochs, self.trainer.best = convert_epochs(
            self.trainer.best, state["epochs_judged"], done, state["steps_per_epoch"], self.steps
        )
        if not self.data.validates:  # a state of another config may have a best epoch
            self.trainer.best = BestEpoch(self.conf.task.select, self.conf.task.patience)
        self.unreadable = dict(state["unreadable"])

    def _save_state(self, log: TrainingLog | None) -> None:
        """Save a state with the unreadable images of all ranks; a collective operation."""
        unreadable = self._gather_unreadable()
        if log is not None:
            self.unreadable = {bad.row: bad.message for bad in unreadable}
            log.save_state(self)
            if self.group.watchdog is not None:
                self.group.watchdog.state_saved = True

    def evaluate(
        self, best: dict[str, Tensor] | None, before_test: Callable[[], None] = lambda: None
    ) -> FinetuneResults:
        """Evaluate the last weights on validation, then the chosen ones on validation and test.

        With runtime.stop_before_test no test image is read.

        Args:
            best: the weights that validation chose, on rank 0; None: the last weights.
            before_test: called on each rank before any rank reads test.
        """
        self._read_undrawn_images()
        split, test = self.dataset.split, None
        validates = self.conf.final_fit == "train" and len(split.val_N) > 0
        val = self._classify(split.val_N, features=True) if validates else None
        last_val, chosen = self._metrics(val), self.group.broadcast(best)
        if chosen is not None:
            self.trainer.evaluated_model().load_state_dict(chosen)
            val = self._classify(split.val_N, features=True) if validates else None
        if not self.conf.runtime.stop_before_test:
            self.group.broadcast(before_test())  # no rank reads test before rank 0 has recorded it
            test = self._classify(split.test_N, features=True)
        return FinetuneResults(val, test, last_val, self._gather_unreadable())

    def _metrics(self, results: InferenceResults | None) -> dict[str, Any] | None:
        if results is None:
            return None
        return metrics.evaluate(results.predictions, self.num_classes)

    def _classify(self, row_N: np.ndarray, features: bool = False) -> InferenceResults | None:
        """Each rank classifies its share of the rows; gathered on rank 0, None on other ranks."""
        model = self.trainer.evaluated_model()
        assert isinstance(model, Classifier)
        start = cpu_times()
        share = classify(
            model,
            self.conf,
            self.dataset,
            np.array_split(row_N, self.group.size)[self.group.rank],
            self.device,
            self._record_unreadable,
            features,
        )
        spent = cpu_times() - start
        shares = self.group.gather((share, spent.own))
        if not self.group.is_main:
            return None
        self.evaluated = len(row_N), replace(spent, own=sum(own for _, own in shares))
        return concat_results([results for results, _ in shares])

    def _record_unreadable(self, bad: tuple[BadImage, ...]) -> None:
        if bad and self.conf.dataset.on_bad_image == "error":
            raise UserError(f"{bad[0].message}; repair it, or {SKIP_HINT}")
        self.unreadable |= {image.row: image.message for image in bad}

    def _gather_unreadable(self) -> tuple[BadImage, ...]:
        """Images that any rank could not read so far, by row; empty on other ranks than 0."""
        messages: dict[int, str] = {}
        for rank_messages in self.group.gather(self.unreadable):
            messages |= rank_messages
        return tuple(BadImage(row, messages[row]) for row in sorted(messages))

    def _read_undrawn_images(self) -> None:
        """Record unreadable images that no step drew, so that the numbers of the fit do not depend
        on the draws. Under dataset.on_bad_image=error these images are not read."""
        if self.conf.dataset.on_bad_image != "skip":
            return
        for batch in self.data.read_undrawn(self.trainer.done):
            self._record_unreadable(batch.bad)
        row_N = self.data.order.row_N
        unreadable = self._gather_unreadable()
        if self.group.is_main and np.isin(row_N, [bad.row for bad in unreadable]).all():
            raise _none_readable(row_N, "training images can be read", "")


def _none_readable(row_N: np.ndarray, what: str, way_out: str) -> UserError:
    return UserError(
        f"dataset.on_bad_image=skip: 0 of the {len(row_N)} {what}. Repair them{way_out}"
    )


def convert_epochs(
    best: BestEpoch, validated: int, done: int, old_steps: int, new_steps: int
) -> tuple[int, BestEpoch]:
    """Convert epochs of `old_steps` steps to epochs of `new_steps` steps.

    Only a forced resume can change them, by another batch size or other fitted images.
    The weights at step `done` are validated again only if a new epoch ends there and no old epoch
    did. The best epoch is rounded down, so that it never equals the next epoch to validate.

    best: of the state. validated: epochs validated so far. done: optimiser steps so far.

    Returns:
        The number of validated epochs, and the best epoch.
    """
    if old_steps == new_steps:
        return validated, best
    ends_unvalidated = done % new_steps == 0 and done != validated * old_steps
    epoch, last = (count and count * old_steps // new_steps for count in (best.epoch, best.last))
    return done // new_steps - ends_unvalidated, replace(best, epoch=epoch, last=last)
