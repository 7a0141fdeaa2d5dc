"""What one rank does in task=train: a plan -> a model, its steps, its validations, its states.

Only rank 0 has a log; every rank takes the same turns, as each step and each validation is a
collective act. Where a training stands is (steps taken, epochs judged): epochs, their order and
their augmentation follow from that, so a resumed run takes up in the middle of an epoch.
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
from fgvc.model import head as heads
from fgvc.model.classifier import Classifier, checkpoint_blocks
from fgvc.parallel.process_group import World
from fgvc.pipeline import resumed_epochs
from fgvc.pipeline.attention_maps import split_columns
from fgvc.pipeline.build_model import build_model
from fgvc.pipeline.inference import Logits, classify
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
class Plan:
    """What rank 0 found, and every rank starts from.

    text_CD: weights that head=text_linear begins with. state: to go on from.
    """

    conf: Config
    dataset: Dataset
    source: WeightsSource
    text_CD: Tensor | None = None
    state: dict[str, Any] | None = None


@dataclass(frozen=True)
class Ending:
    """What rank 0 has in the end. splits: of the chosen weights. last: the numbers of the last
    weights on validation. unreadable: images of any split. features, looks: of the test images;
    None on other ranks."""

    splits: dict[str, Predictions]
    last: dict[str, Any] | None
    unreadable: tuple[BadImage, ...]
    features: Features | None = None
    looks: AttentionMaps | None = None


class Log(Protocol):
    """What rank 0 writes down."""

    def sample(self, batch: Batch) -> None: ...
    def stepped(self, report: StepReport) -> None: ...
    def judged(self, numbers: dict[str, Any], finetune: Finetune) -> None: ...
    def save(self, finetune: Finetune) -> None: ...


class Finetune:
    """The training of one plan on one rank."""

    def __init__(self, plan: Plan, world: World, device: torch.device) -> None:
        self.plan, self.world, self.device = plan, world, device
        if world.watchdog is not None:
            world.watchdog.state_saved = plan.state is not None
        self.conf, self.dataset = plan.conf, plan.dataset
        self.data = TrainingData(self.conf, self.dataset, world.rank, world.size)
        self.steps = self.data.order.steps_per_epoch
        self.model = self._model()
        self.trainer = Trainer(
            torch.compile(self.model) if self.conf.runtime.compile else self.model,  # type: ignore[arg-type]
            self.conf.task,
            self.classes,
            self.model.depth_of,
            self.steps,
            device,
            self.conf.precision,
            self.conf.seed,
            world.size,
            self.pull,
            self.conf.runtime.micro_batch,
            Hooks(
                None if self.model.selector is None else self._set_images,
                self.model.random_layers.set_keys,
            ),
        )
        self.epochs_judged = 0
        self.unreadable: dict[int, str] = {}  # manifest row -> why
        self.speed: float | None = None  # images a second of the last evaluation, all ranks
        if plan.state is not None:
            self._go_on_from(plan.state)

    @property
    def classes(self) -> int:
        return len(self.dataset.labelmap)

    @property
    def pull(self) -> tuple[float, float]:
        """Weight and margin of the contrastive loss; no weight where part attention is off."""
        chosen = self.conf.part_attention
        return getattr(chosen, "contrastive", 0.0), getattr(chosen, "margin", 0.0)

    @property
    def epoch(self) -> int:
        """Whole epochs behind the weights."""
        return self.trainer.done // self.steps

    def state(self) -> dict[str, Any]:
        return {
            "trainer": self.trainer.state(),
            "epochs_judged": self.epochs_judged,
            "steps_per_epoch": self.steps,
            "unreadable": sorted(self.unreadable.items()),
        }

    def _go_on_from(self, state: dict[str, Any]) -> None:
        if self.world.leads:
            resumed_epochs.refuse_past_end(self.conf, state["trainer"]["step"], self.steps)
        if unfit := self._unfit(state["trainer"]):
            if not self.world.leads:
                self.world.share(None)  # fails, because rank 0 reports the error and ends
            raise UserError(self._refusal(unfit))
        self.epochs_judged, self.trainer.best = resumed_epochs.converted(
            self.trainer.best,
            state["epochs_judged"],
            self.trainer.done,
            state["steps_per_epoch"],
            self.steps,
        )
        if not self.data.validates:  # a state of another config may have a best epoch
            self.trainer.best = BestEpoch(self.conf.task.select, self.conf.task.patience)
        self.unreadable = dict(state["unreadable"])

    def _unfit(self, state: dict[str, Any]) -> list[str]:
        """Load the state of the trainer; if it does not fit, return the reasons, nothing loaded."""
        try:
            if unfit := self.trainer.mismatches(state):
                return unfit
            self.trainer.load(state)
        except (RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
            return [f"its content ({' '.join(str(error).split())[:150]})"]
        return []

    def _refusal(self, unfit: list[str]) -> str:
        """The message for a state of another model. unfit: as `Trainer.mismatches` gives it."""
        path = self.conf.runtime.resume
        place = "the resume state" if path is None else f"runtime.resume={path}"
        more = f" ({len(unfit)} such tensors)" if len(unfit) > 1 else ""
        return (
            f"{place}: {unfit[0]}{more}. "
            "Give the backbone, resolution, part_attention, head and task.tune of the state, or "
            "train under a new runtime.run_id without runtime.resume"
        )

    def run(self, log: Log | None, stop: Callable[[], bool]) -> None:
        """Train to the end.

        Args:
            stop: asked after each step: whether to save and end.

        Raises:
            Preempted: on all ranks together; the state is saved.
            UserError: the loss is not finite, memory ran out, or an image cannot be read.
        """
        while True:
            if self.epoch > self.epochs_judged:
                self._judge(log)
            if self.epoch >= self.conf.task.epochs or self.trainer.best.exhausted:
                return
            self._train_epoch(log, stop)

    def predict(self, row_N: np.ndarray) -> Predictions | None:
        """What the evaluated model says of manifest rows, gathered on rank 0; None elsewhere."""
        read = self._classified(row_N)
        return None if read is None else self._predictions(row_N, read)

    def _predictions(self, row_N: np.ndarray, read: Logits) -> Predictions:
        return Predictions(row_N, self.dataset.manifest.label_N[row_N], read.logits_NK)

    def _classified(self, row_N: np.ndarray, features: bool = False) -> Logits | None:
        """Each rank reads its own part, and each image is read once; None but on rank 0."""
        model = self.trainer.evaluated_model()
        assert isinstance(model, Classifier)
        start = time.monotonic()
        own = classify(
            model,
            self.conf,
            self.dataset,
            np.array_split(row_N, self.world.size)[self.world.rank],
            self.device,
            self._count,
            features,
        )
        self.speed = len(row_N) / max(time.monotonic() - start, 1e-9)
        parts = self.world.gather(own)
        return Logits.joined(parts) if self.world.leads else None

    def ending(
        self, best: dict[str, Tensor] | None, before_test: Callable[[], None] = lambda: None
    ) -> Ending:
        """The last weights on validation, then the chosen ones on validation and, once, on test.

        With runtime.stop_before_test no test image is read, and there is no split `test`.

        Args:
            best: the weights that validation chose, on rank 0; None: the last are the chosen ones.
            before_test: called on each rank before any rank reads test.
        """
        self._read_undrawn()
        split, last = self.dataset.split, None
        splits: dict[str, Predictions] = {}
        validates = self.conf.final_fit == "train" and len(split.val_N) > 0
        if validates and (found := self.predict(split.val_N)) is not None:
            splits["val"] = found
            last = metrics.evaluate(found.logits_NC, found.label_N, self.classes)
        chosen = self.world.share(best)
        if chosen is not None:
            self.trainer.evaluated_model().load_state_dict(chosen)
            if validates and (found := self.predict(split.val_N)) is not None:
                splits["val"] = found
        features, looks = None, None
        if self.conf.runtime.stop_before_test:
            return Ending(splits, last, self._all_unreadable())
        self.world.share(before_test())  # no rank reads test before rank 0 has recorded it
        if (read := self._classified(split.test_N, features=True)) is not None:
            assert read.found is not None
            splits["test"] = self._predictions(split.test_N, read)
            features, looks = split_columns(read.found, self.conf, scores=True)
        return Ending(splits, last, self._all_unreadable(), features, looks)

    def _read_undrawn(self) -> None:
        """Count unreadable images that no step drew, so that the numbers of the fit do not depend
        on what was drawn. Under dataset.on_bad_image=error these images are not read.

        Raises:
            UserError: on rank 0, if no image of the fit can be read.
        """
        if self.conf.dataset.on_bad_image != "skip":
            return
        for batch in self.data.read_undrawn(self.trainer.done):
            self._count(batch.bad)
        row_N = self.data.order.row_N
        unreadable = self._all_unreadable()
        if self.world.leads and np.isin(row_N, [bad.row for bad in unreadable]).all():
            raise _none_readable(row_N, "training images can be read", "")

    def _all_unreadable(self) -> tuple[BadImage, ...]:
        """Images that any rank could not read so far, by row; empty on other ranks than 0."""
        found = {
            row: why for part in self.world.gather(self.unreadable) for row, why in part.items()
        }
        return tuple(BadImage(row, found[row]) for row in sorted(found))

    def _save(self, log: Log | None) -> None:
        """Save a state with the unreadable images of all ranks; a collective call."""
        found = self._all_unreadable()
        if log is not None:
            self.unreadable = {bad.row: bad.message for bad in found}
            log.save(self)
            if self.world.watchdog is not None:
                self.world.watchdog.state_saved = True

    def _set_images(self, row_B: np.ndarray) -> None:
        """Set the images of the next forward pass for part attention."""
        assert self.model.selector is not None
        self.model.selector.images(self.dataset.manifest.key_N[row_B])

    def _model(self) -> Classifier:
        conf = self.conf
        backbone, selector = build_model(conf, self.plan.source)
        if self.plan.text_CD is not None:
            head: torch.nn.Module = heads.TextLinearHead(
                self.plan.text_CD, torch.zeros(self.classes)
            )
        else:
            head = heads.new_head(conf.head, backbone.feature_dim, self.classes, conf.seed)
        model = Classifier(backbone, head, selector)
        model.tells_features = self.pull[0] > 0
        model.thaw(conf.task)
        model.randomize(conf.task.drop_path)
        if conf.runtime.grad_checkpointing:
            checkpoint_blocks(backbone)
        return model.to(self.device)

    def _train_epoch(self, log: Log | None, stop: Callable[[], bool]) -> None:
        """From wherever the epoch stands to its end."""
        epoch, start = divmod(self.trainer.done, self.steps)
        parts = self.data.parts(epoch, start)
        read = self.data.read(parts, epoch)
        for part in parts:
            with self.world.waiting():
                report = self.trainer.step(self._micros(read, part, log))
            if log is not None:
                log.stepped(report)
            stopping = self.world.any(stop())
            if stopping or self._due():
                self._save(log)
            if stopping:
                raise Preempted("stopped after a step")

    def _due(self) -> bool:
        """Whether a state is to be kept now; an epoch that is validated keeps one after that."""
        every, done = self.conf.runtime.save_every, self.trainer.done
        ends = done % self.steps == 0 and not self.data.validates
        return ends or (every is not None and done % every == 0)

    def _micros(self, read: Iterator[Batch], part: Draws, log: Log | None) -> Iterator[LoaderBatch]:
        """The units of one step, normalised; one without an image where there is none."""
        side = self.conf.resolution.side
        if not len(part):
            none = np.empty(0, np.int64)
            yield LoaderBatch(torch.empty(0, 3, side, side), torch.empty(0).long(), none, none)
        for _ in self.data.sizes(part):
            batch = next(read)
            if self.world.watchdog is not None:
                self.world.watchdog.mark()
            self._count(batch.bad)
            if log is not None:
                log.sample(batch)
            assert batch.place_B is not None
            pixels_BCHW = batch.pixels_BCHW.to(self.device, non_blocking=True)
            label_B = torch.from_numpy(self.dataset.manifest.label_N[batch.row_B])
            yield LoaderBatch(
                self.data.evaluation.normalize(pixels_BCHW), label_B, batch.place_B, batch.row_B
            )

    def _count(self, bad: tuple[BadImage, ...]) -> None:
        if bad and self.conf.dataset.on_bad_image == "error":
            raise UserError(f"{bad[0].message}; repair it, or {SKIP_HINT}")
        self.unreadable |= {one.row: one.message for one in bad}

    def _judge(self, log: Log | None) -> None:
        """Validate the epoch that has just ended, and keep its weights if they are the best."""
        self.epochs_judged = self.epoch
        if not self.data.validates:
            return
        found = self.predict(self.data.validation_N)
        numbers = None
        if found is not None:
            numbers = metrics.evaluate(found.logits_NC, found.label_N, self.classes)
            if numbers["loss"] is None:
                raise self._nothing_to_judge()
        top1, loss = self.world.share(numbers and (numbers["top1"], numbers["loss"]))
        self.trainer.best = self.trainer.best.after(self.epoch, top1, loss)
        if log is not None:
            assert numbers is not None
            log.judged(dict(numbers), self)
        self._save(log)

    def _nothing_to_judge(self) -> UserError:
        row_N = self.data.validation_N
        if self.data.overfits:
            says, instead = "images of task.debug=overfit can be read", ", or set another seed"
        else:
            says = "validation images can be read, so no epoch can be chosen"
            instead = ", raise dataset.val_fraction, or set final_fit=trainval"
        return _none_readable(row_N, says, instead)


def _none_readable(row_N: np.ndarray, says: str, instead: str) -> UserError:
    return UserError(
        f"dataset.on_bad_image=skip: 0 of the {len(row_N)} {says}. Repair them{instead}"
    )
