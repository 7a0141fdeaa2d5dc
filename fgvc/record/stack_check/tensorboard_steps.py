"""TensorBoard at work: events written as a run writes them, and read back."""

from __future__ import annotations

import io
from pathlib import Path

from fgvc.record.stack_check.step import Step, check_equal
from fgvc.record.tensorboard import KEYS, Board

POINTS = 3


def events(folder: Path) -> str:
    """Every scalar a run can write, and a picture.

    Raises:
        Differs: a point came back with another step or value, or not at all.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # eighths: what float32 holds exactly must come back exactly
    wrote = {key: [(n, place + n / 8) for n in range(POINTS)] for place, key in enumerate(KEYS)}
    _write(folder, wrote)
    read = EventAccumulator(str(folder / "tb"), size_guidance={"scalars": 0, "images": 0})
    read.Reload()
    tags = read.Tags()
    check_equal("tags of scalars", sorted(tags["scalars"]), sorted(wrote))
    for key, points in wrote.items():
        check_equal(key, [(event.step, event.value) for event in read.Scalars(key)], points)
    check_equal("tags of pictures", tags["images"], ["picture"])
    (picture,) = read.Images("picture")
    check_equal("size of the picture", (picture.width, picture.height), (12, 8))
    return f"{POINTS * len(KEYS)} points of {len(KEYS)} scalars and a picture, read back equal"


def _write(folder: Path, wrote: dict[str, list[tuple[int, float]]]) -> None:
    from PIL import Image

    board = Board(folder)
    for key, points in wrote.items():
        for step, value in points:
            board.scalar(key, value, step)
    png = io.BytesIO()
    Image.new("RGB", (12, 8), "teal").save(png, "PNG")
    board.image("picture", png.getvalue())
    board.close()


STEPS = (Step("tensorboard", events),)
