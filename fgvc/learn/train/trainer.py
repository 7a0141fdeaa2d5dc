"""Global batches -> weights: the optimiser, averaged weights, and the state for a resume.

A step processes one global batch and changes the weights in the same way for any number of ranks
and micro-batches. Drop path, dropout and mixing are functions of (seed, step, place of the image in
the global batch), so there is no random state. A step waits for the device once, to read the loss
(fp16: twice, because GradScaler reads whether the gradient overflowed).
N images of this rank.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from fgvc.learn.train.grad_accumulation import Accumulator, BeforeForward, MicroBatchResult
from fgvc.learn.train.mixup import Mixer
from fgvc.learn.train.optimiser import build_optimiser, learning_rate
from fgvc.learn.train.step import LoaderBatch, StepReport, unwrap

UPDATE_COUNT = "n_averaged"  # in the state of torch's AveragedModel


class Trainer:
    """Trains `model` in place: normalised pixels_BCHW -> logits_BC, on `device` already.

    Freeze parameters before. With `world` > 1 the process group must be initialised; the model is
    then wrapped in DistributedDataParallel. `model` may be compiled.

    Args:
        depth_of: parameter name -> 0 (patches and positions) .. L (head).
        precision: fp32 | bf16 | fp16; half precision is autocast, weights stay float32.
        contrastive: weight and margin of the contrastive loss of the global batch; if the weight is
            not 0, `model` returns (logits_BC, feature_BD) in training.
        micro_batch: images per forward pass; None: all images of a loader batch. It changes results
            by rounding only.
        before_forward: called right before each forward pass (micro-batches are read one ahead).
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
        contrastive: tuple[float, float] = (0.0, 0.0),
        micro_batch: int | None = None,
        before_forward: BeforeForward = lambda row_B, key_B: None,
    ) -> None:
        self.task, self.precision, self.world = task, precision, world
        self.total, self.done = task.epochs * steps_per_epoch, 0
        self.unwrapped_model = unwrap(model)
        self.ema_model = _build_ema(self.unwrapped_model, task.ema)
        self.optimiser = build_optimiser(self.unwrapped_model, task, depth_of, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.best = BestEpoch(task.select, task.patience)
        if world > 1:
            # DistributedDataParallel expects gradients with the strides of their parameters. Of a
            # single image, the gradient of a class token (1, 1, D) is a slice with other strides,
            # which torch regards as contiguous: it ignores strides of dimensions of size 1.
            copied = functools.partial(torch.clone, memory_format=torch.contiguous_format)
            for parameter in self.unwrapped_model.parameters():
                if parameter.requires_grad and 1 in parameter.shape:
                    parameter.register_hook(copied)
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
            contrastive,
            micro_batch,
            before_forward,
        )
        self.model.train()  # also its submodules, which may be in evaluation mode

    def step(self, batches: Iterable[LoaderBatch]) -> StepReport:
        """An optimiser step on this rank's part of a global batch.

        Args:
            batches: at least one, which may be empty. All ranks make the same collective calls, for
                any numbers of images and micro-batches.

        Raises:
            NonFinite: on all ranks, before any weight changes.
            UserError: a random layer of the model does not draw per image.
            OutOfMemory: on the rank whose memory is exhausted.
        """
        start, task = time.perf_counter(), self.task
        rate = learning_rate(
            self.done, self.total, task.learning_rate, task.warmup_steps, task.final_rate
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["lr_scale"]
        try:
            if not self.unwrapped_model.training:
                self.model.train()
            self.optimiser.zero_grad()
            results = self.accumulate(batches, self.done)
            loss, top1, images, norm = self._reduce_results(results)
            updated = self._update_weights(images, norm)
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise OutOfMemory(self.done, *self.accumulate.last_forward) from error
            raise
        self.done += 1
        seconds = time.perf_counter() - start
        return StepReport(self.done - 1, loss, top1, norm, rate, images, seconds, updated)

    def evaluated_model(self) -> nn.Module:
        """The model with averaged weights if task.ema is set, otherwise the model; unwrapped."""
        return self.unwrapped_model if self.ema_model is None else self.ema_model.module

    def state(self) -> dict[str, Any]:
        """The state for a resume, as plain types and tensors.

        The tensors are not copied: save or copy them before the next step.
        """
        return {
            "model": self.unwrapped_model.state_dict(),
            "optimiser": self.optimiser.state_dict()["state"],
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema_model is None else self.ema_model.state_dict(),
            "step": self.done,
            "best": asdict(self.best),
        }

    def mismatches(self, state: dict[str, Any]) -> list[str]:
        """A phrase for each tensor of `state` that is missing, unknown, or of another shape or kind
        of number; `load` requires an empty list."""
        model, averages = self.unwrapped_model, state["ema"]
        phrases = list(_tensor_mismatches(state["model"], model.state_dict()))
        if not phrases and averages is not None:  # the model's tensors behind a prefix, and a count
            expected = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
            saved = {name: averages[name] for name in averages if name != UPDATE_COUNT}
            phrases = [f"of the averages, {each}" for each in _tensor_mismatches(saved, expected)]
            if UPDATE_COUNT not in averages or averages[UPDATE_COUNT].ndim:
                phrases.append(f"of the averages, {UPDATE_COUNT} is not a number in the state")
        return phrases or list(_optimiser_mismatches(state["optimiser"], model, self.optimiser))

    def load(self, state: dict[str, Any]) -> None:
        """Resume from `state`, bit for bit on a CPU; rates and decays come from this config."""
        self.unwrapped_model.load_state_dict(state["model"])
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state["optimiser"], "param_groups": groups})
        self.scaler.load_state_dict(state["scaler"])
        self.ema_model = _build_ema(self.unwrapped_model, self.task.ema)
        if self.ema_model is not None and state["ema"] is not None:
            self.ema_model.load_state_dict(state["ema"])
        self.done = state["step"]
        best = state["best"] | {"select": self.task.select, "patience": self.task.patience}
        self.best = BestEpoch(**best)

    def _reduce_results(
        self, results: Sequence[MicroBatchResult]
    ) -> tuple[float, float, int, float]:
        """Mean loss, top-1 and number of images over all ranks, and the norm of the gradient."""
        loss_N = torch.cat([part.loss_B for part in results])
        right_N = torch.cat([part.right_B for part in results])
        sums = torch.stack(
            [loss_N.sum(), right_N.sum().to(loss_N.dtype), loss_N.new_full((), len(loss_N))]
        )
        if self.world > 1:
            distributed.all_reduce(sums)
        self.scaler.unscale_(self.optimiser)
        norm = get_total_norm(self._gradients())
        # the one wait for the device
        total, right, count, norm = torch.cat([sums, norm[None]]).tolist()
        loss = top1 = math.nan
        if count:
            loss, top1, norm = total / count, right / count, norm * self.task.batch_size / count
            if not math.isfinite(loss):
                raise NonFinite("the loss", loss, self.done, self._nonfinite_rows(results))
        # in fp16 an overflow is part of the search for a scale
        if not math.isfinite(norm) and self.precision != "fp16":
            raise NonFinite("the gradient's norm", norm, self.done, self._nonfinite_rows(results))
        return loss, top1, int(count), norm

    def _nonfinite_rows(self, results: Sequence[MicroBatchResult]) -> list[int]:
        """Rows of all ranks whose loss is not finite; if there are none, all rows. Collective."""
        row_N = np.concatenate([part.row_B for part in results])
        nonfinite_N = ~torch.cat([part.loss_B for part in results]).isfinite().cpu().numpy()
        own = list(zip(row_N.tolist(), nonfinite_N.tolist(), strict=True))
        ranks: list[Any] = [own] * self.world
        if self.world > 1:
            distributed.all_gather_object(ranks, own)
        all_rows = list(itertools.chain.from_iterable(ranks))
        return [row for row, bad in all_rows if bad] or [row for row, _ in all_rows]

    def _update_weights(self, images: int, norm: float) -> bool:
        """Step the optimiser; whether the weights changed."""
        if images not in (0, self.task.batch_size):
            for gradient in self._gradients():
                gradient.mul_(self.task.batch_size / images)
        if self.task.clip_norm is not None:
            clip_grads_with_norm_(
                self.unwrapped_model.parameters(), self.task.clip_norm, torch.tensor(norm)
            )
        if images:
            self.scaler.step(self.optimiser)
        self.scaler.update()
        updated = images > 0 and math.isfinite(norm)
        if self.ema_model is not None and updated:
            self.ema_model.update_parameters(self.unwrapped_model)
        return updated

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self.unwrapped_model.parameters() if p.grad is not None]


def _build_ema(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """Averaged weights that start from the model's weights; None without a decay."""
    if decay is None:
        return None
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    averaged.update_parameters(model)  # the first update copies
    return averaged


def _tensor_mismatches(
    saved: Mapping[str, Tensor], model_state: Mapping[str, Tensor]
) -> Iterator[str]:
    for name, tensor in model_state.items():
        if name not in saved:
            yield f"{name} is missing in the state"
        elif saved[name].shape != tensor.shape:
            shapes = f"{tuple(saved[name].shape)} in the state and {tuple(tensor.shape)} here"
            yield f"{name} has shape {shapes}"
        elif saved[name].is_floating_point() != tensor.is_floating_point():
            yield f"{name} holds {saved[name].dtype} in the state and {tensor.dtype} here"
    yield from (f"{name} of the state is unknown here" for name in saved if name not in model_state)


def _optimiser_mismatches(
    saved: Mapping[int, Mapping[str, Any]], model: nn.Module, optimiser: torch.optim.Optimizer
) -> Iterator[str]:
    """The state of the optimiser is indexed by the place of a parameter in its groups."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    if saved and max(saved) >= len(parameters):
        yield (
            f"the optimiser's state of {max(saved) + 1} learning tensors does not fit "
            f"the {len(parameters)} here"
        )
        return
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    moments, expected = {}, {}
    for place, values in saved.items():
        for key, value in values.items():
            if isinstance(value, Tensor) and value.ndim:
                name = f"the optimiser's {key} of {names[id(parameters[place])]}"
                moments[name], expected[name] = value, parameters[place]
    yield from _tensor_mismatches(moments, expected)
