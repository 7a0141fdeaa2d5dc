"""Batches of the loader, the report of a step, the seeds of its draws, and helpers for models in
DistributedDataParallel.

A seed is derived from (seed, stream, place), so that no random state is kept between steps.
B images of a loader batch, C channels, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")
# streams: (step, place) for drop path and dropout of an image, (step, pair) for mixing
LAYERS, MIXING = 0, 1


@dataclass(frozen=True)
class LoaderBatch:
    """Images of a global batch that are loaded together; unreadable images are left out.

    Places 2j and 2j + 1 of the global batch form a pair for mixing and are always in the same
    loader batch. The trainer splits it into micro-batches after mixing.

    pixels_BCHW: float32, normalised. label_B: int64. place_B: places in the global batch,
    ascending. row_B: rows of the manifest.
    """

    pixels_BCHW: Tensor
    label_B: Tensor
    place_B: np.ndarray
    row_B: np.ndarray


@dataclass(frozen=True)
class StepReport:
    """An optimiser step, over all ranks.

    step: from 0. loss: mean over the `images` that could be read, nan if there is none. top1: share
    of these images whose prediction is the label with the largest weight in the target (a mixed
    image has two labels), nan if there is none. grad_norm: before clipping. learning_rate: of the
    head. seconds: of this rank, including the wait for images. updated: false if the weights did
    not change, because there was no image or because an overflow in fp16 halved the scale.
    """

    step: int
    loss: float
    top1: float
    grad_norm: float
    learning_rate: float
    images: int
    seconds: float
    updated: bool


def sync_on_last(model: nn.Module, items: Iterable[T]) -> Iterator[T]:
    """The items, read one ahead; ranks exchange gradients only while the last is processed."""
    iterator = iter(items)
    item = next(iterator, None)
    assert item is not None, "a step needs at least one micro-batch, which may be empty"
    for next_item in iterator:
        with model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext():
            yield item
        item = next_item
    yield item


def unwrap_ddp(model: nn.Module) -> nn.Module:
    """The model without DistributedDataParallel: its forward passes make no collective calls."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel and torch.compile."""
    model = unwrap_ddp(model)
    return getattr(model, "_orig_mod", model)


def derive_seed(seed: int, stream: int, *key: int) -> int:
    """A seed of 63 bits that is different for different arguments."""
    state = np.random.SeedSequence((seed, stream, *key)).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def image_keys(seed: int, step: int, place_B: np.ndarray) -> np.ndarray:
    """int64 key_B, from which the random layers of a model draw for each image of a step.

    An image is identified by its place in the global batch. A place belongs to exactly one image of
    a step, for any split into ranks and micro-batches, even if class-balanced sampling draws an
    image twice.
    """
    keys = [derive_seed(seed, LAYERS, step, place) for place in place_B.tolist()]
    return np.array(keys, dtype=np.int64)
