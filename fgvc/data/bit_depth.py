"""Samples of more than 8 bits -> 8 bits, by the range that the format or the file states.

The brightest pixel of an image never sets its range: brightness would then vary between images.
H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from fgvc.data import tiles
from fgvc.data.size_limits import TooManyPixelsError

TOLERANCE = 1e-3  # share of the range by which floats may exceed it: less than half a grey level
WHITE_16 = 65535  # the largest 16-bit sample
DARK_16 = 4095  # the largest 12-bit sample: 16-bit images that stay below it are nearly black
_BITS, _PHOTOMETRIC, _FORMAT, _PLANAR = 258, 262, 339, 284  # numbers of TIFF tags
_COUNT, _SUBFILE, _SUB_IFDS, _DNG = 277, 254, 330, 50706
_LOW, _HIGH, _MIN, _MAX = 340, 341, 280, 281
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3  # values of _FORMAT


class RangeError(ValueError):
    """An image whose samples have no defined black and white."""


@dataclass(frozen=True)
class SampleRange:
    """low, high: samples that become 0 and 255. minimum, maximum: of the samples of the image.

    inverted: high is black (WhiteIsZero of TIFF).
    """

    low: float
    high: float
    minimum: float
    maximum: float
    inverted: bool = False


def is_high_bit_depth(image: Image.Image) -> bool:
    """Whether Pillow holds the samples of an opened image as more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def prepare_tiff(image: Image.Image, max_pixels: int) -> None:
    """Make Pillow read the samples of an opened TIFF correctly, before the image is loaded.

    Pillow reads 16-bit samples in uncompressed separate planes as if they had 8 bits.

    Args:
        max_pixels: limit of one tile: Pillow decompresses a tile whole, even for a small image.

    Raises:
        TooManyPixelsError: a larger tile.
        RangeError: signed bytes, which Pillow reads as unsigned, or planes that Pillow cannot read.
        UnidentifiedImageError: a camera raw file; Pillow only reads its preview.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    tags = image.tag_v2
    if is_camera_raw(tags):
        raise UnidentifiedImageError
    width, height = (int(_first_number(tags.get(tag)) or 0) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
    if width * height > max_pixels:
        raise TooManyPixelsError(width, height, max_pixels, "a tile of ")
    if is_high_bit_depth(image):
        return
    if set(tags.get(_FORMAT, (_UNSIGNED,))) == {_SIGNED}:
        raise RangeError("its signed 8-bit samples have no defined black and white")
    if tags.get(_PLANAR, 1) == 2 and max(tags.get(_BITS, (1,))) > 8:
        image.tile = [_read_16_bits(tile, tags.prefix) for tile in image.tile]


def _read_16_bits(tile: ImageFile._Tile, prefix: bytes) -> ImageFile._Tile:
    if tile.codec_name == "libtiff":  # libtiff reads 16 bits correctly
        return tile
    if not isinstance(tile.args, tuple) or tile.args[0] not in ("R", "G", "B"):
        raise RangeError("its 16-bit samples lie in separate planes, which are read of RGB only")
    order = "L" if prefix == b"II" else "B"
    return tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:]))


def to_8_bits(image: Image.Image, bits: int) -> Callable[[np.ndarray], np.ndarray]:
    """The scaling of grey samples of more than 8 bits: rounded (half to even), clipped to 0..255.

    Args:
        image: a loaded image of high bit depth.
        bits: as `bits_per_sample` returns them.

    Returns:
        A function: samples of a part of the image, as Pillow holds them -> uint8. NaN is black.

    Raises:
        RangeError: samples without a defined range, or nearly black ones.
    """
    black_white, is_uint32 = sample_range(image, bits), _is_uint32(image)
    level_V = None
    if image.mode.startswith("I;16"):
        level_V = _to_uint8(np.arange(1 << 16, dtype=np.float64), black_white)

    def levels(value_HW: np.ndarray) -> np.ndarray:
        if level_V is not None:
            return level_V[value_HW]
        unsigned_HW = value_HW.view(np.uint32) if is_uint32 else value_HW
        return _to_uint8(unsigned_HW.astype(np.float64), black_white)

    return levels


def sample_range(image: Image.Image, bits: int) -> SampleRange:
    """Black and white of an image of high bit depth; arguments and errors as in `to_8_bits`."""
    black_white = _find_range(image, *_min_max(image))
    assumed = (
        (black_white.low, black_white.high) == (0, WHITE_16)
        and bits == 16
        and not _has_stated_range(image)
    )
    if assumed and 0 < black_white.maximum <= DARK_16:
        raise RangeError(_dark_message(black_white.maximum))
    return black_white


def check_rgb(image: Image.Image, bits: int) -> None:
    """Refuse a loaded 16-bit colour image that is nearly black; Pillow keeps only 8 of its bits."""
    if bits == 16 and image.mode in ("RGB", "RGBA"):
        maximum = int(np.asarray(image.getextrema()[:3]).max())
        is_silhouette = image.mode == "RGBA" and not maximum  # black shapes, drawn by transparency
        if maximum <= DARK_16 >> 8 and not is_silhouette:
            raise RangeError(_dark_message((maximum << 8) + 255))


def _dark_message(maximum: float) -> str:
    return (
        f"its 16-bit samples reach at most {maximum:g} of {WHITE_16}, which is nearly black: they "
        f"seem to hold fewer bits (if not, LOW is 0 and HIGH {WHITE_16})"
    )


def sample_values(image: Image.Image) -> np.ndarray:
    """Samples of a loaded image of high bit depth, as they are in the file."""
    value_HW = tiles.to_array(image)
    return value_HW.view(np.uint32) if _is_uint32(image) else value_HW


def _to_uint8(value: np.ndarray, black_white: SampleRange) -> np.ndarray:
    fraction = np.nan_to_num((value - black_white.low) / (black_white.high - black_white.low)).clip(
        0, 1
    )
    return np.rint((1 - fraction if black_white.inverted else fraction) * 255).astype(np.uint8)


def _find_range(image: Image.Image, minimum: float, maximum: float) -> SampleRange:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _tiff_range(image, minimum, maximum)
    if image.mode == "F":
        _check_unit_range(minimum, maximum)
        return SampleRange(0, 1, minimum, maximum)
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        return SampleRange(
            0, WHITE_16, minimum, maximum
        )  # Pillow has scaled PNM and JPEG 2000 to 16 bits
    raise RangeError(f"its {_describe(image)} samples have no defined black and white")


def _tiff_range(
    image: TiffImagePlugin.TiffImageFile, minimum: float, maximum: float
) -> SampleRange:
    tags = image.tag_v2
    inverted = is_inverted(image)
    stated = _stated_range(tags)
    if stated is not None and _within(minimum, maximum, *stated):
        return SampleRange(*stated, minimum, maximum, inverted)
    bits, sample_format = int(tags.get(_BITS, (1,))[0]), int(tags.get(_FORMAT, (_UNSIGNED,))[0])
    if sample_format == _UNSIGNED and bits <= 16:
        return SampleRange(0, (1 << bits) - 1, minimum, maximum, inverted)
    if sample_format == _FLOAT:
        _check_unit_range(minimum, maximum)
        return SampleRange(0, 1, minimum, maximum, inverted)
    raise RangeError(
        f"its {_describe(image)} samples have no defined black and white "
        f"(here {minimum:g} to {maximum:g})"
    )


def is_inverted(image: Image.Image) -> bool:
    """Whether the highest sample of an image is black (WhiteIsZero of TIFF)."""
    tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
    return tiff and image.tag_v2.get(_PHOTOMETRIC) == 0


def _has_stated_range(image: Image.Image) -> bool:
    """Whether a TIFF states the range of its samples."""
    tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
    return tiff and _stated_range(image.tag_v2) is not None


def _stated_range(tags: TiffImagePlugin.ImageFileDirectory_v2) -> tuple[float, float] | None:
    """Range by SMinSampleValue and SMaxSampleValue, or by MaxSampleValue.

    MinSampleValue and MaxSampleValue are statistics of the image (TIFF 6.0). They state a range
    only where they span all values of a number of bits, such as 0 to 4095.
    """
    low, high = (_first_number(tags.get(tag)) for tag in (_LOW, _HIGH))
    if high is not None and high > (low or 0.0):
        return low or 0.0, high
    minimum, maximum = (_first_number(tags.get(tag)) for tag in (_MIN, _MAX))
    if (
        maximum is not None
        and not minimum
        and maximum >= 255
        and (int(maximum) + 1) & int(maximum) == 0
    ):
        return 0.0, maximum
    return None


def _first_number(values: object) -> float | None:
    first = values[0] if isinstance(values, tuple) and values else values
    return float(first) if isinstance(first, int | float) else None


def _check_unit_range(minimum: float, maximum: float) -> None:
    if not _within(minimum, maximum, 0, 1):
        observed = "NaN only" if np.isnan(minimum) else f"here {minimum:g} to {maximum:g}"
        raise RangeError(
            f"its float samples lie outside 0..1 and have no defined black and white ({observed})"
        )


def _within(minimum: float, maximum: float, low: float, high: float) -> bool:
    slack = TOLERANCE * (high - low)
    return minimum >= low - slack and maximum <= high + slack


def _min_max(image: Image.Image) -> tuple[float, float]:
    """Smallest and largest sample of a loaded image; NaN where all are NaN."""
    is_uint32, minimum, maximum = _is_uint32(image), [], []
    for _, tile in tiles.iter_tiles(image):
        value_HW = np.asarray(tile).view(np.uint32) if is_uint32 else np.asarray(tile)
        minimum.append(np.fmin.reduce(value_HW, axis=None))
        maximum.append(np.fmax.reduce(value_HW, axis=None))
    return float(np.fmin.reduce(minimum)), float(np.fmax.reduce(maximum))


def _is_uint32(image: Image.Image) -> bool:
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or image.mode != "I":
        return False
    tags = image.tag_v2
    return tags.get(_BITS, (1,))[0] == 32 and tags.get(_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED


def describe_samples(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    """Samples of a TIFF in words, such as "3 x signed 16-bit"."""
    kind = {_SIGNED: "signed", _FLOAT: "float", 5: "complex", 6: "complex float"}.get(
        int(_first_number(tags.get(_FORMAT)) or _UNSIGNED), "unsigned"
    )
    count = int(_first_number(tags.get(_COUNT)) or 1)
    words = f"{kind} {int(_first_number(tags.get(_BITS)) or 1)}-bit"
    return words if count == 1 else f"{count} x {words}"


def is_camera_raw(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    """Whether a TIFF is a camera raw file: a DNG, a mosaic, or a preview with sub-images."""
    preview = int(_first_number(tags.get(_SUBFILE)) or 0) & 1 and _SUB_IFDS in tags
    return bool(_DNG in tags or tags.get(_PHOTOMETRIC) == 32803 or preview)


def _describe(image: Image.Image) -> str:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return describe_samples(image.tag_v2)
    return f"32-bit integer (mode {image.mode})"


def bits_per_sample(data: bytes, image: Image.Image) -> int:
    """Bits per sample in the file, which Pillow may reduce; 8 where unknown."""
    if image.format == "PNG":
        return data[24]
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(int(bits) for bits in image.tag_v2.get(_BITS, (1,)))
    if image.format == "JPEG2000" and (offset := data.find(b"\xff\x4f\xff\x51")) >= 0:
        return (data[offset + 42] & 0x7F) + 1 if len(data) > offset + 42 else 8
    if image.format == "AVIF" and (offset := data.find(b"pixi", 0, 4096)) >= 0:
        return data[offset + 9] if len(data) > offset + 9 else 8
    if image.format == "PPM" and image.mode in ("I", "RGB"):
        tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
        args = tiles[0].args if tiles else None
        maximum = args[-1] if isinstance(args, tuple) else None
        return maximum.bit_length() if isinstance(maximum, int) else 16 if image.mode == "I" else 8
    return {"I": 16, "F": 32}.get(image.mode, 8)
