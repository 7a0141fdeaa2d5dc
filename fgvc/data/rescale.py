"""An image of more than 8 bits without a defined range -> 8 bits, by a range that the user gives.

    python -m fgvc.data.rescale IN OUT.png LOW HIGH

LOW becomes 0 and HIGH 255 (of WhiteIsZero the other way round). The orientation is applied, and
transparency is left out. Only the formats of fgvc.data.image_formats are opened, and an image of
more than MAX_PIXELS only where a fifth argument allows it. H height, W width, C channels.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from fgvc import untrusted
from fgvc.data import bit_depth, decode, decode_errors, image_formats, tiles
from fgvc.data.size_limits import MAX_PIXELS, MAX_PIXELS_LIMIT, TooManyPixelsError
from fgvc.store import atomic
from fgvc.types import UserError

USAGE = "python -m fgvc.data.rescale IN OUT.png LOW HIGH [MAX_PIXELS]"
MAX_BYTES = 2 << 30  # of a file
BYTES_PER_PIXEL = 32  # of all samples of a pixel, at most
ROWS_PER_STEP = 64  # rows of floats that are scaled at a time, to bound the memory


@dataclass(frozen=True)
class _Samples:
    """value: as in the file, height x width, or height x width x RGB. turn: EXIF's number, to do.

    inverted: the highest value is black.
    """

    value: np.ndarray
    turn: int = 1
    inverted: bool = False


def rescale(
    source: Path, target: Path, low: float, high: float, max_pixels: int = MAX_PIXELS
) -> None:
    """Write `target`, of 8 bits, grey or RGB.

    Raises:
        UserError: the samples cannot be read, there are too many, or LOW is not below HIGH.
    """
    if not low < high:
        raise UserError(f"LOW={low:g} HIGH={high:g}: LOW has to be below HIGH")
    if not 0 < max_pixels <= MAX_PIXELS_LIMIT:
        raise UserError(
            f"MAX_PIXELS={max_pixels}: must be at least 1 and at most {MAX_PIXELS_LIMIT}"
        )
    data = untrusted.read_bytes(source, MAX_BYTES)
    try:
        samples = _read_samples(data, source.name, max_pixels)
    except TooManyPixelsError as error:
        pixels = f"{error}".partition(", more than")[0]
        raise UserError(
            f"{source}: {pixels}, more than MAX_PIXELS={max_pixels}; scale it down, or give a "
            f"larger number as the fifth argument (at most {MAX_PIXELS_LIMIT})"
        ) from error
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    except Exception as error:  # whatever the decoder of a damaged file raises
        raise UserError(f"{source}: cannot be read: {' '.join(str(error).split())}") from error
    level = np.empty(samples.value.shape, np.uint8)
    for start in range(0, len(level), ROWS_PER_STEP):
        rows = slice(start, start + ROWS_PER_STEP)
        value = np.nan_to_num(samples.value[rows].astype(np.float64), nan=low)
        share = (value.clip(low, high) - low) / (high - low)
        level[rows] = np.rint((1 - share if samples.inverted else share) * 255)
    turn = decode.TRANSPOSE_OF.get(samples.turn)
    kind = Image.registered_extensions().get(target.suffix.lower())
    if kind is None:
        raise ValueError(f"{target}: unknown file extension: {target.suffix}")
    encoded = io.BytesIO()
    Image.fromarray(tiles.transpose(level, turn)).save(encoded, kind)
    atomic.write_bytes(target, encoded.getvalue())


def _read_samples(data: bytes, name: str, max_pixels: int) -> _Samples:
    if not image_formats.is_readable(data[: image_formats.HEAD_BYTES], name):
        raise UserError(decode_errors.diagnose(data, name, UnidentifiedImageError()))
    try:
        image = decode.open_image(data, name, max_pixels)
    except TooManyPixelsError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(decode_errors.diagnose(data, name, error)) from error
    except Exception:  # Pillow reads no such samples
        image = None
    if image is not None and bit_depth.is_high_bit_depth(image):
        turn = decode.orientation(image)
        image.load()
        return _Samples(bit_depth.sample_values(image), turn, bit_depth.is_inverted(image))
    if data[:2] in (b"II", b"MM"):
        return _read_with_tifffile(data, max_pixels)
    return _read_with_opencv(data, max_pixels)


def _read_with_tifffile(data: bytes, max_pixels: int) -> _Samples:
    try:
        with _import("tifffile").TiffFile(io.BytesIO(data)) as tiff:
            page = tiff.pages[0]
            _check_page(page, max_pixels)
            orientation = page.tags.get(274)
            turn = 1 if orientation is None else int(orientation.value)
            return _Samples(_grey_or_rgb(page.asarray(), page.axes), turn, page.photometric == 0)
    except ValueError as error:
        if "imagecodecs" not in str(error):  # some compressions need one more library
            raise
    return _read_with_opencv(data, max_pixels)


def _check_page(page: Any, max_pixels: int) -> None:
    """Refuse a page, or a tile of it, that has too many samples to be decompressed."""
    if page.imagewidth * page.imagelength > max_pixels:
        raise TooManyPixelsError(page.imagewidth, page.imagelength, max_pixels)
    if page.tilewidth * page.tilelength > max_pixels:
        raise TooManyPixelsError(page.tilewidth, page.tilelength, max_pixels, "a tile of ")
    if page.nbytes > BYTES_PER_PIXEL * max_pixels:
        raise UserError(
            f"{page.nbytes} bytes of samples, more than {BYTES_PER_PIXEL} per pixel; keep three bands"
        )


def _grey_or_rgb(sample: np.ndarray, axes: str) -> np.ndarray:
    """Height x width, or height x width x RGB; what other channels there are is left out."""
    if sample.dtype.kind == "c":
        raise UserError("complex samples are no image; save their magnitude")
    if axes.startswith("S"):  # separate planes
        sample = np.moveaxis(sample, 0, -1)
    if sample.ndim == 3:
        sample = sample[..., 0] if sample.shape[-1] < 3 else sample[..., :3]
    return sample


def _read_with_opencv(data: bytes, max_pixels: int) -> _Samples:
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(max_pixels)  # read when it is imported
    cv2 = _import("cv2")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    bgr_HWC = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if bgr_HWC is None:
        raise UserError("OpenCV reads no such samples either; save 8 bits in an image editor")
    return _Samples(bgr_HWC[..., ::-1])


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        package = {"cv2": "opencv-python-headless"}.get(name, name)
        raise UserError(f"{name} is missing: pip install {package}") from None


def main(argv: list[str]) -> None:
    """The command line; SystemExit with one line where it does not work."""
    try:
        source, target, *range_ = argv
        low, high = map(float, range_[:2])
        (max_pixels,) = map(int, range_[2:] or [MAX_PIXELS])
    except ValueError:
        given = " ".join(argv) or "no arguments"
        sys.exit(f"{given}: two files and two numbers are needed; usage: {USAGE}")
    try:
        rescale(Path(source), Path(target), low, high, max_pixels)
    except UserError as error:
        sys.exit(str(error))
    except (OSError, ValueError) as error:
        sys.exit(f"{' '.join(str(error).split())}; usage: {USAGE}")


if __name__ == "__main__":
    main(sys.argv[1:])
