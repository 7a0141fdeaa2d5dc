"""tb/ of a finished run -> the curves of its scalars."""

from __future__ import annotations

import logging
from pathlib import Path

from fgvc import untrusted


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Points (step, value) of each scalar tag, in the order of writing; values are float32.

    Args:
        folder: a run folder.

    Raises:
        OSError: tb/ is missing, or one of its event files is a pipe or device.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    limits = {"scalars": 0, "images": 1, "tensors": 1, "histograms": 1, "compressedHistograms": 1}
    for file in (folder / "tb").iterdir():
        if "tfevents" in file.name:
            untrusted.require_regular(file)
    events = EventAccumulator(str(folder / "tb"), size_guidance=limits).Reload()
    return {
        tag: [(point.step, point.value) for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
