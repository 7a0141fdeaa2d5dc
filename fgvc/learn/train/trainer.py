"""Global batches -> weights: the optimiser, its averaged weights and what a resume needs.

A step is one global batch, whatever the number of ranks and micro-batches it is cut into. Before
each the process's random state is set from (seed, step, rank): drop path and dropout follow from
that, so no random state is kept. A step waits for the device once, to know its loss (fp16: twice,
as GradScaler reads whether the gradient overflowed).
B images of a micro-batch, C classes, N images of this rank's part.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fgvc.config import schema
from fgvc.learn.train.contrastive import contrastive, of_all_ranks
from fgvc.learn.train.faults import NonFinite, OutOfMemory, is_memory
from fgvc.learn.train.groups import parameter_groups
from fgvc.learn.train.mixing import Mixer
from fgvc.learn.train.schedule import learning_rate
from fgvc.learn.train.seeds import LAYERS, derived
from fgvc.learn.train.selection import Best
from fgvc.learn.train.step import Micro, StepReport, autocast, unwrapped, with_last, without_sync

# of each micro-batch, its manifest rows and the loss of each image
Seen = list[tuple[np.ndarray, Tensor]]


class Trainer:
    """Trains `model` in place: normalised pixels_BCHW -> logits_BC, on `device` already.

    Freeze what is to stay frozen first. With `world` > 1 the process group must stand; the model is
    then wrapped in DistributedDataParallel. A compiled model may be given.

    Args:
        depth_of: parameter name -> 0 (patches and positions) .. L (head).
        precision: fp32 | bf16 | fp16; half precision is autocast, weights stay float32.
        pull: weight and margin of the contrastive loss over the images that are at once in the
            model on all ranks; with a weight, `model` gives (logits_BC, feature_BD) in training.
        on_images: told the manifest rows of each micro-batch right before the model sees it (they
            are read one ahead).
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
        on_images: Callable[[np.ndarray], None] | None = None,
    ) -> None:
        self.task, self.device, self.precision, self.seed = task, device, precision, seed
        self.world, self.rank = world, distributed.get_rank() if world > 1 else 0
        self.pull, self.on_images = pull, on_images
        self.total, self.done = task.epochs * steps_per_epoch, 0
        self.bare = unwrapped(model)
        self.average = _average(self.bare, task.ema)
        self.optimiser = _optimiser(self.bare, task, depth_of, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.mixer = Mixer(task, classes, seed)
        self.best = Best(task.select, task.patience)
        self.model = DistributedDataParallel(model) if world > 1 else model
        self._at_once = (0, 0)
        self.model.train()  # its parts too, which may have been built for evaluation

    def step(self, micros: Iterable[Micro]) -> StepReport:
        """One optimiser step on this rank's part of a global batch, micro-batch by micro-batch.

        Every rank must be given at least one, if need be without an image in it.

        Raises:
            NonFinite: on all ranks together, before any weight changes.
            OutOfMemory: on the rank whose memory ran out.
        """
        start = time.perf_counter()
        torch.manual_seed(derived(self.seed, LAYERS, self.done, self.rank))
        rate = self._set_rate()
        try:
            seen = self._accumulate(micros)
            loss, images, norm = self._measured(seen)
            self._check(loss, images, norm, seen)
            moved = self._move(images, norm)
        except (MemoryError, RuntimeError) as error:
            if is_memory(error):
                raise OutOfMemory(self.done, *self._at_once) from error
            raise
        self.done += 1
        seconds = time.perf_counter() - start
        return StepReport(self.done - 1, loss, norm, rate, images, seconds, moved)

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

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`, bit for bit on a CPU; rates and decays are those of this config."""
        self.bare.load_state_dict(state["model"])
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state["optimiser"], "param_groups": groups})
        self.scaler.load_state_dict(state["scaler"])
        self.average = _average(self.bare, self.task.ema)
        if self.average is not None and state["ema"] is not None:
            self.average.load_state_dict(state["ema"])
        self.done = state["step"]
        kept = state["best"] | {"select": self.task.select, "patience": self.task.patience}
        self.best = Best(**kept)

    def _set_rate(self) -> float:
        task = self.task
        rate = learning_rate(
            self.done, self.total, task.learning_rate, task.warmup_steps, task.final_rate
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["lr_scale"]
        return rate

    def _accumulate(self, micros: Iterable[Micro]) -> Seen:
        """The gradients of all micro-batches, added up."""
        if not self.bare.training:
            self.model.train()
        self.optimiser.zero_grad()
        seen = []
        for micro, last in with_last(micros):
            self._at_once = (len(micro.label_B), micro.pixels_BCHW.shape[-1])
            with without_sync(self.model, last):
                seen.append((micro.row_B, self._backward(micro)))
        return seen

    def _backward(self, micro: Micro) -> Tensor:
        """Add the gradient of sum(loss_B) / batch_size, times `world` as ranks are averaged."""
        pixels_BCHW = micro.pixels_BCHW.to(self.device, non_blocking=True)
        label_B = micro.label_B.to(self.device, non_blocking=True)
        pixels_BCHW, target_BC = self.mixer(pixels_BCHW, label_B, micro.place_B, self.done)
        if self.on_images is not None:
            self.on_images(micro.row_B)
        with autocast(self.precision, self.device):
            found = self.model(pixels_BCHW)
        logit_BC, feature_BD = found if isinstance(found, tuple) else (found, None)
        smoothing = self.task.label_smoothing
        loss_B = cross_entropy(
            logit_BC.float(), target_BC, reduction="none", label_smoothing=smoothing
        )
        loss = loss_B.sum() / (self.task.batch_size / self.world)
        if feature_BD is not None:
            loss = loss + self._pulled(feature_BD, label_B)
        self.scaler.scale(loss).backward()
        return loss_B.detach()

    def _pulled(self, feature_BD: Tensor, label_B: Tensor) -> Tensor:
        """The contrastive term, by the share of the global batch that these images are.

        Every rank has the whole of it: the gathering sums its gradient over the ranks, and they are
        averaged after that.
        """
        weight, margin = self.pull
        every_BD, every_B = of_all_ranks(feature_BD, label_B, self.world)
        share = len(every_B) / self.task.batch_size
        return weight * share * contrastive(every_BD, every_B, margin)

    def _measured(self, seen: Seen) -> tuple[float, int, float]:
        """Mean loss and number of images over all ranks, and the norm of their mean gradient."""
        loss_N = torch.cat([loss_B for _, loss_B in seen])
        sums = torch.stack([loss_N.sum(), loss_N.new_full((), len(loss_N))])
        if self.world > 1:
            distributed.all_reduce(sums)
        self.scaler.unscale_(self.optimiser)
        norm = get_total_norm(self._gradients())
        total, count, norm = torch.cat([sums, norm[None]]).tolist()  # the one wait for the device
        if count == 0:
            return math.nan, 0, norm
        return total / count, int(count), norm * self.task.batch_size / count

    def _check(self, loss: float, images: int, norm: float, seen: Seen) -> None:
        if images and not math.isfinite(loss):
            raise NonFinite("the loss", loss, self.done, self._culprits(seen))
        # in fp16 an overflow is part of the search for a scale
        if not math.isfinite(norm) and self.precision != "fp16":
            raise NonFinite("the gradient's norm", norm, self.done, self._culprits(seen))

    def _culprits(self, seen: Seen) -> list[int]:
        """Rows of all ranks whose own loss is not finite, else all rows; asked on all together."""
        row_N = np.concatenate([row_B for row_B, _ in seen])
        bad_N = ~torch.cat([loss_B for _, loss_B in seen]).isfinite().cpu().numpy()
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


def _average(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """Averaged weights that start from the model's own; None where there is no decay."""
    if decay is None:
        return None
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    averaged.update_parameters(model)  # the first update copies
    return averaged


def _optimiser(
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
