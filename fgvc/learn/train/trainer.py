"""Global batches -> weights: the optimiser, its averaged weights and what a resume needs.

A step is one global batch and changes the weights in the same way for any number of ranks and
micro-batches. Drop path, dropout and mixing follow from (seed, step, place of
the image in the global batch), so no random state is kept. A step waits for the device once, to
know its loss (fp16: twice, as GradScaler reads whether the gradient overflowed).
N images of this rank's part.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fgvc.config import schema
from fgvc.learn.train.best_epoch import BestEpoch
from fgvc.learn.train.errors import NonFinite, OutOfMemory, is_out_of_memory
from fgvc.learn.train.grad_accumulation import Accumulator, Hooks, MicroBatchResult
from fgvc.learn.train.lr_schedule import learning_rate
from fgvc.learn.train.mixup import Mixer
from fgvc.learn.train.param_groups import parameter_groups
from fgvc.learn.train.state_mismatch import find_mismatches
from fgvc.learn.train.step import LoaderBatch, StepReport, unwrap


class Trainer:
    """Trains `model` in place: normalised pixels_BCHW -> logits_BC, on `device` already.

    Freeze what is to stay frozen first. With `world` > 1 the process group must stand; the model is
    then wrapped in DistributedDataParallel. A compiled model may be given.

    Args:
        depth_of: parameter name -> 0 (patches and positions) .. L (head).
        precision: fp32 | bf16 | fp16; half precision is autocast, weights stay float32.
        pull: weight and margin of the contrastive loss of the global batch; with a weight, `model`
            gives (logits_BC, feature_BD) in training.
        micro_batch: images per forward pass; None: all images of a unit. It changes no result
            beyond rounding.
        hooks: called right before each forward pass (micro-batches are read one ahead).
    """

    def __init__(
        self,
        model: nn.Module,
        task: schema.TrainTask,
        classes: int,
        depth_of: Callable[[str], int],
        steps_per_epoch: int,
        device: torch.device,
        precision: str,
        seed: int,
        world: int = 1,
        pull: tuple[float, float] = (0.0, 0.0),
        micro_batch: int | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self.task, self.precision = task, precision
        self.world, self.rank = world, distributed.get_rank() if world > 1 else 0
        self.total, self.done = task.epochs * steps_per_epoch, 0
        self.bare = unwrap(model)
        self.average = _build_ema(self.bare, task.ema)
        self.optimiser = _build_optimiser(self.bare, task, depth_of, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.best = BestEpoch(task.select, task.patience)
        if world > 1:
            _make_gradients_contiguous(self.bare)
        self.model = DistributedDataParallel(model) if world > 1 else model
        self.accumulate = Accumulator(
            self.model,
            task,
            Mixer(task, classes, seed),
            self.scaler,
            device,
            precision,
            seed,
            world,
            pull,
            micro_batch,
            hooks or Hooks(),
        )
        self.model.train()  # its parts too, which may have been built for evaluation

    def step(self, micros: Iterable[LoaderBatch]) -> StepReport:
        """One optimiser step on this rank's part of a global batch, unit by unit.

        Every rank must be given at least one, if need be without an image in it. All ranks make the
        same collective calls, for any numbers of images and micro-batches.

        Raises:
            NonFinite: on all ranks together, before any weight changes.
            UserError: a random layer of the model does not draw per image.
            OutOfMemory: on the rank whose memory ran out.
        """
        start = time.perf_counter()
        rate = self._set_rate()
        try:
            if not self.bare.training:
                self.model.train()
            self.optimiser.zero_grad()
            seen = self.accumulate(micros, self.done)
            loss, top1, images, norm = self._measured(seen)
            self._check(loss, images, norm, seen)
            moved = self._move(images, norm)
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise OutOfMemory(self.done, *self.accumulate.at_once) from error
            raise
        self.done += 1
        seconds = time.perf_counter() - start
        return StepReport(self.done - 1, loss, top1, norm, rate, images, seconds, moved)

    def evaluated_model(self) -> nn.Module:
        """The averaged weights, where task.ema asks for them, else the model itself; unwrapped."""
        return self.bare if self.average is None else self.average.module

    def state(self) -> dict[str, Any]:
        """All that a continuation needs, as plain types and tensors.

        The tensors are the live ones: save or copy them before the next step.
        """
        return {
            "model": self.bare.state_dict(),
            "optimiser": self.optimiser.state_dict()["state"],
            "scaler": self.scaler.state_dict(),
            "ema": None if self.average is None else self.average.state_dict(),
            "step": self.done,
            "best": asdict(self.best),
        }

    def mismatches(self, state: dict[str, Any]) -> list[str]:
        """A phrase for each tensor of `state` that does not fit; `load` requires an empty list."""
        return find_mismatches(state, self.bare, self.optimiser)

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`, bit for bit on a CPU; rates and decays are those of this config."""
        self.bare.load_state_dict(state["model"])
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state["optimiser"], "param_groups": groups})
        self.scaler.load_state_dict(state["scaler"])
        self.average = _build_ema(self.bare, self.task.ema)
        if self.average is not None and state["ema"] is not None:
            self.average.load_state_dict(state["ema"])
        self.done = state["step"]
        kept = state["best"] | {"select": self.task.select, "patience": self.task.patience}
        self.best = BestEpoch(**kept)

    def _set_rate(self) -> float:
        task = self.task
        rate = learning_rate(
            self.done, self.total, task.learning_rate, task.warmup_steps, task.final_rate
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["lr_scale"]
        return rate

    def _measured(self, seen: Sequence[MicroBatchResult]) -> tuple[float, float, int, float]:
        """Mean loss, top-1 and number of images over all ranks, and the norm of their gradient."""
        loss_N = torch.cat([part.loss_B for part in seen])
        right_N = torch.cat([part.right_B for part in seen])
        sums = torch.stack(
            [loss_N.sum(), right_N.sum().to(loss_N.dtype), loss_N.new_full((), len(loss_N))]
        )
        if self.world > 1:
            distributed.all_reduce(sums)
        self.scaler.unscale_(self.optimiser)
        norm = get_total_norm(self._gradients())
        # the one wait for the device
        total, right, count, norm = torch.cat([sums, norm[None]]).tolist()
        if count == 0:
            return math.nan, math.nan, 0, norm
        norm *= self.task.batch_size / count
        return total / count, right / count, int(count), norm

    def _check(
        self, loss: float, images: int, norm: float, seen: Sequence[MicroBatchResult]
    ) -> None:
        if images and not math.isfinite(loss):
            raise NonFinite("the loss", loss, self.done, self._culprits(seen))
        # in fp16 an overflow is part of the search for a scale
        if not math.isfinite(norm) and self.precision != "fp16":
            raise NonFinite("the gradient's norm", norm, self.done, self._culprits(seen))

    def _culprits(self, seen: Sequence[MicroBatchResult]) -> list[int]:
        """Rows of all ranks whose own loss is not finite, else all rows; asked on all together."""
        row_N = np.concatenate([part.row_B for part in seen])
        bad_N = ~torch.cat([part.loss_B for part in seen]).isfinite().cpu().numpy()
        ranks: list[Any] = [list(zip(row_N.tolist(), bad_N.tolist(), strict=True))] * self.world
        if self.world > 1:
            distributed.all_gather_object(ranks, ranks[self.rank])
        every = list(itertools.chain.from_iterable(ranks))
        return [row for row, bad in every if bad] or [row for row, _ in every]

    def _move(self, images: int, norm: float) -> bool:
        """Let the optimiser move the weights; whether it did."""
        if images not in (0, self.task.batch_size):
            for gradient in self._gradients():
                gradient.mul_(self.task.batch_size / images)
        if self.task.clip_norm is not None:
            clip_grads_with_norm_(self.bare.parameters(), self.task.clip_norm, torch.tensor(norm))
        if images:
            self.scaler.step(self.optimiser)
        self.scaler.update()
        moved = images > 0 and math.isfinite(norm)
        if self.average is not None and moved:
            self.average.update_parameters(self.bare)
        return moved

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self.bare.parameters() if p.grad is not None]


def _make_gradients_contiguous(model: nn.Module) -> None:
    """Give each gradient the strides of its parameter, as DistributedDataParallel expects.

    A class token of shape (1, 1, D) is broadcast over the images. With a single image, its gradient
    is a slice of the gradient of all tokens and has the strides of this larger tensor. torch takes
    it for contiguous all the same, because the stride of a dimension of size 1 does not count.
    """
    copied = functools.partial(torch.clone, memory_format=torch.contiguous_format)
    for parameter in model.parameters():
        if parameter.requires_grad and 1 in parameter.shape:
            parameter.register_hook(copied)


def _build_ema(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """Averaged weights that start from the model's own; None where there is no decay."""
    if decay is None:
        return None
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    averaged.update_parameters(model)  # the first update copies
    return averaged


def _build_optimiser(
    model: nn.Module,
    task: schema.TrainTask,
    depth_of: Callable[[str], int],
    device: torch.device,
) -> torch.optim.Optimizer:
    """AdamW with torch's betas and epsilon, or SGD with momentum; one kernel for all on CUDA."""
    groups = parameter_groups(model, depth_of, task.layer_decay, task.weight_decay)
    fused = True if device.type == "cuda" else None
    if task.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=task.learning_rate, fused=fused)
    return torch.optim.SGD(groups, lr=task.learning_rate, momentum=task.momentum, fused=fused)
