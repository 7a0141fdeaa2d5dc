"""Bytes of a picture -> uint8 RGB, one defined result for whatever lies in people's folders.

What comes out, whichever library decodes:
- the orientation of EXIF (or else XMP) is applied, and an unreadable block means upright; colour
  profiles are not applied;
- transparency (RGBA, LA, palette or colour key) is laid over white;
- 16-bit grey, 32-bit integers and floats are read on the scale 0..65535: clipped to it, divided by
  257 and rounded;
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

from fgvc.types import UserError

MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs
RULES = "rgb8-1"  # name of the rules above; changes when a pixel they give changes

_UPRIGHT = {
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
            image = Image.open(io.BytesIO(data))
            _check_size(image.width * image.height)
            return _pixels(image, data)
        except Exception as error:  # damaged files raise whatever their decoder happens to raise
            raise ImageError(f"{' '.join(path.split())}: {_diagnosis(data, error)}") from error


def _pixels(image: Image.Image, data: bytes) -> Tensor:
    turned = image.format == "TIFF"  # by Pillow itself, while it loads the pixels
    turn = None if turned else _UPRIGHT.get(orientation(image))
    fast = _fast_jpeg()
    if fast and image.format == "JPEG" and image.mode in ("RGB", "L") and turn is None:
        try:
            return fast(data)
        except RuntimeError:
            pass  # Pillow may still read it, and words the diagnosis if not
    rgb = _rgb(image)
    return _tensor(rgb if turn is None else rgb.transpose(turn))


@functools.cache
def _fast_jpeg() -> Callable[[bytes], Tensor] | None:
    """torchcodec's JPEG decoder; None where it is not installed or its libraries do not load."""
    try:
        from torchcodec import decoders
    except Exception:  # ImportError, or OSError and RuntimeError of missing shared libraries
        return None
    return decoders.decode_jpeg  # pyright: ignore[reportPrivateImportUsage, reportReturnType]


def _check_size(pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise Image.DecompressionBombError(f"Image size ({pixels} pixels)")


def orientation(image: Image.Image) -> int:
    """EXIF's number of the way a picture is turned; 1, upright, where none can be read."""
    if not {"exif", "xmp", "XML:com.adobe.xmp"} & image.info.keys() and image.format == "JPEG":
        return 1
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # a damaged EXIF block says nothing about the picture
        return 1


def size_of(file: Path) -> tuple[int, int]:
    """Width and height of a picture's file as `decode` gives them, from its header alone."""
    with warnings.catch_warnings(), Image.open(file) as image:
        warnings.simplefilter("ignore")  # as in decode
        return upright_size(image)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height once it is turned as its EXIF says."""
    width, height = image.size
    return (height, width) if orientation(image) >= 5 else (width, height)  # a quarter turn


def _rgb(image: Image.Image) -> Image.Image:
    """The first picture as Pillow RGB, by the rules at the top."""
    image.load()
    if image.mode.startswith("I") or image.mode == "F":
        wide_HW = np.nan_to_num(np.asarray(image, dtype=np.float64))
        return Image.fromarray(np.rint(wide_HW.clip(0, 65535) / 257).astype(np.uint8)).convert(
            "RGB"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _tensor(rgb: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def _diagnosis(data: bytes, error: Exception) -> str:
    start = data[:512].lstrip().lower()
    if not data:
        return "an empty file (0 bytes)"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the picture itself; run git lfs pull"
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, not a picture; download it again"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"no picture in a format that can be read ({len(data)} bytes)"
    if isinstance(error, Image.DecompressionBombError):
        return f"{' '.join(str(error).split())}: more than the {MAX_PIXELS} allowed"
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"damaged picture ({len(data)} bytes): {reason}"
