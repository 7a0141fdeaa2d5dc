"""Images and captions -> one sheet of images.

B images, H x W pixels, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import ImageDraw

MAX_IMAGES = 16  # per sheet
CELL, LINE = 224, 15  # pixels: maximum side of an image, height of a line of text


def draw_sheet(pixels_BHWC: np.ndarray, captions: Sequence[str]) -> np.ndarray:
    """Draw images with captions in about as many rows as columns; uint8 (H, W, C).

    Args:
        captions: one per image, in one or several lines; lines that are too long are cut.
    """
    from PIL import Image, ImageDraw

    assert len(pixels_BHWC) == len(captions) > 0
    assert pixels_BHWC.dtype == np.uint8
    count = min(len(captions), MAX_IMAGES)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    height, width = (min(side, CELL) for side in pixels_BHWC.shape[1:3])
    lines = max(caption.count("\n") + 1 for caption in captions)
    cell = height + lines * LINE + 4
    sheet = Image.new("RGB", (columns * width, rows * cell), "white")
    draw = ImageDraw.Draw(sheet)
    for index in range(count):
        x, y = index % columns * width, index // columns * cell
        sheet.paste(Image.fromarray(pixels_BHWC[index]).resize((width, height)), (x, y))
        for number, line in enumerate(captions[index].split("\n")):
            position = x + 2, y + height + 2 + number * LINE
            draw.text(position, _cut(line, width - 4, draw), fill="black")
    return np.asarray(sheet)


def _cut(text: str, width: int, draw: ImageDraw.ImageDraw) -> str:
    """The beginning of a line that fits the width in pixels."""
    line = " ".join(text.split())
    while line and draw.textlength(line) > width:
        line = line.removesuffix("…")[:-1] + "…" if len(line) > 1 else ""
    return line
