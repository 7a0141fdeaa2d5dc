"""Bytes of an image -> uint8 RGB, one defined result for whatever lies in people's folders.

What comes out, whichever library decodes:
- only the formats of fgvc.data.image_formats are read, by their first bytes, whatever the suffix;
- the orientation of EXIF (or else XMP) is applied, and an unreadable block means upright; colour
  profiles are not applied, and other metadata is not read, however large or broken;
- transparency (RGBA, LA, palette or colour key) is laid over white;
- samples of more than 8 bits are scaled by the range that the format or the file states, floats
  without a stated range by 0..1; any other range is refused (fgvc.data.bit_depth);
- grey becomes three equal channels; CMYK, 1-bit and other modes convert by Pillow's rule;
- of animations and multi-image files the first image.

Plain JPEG goes through torchcodec where that is installed, the rest through Pillow; both hold
libjpeg-turbo, and a test holds their pixels equal. C 3 channels, H height, W width.
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
from fgvc.data.decode_errors import EffortError, NoPixelError, diagnose
from fgvc.data.size_limits import MAX_PIXELS, TooManyPixelsError
from fgvc.types import UserError

RULES = "rgb8-2"  # name of the rules above; changes when a pixel they give changes
AGAIN = "save it again"
FORMATS = tuple(image_formats.READABLE)
MAX_SCANS = 500  # of a JPEG; encoders write about ten
MAX_COMMENTS = 10_000  # in a plain PPM
MAX_SEGMENTS = 1 << 18  # strips or tiles of a TIFF; one of max_pixels in tiles of 16 x 16 has fewer

TRANSPOSE_OF = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(UserError):
    """An image that cannot be decoded; one line that names its path."""


def decode(data: bytes, path: str, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode one image; at most about 16 bytes of memory per pixel beside the file itself.

    Args:
        data: the whole file.
        path: for the message only.
        max_pixels: `dataset.max_pixels`; a larger image is refused by its header.

    Returns:
        pixels_CHW: uint8 RGB, in memory height, width, channel (a view).

    Raises:
        ImageError: no image, a damaged one, or more than max_pixels pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on sizes, palettes and EXIF
        try:
            return _pixels(open_image(data, path, max_pixels), data)
        except Exception as error:  # damaged files raise whatever their decoder happens to raise
            raise ImageError(f"{' '.join(path.split())}: {diagnose(data, path, error)}") from error


def open_image(data: bytes, path: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image as Pillow opens it: its header is read, its pixels are not.

    Args:
        path: its suffix identifies a camera's raw file, whose first bytes are those of a TIFF.
        max_pixels: of the image, and of one tile of a TIFF.

    Raises:
        TooManyPixelsError: more pixels.
        EffortError: more strips or tiles of a TIFF: each is an object before the first pixel.
        Exception: whatever Pillow raises; `diagnosis` explains it.
    """
    if not image_formats.is_readable(data[: image_formats.HEAD_BYTES], path):
        raise Image.UnidentifiedImageError
    if data.startswith(strip_metadata.SIGNATURE):
        data = strip_metadata.strip_png(data)
    if (
        data[:2] in (b"II", b"MM")
        and (pieces := strip_metadata.count_tiff_segments(data)) > MAX_SEGMENTS
    ):
        raise EffortError(
            f"{pieces} strips or tiles, more than the {MAX_SEGMENTS} allowed; {AGAIN}"
        )
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception:  # a JPEG may still open without its metadata; the second error is raised
        if not data.startswith(b"\xff\xd8"):
            raise
        image = Image.open(io.BytesIO(strip_metadata.strip_jpeg(data)), formats=FORMATS)
    if image.width * image.height > max_pixels:
        raise TooManyPixelsError(image.width, image.height, max_pixels)
    if not image.width or not image.height:
        raise NoPixelError
    _check_effort(image, data, max_pixels)
    bit_depth.prepare_tiff(image, max_pixels)
    return image


def _check_effort(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Refuse an image whose decoding takes far more memory or time than its pixels suggest.

    Raises:
        TooManyPixelsError: runs of a BMP that skip rows; Pillow fills up to 255 rows per run.
        EffortError: a JPEG, whose every scan of a few bytes takes a pass over the image; a plain
            PPM, whose every comment takes a copy of a megabyte.
    """
    packed = isinstance(image, ImageFile.ImageFile) and image.tile[:1]  # WebP has none yet
    if packed and packed[0].codec_name == "bmp_rle" and image.width * 256 > max_pixels:
        raise TooManyPixelsError(image.width, 256, max_pixels, "packed rows of ")
    comments = data.count(b"#") if data[:2] in (b"P1", b"P2", b"P3") else 0
    if comments > MAX_COMMENTS:
        raise EffortError(f"{comments} comments, more than the {MAX_COMMENTS} allowed; {AGAIN}")
    scans = strip_metadata.count_jpeg_scans(data) if image.format in ("JPEG", "MPO") else 0
    if scans > MAX_SCANS:
        raise EffortError(f"{scans} scans, more than the {MAX_SCANS} allowed; {AGAIN}")


def _pixels(image: Image.Image, data: bytes) -> Tensor:
    turned = image.format == "TIFF"  # by Pillow itself, while it loads the pixels
    turn = None if turned else TRANSPOSE_OF.get(orientation(image))
    fast = _fast_jpeg()
    if fast and image.format == "JPEG" and image.mode in ("RGB", "L") and turn is None:
        try:
            return fast(data)
        except RuntimeError:
            pass  # Pillow may still read it, and words the diagnosis if not
    pixels_HWC = to_rgb(image, bit_depth.bits_per_sample(data, image))
    image.close()  # frees its memory before the pixels are rotated
    return torch.from_numpy(tiles.transpose(pixels_HWC, turn)).permute(2, 0, 1)


@functools.cache
def _fast_jpeg() -> Callable[[bytes], Tensor] | None:
    """torchcodec's JPEG decoder; None where it is not installed or its libraries do not load."""
    try:
        from torchcodec import decoders
    except Exception:  # ImportError, or OSError and RuntimeError of missing shared libraries
        return None
    return decoders.decode_jpeg  # pyright: ignore[reportPrivateImportUsage, reportReturnType]


def orientation(image: Image.Image) -> int:
    """EXIF's number of the way an image is turned; 1, upright, where none can be read.

    Of a TIFF always 1: Pillow turns its pixels itself as they are loaded.
    """
    if image.format == "TIFF":
        return 1
    if not {"exif", "xmp", "XML:com.adobe.xmp"} & image.info.keys() and image.format == "JPEG":
        return 1
    try:
        number = int(image.getexif().get(0x0112, 1))
    except Exception:  # a damaged EXIF block says nothing about the image
        return 1
    return number if number in TRANSPOSE_OF else 1


def image_size(file: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of an image's file as `decode` gives them; its pixels are not decoded."""
    with (
        warnings.catch_warnings(),
        open_image(untrusted.read_bytes(file, untrusted.PICTURE), file.name, max_pixels) as image,
    ):
        warnings.simplefilter("ignore")  # as in decode
        return upright_size(image)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height once it is turned as its EXIF says."""
    width, height = image.size
    return (height, width) if orientation(image) >= 5 else (width, height)  # a quarter turn


def to_rgb(image: Image.Image, bits: int) -> np.ndarray:
    """The first image as RGB, by the rules at the top, not yet turned.

    Args:
        bits: of a sample in the file, by `depth.bits_of`, which reads an image that is not loaded.

    Returns:
        pixels_HWC: uint8. No other copy of the whole image is made: it is converted in tiles.

    Raises:
        depth.RangeError: samples without a defined black and white.
    """
    image.load()
    if bit_depth.is_high_bit_depth(image):
        return tiles.convert_tiles(image, _grey(image, bits))
    bit_depth.check_rgb(image, bits)
    return tiles.convert_tiles(image, _colour)


def _grey(image: Image.Image, bits: int) -> Callable[[Image.Image], np.ndarray]:
    """How a tile of samples of more than 8 bits becomes RGB."""
    to_8_bits = bit_depth.to_8_bits(image, bits)
    clear = image.info.get("transparency")

    def converted(tile: Image.Image) -> np.ndarray:
        value_HW = np.asarray(tile)
        grey_HW = to_8_bits(value_HW)
        if isinstance(clear, int):  # the colour key of a 16-bit PNG
            grey_HW[value_HW == clear] = 255
        return grey_HW[..., None]

    return converted


def _colour(tile: Image.Image) -> np.ndarray:
    if tile.has_transparency_data:
        tile = tile.convert("RGBA")
        white = Image.new("RGBA", tile.size, (255, 255, 255, 255))
        tile = Image.alpha_composite(white, tile)
    return np.array(tile.convert("RGB"))
