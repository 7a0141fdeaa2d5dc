"""Units of a global batch, the report of a step, and the contexts of a forward pass.

B images of a unit or a micro-batch, C channels or classes, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class LoaderBatch:
    """Images that are read together; an unreadable one is in none of the four.

    Places 2j and 2j + 1 of the global batch form a pair for mixing and are always in the same unit.
    The trainer cuts a unit into micro-batches after mixing.

    pixels_BCHW: float32, normalised. label_B: int64. place_B: where in the global batch, ascending.
    row_B: rows of the manifest, to name an image by.
    """

    pixels_BCHW: Tensor
    label_B: Tensor
    place_B: np.ndarray
    row_B: np.ndarray


@dataclass(frozen=True)
class StepReport:
    """One step, over all ranks.

    step: from 0. loss: mean over the `images` that could be read, nan if there is none. top1: share
    of these images whose prediction is the label with the largest weight in the target (a mixed
    image has two labels), nan if there is none. grad_norm: before clipping. learning_rate: of the
    head. seconds: of this rank, including the wait for images. moved: false if there was no image,
    or if an overflow in fp16 halved the scale: the weights did not change.
    """

    step: int
    loss: float
    top1: float
    grad_norm: float
    learning_rate: float
    images: int
    seconds: float
    moved: bool


def mark_last(items: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Each item and whether it is the last, reading one ahead."""
    iterator = iter(items)
    held = next(iterator, None)
    assert held is not None, "a step needs a micro-batch, if need be an empty one"
    for item in iterator:
        yield held, False
        held = item
    yield held, True


def no_sync_unless_last(model: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Where ranks share gradients: keep them to oneself until the last micro-batch."""
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return nullcontext()


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context of a forward."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32")


def unwrap_ddp(model: nn.Module) -> nn.Module:
    """The model without DistributedDataParallel: its forward passes make no collective calls."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel and torch.compile."""
    model = unwrap_ddp(model)
    return getattr(model, "_orig_mod", model)
