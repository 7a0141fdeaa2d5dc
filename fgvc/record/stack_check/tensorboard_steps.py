"""Events written like those of a run, and read back with TensorBoard -> one line."""

from __future__ import annotations

import io
from pathlib import Path

from fgvc.record.stack_check.step import Step, check_equal
from fgvc.record.tensorboard import KEYS, Board

POINTS = 3


def events(folder: Path) -> str:
    """Write and read back every scalar that a run can write, and an image.

    Raises:
        MismatchError: a point is lost, or its step or value differs.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # eighths are exact in float32
    points_of = {key: [(n, index + n / 8) for n in range(POINTS)] for index, key in enumerate(KEYS)}
    _write(folder, points_of)
    accumulator = EventAccumulator(str(folder / "tb"), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    tags = accumulator.Tags()
    check_equal("tags of scalars", sorted(tags["scalars"]), sorted(points_of))
    for key, points in points_of.items():
        check_equal(key, [(event.step, event.value) for event in accumulator.Scalars(key)], points)
    check_equal("tags of pictures", tags["images"], ["picture"])
    (image,) = accumulator.Images("picture")
    check_equal("size of the picture", (image.width, image.height), (12, 8))
    return f"{POINTS * len(KEYS)} points of {len(KEYS)} scalars and a picture, read back equal"


def _write(folder: Path, points_of: dict[str, list[tuple[int, float]]]) -> None:
    from PIL import Image

    board = Board(folder)
    for key, points in points_of.items():
        for step, value in points:
            board.scalar(key, value, step)
    png = io.BytesIO()
    Image.new("RGB", (12, 8), "teal").save(png, "PNG")
    board.image("picture", png.getvalue())
    board.close()


STEPS = (Step("tensorboard", events),)
