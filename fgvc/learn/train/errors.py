"""Errors that stop a training step -> one line that says what to change."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fgvc.types import UserError

_MAX_ROWS_SHOWN = 8  # rows named in the message; all of them are in `.rows`
# in the RuntimeError of MPS and of torch's CPU allocator
_OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory")


class NonFinite(UserError):  # noqa: N818
    """The loss or its gradient is not finite; the weights are those before the step.

    rows: manifest rows of the images whose loss is not finite, or of the whole global batch if only
    the gradient is not finite.
    """

    def __init__(self, what: str, value: float, step: int, rows: Sequence[int]) -> None:
        more = f" and {len(rows) - _MAX_ROWS_SHOWN} more" if len(rows) > _MAX_ROWS_SHOWN else ""
        named = ", ".join(map(str, rows[:_MAX_ROWS_SHOWN]))
        super().__init__(
            f"{what} is {value} at step {step}, manifest rows {named}{more}: lower "
            "task.learning_rate, set task.clip_norm, or take precision=fp32"
        )
        self.rows = tuple(rows)


class OutOfMemory(UserError):  # noqa: N818
    """The memory of the device or the machine is exhausted. status: of the stopped run."""

    status = "oom"

    def __init__(self, step: int, images: int, side: int) -> None:
        super().__init__(
            f"out of memory at step {step} with {images} images of {side} px at once: take a "
            "smaller runtime.micro_batch, runtime.grad_checkpointing=true, or a smaller resolution"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that memory is exhausted, on any of torch's devices."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        text in str(error) for text in _OUT_OF_MEMORY_TEXTS
    )
