"""A batch of a long extraction in fp32 on a GPU -> a line on what precision=bf16 would give.

The trial forwards a batch that is already on the device three more times: once in fp32 and twice in
bf16, of which the first warms up. Of 10,000 images in batches of 32 this is at most 1 %. The
features and the config hash stay those of fp32.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

DEVICES = ("cuda",)  # whether a CPU has bf16 instructions is known without a trial
MIN_IMAGES = 10_000  # of an extraction; a shorter one saves too little time
WARM_UP = 2  # batches before the trial


def is_worthwhile(precision: str, device: torch.device, images: int) -> bool:
    """Whether to try bf16 in an extraction of this number of images."""
    return precision == "fp32" and device.type in DEVICES and images >= MIN_IMAGES


def measure(forward: Callable[[str], Tensor], device: torch.device) -> str:
    """Forward one batch in both precisions.

    Args:
        forward: a precision -> float32 features of the batch.

    Returns:
        One line with the ratio of the speeds and the relative difference of the features.
    """

    def timed(precision: str) -> tuple[float, Tensor]:
        _wait(device)
        start = time.perf_counter()
        feature_BD = forward(precision)
        _wait(device)
        return time.perf_counter() - start, feature_BD

    fp32_seconds, fp32_BD = timed("fp32")
    timed("bf16")
    bf16_seconds, bf16_BD = timed("bf16")
    difference = float((bf16_BD - fp32_BD).norm() / fp32_BD.norm().clamp(min=1e-30))
    return (
        f"precision=fp32: precision=bf16 would run the backbone {fp32_seconds / bf16_seconds:.1f} "
        f"times as fast here, with features that differ by {difference:.1%} (measured on "
        f"{len(fp32_BD)} images; matmul_precision=high, TF32, is faster as well)"
    )


def _wait(device: torch.device) -> None:
    """Wait for the end of all work on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
