"""An image of more than 8 bits without a defined range -> 8 bits, by a range from the user.

    python -m fgvc.data.rescale IN OUT.png LOW HIGH

LOW becomes 0 and HIGH 255 (the reverse for WhiteIsZero). The orientation is applied, and
transparency is dropped. Only the formats of fgvc.data.image_formats are opened. An image of more
than MAX_PIXELS needs a fifth argument. H height, W width, C channels.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
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
# samples as in the file, height x width (x RGB), EXIF orientation, whether the highest is black
Samples = tuple[np.ndarray, int, bool]


def rescale(
    source: Path, target: Path, low: float, high: float, max_pixels: int = MAX_PIXELS
) -> None:
    """Write `target` with 8 bits, grey or RGB.

    Raises:
        UserError: the samples cannot be read, there are too many, or LOW is not below HIGH.
    """
    if not low < high:
        raise UserError(f"LOW={low:g} HIGH={high:g}: LOW must be below HIGH")
    if not 0 < max_pixels <= MAX_PIXELS_LIMIT:
        raise UserError(f"MAX_PIXELS={max_pixels}: must be 1 to {MAX_PIXELS_LIMIT}")
    data = untrusted.read_bytes(source, MAX_BYTES)
    try:
        sample, turn, inverted = _read_samples(data, source.name, max_pixels)
    except TooManyPixelsError as error:
        pixels = f"{error}".partition(", more than")[0]
        raise UserError(
            f"{source}: {pixels}, more than MAX_PIXELS={max_pixels}; scale it down, or give a "
            f"larger number as the fifth argument (at most {MAX_PIXELS_LIMIT})"
        ) from error
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    except Exception as error:  # decoders raise exceptions of any type on damaged files
        raise UserError(f"{source}: cannot be read: {' '.join(str(error).split())}") from error
    level = np.empty(sample.shape, np.uint8)
    for start in range(0, len(level), ROWS_PER_STEP):
        rows = slice(start, start + ROWS_PER_STEP)
        value = np.nan_to_num(sample[rows].astype(np.float64), nan=low)
        fraction = (value.clip(low, high) - low) / (high - low)
        level[rows] = np.rint((1 - fraction if inverted else fraction) * 255)
    file_format = Image.registered_extensions().get(target.suffix.lower())
    if file_format is None:
        raise ValueError(f"{target}: unknown file extension: {target.suffix}")
    encoded = io.BytesIO()
    Image.fromarray(tiles.upright(level, turn)).save(encoded, file_format)
    atomic.write_bytes(target, encoded.getvalue())


def _read_samples(data: bytes, name: str, max_pixels: int) -> Samples:
    if not image_formats.is_readable(data, name):
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
        return bit_depth.sample_values(image), turn, bit_depth.is_inverted(image)
    if data[:2] in (b"II", b"MM"):
        return _read_with_tifffile(data, max_pixels)
    return _read_with_opencv(data, max_pixels)


def _read_with_tifffile(data: bytes, max_pixels: int) -> Samples:
    try:
        with _import("tifffile").TiffFile(io.BytesIO(data)) as tiff:
            page = tiff.pages[0]
            _check_page(page, max_pixels)
            orientation = page.tags.get(274)
            turn = 1 if orientation is None else int(orientation.value)
            turn = turn if turn in tiles.UPRIGHT else 1
            sample = page.asarray()
            if sample.dtype.kind == "c":
                raise UserError("complex samples are not an image; save their magnitude")
            if page.axes.startswith("S"):  # separate planes
                sample = np.moveaxis(sample, 0, -1)
            if sample.ndim == 3:  # other channels than grey or RGB are dropped
                sample = sample[..., 0] if sample.shape[-1] < 3 else sample[..., :3]
            return sample, turn, page.photometric == 0
    except ValueError as error:
        if "imagecodecs" not in str(error):  # some compressions need one more library
            raise
    return _read_with_opencv(data, max_pixels)


def _check_page(page: Any, max_pixels: int) -> None:
    """Refuse a page, or a tile of it, that has too many samples to be decompressed."""
    for width, height, what in (
        (page.imagewidth, page.imagelength, ""),
        (page.tilewidth, page.tilelength, "a tile of "),
    ):
        if width * height > max_pixels:
            raise TooManyPixelsError(width, height, max_pixels, what)
    if page.nbytes > BYTES_PER_PIXEL * max_pixels:
        raise UserError(
            f"{page.nbytes} bytes of samples, more than {BYTES_PER_PIXEL} per pixel; "
            "keep three bands"
        )


def _read_with_opencv(data: bytes, max_pixels: int) -> Samples:
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(max_pixels)  # read when it is imported
    cv2 = _import("cv2")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    bgr_HWC = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if bgr_HWC is None:
        raise UserError("OpenCV reads no such samples either; save 8 bits in an image editor")
    return bgr_HWC[..., ::-1], 1, False


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        package = {"cv2": "opencv-python-headless"}.get(name, name)
        raise UserError(f"{name} is missing: pip install {package}") from None


def main(argv: list[str]) -> None:
    """Run the command line; SystemExit with a one-line message on errors."""
    try:
        source, target, *numbers = argv
        low, high = map(float, numbers[:2])
        (max_pixels,) = map(int, numbers[2:] or [MAX_PIXELS])
    except ValueError:
        arguments = " ".join(argv) or "no arguments"
        sys.exit(f"{arguments}: two files and two numbers are needed; usage: {USAGE}")
    try:
        rescale(Path(source), Path(target), low, high, max_pixels)
    except UserError as error:
        sys.exit(str(error))
    except (OSError, ValueError) as error:
        sys.exit(f"{' '.join(str(error).split())}; usage: {USAGE}")


if __name__ == "__main__":
    main(sys.argv[1:])
