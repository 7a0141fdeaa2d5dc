"""Images and captions -> one sheet of images.

B images, H x W pixels, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

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
        for number, caption_line in enumerate(captions[index].split("\n")):
            line = " ".join(caption_line.split())
            while line and draw.textlength(line) > width - 4:
                line = line.removesuffix("…")[:-1] + "…" if len(line) > 1 else ""
            draw.text((x + 2, y + height + 2 + number * LINE), line, fill="black")
    return np.asarray(sheet)
