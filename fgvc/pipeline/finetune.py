"""The finetuning loop of one rank: training steps, validation after each epoch, resume states.

Every rank runs the same loop, because each step and each validation is a collective operation;
only rank 0 has a log. The position of a training is (steps taken, epochs validated). The order of
the images and their augmentation follow from the position, so a resumed run can continue in the
middle of an epoch.
B batch, K classes, N images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fgvc import metrics
from fgvc.config.schema import Config
from fgvc.data.manifest import SKIP_HINT
from fgvc.data.sampler import Draws
from fgvc.learn.train import BestEpoch, Hooks, LoaderBatch, StepReport, Trainer
from fgvc.model.build_head import new_head
from fgvc.model.classifier import Classifier, checkpoint_blocks
from fgvc.parallel.process_group import ProcessGroup
from fgvc.pipeline import resumed_epochs
from fgvc.pipeline.build_model import build_model
from fgvc.pipeline.inference import InferenceResults, classify, concat_results
from fgvc.pipeline.training_data import TrainingData
from fgvc.types import (
    AttentionMaps,
    BadImage,
    Batch,
    Dataset,
    Features,
    Predictions,
    Preempted,
    UserError,
    WeightsSource,
)


@dataclass(frozen=True)
class FinetuneSetup:
    """What rank 0 broadcasts to all ranks before the training.

    text_CD: initial weights of head=text_linear. state: the resume state; None: start anew.
    """

    conf: Config
    dataset: Dataset
    source: WeightsSource
    text_CD: Tensor | None = None
    state: dict[str, Any] | None = None


@dataclass(frozen=True)
class FinetuneResults:
    """The results of a training on rank 0; empty on other ranks.

    predictions: of the chosen weights, by split. last_val: numbers of the last weights on
    validation. unreadable: images of any split. features, attention_maps: of the test images.
    """

    predictions: dict[str, Predictions]
    last_val: dict[str, Any] | None
    unreadable: tuple[BadImage, ...]
    features: Features | None = None
    attention_maps: AttentionMaps | None = None


class FinetuneLog(Protocol):
    """What rank 0 records of a training."""

    def log_images(self, batch: Batch) -> None: ...
    def log_step(self, report: StepReport) -> None: ...
    def log_validation(self, numbers: dict[str, Any], finetune: Finetune) -> None: ...
    def save_state(self, finetune: Finetune) -> None: ...


class Finetune:
    """The training of one setup on one rank."""

    def __init__(self, setup: FinetuneSetup, group: ProcessGroup, device: torch.device) -> None:
        self.setup, self.group, self.device = setup, group, device
        if group.watchdog is not None:
            group.watchdog.state_saved = setup.state is not None
        self.conf, self.dataset = setup.conf, setup.dataset
        self.data = TrainingData(self.conf, self.dataset, group.rank, group.size)
        self.steps = self.data.order.steps_per_epoch
        self.num_classes = len(self.dataset.labelmap)
        part_attention = self.conf.part_attention
        # weight and margin of the contrastive loss; no weight where part attention is off
        self.contrastive: tuple[float, float] = (
            getattr(part_attention, "contrastive", 0.0),
            getattr(part_attention, "margin", 0.0),
        )
        self.model = self._build_model()
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
            self.contrastive,
            self.conf.runtime.micro_batch,
            Hooks(
                None if self.model.selector is None else self._set_images,
                self.model.random_layers.set_keys,
            ),
        )
        self.validated_epochs = 0
        self.unreadable: dict[int, str] = {}  # manifest row -> message
        self.images_per_s: float | None = None  # of the last evaluation, over all ranks
        if setup.state is not None:
            self._load_state(setup.state)

    def _build_model(self) -> Classifier:
        conf = self.conf
        backbone, selector = build_model(conf, self.setup.source)
        head = new_head(conf.head, backbone.feature_dim, self.num_classes, conf.seed)
        if (text_CD := self.setup.text_CD) is not None:
            head.load_state_dict({"weight_CD": text_CD, "bias_C": torch.zeros(len(text_CD))})
        model = Classifier(backbone, head, selector)
        model.returns_features = self.contrastive[0] > 0
        model.thaw(conf.task)
        model.randomize(conf.task.drop_path)
        if conf.runtime.grad_checkpointing:
            checkpoint_blocks(backbone)
        return model.to(self.device)

    def _set_images(self, row_B: np.ndarray) -> None:
        """Set the images of the next forward pass, for part_attention=random."""
        assert self.model.selector is not None
        self.model.selector.set_images(self.dataset.manifest.key_N[row_B])

    @property
    def epoch(self) -> int:
        """Whole epochs behind the weights."""
        return self.trainer.done // self.steps

    # --- training ---

    def run(self, log: FinetuneLog | None, should_stop: Callable[[], bool]) -> None:
        """Train to the end.

        Args:
            should_stop: called after each step; true: save the state and stop.

        Raises:
            Preempted: on all ranks together; the state is saved.
            UserError: the loss is not finite, memory ran out, or an image cannot be read.
        """
        while True:
            if self.epoch > self.validated_epochs:
                self._validate(log)
            if self.epoch >= self.conf.task.epochs or self.trainer.best.exhausted:
                return
            self._train_epoch(log, should_stop)

    def _train_epoch(self, log: FinetuneLog | None, should_stop: Callable[[], bool]) -> None:
        """Train from the current step to the end of the epoch."""
        epoch, start = divmod(self.trainer.done, self.steps)
        parts = self.data.parts(epoch, start)
        batches = self.data.read(parts, epoch)
        for part in parts:
            with self.group.waiting():
                report = self.trainer.step(self._micro_batches(batches, part, log))
            if log is not None:
                log.log_step(report)
            stopping = self.group.any(should_stop())
            if stopping or self._state_is_due():
                self._save_state(log)
            if stopping:
                raise Preempted("stopped after a step")

    def _micro_batches(
        self, batches: Iterator[Batch], part: Draws, log: FinetuneLog | None
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

    def _validate(self, log: FinetuneLog | None) -> None:
        """Validate the epoch that has just ended; keep its weights if they are the best so far."""
        self.validated_epochs = self.epoch
        if not self.data.validates:
            return
        predictions, numbers = self.predict(self.data.validation_N), None
        if predictions is not None:
            numbers = metrics.evaluate(predictions.logits_NC, predictions.label_N, self.num_classes)
            if numbers["loss"] is None and self.data.overfits:
                raise _none_readable(
                    self.data.validation_N,
                    "images of task.debug=overfit can be read",
                    ", or set another seed",
                )
            if numbers["loss"] is None:
                raise _none_readable(
                    self.data.validation_N,
                    "validation images can be read, so no epoch can be chosen",
                    ", raise dataset.val_fraction, or set final_fit=trainval",
                )
        top1, loss = self.group.broadcast(numbers and (numbers["top1"], numbers["loss"]))
        self.trainer.best = self.trainer.best.after(self.epoch, top1, loss)
        if log is not None:
            assert numbers is not None
            log.log_validation(dict(numbers), self)
        self._save_state(log)

    # --- resume states ---

    def state(self) -> dict[str, Any]:
        return {
            "trainer": self.trainer.state(),
            "epochs_judged": self.validated_epochs,
            "steps_per_epoch": self.steps,
            "unreadable": sorted(self.unreadable.items()),
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        if self.group.is_main:
            resumed_epochs.check_not_past_end(self.conf, state["trainer"]["step"], self.steps)
        if mismatches := self._load_trainer(state["trainer"]):
            if not self.group.is_main:
                self.group.broadcast(None)  # fails, because rank 0 reports the error and ends
            raise UserError(self._mismatch_message(mismatches))
        self.validated_epochs, self.trainer.best = resumed_epochs.convert_epochs(
            self.trainer.best,
            state["epochs_judged"],
            self.trainer.done,
            state["steps_per_epoch"],
            self.steps,
        )
        if not self.data.validates:  # a state of another config may have a best epoch
            self.trainer.best = BestEpoch(self.conf.task.select, self.conf.task.patience)
        self.unreadable = dict(state["unreadable"])

    def _load_trainer(self, state: dict[str, Any]) -> list[str]:
        """Load the state of the trainer; returns the mismatches, in which case it loads nothing."""
        try:
            if mismatches := self.trainer.mismatches(state):
                return mismatches
            self.trainer.load(state)
        except (RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
            return [f"its content ({' '.join(str(error).split())[:150]})"]
        return []

    def _mismatch_message(self, mismatches: list[str]) -> str:
        """The message for a state of another model."""
        path = self.conf.runtime.resume
        key = "the resume state" if path is None else f"runtime.resume={path}"
        count = f" ({len(mismatches)} such tensors)" if len(mismatches) > 1 else ""
        return (
            f"{key}: {mismatches[0]}{count}. "
            "Give the backbone, resolution, part_attention, head and task.tune of the state, or "
            "train under a new runtime.run_id without runtime.resume"
        )

    def _state_is_due(self) -> bool:
        """Whether to save a state after this step; a validated epoch saves its own."""
        save_every, done = self.conf.runtime.save_every, self.trainer.done
        epoch_ends = done % self.steps == 0 and not self.data.validates
        return epoch_ends or (save_every is not None and done % save_every == 0)

    def _save_state(self, log: FinetuneLog | None) -> None:
        """Save a state with the unreadable images of all ranks; a collective operation."""
        unreadable = self._gather_unreadable()
        if log is not None:
            self.unreadable = {bad.row: bad.message for bad in unreadable}
            log.save_state(self)
            if self.group.watchdog is not None:
                self.group.watchdog.state_saved = True

    # --- evaluation ---

    def evaluate(
        self, best: dict[str, Tensor] | None, before_test: Callable[[], None] = lambda: None
    ) -> FinetuneResults:
        """Evaluate the last weights on validation, then the chosen ones on validation and test.

        With runtime.stop_before_test no test image is read, and there is no split `test`.

        Args:
            best: the weights that validation chose, on rank 0; None: the last weights.
            before_test: called on each rank before any rank reads test.
        """
        self._read_undrawn_images()
        split, last_val = self.dataset.split, None
        predictions: dict[str, Predictions] = {}
        validates = self.conf.final_fit == "train" and len(split.val_N) > 0
        if validates and (val := self.predict(split.val_N)) is not None:
            predictions["val"] = val
            last_val = metrics.evaluate(val.logits_NC, val.label_N, self.num_classes)
        chosen = self.group.broadcast(best)
        if chosen is not None:
            self.trainer.evaluated_model().load_state_dict(chosen)
            if validates and (val := self.predict(split.val_N)) is not None:
                predictions["val"] = val
        if self.conf.runtime.stop_before_test:
            return FinetuneResults(predictions, last_val, self._gather_unreadable())
        self.group.broadcast(before_test())  # no rank reads test before rank 0 has recorded it
        test = self._classify(split.test_N, features=True)
        unreadable = self._gather_unreadable()
        if test is None:
            return FinetuneResults(predictions, last_val, unreadable)
        predictions["test"] = test.predictions
        return FinetuneResults(
            predictions, last_val, unreadable, test.features, test.attention_maps
        )

    def predict(self, row_N: np.ndarray) -> Predictions | None:
        """Predictions of the evaluated model for manifest rows, on rank 0; None on other ranks."""
        results = self._classify(row_N)
        return None if results is None else results.predictions

    def _classify(self, row_N: np.ndarray, features: bool = False) -> InferenceResults | None:
        """Each rank classifies its share of the rows; gathered on rank 0, None on other ranks."""
        model = self.trainer.evaluated_model()
        assert isinstance(model, Classifier)
        start = time.monotonic()
        share = classify(
            model,
            self.conf,
            self.dataset,
            np.array_split(row_N, self.group.size)[self.group.rank],
            self.device,
            self._record_unreadable,
            features,
        )
        self.images_per_s = len(row_N) / max(time.monotonic() - start, 1e-9)
        shares = self.group.gather(share)
        return concat_results(shares) if self.group.is_main else None

    # --- unreadable images ---

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
        on the draws. Under dataset.on_bad_image=error these images are not read.

        Raises:
            UserError: on rank 0, if no image of the fit can be read.
        """
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
