"""Sizes, boxes and parts of the index -> findings on images that do not match them.

A resized or cropped copy is one finding, however many images it has. N images, K parts.
"""

from __future__ import annotations

import warnings

import numpy as np

from fgvc.data.doctor.finding import ERROR, NOTE, Finding, about
from fgvc.data.doctor.images import ImageTable
from fgvc.data.index import Index

TOLERANCE = 5.0  # pixels; boxes of the official CUB-200-2011 are this far outside
COPY_SHARE = 0.05  # share of mismatches above which the copy, not an annotation, is wrong
FIX = (
    "take the original images: annotations, crops to the box and published numbers hold for "
    "those only"
)


def check_geometry(index: Index, images: ImageTable) -> list[Finding]:
    """Compare the image sizes with the index; if they agree, check its boxes and parts."""
    readable_N = images.size_N2[:, 0] > 0
    if resized := _check_sizes(index, images, readable_N):
        return resized
    outside_N = _distance_outside(index, images.size_N2.astype(np.float32))
    over_N = np.where(readable_N, outside_N, np.nan)
    far = np.flatnonzero(over_N > TOLERANCE)
    annotated = int((~np.isnan(over_N)).sum())
    if _is_whole_copy(len(far), annotated):
        message = (
            f"a resized or cropped copy: boxes or parts of {len(far)} of {annotated} images are "
            f"outside them ({_example(index, images, far[0])})"
        )
        return about((index.path[row] for row in far), ERROR, "sizes", message, FIX)
    slightly = np.flatnonzero((over_N > 0) & (over_N <= TOLERANCE))
    message = "boxes or parts of {count} images are outside them: {first}"

    def offenders(rows: np.ndarray) -> list[str]:
        return [f"{index.path[row]} by {over_N[row]:.1f} px" for row in rows]

    no_area_N = False if index.box_N4 is None else (index.box_N4[:, 2:] <= 0).any(axis=1)
    no_area = [index.path[row] for row in np.flatnonzero(no_area_N)]
    fix = "restore the official annotation files"
    return [
        *about(offenders(far), ERROR, "boxes", message, "restore annotations or images", 1),
        *about(offenders(slightly), NOTE, "boxes", message, "nothing: so do official boxes", 1),
        *about(no_area, ERROR, "boxes", "{count} boxes have no area: {first}", fix),
    ]


def _check_sizes(index: Index, images: ImageTable, readable_N: np.ndarray) -> list[Finding]:
    if index.size_N2 is None:
        return []
    stated_N = readable_N & ~np.isnan(index.size_N2).any(axis=1)
    # the stated size of an image may be the size before or after its EXIF rotation
    same_N = [
        (index.size_N2 == size_N2).all(axis=1)
        for size_N2 in (images.size_N2, images.size_N2[:, ::-1])
    ]
    resized = np.flatnonzero(stated_N & ~np.logical_or(*same_N))
    if not len(resized):
        return []
    width, height = index.size_N2[resized[0]].astype(int).tolist()
    total = int(stated_N.sum())
    copy = "a resized or cropped copy: " if _is_whole_copy(len(resized), total) else ""
    message = (
        f"{copy}{len(resized)} of {total} images have another size than the index states "
        f"({_example(index, images, resized[0])}, stated {width}x{height})"
    )
    return about((index.path[row] for row in resized), ERROR, "sizes", message, FIX)


def _distance_outside(index: Index, size_N2: np.ndarray) -> np.ndarray:
    """Pixels by which the box or parts of each image are outside; NaN without box and parts."""
    spans = []
    if index.box_N4 is not None:
        spans.append((index.box_N4[:, :2], index.box_N4[:, :2] + index.box_N4[:, 2:]))
    if index.parts is not None:
        with warnings.catch_warnings():  # images without a visible part
            warnings.simplefilter("ignore", RuntimeWarning)
            xy_NK2 = index.parts.xy_NK2
            spans.append((np.nanmin(xy_NK2, axis=1), np.nanmax(xy_NK2, axis=1)))
    over_N = np.full(len(index), np.nan, np.float32)
    for low_N2, high_N2 in spans:
        beyond_N = np.maximum(-low_N2, high_N2 - size_N2).max(axis=1)  # NaN where there is none
        over_N = np.fmax(over_N, beyond_N)
    return over_N


def _is_whole_copy(number: int, total: int) -> bool:
    """Whether so many images are wrong that the copy as a whole must have been changed."""
    return number > COPY_SHARE * total and number >= min(3, total) > 0


def _example(index: Index, images: ImageTable, row: int) -> str:
    width, height = images.size_N2[row].tolist()
    return f"{index.path[row]} is {width}x{height}"
