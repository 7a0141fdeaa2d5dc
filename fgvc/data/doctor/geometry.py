"""Sizes, boxes and parts of the index against the pictures themselves: is this the original?

A copy that was resized or cropped is one finding, whatever the number of its pictures. N images,
K parts.
"""

from __future__ import annotations

import warnings

import numpy as np

from fgvc.data.doctor.finding import ERROR, NOTE, Finding
from fgvc.data.doctor.images import ImageTable
from fgvc.data.index import Index, list_first

TOLERANCE = 5.0  # pixels; the official CUB-200-2011 has boxes that much outside
COPY_SHARE = (
    0.05  # share of the annotated pictures above which the copy, not an annotation, is at fault
)
FIX = (
    "take the original pictures: annotations, crops to the box and published numbers hold for "
    "those only"
)


def check_geometry(index: Index, looks: ImageTable) -> list[Finding]:
    """Another size than the index states; else boxes and parts outside their pictures."""
    readable_N = looks.size_N2[:, 0] > 0
    if resized := _check_sizes(index, looks, readable_N):
        return resized
    over_N = np.where(
        readable_N, _distance_outside(index, looks.size_N2.astype(np.float32)), np.nan
    )
    far = np.flatnonzero(over_N > TOLERANCE)
    annotated = int((~np.isnan(over_N)).sum())
    if _is_whole_copy(len(far), annotated):
        return [
            Finding(
                ERROR,
                "sizes",
                f"a resized or cropped copy: boxes or parts of {len(far)} of {annotated} pictures "
                f"lie outside them ({_example(index, looks, far[0])})",
                FIX,
                tuple(index.path[row] for row in far),
            )
        ]
    slightly = np.flatnonzero((over_N > 0) & (over_N <= TOLERANCE))
    return [
        *_outside_finding(ERROR, index, over_N, far, "restore the annotation files or pictures"),
        *_outside_finding(NOTE, index, over_N, slightly, "nothing: official annotations do that"),
        *_check_empty_boxes(index),
    ]


def _check_sizes(index: Index, looks: ImageTable, readable_N: np.ndarray) -> list[Finding]:
    if index.size_N2 is None:
        return []
    stated_N = readable_N & ~np.isnan(index.size_N2).any(axis=1)
    # a picture that its EXIF turns may be stated either way
    same_N = [
        (index.size_N2 == size_N2).all(axis=1)
        for size_N2 in (looks.size_N2, looks.size_N2[:, ::-1])
    ]
    other = np.flatnonzero(stated_N & ~np.logical_or(*same_N))
    if not len(other):
        return []
    width, height = index.size_N2[other[0]].astype(int).tolist()
    total = int(stated_N.sum())
    return [
        Finding(
            ERROR,
            "sizes",
            f"{'a resized or cropped copy: ' if _is_whole_copy(len(other), total) else ''}{len(other)} of "
            f"{total} pictures have another size than the index states "
            f"({_example(index, looks, other[0])}, stated {width}x{height})",
            FIX,
            tuple(index.path[row] for row in other),
        )
    ]


def _distance_outside(index: Index, size_N2: np.ndarray) -> np.ndarray:
    """Pixels by which the box or a part of each picture lies outside; NaN without either."""
    spans = []
    if index.box_N4 is not None:
        spans.append((index.box_N4[:, :2], index.box_N4[:, :2] + index.box_N4[:, 2:]))
    if index.parts is not None:
        with warnings.catch_warnings():  # pictures of which no part is visible
            warnings.simplefilter("ignore", RuntimeWarning)
            xy_NK2 = index.parts.xy_NK2
            spans.append((np.nanmin(xy_NK2, axis=1), np.nanmax(xy_NK2, axis=1)))
    over_N = np.full(len(index), np.nan, np.float32)
    for low_N2, high_N2 in spans:
        beyond_N = np.maximum(-low_N2, high_N2 - size_N2).max(axis=1)  # NaN where there is none
        over_N = np.fmax(over_N, beyond_N)
    return over_N


def _outside_finding(
    severity: str, index: Index, over_N: np.ndarray, rows: np.ndarray, mend: str
) -> list[Finding]:
    if not len(rows):
        return []
    offenders = [f"{index.path[row]} by {over_N[row]:.1f} px" for row in rows]
    says = f"boxes or parts of {len(rows)} pictures lie outside them: {list_first(offenders, 1)}"
    return [Finding(severity, "boxes", says, mend, tuple(offenders))]


def _check_empty_boxes(index: Index) -> list[Finding]:
    if index.box_N4 is None:
        return []
    rows = np.flatnonzero((index.box_N4[:, 2:] <= 0).any(axis=1))
    if not len(rows):
        return []
    names = tuple(index.path[row] for row in rows)
    return [
        Finding(
            ERROR,
            "boxes",
            f"{len(rows)} boxes have no area: {list_first(names, 2)}",
            "restore the official annotation files",
            names,
        )
    ]


def _is_whole_copy(number: int, total: int) -> bool:
    """Whether so many pictures are off that it is the copy, not this or that picture."""
    return number > COPY_SHARE * total and number >= min(3, total) > 0


def _example(index: Index, looks: ImageTable, row: int) -> str:
    width, height = looks.size_N2[row].tolist()
    return f"{index.path[row]} is {width}x{height}"
