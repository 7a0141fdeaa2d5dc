"""Images, each read once -> digest, size, format and fingerprint, and findings on bad files.

A JPEG is decoded at an eighth of its size: all its data is parsed, so damage is found, at a third
of the cost. About 100 bytes are kept per image. N images.
"""

from __future__ import annotations

import hashlib
import math
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fgvc.data import bit_depth, file_state
from fgvc.data.decode import ImageError, decode, open_image, to_rgb, upright_size
from fgvc.data.doctor.finding import ERROR, NOTE, Finding, about
from fgvc.data.doctor.near_duplicates import fingerprint
from fgvc.data.size_limits import MAX_PIXELS, thin_image_message
from fgvc.types import Progress

CHUNK = 16  # images per task of a thread
THUMBNAIL_SIDE = 64  # pixels; a JPEG is decoded at the smallest n/8 of its size not below this
MISSING = ("missing", "a broken link")  # texts of file_state.UnreadableFileError
SKIP_EFFECT = "dataset.on_bad_image=skip leaves them out and counts them as wrong in test"


@dataclass(frozen=True)
class HighBitDepth:
    """kind: format, mode, bits and range. least, most: observed; NaN if Pillow keeps 8 bits."""

    kind: str
    least: float = math.nan
    most: float = math.nan


@dataclass(frozen=True)
class ImageRecord:
    """What is kept of an image. bad: why it has no size, kind and fingerprint."""

    sha256: bytes = b""
    width: int = 0
    height: int = 0
    kind: str = ""
    code: tuple[int, int] = (0, 0)
    bad: str | None = None
    deep: HighBitDepth | None = None


@dataclass(frozen=True)
class ImageTable:
    """The records of all images as columns.

    sha256: raw bytes, empty if there is no file. size_N2: int32 width and height after EXIF
    rotation, 0 if unreadable. kind: format and mode. code_N2: uint64 fingerprint (see
    near_duplicates). bad: {row: reason}. deep: {row: samples of more than 8 bits}.
    """

    sha256: list[bytes]
    size_N2: np.ndarray
    kind: list[str]
    code_N2: np.ndarray
    bad: dict[int, str]
    deep: dict[int, HighBitDepth] = field(default_factory=dict)

    @property
    def readable(self) -> np.ndarray:
        """Rows of the images that can be decoded."""
        return np.flatnonzero(self.size_N2[:, 0])


def read_images(
    root: Path, path: Sequence[str], threads: int, progress: Progress, max_pixels: int = MAX_PIXELS
) -> ImageTable:
    """Read and decode every image.

    Args:
        path: relative to root.
        threads: number of images decoded in parallel (Pillow releases the GIL).
        progress: advanced by images.
    """
    chunks = [range(start, min(start + CHUNK, len(path))) for start in range(0, len(path), CHUNK)]
    table = ImageTable(
        sha256=[b""] * len(path),
        size_N2=np.zeros((len(path), 2), np.int32),
        kind=[""] * len(path),
        code_N2=np.zeros((len(path), 2), np.uint64),
        bad={},
    )

    def read_chunk(rows: range) -> list[ImageRecord]:
        return [_read_image(root, path[row], max_pixels) for row in rows]

    pool = ThreadPoolExecutor(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's; set here, because filters are global
        try:
            for rows, records in zip(chunks, pool.map(read_chunk, chunks), strict=True):
                for row, record in zip(rows, records, strict=True):
                    table.sha256[row] = record.sha256
                    table.size_N2[row] = record.width, record.height
                    table.kind[row] = sys.intern(record.kind)
                    table.code_N2[row] = record.code
                    if record.bad is not None:
                        table.bad[row] = record.bad
                    if record.deep is not None:
                        table.deep[row] = record.deep
                progress(len(rows))
        finally:
            pool.shutdown(cancel_futures=True)
    return table


def check_files(path: Sequence[str], images: ImageTable, restore: str) -> list[Finding]:
    """Findings on missing files (`restore`: the fix), unreadable files, and more than 8 bits."""
    missing = [path[row] for row, reason in images.bad.items() if reason in MISSING]
    damaged = [reason for reason in images.bad.values() if reason not in MISSING]
    texts = []  # the kinds of more than 8 bits, with the range that is mapped to 0..255
    for kind, count in Counter(samples.kind for samples in images.deep.values()).most_common():
        same_kind = [samples for samples in images.deep.values() if samples.kind == kind]
        least = min(samples.least for samples in same_kind)
        most = max(samples.most for samples in same_kind)
        seen = "" if math.isnan(most) else f", seen {least:g}..{most:g}"
        texts.append(f"{count} {kind}{seen}")
    lost = f"{{count}} of the {len(path)} images are missing, or links to nothing: {{first}}"
    depth = (
        "{count} have more than 8 bits per sample and are scaled to 0..255 from the range of "
        f"their format: {'; '.join(texts)}"
    )
    fix = (
        "if the values seen fill a small part of that range, convert all images to 8 bits with "
        "one range of your own"
    )
    again = f"copy or download them again; {SKIP_EFFECT}"
    return [
        *about(missing, ERROR, "files", lost, f"{restore}; {SKIP_EFFECT}"),
        *about(damaged, ERROR, "pictures", "{count} cannot be read: {first}", again),
        *about((path[row] for row in images.deep), NOTE, "depth", depth, fix),
    ]


def summarize(images: ImageTable) -> dict[str, object]:
    """Count formats and sizes. Sides are in pixels; the histogram has steps of 100 pixels."""
    rows = images.readable
    size_R2 = images.size_N2[rows]
    sizes = Counter(f"{width}x{height}" for width, height in size_R2.tolist())
    steps = Counter((size_R2.max(axis=1) // 100 * 100).tolist()) if len(rows) else Counter()
    return {
        "read": len(rows),
        "unreadable": len(images.bad),
        "kinds": dict(Counter(images.kind[row] for row in rows.tolist()).most_common()),
        "short_side": _min_median_max(size_R2.min(axis=1)) if len(rows) else None,
        "long_side": _min_median_max(size_R2.max(axis=1)) if len(rows) else None,
        "long_side_histogram": {str(step): steps[step] for step in sorted(steps)},
        "commonest_sizes": dict(sizes.most_common(20)),
        "different_sizes": len(sizes),
    }


def _min_median_max(side_R: np.ndarray) -> dict[str, int]:
    return {"min": int(side_R.min()), "median": int(np.median(side_R)), "max": int(side_R.max())}


def _read_image(root: Path, name: str, max_pixels: int) -> ImageRecord:
    try:
        data = file_state.read(f"{root}/{name}")
    except file_state.UnreadableFileError as error:
        reason = str(error)
        return ImageRecord(bad=reason if reason in MISSING else f"{name}: {reason}")
    sha256 = hashlib.sha256(data).digest()
    try:
        return _decode(data, name, sha256, max_pixels)
    except Exception as error:  # the decoder may raise anything on a damaged file
        try:
            decode(data, name, max_pixels)
        except ImageError as refused:  # the message of a run that reads this image
            return ImageRecord(sha256, bad=str(refused))
        reason = f"damaged image ({len(data)} bytes): {' '.join(str(error).split())}"
        return ImageRecord(sha256, bad=f"{name}: {reason}")


def _decode(data: bytes, name: str, sha256: bytes, max_pixels: int) -> ImageRecord:
    image = open_image(data, name, max_pixels)
    width, height = upright_size(image)
    if (line := thin_image_message(width, height)) is not None:
        return ImageRecord(sha256, bad=f"{name}: {line}")
    kind, bits = f"{image.format} {image.mode}", bit_depth.bits_per_sample(data, image)
    if image.format in ("JPEG", "MPO"):
        image.draft("L", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        grey_HW = np.asarray(image.convert("L"))
        return ImageRecord(sha256, width, height, kind, fingerprint(grey_HW))
    pixels_HWC = to_rgb(image, bits)
    deep = HighBitDepth(f"{kind} of {bits} bits") if bits > 8 else None
    if deep is not None and bit_depth.is_high_bit_depth(image):
        scale = bit_depth.sample_range(image, bits)
        deep = HighBitDepth(
            f"{deep.kind} on {scale.low:g}..{scale.high:g}", scale.minimum, scale.maximum
        )
    image.close()
    return ImageRecord(sha256, width, height, kind, fingerprint(pixels_HWC), deep=deep)
