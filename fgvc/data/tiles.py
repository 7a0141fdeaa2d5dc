"""A loaded image -> arrays, tile by tile, to avoid a second copy of the image in memory.

H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from PIL import Image

TILE_PIXELS = 1 << 18  # of a tile
MAX_TILE_WIDTH = 1 << 16  # pixels of a tile's row

# EXIF orientation: stored pixels -> upright pixels
UPRIGHT: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda pixels_HWC: pixels_HWC,
    2: lambda pixels_HWC: pixels_HWC[:, ::-1],
    3: lambda pixels_HWC: pixels_HWC[::-1, ::-1],
    4: lambda pixels_HWC: pixels_HWC[::-1],
    5: lambda pixels_HWC: pixels_HWC.swapaxes(0, 1),
    6: lambda pixels_HWC: np.rot90(pixels_HWC, 3),
    7: lambda pixels_HWC: pixels_HWC[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels_HWC: np.rot90(pixels_HWC, 1),
}


def iter_tiles(image: Image.Image) -> Iterator[tuple[tuple[slice, slice], Image.Image]]:
    """Every tile of a loaded image with its rows and columns; a single tile is the image itself."""
    width, height = image.size
    columns = max(1, min(width, MAX_TILE_WIDTH))
    rows = max(1, TILE_PIXELS // columns)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            box = (left, top, min(left + columns, width), min(top + rows, height))
            region = slice(top, box[3]), slice(left, box[2])
            yield region, image if box == (0, 0, width, height) else image.crop(box)


def convert_tiles(image: Image.Image, convert: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    """Convert a loaded image to RGB, tile by tile.

    Args:
        convert: a tile -> uint8, height x width x 3 or x 1; 1 is broadcast to 3.

    Returns:
        pixels_HWC: uint8, contiguous.
    """
    pixels_HWC = np.empty((image.height, image.width, 3), np.uint8)
    for region, tile in iter_tiles(image):
        pixels_HWC[region] = convert(tile)
    return pixels_HWC


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation to pixels, height x width (x channels); contiguous."""
    return np.ascontiguousarray(UPRIGHT[orientation](pixels))
