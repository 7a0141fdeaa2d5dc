"""Pictures and captions -> one sheet of them.

B pictures, H x W pixels, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import ImageDraw

MAX_IMAGES = 16  # pictures of a sheet at most
CELL, LINE = 224, 15  # pixels: the side of a picture at most, the height of a line of text


def draw_sheet(pixels_BHWC: np.ndarray, captions: Sequence[str]) -> np.ndarray:
    """Pictures with a caption below each, in about as many rows as columns; uint8 (H, W, C).

    Args:
        captions: one a picture, in one line or several; what does not fit a line is cut.
    """
    from PIL import Image, ImageDraw

    assert len(pixels_BHWC) == len(captions) > 0
    assert pixels_BHWC.dtype == np.uint8
    shown = min(len(captions), MAX_IMAGES)
    columns = math.ceil(math.sqrt(shown))
    rows = math.ceil(shown / columns)
    height, width = (min(side, CELL) for side in pixels_BHWC.shape[1:3])
    lines = max(caption.count("\n") + 1 for caption in captions)
    cell = height + lines * LINE + 4
    drawn = Image.new("RGB", (columns * width, rows * cell), "white")
    draw = ImageDraw.Draw(drawn)
    for place in range(shown):
        x, y = place % columns * width, place // columns * cell
        drawn.paste(Image.fromarray(pixels_BHWC[place]).resize((width, height)), (x, y))
        for number, line in enumerate(captions[place].split("\n")):
            at = x + 2, y + height + 2 + number * LINE
            draw.text(at, _cut(line, width - 4, draw), fill="black")
    return np.asarray(drawn)


def _cut(text: str, width: int, draw: ImageDraw.ImageDraw) -> str:
    """As much of a line as stands in so many pixels."""
    line = " ".join(text.split())
    while line and draw.textlength(line) > width:
        line = line.removesuffix("…")[:-1] + "…" if len(line) > 1 else ""
    return line
