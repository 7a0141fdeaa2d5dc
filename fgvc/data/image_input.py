"""An image in any form (PIL image, array, tensor, path) -> the uint8 RGB pixels of its file.

C 3 channels, H height, W width.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageFile
from torch import Tensor

from fgvc import untrusted
from fgvc.data import bit_depth, decode, tiles
from fgvc.types import UserError

ImageInput: TypeAlias = Tensor | Image.Image | np.ndarray | Path | str
FORMS = "a PIL image, a uint8 array of height x width x 3, a uint8 tensor of 3 x height x width"


def pixels_of(image: ImageInput) -> Tensor:
    """The pixels of an image, by the rules of `decode`.

    Args:
        image: a PIL image of any mode (its EXIF orientation is applied); an array, height x width
            or height x width x channels; a tensor, channels x height x width; or a path.

    Returns:
        pixels_CHW: uint8 RGB. A tensor in this form is returned unchanged, with its leading axes.

    Raises:
        UserError: another form, a float array or tensor (its scale is unknown), or an image that
            cannot be decoded.
    """
    if isinstance(image, Tensor):
        return _tensor_pixels(image)
    if isinstance(image, str | Path):
        data = untrusted.read_bytes(Path(image).expanduser(), untrusted.IMAGE)
        return decode.decode(data, str(image))
    if isinstance(image, np.ndarray):
        return _image_pixels(_array_image(image))
    if isinstance(image, Image.Image):
        return _image_pixels(image)
    raise UserError(f"an image of type {type(image).__name__}: give {FORMS}, or its path")


def _tensor_pixels(tensor: Tensor) -> Tensor:
    shape = tuple(tensor.shape)
    if tensor.dtype != torch.uint8:
        raise UserError(
            f"an image of {tensor.dtype}, {shape}: give uint8 of 0 to 255, as "
            "torchvision's PILToTensor does; ToTensor's 0 to 1 is (255 * x).round().byte()"
        )
    if tensor.ndim >= 3 and shape[-3] == 3:
        return tensor
    if tensor.ndim == 3 and shape[0] in (1, 2, 4):
        return _image_pixels(_array_image(tensor.permute(1, 2, 0).numpy(force=True)))
    raise UserError(f"an image of {tensor.dtype}, {shape}: give {FORMS}")


def _array_image(array: np.ndarray) -> Image.Image:
    """A PIL image of an array, height x width or height x width x channels."""
    squeezed = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    channels = squeezed.shape[2] if squeezed.ndim == 3 else 1
    is_16_bit = squeezed.ndim == 2 and squeezed.dtype == np.uint16
    if squeezed.ndim not in (2, 3) or channels > 4 or not (is_16_bit or squeezed.dtype == np.uint8):
        raise UserError(f"an image of {array.dtype}, {array.shape}: give {FORMS}")
    return Image.fromarray(np.ascontiguousarray(squeezed))


def _image_pixels(image: Image.Image) -> Tensor:
    """Decode by the rules of files: the file's bytes if Pillow has not loaded the image yet,
    otherwise a lossless copy."""
    name = str(getattr(image, "filename", "") or "image")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in decode
        try:
            data = _file_bytes(image) or _scaled_png(image) or _lossless_copy(image)
        except Exception as error:  # a lazily opened file may turn out to be damaged
            raise UserError(f"{name}: {' '.join(str(error).split())}") from error
    return decode.decode(data, name)


def _scaled_png(image: Image.Image) -> bytes | None:
    """An 8-bit PNG of a loaded file of high bit depth, whose range only the file states."""
    if not (isinstance(image, ImageFile.ImageFile) and bit_depth.is_high_bit_depth(image)):
        return None
    bits = bit_depth.bits_per_sample(b"", image) if image.format == "TIFF" else 16
    pixels_HWC = tiles.upright(decode.to_rgb(image, bits), decode.orientation(image))
    out = io.BytesIO()
    Image.fromarray(pixels_HWC).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _file_bytes(image: Image.Image) -> bytes | None:
    """The file of an image that was opened and neither loaded nor changed; None for others.

    A loaded image may have been edited, and `decode` does not read later frames or drafts.
    """
    file = getattr(image, "fp", None)
    if not (isinstance(image, ImageFile.ImageFile) and image.tile and file and image.tell() == 0):
        return None
    position = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(position)
    with Image.open(io.BytesIO(data), formats=decode.FORMATS) as reopened:
        read, given = ((each.size, each.mode, each.format) for each in (reopened, image))
    return data if read == given else None


def _lossless_copy(image: Image.Image) -> bytes:
    """PNG, or TIFF for modes that PNG does not support; keeps the EXIF orientation."""
    image.load()
    if image.mode in ("I;16B", "I;16L", "I;16N"):
        info, image = image.info, Image.fromarray(np.asarray(image).astype(np.uint16))
        image.info = info
    file_format = "TIFF" if image.mode in ("I", "F") else "PNG"
    if file_format == "PNG" and image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    exif = Image.Exif()
    if (orientation := decode.orientation(image)) != 1:
        exif[0x0112] = orientation
    out, options = io.BytesIO(), dict[str, Any](exif=exif)
    if (transparency := image.info.get("transparency")) is not None:
        options["transparency"] = transparency
    if file_format == "PNG":
        options["compress_level"] = 1
    image.save(out, file_format, **options)
    return out.getvalue()
