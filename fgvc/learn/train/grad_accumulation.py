"""Units of a global batch -> the gradients of one step, micro-batch by micro-batch.

The sum of the gradients does not depend on how the batch is cut into ranks and micro-batches:
images are mixed before the cut, random layers draw per image, and the contrastive loss is computed
over the global batch. The gradient of this loss needs the features of every image. If any rank has
several micro-batches, every rank passes its micro-batches through the model twice: first without a
graph, to get the features, then with a graph.
Source: GradCache (Gao et al., 2021, arXiv:2101.06983).
B images of a micro-batch, b images of this rank, C channels or classes, D feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fgvc.config import schema
from fgvc.learn.train.contrastive import contrastive_gradient, gather_counts
from fgvc.learn.train.mixup import Mixer
from fgvc.learn.train.seeds import image_keys
from fgvc.learn.train.step import LoaderBatch, autocast, mark_last, no_sync_unless_last, unwrap_ddp
from fgvc.types import UserError


@dataclass(frozen=True)
class Hooks:
    """Callbacks before each forward pass of a micro-batch.

    on_images: gets the manifest rows. set_keys: gets key_B of the images, int64 on the device, from
    which the model's random layers draw.
    """

    on_images: Callable[[np.ndarray], None] | None = None
    set_keys: Callable[[Tensor], None] | None = None


@dataclass(frozen=True)
class MicroBatch:
    """A micro-batch after mixing. label_B: before mixing. target_BC: rows sum to 1."""

    pixels_BCHW: Tensor
    label_B: Tensor
    target_BC: Tensor
    place_B: np.ndarray
    row_B: np.ndarray

    def cut(self, most: int) -> list[MicroBatch]:
        """Parts of at most `most` images; [self] if there is no image."""
        spans = [slice(start, start + most) for start in range(0, len(self.row_B), most)]
        return [
            MicroBatch(
                self.pixels_BCHW[span],
                self.label_B[span],
                self.target_BC[span],
                self.place_B[span],
                self.row_B[span],
            )
            for span in spans
        ] or [self]


@dataclass(frozen=True)
class MicroBatchResult:
    """Results of a micro-batch: manifest rows, loss per image, and whether the prediction is the
    label with the largest weight in the target."""

    row_B: np.ndarray
    loss_B: Tensor
    right_B: Tensor


class Accumulator:
    """The forward and backward passes of one model.

    at_once: number of images and their side in pixels, of the last forward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        task: schema.TrainTask,
        mixer: Mixer,
        scaler: torch.amp.GradScaler,
        device: torch.device,
        precision: str,
        seed: int,
        world: int,
        pull: tuple[float, float],
        micro_batch: int | None,
        hooks: Hooks,
    ) -> None:
        self.model, self.task, self.mixer, self.scaler = model, task, mixer, scaler
        self.device, self.precision, self.seed, self.world = device, precision, seed, world
        (self.weight, self.margin), self.micro_batch, self.hooks = pull, micro_batch, hooks
        self.at_once = (0, 0)

    def __call__(self, units: Iterable[LoaderBatch], step: int) -> list[MicroBatchResult]:
        """Add up the gradient of sum(loss of each image) / batch_size + the contrastive term.

        It is multiplied by `world`, because DistributedDataParallel averages over ranks.
        """
        parts = self._parts(units, step)
        if self.weight:
            return self._with_contrastive(list(parts), step)
        seen = []
        for part, last in mark_last(parts):
            with no_sync_unless_last(self.model, last):
                logit_BC, _ = self._forward(self.model, part, step)
                seen.append(self._backward(part, logit_BC))
        return seen

    def _parts(self, units: Iterable[LoaderBatch], step: int) -> Iterator[MicroBatch]:
        """Micro-batches on the device; mixed per unit, so that no cut separates a mixed pair."""
        for unit in units:
            images = len(unit.row_B)
            assert images == len(unit.place_B) == len(unit.label_B) == len(unit.pixels_BCHW)
            pixels_BCHW = unit.pixels_BCHW.to(self.device, non_blocking=True)
            label_B = unit.label_B.to(self.device, non_blocking=True)
            pixels_BCHW, target_BC = self.mixer(pixels_BCHW, label_B, unit.place_B, step)
            whole = MicroBatch(pixels_BCHW, label_B, target_BC, unit.place_B, unit.row_B)
            yield from whole.cut(self.micro_batch or max(images, 1))

    def _with_contrastive(self, parts: Sequence[MicroBatch], step: int) -> list[MicroBatchResult]:
        """Run one pass if every rank has one micro-batch, otherwise two passes on every rank.

        DistributedDataParallel makes collective calls of its own within a forward pass, so all
        ranks must gather features on the same side of it.
        """
        images = sum(len(part.row_B) for part in parts)
        each = gather_counts(self.device, self.world, images, len(parts))
        counts = [count for count, _ in each]
        if all(micro_batches == 1 for _, micro_batches in each):
            (part,) = parts
            logit_BC, feature_BD = self._forward(self.model, part, step)
            (gradient_BD,) = self._pull([feature_BD], parts, counts)
            return [self._backward(part, logit_BC, (feature_BD * gradient_BD).sum())]
        own = unwrap_ddp(self.model)
        with torch.no_grad():
            features = [self._forward(own, part, step)[1] for part in parts]
        pairs = zip(parts, self._pull(features, parts, counts), strict=True)
        seen = []
        for (part, gradient_BD), last in mark_last(pairs):
            with no_sync_unless_last(self.model, last):
                logit_BC, feature_BD = self._forward(self.model, part, step)
                seen.append(self._backward(part, logit_BC, (feature_BD * gradient_BD).sum()))
        return seen

    def _pull(
        self, features: Sequence[Tensor], parts: Sequence[MicroBatch], counts: Sequence[int]
    ) -> Sequence[Tensor]:
        """Gradient of the contrastive term for each micro-batch.

        Like the cross-entropy, the term is weighted by the share of the global batch that could be
        read; both are divided by this share before the optimiser step.
        """
        gradient_bD = contrastive_gradient(
            torch.cat(list(features)),
            torch.cat([part.label_B for part in parts]),
            self.margin,
            counts,
        )
        scale = self.weight * self.world * sum(counts) / self.task.batch_size
        return (scale * gradient_bD).split([len(part.row_B) for part in parts])

    def _forward(self, model: nn.Module, part: MicroBatch, step: int) -> tuple[Tensor, Tensor]:
        """logit_BC and feature_BD; if the model returns only logits, these stand for both.

        A part without an image runs the model all the same, because its rank takes part in the
        collective calls: on a blank image, whose outputs are cut off. Libraries cannot reshape a
        batch of no image.

        Raises:
            UserError: a layer of the model drew from a random generator of the process.
        """
        images = len(part.row_B)
        self.at_once = (images, part.pixels_BCHW.shape[-1])
        row_B, place_B, pixels_BCHW = part.row_B, part.place_B, part.pixels_BCHW
        if not images:
            row_B = place_B = np.zeros(1, np.int64)
            pixels_BCHW = pixels_BCHW.new_zeros(1, *pixels_BCHW.shape[1:])
        if self.hooks.on_images is not None:
            self.hooks.on_images(row_B)
        if self.hooks.set_keys is not None:
            key_B = torch.from_numpy(image_keys(self.seed, step, place_B))
            self.hooks.set_keys(key_B.to(self.device, non_blocking=True))
        before = _generator_states(self.device)
        with autocast(self.precision, self.device):
            output: Any = model(pixels_BCHW)
        if not all(map(torch.equal, before, _generator_states(self.device))):
            raise UserError(
                "backbone.checkpoints: the architecture has a random layer that cannot draw per "
                "image (dropout inside fused attention, patch dropout), so results would depend on "
                "runtime.micro_batch and runtime.nproc. Set its rate to 0."
            )
        logit_BC, feature_BD = output if isinstance(output, tuple) else (output, output)
        return logit_BC[:images], feature_BD[:images]

    def _backward(
        self, part: MicroBatch, logit_BC: Tensor, pulled: Tensor | float = 0.0
    ) -> MicroBatchResult:
        logit_BC = logit_BC.to(torch.promote_types(logit_BC.dtype, torch.float32))
        loss_B = cross_entropy(
            logit_BC,
            part.target_BC.to(logit_BC.dtype),
            reduction="none",
            label_smoothing=self.task.label_smoothing,
        )
        loss = loss_B.sum() / (self.task.batch_size / self.world) + pulled
        self.scaler.scale(loss).backward()
        right_B = logit_BC.detach().argmax(1) == part.target_BC.argmax(1)
        return MicroBatchResult(part.row_B, loss_B.detach(), right_B)


def _generator_states(device: torch.device) -> list[Tensor]:
    """States of the generators that a forward pass on `device` can draw from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states
