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
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3  # values of _FORMAT; 1 if it is absent


class SampleRangeError(ValueError):
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
        SampleRangeError: signed bytes, which Pillow reads as unsigned, or planes it cannot read.
        UnidentifiedImageError: a camera raw file; Pillow only reads its preview.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    tags = image.tag_v2
    if is_camera_raw(tags):
        raise UnidentifiedImageError
    width, height = _integer(tags, _TILE_WIDTH), _integer(tags, _TILE_HEIGHT)
    if width * height > max_pixels:
        raise TooManyPixelsError(width, height, max_pixels, "a tile of ")
    if is_high_bit_depth(image):
        return
    if set(tags.get(_FORMAT, (_UNSIGNED,))) == {_SIGNED}:
        raise SampleRangeError("its signed 8-bit samples have no defined black and white")
    if tags.get(_PLANAR, 1) != 2 or max(tags.get(_BITS, (1,))) <= 8:
        return
    order = "L" if tags.prefix == b"II" else "B"
    for number, tile in enumerate(image.tile):
        if tile.codec_name == "libtiff":  # libtiff reads 16 bits correctly
            continue
        if not isinstance(tile.args, tuple) or tile.args[0] not in ("R", "G", "B"):
            raise SampleRangeError("its 16-bit samples in separate planes are read of RGB only")
        image.tile[number] = tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:]))


def to_8_bits(image: Image.Image, bits: int) -> Callable[[np.ndarray], np.ndarray]:
    """The scaling of grey samples of more than 8 bits: rounded (half to even), clipped to 0..255.

    Args:
        image: a loaded image of high bit depth.
        bits: as `bits_per_sample` returns them.

    Returns:
        A function: samples of a part of the image, as Pillow holds them -> uint8. NaN is black.

    Raises:
        SampleRangeError: samples without a defined range, or nearly black ones.
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
    is_uint32, minima, maxima = _is_uint32(image), [], []
    for _, tile in tiles.iter_tiles(image):
        value_HW = np.asarray(tile).view(np.uint32) if is_uint32 else np.asarray(tile)
        minima.append(np.fmin.reduce(value_HW, axis=None))  # NaN where all are NaN
        maxima.append(np.fmax.reduce(value_HW, axis=None))
    minimum, maximum = float(np.fmin.reduce(minima)), float(np.fmax.reduce(maxima))
    low, high = _black_and_white(image, minimum, maximum)
    tags = _tags(image)
    is_stated = tags is not None and _stated_range(tags) is not None
    if not is_stated and bits == 16 and (low, high) == (0, WHITE_16) and maximum > 0:
        _refuse_dark(maximum)
    return SampleRange(low, high, minimum, maximum, is_inverted(image))


def check_rgb(image: Image.Image, bits: int) -> None:
    """Refuse a loaded 16-bit colour image that is nearly black; Pillow keeps only 8 of its bits."""
    if bits == 16 and image.mode in ("RGB", "RGBA"):
        maximum = int(np.asarray(image.getextrema()[:3]).max())
        if maximum or image.mode == "RGB":  # otherwise black shapes, drawn by transparency
            _refuse_dark((maximum << 8) + 255)


def _refuse_dark(maximum: float) -> None:
    if maximum <= DARK_16:
        raise SampleRangeError(
            f"its 16-bit samples reach at most {maximum:g} of {WHITE_16}, which is nearly black: "
            f"they seem to hold fewer bits (if not, LOW is 0 and HIGH {WHITE_16})"
        )


def sample_values(image: Image.Image) -> np.ndarray:
    """Samples of a loaded image of high bit depth, as they are in the file."""
    pixel = np.asarray(image.crop((0, 0, 1, 1)))
    value_HW = np.empty((image.height, image.width), pixel.dtype)
    for region, tile in tiles.iter_tiles(image):
        value_HW[region] = np.asarray(tile)
    return value_HW.view(np.uint32) if _is_uint32(image) else value_HW


def _to_uint8(value: np.ndarray, black_white: SampleRange) -> np.ndarray:
    fraction = (value - black_white.low) / (black_white.high - black_white.low)
    fraction = np.nan_to_num(fraction).clip(0, 1)
    return np.rint((1 - fraction if black_white.inverted else fraction) * 255).astype(np.uint8)


def _black_and_white(image: Image.Image, minimum: float, maximum: float) -> tuple[float, float]:
    """Black and white: as stated in the file, or as its format defines."""
    tags = _tags(image)
    is_scaled = image.mode.startswith("I;16") or image.format in ("PNG", "PPM")
    if tags is None and is_scaled and image.mode != "F":
        return 0, WHITE_16  # Pillow has scaled PNM and JPEG 2000 to 16 bits
    stated = None if tags is None else _stated_range(tags)
    if stated is not None and _within(minimum, maximum, *stated):
        return stated
    bits, kind = (0, 0) if tags is None else (_integer(tags, _BITS, 1), _integer(tags, _FORMAT, 1))
    if kind == _UNSIGNED and bits <= 16:
        return 0, (1 << bits) - 1
    seen = "NaN only" if np.isnan(minimum) else f"here {minimum:g} to {maximum:g}"
    if kind == _FLOAT or (tags is None and image.mode == "F"):
        if _within(minimum, maximum, 0, 1):
            return 0, 1
        raise SampleRangeError(
            f"its float samples are outside 0..1 and have no defined black and white ({seen})"
        )
    words = f"32-bit integer (mode {image.mode})" if tags is None else describe_samples(tags)
    raise SampleRangeError(f"its {words} samples have no defined black and white ({seen})")


def _tags(image: Image.Image) -> TiffImagePlugin.ImageFileDirectory_v2 | None:
    return image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else None


def is_inverted(image: Image.Image) -> bool:
    """Whether the highest sample of an image is black (WhiteIsZero of TIFF)."""
    return (_tags(image) or {}).get(_PHOTOMETRIC) == 0


def _stated_range(tags: TiffImagePlugin.ImageFileDirectory_v2) -> tuple[float, float] | None:
    """Range by SMinSampleValue and SMaxSampleValue, or by MaxSampleValue.

    MinSampleValue and MaxSampleValue are statistics of the image (TIFF 6.0). They state a range
    only where they span all values of a number of bits, such as 0 to 4095.
    """
    low, high, least, most = (_first_number(tags.get(tag)) for tag in (_LOW, _HIGH, _MIN, _MAX))
    if high is not None and high > (low or 0.0):
        return low or 0.0, high
    if most is not None and not least and most >= 255 and (int(most) + 1) & int(most) == 0:
        return 0.0, most
    return None


def _first_number(values: object) -> float | None:
    first = values[0] if isinstance(values, tuple) and values else values
    return float(first) if isinstance(first, int | float) else None


def _integer(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int, default: int = 0) -> int:
    return int(_first_number(tags.get(tag)) or default)


def _within(minimum: float, maximum: float, low: float, high: float) -> bool:
    slack = TOLERANCE * (high - low)
    return minimum >= low - slack and maximum <= high + slack


def _is_uint32(image: Image.Image) -> bool:
    if (tags := _tags(image)) is None or image.mode != "I":
        return False
    return _integer(tags, _BITS, 1) == 32 and _integer(tags, _FORMAT, 1) == _UNSIGNED


def describe_samples(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    """Samples of a TIFF in words, such as "3 x signed 16-bit"."""
    kinds = {_SIGNED: "signed", _FLOAT: "float", 5: "complex", 6: "complex float"}
    kind = kinds.get(_integer(tags, _FORMAT, 1), "unsigned")
    count, words = _integer(tags, _COUNT, 1), f"{kind} {_integer(tags, _BITS, 1)}-bit"
    return words if count == 1 else f"{count} x {words}"


def is_camera_raw(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    """Whether a TIFF is a camera raw file: a DNG, a mosaic, or a preview with sub-images."""
    preview = _integer(tags, _SUBFILE) & 1 and _SUB_IFDS in tags
    return bool(_DNG in tags or tags.get(_PHOTOMETRIC) == 32803 or preview)


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
        args = image.tile[0].args if isinstance(image, ImageFile.ImageFile) and image.tile else ()
        if isinstance(args, tuple) and args and isinstance(args[-1], int):
            return args[-1].bit_length()
        return 16 if image.mode == "I" else 8
    return {"I": 16, "F": 32}.get(image.mode, 8)
