"""Micro-batches -> gradients: what one rank adds to a step, and what the step was.

B images of a micro-batch, C channels or classes, H, W pixels.
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
class Micro:
    """Images that go through the model at once; an unreadable one is in none of the four.

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

    step: from 0. loss: mean over the `images` that were there, nan if there was none. grad_norm:
    before clipping. learning_rate: of the head. seconds: of this rank, waiting for images included.
    moved: false where there was no image, or an overflow in fp16 halved the scale: weights stayed.
    """

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    images: int
    seconds: float
    moved: bool


def with_last(items: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Each item and whether it is the last, reading one ahead."""
    iterator = iter(items)
    held = next(iterator, None)
    assert held is not None, "a step needs a micro-batch, if need be an empty one"
    for item in iterator:
        yield held, False
        held = item
    yield held, True


def without_sync(model: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Where ranks share gradients: keep them to oneself until the last micro-batch."""
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return nullcontext()


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context of a forward."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32")


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel and torch.compile."""
    if isinstance(model, DistributedDataParallel):
        model = model.module
    return getattr(model, "_orig_mod", model)
