"""Bytes of a picture -> uint8 RGB, one defined result for whatever lies in people's folders.

What comes out, whichever library decodes:
- only the formats of fgvc.data.formats are read, by their first bytes, whatever the suffix;
- the orientation of EXIF (or else XMP) is applied, and an unreadable block means upright; colour
  profiles are not applied, and other metadata is not read, however large or broken;
- transparency (RGBA, LA, palette or colour key) is laid over white;
- samples of more than 8 bits are scaled by the range that the format or the file states, floats
  without a stated range by 0..1; any other range is refused (fgvc.data.depth);
- grey becomes three equal channels; CMYK, 1-bit and other modes convert by Pillow's rule;
- of animations and multi-picture files the first picture.

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
from PIL import Image
from torch import Tensor

from fgvc import untrusted
from fgvc.data import depth, essential, formats
from fgvc.data.diagnosis import NoPixelError, diagnosis
from fgvc.data.limits import MAX_PIXELS
from fgvc.types import UserError

RULES = "rgb8-2"  # name of the rules above; changes when a pixel they give changes
FORMATS = tuple(formats.READABLE)

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(UserError):
    """A picture that cannot be decoded; one line that names its path."""


def decode(data: bytes, path: str) -> Tensor:
    """Decode one picture.

    Args:
        data: the whole file.
        path: for the message only.

    Returns:
        pixels_CHW: uint8 RGB, in memory height, width, channel (a view).

    Raises:
        ImageError: no picture, a damaged one, or more than MAX_PIXELS pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on sizes, palettes and EXIF
        try:
            return _pixels(opened(data, path), data)
        except Exception as error:  # damaged files raise whatever their decoder happens to raise
            raise ImageError(f"{' '.join(path.split())}: {diagnosis(data, path, error)}") from error


def opened(data: bytes, path: str) -> Image.Image:
    """The picture as Pillow opens it: its header is read, its pixels are not.

    Args:
        path: its suffix identifies a camera's raw file, whose first bytes are those of a TIFF.

    Raises:
        Exception: whatever Pillow raises; `diagnosis` explains it.
    """
    if not formats.is_readable(data[: formats.HEAD], path):
        raise Image.UnidentifiedImageError
    if data.startswith(essential.SIGNATURE):
        data = essential.png(data)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception:  # a JPEG may still open without its metadata; the second error is raised
        if not data.startswith(b"\xff\xd8"):
            raise
        image = Image.open(io.BytesIO(essential.jpeg(data)), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError(f"Image size ({image.width * image.height} pixels)")
    if not image.width or not image.height:
        raise NoPixelError
    depth.prepare(image)
    return image


def _pixels(image: Image.Image, data: bytes) -> Tensor:
    turned = image.format == "TIFF"  # by Pillow itself, while it loads the pixels
    turn = None if turned else UPRIGHT.get(orientation(image))
    fast = _fast_jpeg()
    if fast and image.format == "JPEG" and image.mode in ("RGB", "L") and turn is None:
        try:
            return fast(data)
        except RuntimeError:
            pass  # Pillow may still read it, and words the diagnosis if not
    picture = rgb(image, depth.bits_of(data, image))
    return _tensor(picture if turn is None else picture.transpose(turn))


@functools.cache
def _fast_jpeg() -> Callable[[bytes], Tensor] | None:
    """torchcodec's JPEG decoder; None where it is not installed or its libraries do not load."""
    try:
        from torchcodec import decoders
    except Exception:  # ImportError, or OSError and RuntimeError of missing shared libraries
        return None
    return decoders.decode_jpeg  # pyright: ignore[reportPrivateImportUsage, reportReturnType]


def orientation(image: Image.Image) -> int:
    """EXIF's number of the way a picture is turned; 1, upright, where none can be read.

    Of a TIFF always 1: Pillow turns its pixels itself as they are loaded.
    """
    if image.format == "TIFF":
        return 1
    if not {"exif", "xmp", "XML:com.adobe.xmp"} & image.info.keys() and image.format == "JPEG":
        return 1
    try:
        number = int(image.getexif().get(0x0112, 1))
    except Exception:  # a damaged EXIF block says nothing about the picture
        return 1
    return number if number in UPRIGHT else 1


def size_of(file: Path) -> tuple[int, int]:
    """Width and height of a picture's file as `decode` gives them; its pixels are not decoded."""
    with (
        warnings.catch_warnings(),
        opened(untrusted.read_bytes(file, untrusted.PICTURE), file.name) as image,
    ):
        warnings.simplefilter("ignore")  # as in decode
        return upright_size(image)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height once it is turned as its EXIF says."""
    width, height = image.size
    return (height, width) if orientation(image) >= 5 else (width, height)  # a quarter turn


def rgb(image: Image.Image, bits: int) -> Image.Image:
    """The first picture as Pillow RGB, by the rules at the top.

    Args:
        bits: of a sample in the file, by `depth.bits_of`, which reads an image that is not loaded.

    Raises:
        depth.RangeError: samples without a defined black and white.
    """
    image.load()
    if depth.is_wide(image):
        grey_HW = depth.to_8_bits(image, bits)
        clear = image.info.get("transparency")
        if isinstance(clear, int):  # the colour key of a 16-bit PNG
            grey_HW[np.asarray(image) == clear] = 255
        return Image.fromarray(grey_HW).convert("RGB")
    depth.check_colour(image, bits)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
