"""Features on a GPU -> the CPU, while the GPU works on the next batch.

A copy to the CPU waits for the forward pass before it. So the copy is requested at once and read
one batch later: in between, the CPU launches the next forward pass.
B batch, D columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")
DEVICES = ("cuda",)  # where a forward pass returns before it is computed


def start(feature_BD: Tensor) -> Callable[[], np.ndarray]:
    """Request the copy of a tensor; the returned function waits for it."""
    if feature_BD.device.type != "cuda":
        array_BD = feature_BD.cpu().numpy()
        return lambda: array_BD
    host_BD = torch.empty(feature_BD.shape, dtype=feature_BD.dtype, pin_memory=True)
    host_BD.copy_(feature_BD, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(feature_BD.device))

    def wait() -> np.ndarray:
        copied.synchronize()
        return host_BD.numpy()

    return wait


def one_late(items: Iterable[T]) -> Iterator[T]:
    """Yield each item after the next one has been made; the last at the end."""
    previous: list[T] = []
    for item in items:
        yield from previous
        previous = [item]
    yield from previous
