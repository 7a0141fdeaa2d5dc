"""A loaded image -> arrays, tile by tile, so that no second copy of the image is in memory.

H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

TILE_PIXELS = 1 << 18  # of a tile
MAX_TILE_WIDTH = 1 << 16  # pixels of a tile's row

_TRANSPOSE: dict[Image.Transpose | None, Callable[[np.ndarray], np.ndarray]] = {
    None: lambda pixels_HWC: pixels_HWC,
    Image.Transpose.FLIP_LEFT_RIGHT: lambda pixels_HWC: pixels_HWC[:, ::-1],
    Image.Transpose.FLIP_TOP_BOTTOM: lambda pixels_HWC: pixels_HWC[::-1],
    Image.Transpose.ROTATE_180: lambda pixels_HWC: pixels_HWC[::-1, ::-1],
    Image.Transpose.TRANSPOSE: lambda pixels_HWC: pixels_HWC.swapaxes(0, 1),
    Image.Transpose.TRANSVERSE: lambda pixels_HWC: pixels_HWC[::-1, ::-1].swapaxes(0, 1),
    Image.Transpose.ROTATE_90: lambda pixels_HWC: np.rot90(pixels_HWC, 1),
    Image.Transpose.ROTATE_270: lambda pixels_HWC: np.rot90(pixels_HWC, 3),
}


def tile_slices(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of every tile, from the top left."""
    columns = max(1, min(width, MAX_TILE_WIDTH))
    rows = max(1, TILE_PIXELS // columns)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield (
                slice(top, min(top + rows, height)),
                slice(left, min(left + columns, width)),
            )


def iter_tiles(image: Image.Image) -> Iterator[tuple[tuple[slice, slice], Image.Image]]:
    """Every tile of a loaded image with its place; the image itself where it is a single tile."""
    width, height = image.size
    for rows, columns in tile_slices(height, width):
        box = (columns.start, rows.start, columns.stop, rows.stop)
        yield (rows, columns), image if box == (0, 0, width, height) else image.crop(box)


def convert_tiles(image: Image.Image, converted: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    """RGB of a loaded image.

    Args:
        converted: a tile -> uint8, height x width x RGB, or x 1, which becomes three channels.

    Returns:
        pixels_HWC: uint8, contiguous.
    """
    pixels_HWC = np.empty((image.height, image.width, 3), np.uint8)
    for place, tile in iter_tiles(image):
        pixels_HWC[place] = converted(tile)
    return pixels_HWC


def to_array(image: Image.Image) -> np.ndarray:
    """value_HW: samples of a loaded image of one channel, as Pillow holds them."""
    value_HW: np.ndarray | None = None
    for place, tile in iter_tiles(image):
        value = np.asarray(tile)
        if value_HW is None:
            value_HW = np.empty((image.height, image.width), value.dtype)
        value_HW[place] = value
    assert value_HW is not None
    return value_HW


def transpose(pixels: np.ndarray, turn: Image.Transpose | None) -> np.ndarray:
    """Pixels, height x width (x channels), as `Image.transpose(turn)` gives them; contiguous."""
    return np.ascontiguousarray(_TRANSPOSE[turn](pixels))
