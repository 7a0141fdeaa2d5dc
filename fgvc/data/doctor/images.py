"""Every picture read once -> its digest, size, kind and fingerprint, and what is wrong with it.

A JPEG is decoded at an eighth of its size: all of its data is parsed, so that damage shows, at a
third of the cost. What is kept of a picture is about a hundred bytes. N pictures.
"""

from __future__ import annotations

import hashlib
import math
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from fgvc.data import bit_depth, file_state
from fgvc.data.decode import ImageError, decode, open_image, to_rgb, upright_size
from fgvc.data.doctor.finding import ERROR, NOTE, Finding
from fgvc.data.doctor.near_duplicates import fingerprint
from fgvc.data.index import list_first
from fgvc.data.size_limits import MAX_PIXELS, thin_image_message
from fgvc.types import Progress

CHUNK = 16  # pictures handed to a thread at a time
THUMBNAIL_SIDE = 64  # pixels; a JPEG is decoded at the smallest eighth that is no smaller than this
MISSING = ("missing", "a broken link")  # texts of states.AbsentError
SKIP_HINT = "dataset.on_bad_image=skip goes on without them and counts them as wrong in test"


@dataclass(frozen=True)
class HighBitDepth:
    """Samples of more than 8 bits. kind: format, mode, bits and range; least, most: those seen,
    NaN where Pillow keeps 8 bits of them."""

    kind: str
    least: float = math.nan
    most: float = math.nan


@dataclass(frozen=True)
class ImageRecord:
    """A single picture; `bad` says why it has no size, kind and fingerprint."""

    sha256: bytes = b""
    width: int = 0
    height: int = 0
    kind: str = ""
    code: tuple[int, int] = (0, 0)
    bad: str | None = None
    deep: HighBitDepth | None = None


@dataclass(frozen=True)
class ImageTable:
    """All pictures, row by row.

    sha256: raw bytes, empty where there is no file. size_N2: int32 width and height as the picture
    is seen (after EXIF rotation), 0 where unreadable. kind: format and mode. code_N2: uint64
    fingerprint (see near). bad: {row: why}. deep: {row: samples of more than 8 bits}.
    """

    sha256: list[bytes]
    size_N2: np.ndarray
    kind: list[str]
    code_N2: np.ndarray
    bad: dict[int, str]
    deep: dict[int, HighBitDepth] = field(default_factory=dict)

    @property
    def readable(self) -> np.ndarray:
        """Rows of the pictures that can be decoded."""
        return np.flatnonzero(self.size_N2[:, 0])

    def enter(self, row: int, one: ImageRecord) -> None:
        """Write down one picture."""
        self.sha256[row] = one.sha256
        self.size_N2[row] = one.width, one.height
        self.kind[row] = sys.intern(one.kind)
        self.code_N2[row] = one.code
        if one.bad is not None:
            self.bad[row] = one.bad
        if one.deep is not None:
            self.deep[row] = one.deep


def read_images(
    root: Path,
    path: Sequence[str],
    threads: int,
    progress: Progress,
    max_pixels: int = MAX_PIXELS,
) -> ImageTable:
    """Read and decode every picture.

    Args:
        path: relative to root.
        threads: pictures decoded at a time (Pillow lets others run while it decodes).
        progress: advanced by pictures.
        max_pixels: `dataset.max_pixels`.
    """
    parts = [range(start, min(start + CHUNK, len(path))) for start in range(0, len(path), CHUNK)]
    looks = ImageTable(
        sha256=[b""] * len(path),
        size_N2=np.zeros((len(path), 2), np.int32),
        kind=[""] * len(path),
        code_N2=np.zeros((len(path), 2), np.uint64),
        bad={},
    )

    def several(rows: range) -> list[ImageRecord]:
        return [_read_image(root, path[row], max_pixels) for row in rows]

    pool = ThreadPoolExecutor(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks; once here, as filters are global
        try:
            for rows, ones in zip(parts, pool.map(several, parts), strict=True):
                for row, one in zip(rows, ones, strict=True):
                    looks.enter(row, one)
                progress(len(rows))
        finally:
            pool.shutdown(cancel_futures=True)
    return looks


def check_files(path: Sequence[str], looks: ImageTable, restore: str) -> list[Finding]:
    """Files that are missing, and files that no run could read.

    Args:
        restore: what to do about a missing file of this dataset.
    """
    missing = [path[row] for row, why in looks.bad.items() if why in MISSING]
    damaged = [why for why in looks.bad.values() if why not in MISSING]
    found = []
    if missing:
        found.append(
            Finding(
                ERROR,
                "files",
                f"{len(missing)} of the {len(path)} pictures are missing, or links to nothing: "
                f"{list_first(missing, 2)}",
                f"{restore}; {SKIP_HINT}",
                tuple(missing),
            )
        )
    if damaged:
        found.append(
            Finding(
                ERROR,
                "pictures",
                f"{len(damaged)} cannot be read: {list_first(damaged, 2)}",
                f"copy or download them again; {SKIP_HINT}",
                tuple(damaged),
            )
        )
    if looks.deep:
        found.append(_high_bit_depth_finding(path, looks.deep))
    return found


def _high_bit_depth_finding(path: Sequence[str], deep: Mapping[int, HighBitDepth]) -> Finding:
    """Samples of more than 8 bits, counted by kind, with the range that becomes 0..255."""
    kinds = Counter(samples.kind for samples in deep.values())
    words = []
    for kind, count in kinds.most_common():
        seen = [samples for samples in deep.values() if samples.kind == kind]
        least = min(samples.least for samples in seen)
        most = max(samples.most for samples in seen)
        words.append(
            f"{count} {kind}" + ("" if math.isnan(most) else f", seen {least:g}..{most:g}")
        )
    return Finding(
        NOTE,
        "depth",
        f"{len(deep)} have more than 8 bits per sample and are scaled to 0..255 from the range of "
        f"their format: {'; '.join(words)}",
        "if the values seen fill a small part of that range, convert all pictures to 8 bits with "
        "one range of your own",
        tuple(path[row] for row in deep),
    )


def summarize(looks: ImageTable) -> dict[str, object]:
    """Kinds and sizes, counted. Sides in pixels; histograms of `long_side` in steps of 100."""
    rows = looks.readable
    size_R2 = looks.size_N2[rows]
    sizes = Counter(f"{width}x{height}" for width, height in size_R2.tolist())
    steps = Counter((size_R2.max(axis=1) // 100 * 100).tolist()) if len(rows) else Counter()
    return {
        "read": len(rows),
        "unreadable": len(looks.bad),
        "kinds": dict(Counter(looks.kind[row] for row in rows.tolist()).most_common()),
        "short_side": _min_median_max(size_R2.min(axis=1)) if len(rows) else None,
        "long_side": _min_median_max(size_R2.max(axis=1)) if len(rows) else None,
        "long_side_histogram": {str(step): steps[step] for step in sorted(steps)},
        "commonest_sizes": dict(sizes.most_common(20)),
        "different_sizes": len(sizes),
    }


def _min_median_max(side_R: np.ndarray) -> dict[str, int]:
    return {
        "min": int(side_R.min()),
        "median": int(np.median(side_R)),
        "max": int(side_R.max()),
    }


def _read_image(root: Path, name: str, max_pixels: int) -> ImageRecord:
    try:
        data = file_state.read(f"{root}/{name}")
    except file_state.UnreadableError as error:
        why = str(error)
        return ImageRecord(bad=why if why in MISSING else f"{name}: {why}")
    sha256 = hashlib.sha256(data).digest()
    try:
        return _decode(data, name, sha256, max_pixels)
    except Exception as error:  # damaged files raise whatever their decoder happens to raise
        return ImageRecord(sha256, bad=_reason(data, name, error, max_pixels))


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
    deep = _high_bit_depth(image, kind, bits) if bits > 8 else None
    image.close()
    return ImageRecord(sha256, width, height, kind, fingerprint(pixels_HWC), deep=deep)


def _high_bit_depth(image: Image.Image, kind: str, bits: int) -> HighBitDepth:
    if not bit_depth.is_high_bit_depth(image):
        return HighBitDepth(f"{kind} of {bits} bits")
    scale = bit_depth.sample_range(image, bits)
    whole = f"{kind} of {bits} bits on {scale.low:g}..{scale.high:g}"
    return HighBitDepth(whole, scale.least, scale.most)


def _reason(data: bytes, name: str, error: Exception, max_pixels: int) -> str:
    """The line that a run would end with."""
    try:
        decode(data, name, max_pixels)
    except ImageError as refused:
        return str(refused)
    return f"{name}: damaged picture ({len(data)} bytes): {' '.join(str(error).split())}"
