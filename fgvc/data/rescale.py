"""A picture of more than 8 bits without a defined range -> 8 bits, by a range that the user gives.

    python -m fgvc.data.rescale IN OUT.png LOW HIGH

LOW becomes 0 and HIGH 255 (of WhiteIsZero the other way round). The orientation is applied, and
transparency is left out. H height, W width, C channels.
"""

from __future__ import annotations

import importlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fgvc import untrusted
from fgvc.data import decode, depth
from fgvc.types import UserError

USAGE = "python -m fgvc.data.rescale IN OUT.png LOW HIGH"


@dataclass(frozen=True)
class _Samples:
    """value: float64, height x width, or height x width x RGB. turn: EXIF's number, still to do.

    inverted: the highest value is black.
    """

    value: np.ndarray
    turn: int = 1
    inverted: bool = False


def rescale(source: Path, target: Path, low: float, high: float) -> None:
    """Write `target`, of 8 bits, grey or RGB.

    Raises:
        UserError: the samples cannot be read, or LOW is not below HIGH.
    """
    if not low < high:
        raise UserError(f"LOW={low:g} HIGH={high:g}: LOW has to be below HIGH")
    data = untrusted.read_bytes(source, untrusted.PICTURE)
    try:
        samples = _samples(data, source.name)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    except Exception as error:  # whatever the decoder of a damaged file raises
        raise UserError(f"{source}: cannot be read: {' '.join(str(error).split())}") from error
    share = (np.nan_to_num(samples.value, nan=low).clip(low, high) - low) / (high - low)
    level = np.rint((1 - share if samples.inverted else share) * 255).astype(np.uint8)
    picture = Image.fromarray(level)
    turn = decode.UPRIGHT.get(samples.turn)
    (picture if turn is None else picture.transpose(turn)).save(target)


def _samples(data: bytes, name: str) -> _Samples:
    try:
        image = decode.opened(data, name)
    except Exception:  # Pillow reads no such samples
        image = None
    if image is not None and depth.is_wide(image):
        turn = decode.orientation(image)
        image.load()
        return _Samples(depth.values(image).astype(np.float64), turn, depth.is_inverted(image))
    if data[:2] in (b"II", b"MM"):
        return _of_tiff(data)
    return _of_opencv(data)


def _of_tiff(data: bytes) -> _Samples:
    try:
        with _library("tifffile").TiffFile(io.BytesIO(data)) as tiff:
            page = tiff.pages[0]
            orientation = page.tags.get(274)
            turn = 1 if orientation is None else int(orientation.value)
            return _Samples(_colours(page.asarray(), page.axes), turn, page.photometric == 0)
    except ValueError as error:
        if "imagecodecs" not in str(error):  # some compressions need one more library
            raise
    return _of_opencv(data)


def _colours(sample: np.ndarray, axes: str) -> np.ndarray:
    """Height x width, or height x width x RGB; what other channels there are is left out."""
    if sample.dtype.kind == "c":
        raise UserError("complex samples are no picture; save their magnitude")
    if axes.startswith("S"):  # separate planes
        sample = np.moveaxis(sample, 0, -1)
    if sample.ndim == 3:
        sample = sample[..., 0] if sample.shape[-1] < 3 else sample[..., :3]
    return sample.astype(np.float64)


def _of_opencv(data: bytes) -> _Samples:
    cv2 = _library("cv2")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    bgr_HWC = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if bgr_HWC is None:
        raise UserError("OpenCV reads no such samples either; save 8 bits in an image editor")
    return _Samples(bgr_HWC[..., ::-1].astype(np.float64))


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        package = {"cv2": "opencv-python-headless"}.get(name, name)
        raise UserError(f"{name} is missing: pip install {package}") from None


def main(argv: list[str]) -> None:
    """The command line; SystemExit with one line where it does not work."""
    try:
        source, target, *range_ = argv
        low, high = map(float, range_)
    except ValueError:
        given = " ".join(argv) or "no arguments"
        sys.exit(f"{given}: two files and two numbers are needed; usage: {USAGE}")
    try:
        rescale(Path(source), Path(target), low, high)
    except UserError as error:
        sys.exit(str(error))
    except (OSError, ValueError) as error:
        sys.exit(f"{' '.join(str(error).split())}; usage: {USAGE}")


if __name__ == "__main__":
    main(sys.argv[1:])
