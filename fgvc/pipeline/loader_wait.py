"""The time that a GPU waited for decoded images -> a line on how to shorten an extraction."""

from __future__ import annotations

import torch

DEVICES = ("cuda",)  # on a CPU, decoding and the forward pass share the cores
MIN_IMAGES = 10_000  # of an extraction; the start of a shorter one weighs too much
SHARE = 0.2  # of the time spent waiting, from which there is a line


def note(
    device: torch.device, images: int, waited: float, seconds: float, workers: int, cores: int
) -> str | None:
    """One line if decoding, not the forward pass, limits the speed.

    Args:
        images: number of images forwarded. waited: seconds of waiting for the loader, within
            `seconds`. workers: loader processes. cores: that this process may use.
    """
    if device.type not in DEVICES or images < MIN_IMAGES or waited < SHARE * seconds:
        return None
    way_out = (
        f"set runtime.num_workers={cores}, one per core"
        if workers < cores
        else f"all {cores} cores decode; more of them, or smaller image files, would help"
    )
    return (
        f"the GPU waited for images {waited / seconds:.0%} of the time, with {workers} loader "
        f"processes: {way_out}"
    )
