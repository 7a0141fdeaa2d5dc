"""Loader batches of a global batch -> the gradients of one step, micro-batch by micro-batch.

The sum of the gradients does not depend on how the global batch is split into ranks and
micro-batches: images are mixed before the split, random layers draw per image, and the contrastive
loss is computed over the global batch. The gradient of this loss needs the features of every image.
If any rank has several micro-batches, every rank passes its micro-batches through the model twice:
first without a graph, to get the features, then with a graph.
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
from fgvc.learn.train.step import LoaderBatch, image_keys, sync_on_last, unwrap_ddp
from fgvc.parallel.device import autocast
from fgvc.types import UserError

# called before each forward pass of a micro-batch with the manifest rows of the images, and with
# key_B, int64 on the device, from which the model's random layers draw
BeforeForward = Callable[[np.ndarray, Tensor], None]


@dataclass(frozen=True)
class MicroBatch:
    """A micro-batch after mixing. label_B: before mixing. target_BC: rows sum to 1."""

    pixels_BCHW: Tensor
    label_B: Tensor
    target_BC: Tensor
    place_B: np.ndarray
    row_B: np.ndarray


@dataclass(frozen=True)
class MicroBatchResult:
    """Results of a micro-batch: manifest rows, loss per image, and whether the prediction is the
    label with the largest weight in the target."""

    row_B: np.ndarray
    loss_B: Tensor
    right_B: Tensor


@dataclass
class Accumulator:
    """The forward and backward passes of a model; most fields are as in `Trainer`.

    last_forward: number of images of the last forward pass, and their side in pixels.
    """

    model: nn.Module
    task: schema.TrainTask
    mixer: Mixer
    scaler: torch.amp.GradScaler
    device: torch.device
    precision: str
    seed: int
    world: int
    contrastive: tuple[float, float]
    micro_batch: int | None
    before_forward: BeforeForward
    last_forward: tuple[int, int] = (0, 0)

    def __call__(self, batches: Iterable[LoaderBatch], step: int) -> list[MicroBatchResult]:
        """Accumulate the gradient of sum(loss per image) / batch_size + the contrastive term.

        The gradient is multiplied by `world`, because DistributedDataParallel averages over ranks.
        """
        micro_batches = self._micro_batches(batches, step)
        if self.contrastive[0]:
            return self._with_contrastive(list(micro_batches), step)
        results = []
        for part in sync_on_last(self.model, micro_batches):
            logit_BC, _ = self._forward(self.model, part, step)
            results.append(self._backward(part, logit_BC))
        return results

    def _micro_batches(self, batches: Iterable[LoaderBatch], step: int) -> Iterator[MicroBatch]:
        """Micro-batches on the device; mixed before the split, so that no pair is separated."""
        for batch in batches:
            images = len(batch.row_B)
            assert images == len(batch.place_B) == len(batch.label_B) == len(batch.pixels_BCHW)
            pixels_BCHW = batch.pixels_BCHW.to(self.device, non_blocking=True)
            label_B = batch.label_B.to(self.device, non_blocking=True)
            pixels_BCHW, target_BC = self.mixer(pixels_BCHW, label_B, batch.place_B, step)
            mixed: tuple[Any, ...] = (pixels_BCHW, label_B, target_BC, batch.place_B, batch.row_B)
            size = self.micro_batch or max(images, 1)
            for start in range(0, max(images, 1), size):  # one empty part if there is no image
                yield MicroBatch(*(column[start : start + size] for column in mixed))

    def _with_contrastive(
        self, micro_batches: Sequence[MicroBatch], step: int
    ) -> list[MicroBatchResult]:
        """Run one pass if every rank has one micro-batch, otherwise two passes on every rank.

        DistributedDataParallel makes collective calls within a forward pass, so all ranks must
        gather features on the same side of this pass.
        """
        images = sum(len(part.row_B) for part in micro_batches)
        rank_counts = gather_counts(self.device, self.world, images, len(micro_batches))
        counts = [count for count, _ in rank_counts]
        if all(part_count == 1 for _, part_count in rank_counts):
            (part,) = micro_batches
            logit_BC, feature_BD = self._forward(self.model, part, step)
            (gradient_BD,) = self._contrastive_gradients([feature_BD], micro_batches, counts)
            return [self._backward(part, logit_BC, (feature_BD * gradient_BD).sum())]
        local_model = unwrap_ddp(self.model)
        with torch.no_grad():
            features = [self._forward(local_model, part, step)[1] for part in micro_batches]
        gradients = self._contrastive_gradients(features, micro_batches, counts)
        results = []
        pairs = zip(micro_batches, gradients, strict=True)
        for part, gradient_BD in sync_on_last(self.model, pairs):
            logit_BC, feature_BD = self._forward(self.model, part, step)
            results.append(self._backward(part, logit_BC, (feature_BD * gradient_BD).sum()))
        return results

    def _contrastive_gradients(
        self, features: Sequence[Tensor], micro_batches: Sequence[MicroBatch], counts: Sequence[int]
    ) -> Sequence[Tensor]:
        """Gradient of the contrastive term for each micro-batch.

        Like the cross-entropy, the term is weighted by the share of readable images in the global
        batch; both are divided by this share before the optimiser step.
        """
        weight, margin = self.contrastive
        label_b = torch.cat([part.label_B for part in micro_batches])
        gradient_bD = contrastive_gradient(torch.cat(list(features)), label_b, margin, counts)
        scale = weight * self.world * sum(counts) / self.task.batch_size
        return (scale * gradient_bD).split([len(part.row_B) for part in micro_batches])

    def _forward(
        self, model: nn.Module, micro_batch: MicroBatch, step: int
    ) -> tuple[Tensor, Tensor]:
        """logit_BC and feature_BD; if the model returns only logits, they are returned twice.

        An empty micro-batch runs the model on a blank image and drops the outputs, because its rank
        must take part in the collective calls and libraries cannot reshape an empty batch.
        """
        images = len(micro_batch.row_B)
        self.last_forward = (images, micro_batch.pixels_BCHW.shape[-1])
        row_B, place_B = micro_batch.row_B, micro_batch.place_B
        pixels_BCHW = micro_batch.pixels_BCHW
        if not images:
            row_B = place_B = np.zeros(1, np.int64)
            pixels_BCHW = pixels_BCHW.new_zeros(1, *pixels_BCHW.shape[1:])
        key_B = torch.from_numpy(image_keys(self.seed, step, place_B))
        self.before_forward(row_B, key_B.to(self.device, non_blocking=True))
        states = _generator_states(self.device)
        with autocast(self.precision, self.device):
            output: Any = model(pixels_BCHW)
        if not all(map(torch.equal, states, _generator_states(self.device))):
            raise UserError(
                "backbone.checkpoints: the architecture has a random layer that cannot draw per "
                "image (dropout inside fused attention, patch dropout), so results would depend on "
                "runtime.micro_batch and runtime.nproc. Set its rate to 0."
            )
        logit_BC, feature_BD = output if isinstance(output, tuple) else (output, output)
        return logit_BC[:images], feature_BD[:images]

    def _backward(
        self, micro_batch: MicroBatch, logit_BC: Tensor, contrastive_term: Tensor | float = 0.0
    ) -> MicroBatchResult:
        logit_BC = logit_BC.to(torch.promote_types(logit_BC.dtype, torch.float32))
        loss_B = cross_entropy(
            logit_BC,
            micro_batch.target_BC.to(logit_BC.dtype),
            reduction="none",
            label_smoothing=self.task.label_smoothing,
        )
        loss = loss_B.sum() / (self.task.batch_size / self.world) + contrastive_term
        self.scaler.scale(loss).backward()
        right_B = logit_BC.detach().argmax(1) == micro_batch.target_BC.argmax(1)
        return MicroBatchResult(micro_batch.row_B, loss_B.detach(), right_B)


def _generator_states(device: torch.device) -> list[Tensor]:
    """States of the generators that a forward pass on `device` may draw from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states
