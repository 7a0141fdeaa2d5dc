"""Bytes of an image file -> uint8 RGB, with one defined result for any decoding library.

- The first bytes determine the format, not the suffix; fgvc.data.image_formats lists the formats.
- The orientation of EXIF (otherwise XMP) is applied; an unreadable block means upright. Colour
  profiles are not applied. Other metadata, however large or broken, is not read.
- Transparent images (RGBA, LA, palette or colour key) are composited over white.
- Samples of more than 8 bits are scaled by the range that the format or the file states, floats
  without a stated range by 0..1; any other range is refused (fgvc.data.bit_depth).
- Grey becomes three equal channels. CMYK, 1-bit and other modes convert as in Pillow.
- Animations and multi-page files: the first image.

torchcodec, if installed, decodes plain JPEG, and Pillow everything else. Both contain
libjpeg-turbo; a test checks that their pixels are equal. C 3 channels, H height, W width.
"""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFile
from torch import Tensor

from fgvc import untrusted
from fgvc.data import bit_depth, image_formats, strip_metadata, tiles
from fgvc.data.decode_errors import DecodingCostError, NoPixelError, diagnose
from fgvc.data.size_limits import MAX_PIXELS, TooManyPixelsError
from fgvc.types import UserError

RULES = "rgb8-2"  # version of the rules above; change it when a rule changes a pixel
FORMATS = tuple(image_formats.READABLE)
MAX_SCANS = 500  # of a JPEG; encoders write about ten
MAX_COMMENTS = 10_000  # of a plain PPM
MAX_SEGMENTS = 1 << 18  # strips or tiles of a TIFF: max_pixels in tiles of 16 x 16 are fewer


class ImageError(UserError):
    """An image cannot be decoded; the message is one line and begins with the path."""


def decode(data: bytes, path: str, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode one image; memory besides the file: at most about 16 bytes per pixel.

    Args:
        data: the whole file.
        path: for messages, and to recognize camera raw files by their suffix.
        max_pixels: `dataset.max_pixels`; a larger image is refused before its pixels are decoded.

    Returns:
        pixels_CHW: uint8 RGB, a view of memory in the order HWC.

    Raises:
        ImageError: not an image, a damaged image, or more than max_pixels pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about sizes, palettes and EXIF
        try:
            return _pixels(open_image(data, path, max_pixels), data)
        except Exception as error:  # decoders raise exceptions of any type on damaged files
            raise ImageError(f"{' '.join(path.split())}: {diagnose(data, path, error)}") from error


def open_image(data: bytes, path: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image with Pillow: read its header, but not its pixels.

    Args:
        path: its suffix identifies a camera raw file, which begins like a TIFF.
        max_pixels: limit of the image and of each tile of a TIFF.

    Raises:
        TooManyPixelsError: the image, a tile or what Pillow fills at a time exceeds max_pixels.
        DecodingCostError: decoding takes far more memory or time than the pixels suggest.
        Exception: any error of Pillow; `diagnose` explains it.
    """
    if not image_formats.is_readable(data, path):
        raise Image.UnidentifiedImageError
    if data.startswith(strip_metadata.SIGNATURE):
        data = strip_metadata.strip_png(data)
    if data[:2] in (b"II", b"MM"):  # Pillow creates an object for each
        _refuse_above(MAX_SEGMENTS, strip_metadata.count_tiff_segments(data), "strips or tiles")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception:  # a JPEG may still open without its metadata
        if not data.startswith(b"\xff\xd8"):
            raise
        image = Image.open(io.BytesIO(strip_metadata.strip_jpeg(data)), formats=FORMATS)
    if image.width * image.height > max_pixels:
        raise TooManyPixelsError(image.width, image.height, max_pixels)
    if not image.width or not image.height:
        raise NoPixelError
    # of a run-length encoded BMP, Pillow fills up to 255 rows per run
    first_tile = isinstance(image, ImageFile.ImageFile) and image.tile[:1]  # WebP has none yet
    if first_tile and first_tile[0].codec_name == "bmp_rle" and image.width * 256 > max_pixels:
        raise TooManyPixelsError(image.width, 256, max_pixels, "packed rows of ")
    if data[:2] in (b"P1", b"P2", b"P3"):  # one copy of a megabyte per comment
        _refuse_above(MAX_COMMENTS, data.count(b"#"), "comments")
    if image.format in ("JPEG", "MPO"):  # one pass over the image per scan
        _refuse_above(MAX_SCANS, strip_metadata.count_jpeg_scans(data), "scans")
    bit_depth.prepare_tiff(image, max_pixels)
    return image


def _refuse_above(most: int, count: int, what: str) -> None:
    if count > most:
        raise DecodingCostError(f"{count} {what}, more than the {most} allowed; save it again")


def _pixels(image: Image.Image, data: bytes) -> Tensor:
    turn = orientation(image)
    decode_jpeg = _fast_jpeg()
    if decode_jpeg and image.format == "JPEG" and image.mode in ("RGB", "L") and turn == 1:
        try:
            return decode_jpeg(data)
        except RuntimeError:
            pass  # Pillow may still read the file; otherwise its error is diagnosed
    pixels_HWC = to_rgb(image, bit_depth.bits_per_sample(data, image))
    image.close()  # frees its memory before the pixels are rotated
    return torch.from_numpy(tiles.upright(pixels_HWC, turn)).permute(2, 0, 1)


@functools.cache
def _fast_jpeg() -> Callable[[bytes], Tensor] | None:
    """torchcodec's JPEG decoder; None where it is not installed or its libraries do not load."""
    try:
        from torchcodec import decoders
    except Exception:  # ImportError, or OSError and RuntimeError of missing shared libraries
        return None
    return decoders.decode_jpeg  # pyright: ignore[reportPrivateImportUsage, reportReturnType]


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image, 1 to 8; 1, upright, where none can be read.

    Always 1 for a TIFF, because Pillow rotates its pixels while it loads them.
    """
    if image.format == "TIFF":
        return 1
    if not {"exif", "xmp", "XML:com.adobe.xmp"} & image.info.keys() and image.format == "JPEG":
        return 1
    try:
        number = int(image.getexif().get(0x0112, 1))
    except Exception:  # a damaged EXIF block
        return 1
    return number if number in tiles.UPRIGHT else 1


def image_size(file: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of the image that `decode` returns, without decoding its pixels."""
    with (
        warnings.catch_warnings(),
        open_image(untrusted.read_bytes(file, untrusted.IMAGE), file.name, max_pixels) as image,
    ):
        warnings.simplefilter("ignore")  # as in decode
        return upright_size(image)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height after the EXIF orientation is applied."""
    width, height = image.size
    return (height, width) if orientation(image) >= 5 else (width, height)  # a quarter turn


def to_rgb(image: Image.Image, bits: int) -> np.ndarray:
    """The first image as RGB, by the rules at the top, before the orientation is applied.

    Args:
        bits: per sample in the file, by `bits_per_sample` before the image is loaded.

    Returns:
        pixels_HWC: uint8, converted tile by tile to save memory.

    Raises:
        bit_depth.SampleRangeError: samples without a defined black and white.
    """
    image.load()
    if not bit_depth.is_high_bit_depth(image):
        bit_depth.check_rgb(image, bits)
        return tiles.convert_tiles(image, _colour)
    to_8_bits, transparent = bit_depth.to_8_bits(image, bits), image.info.get("transparency")

    def grey(tile: Image.Image) -> np.ndarray:
        value_HW = np.asarray(tile)
        grey_HW = to_8_bits(value_HW)
        if isinstance(transparent, int):  # the colour key of a 16-bit PNG
            grey_HW[value_HW == transparent] = 255
        return grey_HW[..., None]

    return tiles.convert_tiles(image, grey)


def _colour(tile: Image.Image) -> np.ndarray:
    if tile.has_transparency_data:
        tile = tile.convert("RGBA")
        white = Image.new("RGBA", tile.size, (255, 255, 255, 255))
        tile = Image.alpha_composite(white, tile)
    return np.array(tile.convert("RGB"))
