"""Samples of more than 8 bits -> 8 bits, by the range that the format or the file states.

Never by the image's own brightest pixel: brightness would then change from image to image.
H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from fgvc.data import tiles
from fgvc.data.size_limits import TooManyPixelsError

TOLERANCE = 1e-3  # of the range, by which floats may lie outside it: less than half a grey level
WHITE_16 = 65535  # the largest of 16 bits
DARK_16 = 4095  # of FULL: a sixteenth, where images of 12 bits end
_BITS, _PHOTOMETRIC, _FORMAT, _PLANAR = 258, 262, 339, 284  # numbers of TIFF tags
_COUNT, _SUBFILE, _SUB_IFDS, _DNG = 277, 254, 330, 50706
_LOW, _HIGH, _MIN, _MAX = 340, 341, 280, 281
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3  # values of _FORMAT


class RangeError(ValueError):
    """An image whose samples have no defined black and white."""


@dataclass(frozen=True)
class SampleRange:
    """low, high: samples that become 0 and 255. least, most: the smallest and the largest sample.

    inverted: high is black (WhiteIsZero of TIFF).
    """

    low: float
    high: float
    least: float
    most: float
    inverted: bool = False


def is_high_bit_depth(image: Image.Image) -> bool:
    """Whether Pillow holds the samples of an opened image as more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def prepare_tiff(image: Image.Image, max_pixels: int) -> None:
    """Let Pillow read the samples of an opened TIFF as they are, before it is loaded.

    Pillow reads 16-bit samples in uncompressed separate planes as if they had 8 bits.

    Args:
        max_pixels: of a tile, which is decompressed whole, however small the image is.

    Raises:
        TooManyPixelsError: a larger tile.
        RangeError: signed bytes, which Pillow reads as unsigned, or planes that it cannot read.
        UnidentifiedImageError: a camera's raw file, in which Pillow sees a preview.
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
    if tile.codec_name == "libtiff":  # it is read rightly
        return tile
    if not isinstance(tile.args, tuple) or tile.args[0] not in ("R", "G", "B"):
        raise RangeError("its 16-bit samples lie in separate planes, which are read of RGB only")
    order = "L" if prefix == b"II" else "B"
    return tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:]))


def to_8_bits(image: Image.Image, bits: int) -> Callable[[np.ndarray], np.ndarray]:
    """The scaling of grey samples of more than 8 bits: rounded (half to even), clipped to 0..255.

    Args:
        image: one for which `is_wide` holds; it is loaded.
        bits: as `bits_of` says.

    Returns:
        Samples of a part of the image, as Pillow holds them -> uint8. NaN is black.

    Raises:
        RangeError: samples without a defined range, or nearly black ones.
    """
    scale, whole = sample_range(image, bits), _is_uint32(image)
    level_V = None
    if image.mode.startswith("I;16"):
        level_V = _to_uint8(np.arange(1 << 16, dtype=np.float64), scale)

    def levels(value_HW: np.ndarray) -> np.ndarray:
        if level_V is not None:
            return level_V[value_HW]
        seen_HW = value_HW.view(np.uint32) if whole else value_HW
        return _to_uint8(seen_HW.astype(np.float64), scale)

    return levels


def sample_range(image: Image.Image, bits: int) -> SampleRange:
    """Black and white of an image for which `is_wide` holds; arguments and errors as above."""
    scale = _find_range(image, *_min_max(image))
    full = (scale.low, scale.high) == (0, WHITE_16) and bits == 16 and not _has_stated_range(image)
    if full and 0 < scale.most <= DARK_16:
        raise RangeError(_dark_message(scale.most))
    return scale


def check_rgb(image: Image.Image, bits: int) -> None:
    """Refuse a loaded 16-bit colour image that is nearly black; Pillow keeps only 8 of its bits.

    Raises:
        RangeError: as above.
    """
    if bits == 16 and image.mode in ("RGB", "RGBA"):
        most = int(np.asarray(image.getextrema()[:3]).max())
        silhouette = image.mode == "RGBA" and not most  # black shapes, drawn by transparency
        if most <= DARK_16 >> 8 and not silhouette:
            raise RangeError(_dark_message((most << 8) + 255))


def _dark_message(most: float) -> str:
    return (
        f"its 16-bit samples reach at most {most:g} of {WHITE_16}, which is nearly black: they seem to "
        f"hold fewer bits (if not, LOW is 0 and HIGH {WHITE_16})"
    )


def sample_values(image: Image.Image) -> np.ndarray:
    """Samples of a loaded image for which `is_wide` holds, as they lie in the file."""
    value_HW = tiles.to_array(image)
    return value_HW.view(np.uint32) if _is_uint32(image) else value_HW


def _to_uint8(value: np.ndarray, scale: SampleRange) -> np.ndarray:
    share = np.nan_to_num((value - scale.low) / (scale.high - scale.low)).clip(0, 1)
    return np.rint((1 - share if scale.inverted else share) * 255).astype(np.uint8)


def _find_range(image: Image.Image, least: float, most: float) -> SampleRange:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _tiff_range(image, least, most)
    if image.mode == "F":
        _check_unit_range(least, most)
        return SampleRange(0, 1, least, most)
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        return SampleRange(
            0, WHITE_16, least, most
        )  # Pillow has scaled PNM and JPEG 2000 to 16 bits
    raise RangeError(f"its {_describe(image)} samples have no defined black and white")


def _tiff_range(image: TiffImagePlugin.TiffImageFile, least: float, most: float) -> SampleRange:
    tags = image.tag_v2
    inverted = is_inverted(image)
    stated = _stated_range(tags)
    if stated is not None and _within(least, most, *stated):
        return SampleRange(*stated, least, most, inverted)
    bits, kind = int(tags.get(_BITS, (1,))[0]), int(tags.get(_FORMAT, (_UNSIGNED,))[0])
    if kind == _UNSIGNED and bits <= 16:
        return SampleRange(0, (1 << bits) - 1, least, most, inverted)
    if kind == _FLOAT:
        _check_unit_range(least, most)
        return SampleRange(0, 1, least, most, inverted)
    raise RangeError(
        f"its {_describe(image)} samples have no defined black and white "
        f"(here {least:g} to {most:g})"
    )


def is_inverted(image: Image.Image) -> bool:
    """Whether the highest sample of an image is black (WhiteIsZero of TIFF)."""
    tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
    return tiff and image.tag_v2.get(_PHOTOMETRIC) == 0


def _has_stated_range(image: Image.Image) -> bool:
    """Whether a TIFF states a range, so that its 16 bits are meant."""
    tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
    return tiff and _stated_range(image.tag_v2) is not None


def _stated_range(tags: TiffImagePlugin.ImageFileDirectory_v2) -> tuple[float, float] | None:
    """Range by SMinSampleValue and SMaxSampleValue, or a number of bits by MaxSampleValue.

    MinSampleValue and MaxSampleValue are statistics of the image (TIFF 6.0); a range is stated
    by them only where they are all the values of a number of bits.
    """
    low, high = (_first_number(tags.get(tag)) for tag in (_LOW, _HIGH))
    if high is not None and high > (low or 0.0):
        return low or 0.0, high
    least, most = (_first_number(tags.get(tag)) for tag in (_MIN, _MAX))
    if most is not None and not least and most >= 255 and (int(most) + 1) & int(most) == 0:
        return 0.0, most
    return None


def _first_number(values: object) -> float | None:
    first = values[0] if isinstance(values, tuple) and values else values
    return float(first) if isinstance(first, int | float) else None


def _check_unit_range(least: float, most: float) -> None:
    if not _within(least, most, 0, 1):
        seen = "NaN only" if np.isnan(least) else f"here {least:g} to {most:g}"
        raise RangeError(
            f"its float samples lie outside 0..1 and have no defined black and white ({seen})"
        )


def _within(least: float, most: float, low: float, high: float) -> bool:
    slack = TOLERANCE * (high - low)
    return least >= low - slack and most <= high + slack


def _min_max(image: Image.Image) -> tuple[float, float]:
    """Smallest and largest sample of a loaded image; NaN where all are NaN."""
    whole, least, most = _is_uint32(image), [], []
    for _, tile in tiles.iter_tiles(image):
        value_HW = np.asarray(tile).view(np.uint32) if whole else np.asarray(tile)
        least.append(np.fmin.reduce(value_HW, axis=None))
        most.append(np.fmax.reduce(value_HW, axis=None))
    return float(np.fmin.reduce(least)), float(np.fmax.reduce(most))


def _is_uint32(image: Image.Image) -> bool:
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or image.mode != "I":
        return False
    tags = image.tag_v2
    return tags.get(_BITS, (1,))[0] == 32 and tags.get(_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED


def describe_samples(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    """Samples of a TIFF in words: 3 x signed 16-bit."""
    kind = {_SIGNED: "signed", _FLOAT: "float", 5: "complex", 6: "complex float"}.get(
        int(_first_number(tags.get(_FORMAT)) or _UNSIGNED), "unsigned"
    )
    count = int(_first_number(tags.get(_COUNT)) or 1)
    words = f"{kind} {int(_first_number(tags.get(_BITS)) or 1)}-bit"
    return words if count == 1 else f"{count} x {words}"


def is_camera_raw(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    """Whether a TIFF is a camera's raw file: a DNG, a mosaic, or a preview with the rest below."""
    preview = int(_first_number(tags.get(_SUBFILE)) or 0) & 1 and _SUB_IFDS in tags
    return bool(_DNG in tags or tags.get(_PHOTOMETRIC) == 32803 or preview)


def _describe(image: Image.Image) -> str:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return describe_samples(image.tag_v2)
    return f"32-bit integer (mode {image.mode})"


def bits_per_sample(data: bytes, image: Image.Image) -> int:
    """Bits of a sample in the file, which may be more than Pillow keeps of it; 8 where unknown."""
    if image.format == "PNG":
        return data[24]
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(int(bits) for bits in image.tag_v2.get(_BITS, (1,)))
    if image.format == "JPEG2000" and (at := data.find(b"\xff\x4f\xff\x51")) >= 0:
        return (data[at + 42] & 0x7F) + 1 if len(data) > at + 42 else 8
    if image.format == "AVIF" and (at := data.find(b"pixi", 0, 4096)) >= 0:
        return data[at + 9] if len(data) > at + 9 else 8
    if image.format == "PPM" and image.mode in ("I", "RGB"):
        tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
        args = tiles[0].args if tiles else None
        most = args[-1] if isinstance(args, tuple) else None
        return most.bit_length() if isinstance(most, int) else 16 if image.mode == "I" else 8
    return {"I": 16, "F": 32}.get(image.mode, 8)
