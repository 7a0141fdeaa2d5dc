"""Events written like those of a run, and read back with TensorBoard -> one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fgvc.record.stack_check import check_equal
from fgvc.record.tensorboard import KEYS, Board

POINTS = 3


def tensorboard(folder: Path) -> str:
    """Write and read back every scalar that a run can write, and an image.

    Raises:
        MismatchError: a point is lost, or its step or value differs.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # eighths are exact in float32
    points_of = {key: [(n, index + n / 8) for n in range(POINTS)] for index, key in enumerate(KEYS)}
    with Board(folder) as board:
        for key, points in points_of.items():
            for step, value in points:
                board.scalar(key, value, step)
        board.image("image", np.full((8, 12, 3), (0, 128, 128), np.uint8))
    accumulator = EventAccumulator(str(folder / "tb"), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    tags = accumulator.Tags()
    check_equal("tags of scalars", sorted(tags["scalars"]), sorted(points_of))
    for key, points in points_of.items():
        check_equal(key, [(event.step, event.value) for event in accumulator.Scalars(key)], points)
    check_equal("tags of images", tags["images"], ["image"])
    (image,) = accumulator.Images("image")
    check_equal("size of the image", (image.width, image.height), (12, 8))
    return f"{POINTS * len(KEYS)} points of {len(KEYS)} scalars and an image, read back equal"
