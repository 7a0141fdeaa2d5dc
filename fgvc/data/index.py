"""Index files of a dataset -> one table of its images, before any image is opened.

reader -> Index -> manifest.build. N images, 4 box values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from fgvc.config import schema
from fgvc.types import TEST, TRAIN, Hierarchy, LabelMap, Parts, UserError, nfc

Name = TypeVar("Name", str, bytes)


@dataclass(frozen=True)
class Index:
    """The columns of a Manifest except the digests (see fgvc.types.Manifest), and the label map.

    size_N2: float32 width and height as the dataset's files state them; NaN if they do not.
    test_source: see Dataset. warnings: notes for Dataset.warnings, not repeated in `notes`.
    """

    root: Path
    path: tuple[str, ...]
    label_N: np.ndarray
    split_N: np.ndarray
    labelmap: LabelMap
    box_N4: np.ndarray | None = None
    parts: Parts | None = None
    size_N2: np.ndarray | None = None
    hierarchy: Hierarchy | None = None
    notes: tuple[str, ...] = ()
    test_source: str = "test"
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.path)


def sorted_by_path(index: Index) -> Index:
    """Sort the images by path.

    Batches, ties, floating-point sums and records then do not depend on the order in which the
    dataset's files list the images.
    """
    rows = sorted(range(len(index)), key=index.path.__getitem__)
    # stable: paths that differ only in Unicode composition stay in order of their code points
    rows.sort(key=lambda row: nfc(index.path[row]))
    return take(index, np.array(rows, np.int64))


def take(index: Index, row_N: np.ndarray) -> Index:
    """The images at `row_N` of an index, in that order; the label map is unchanged."""
    path, parts = tuple(index.path[row] for row in row_N.tolist()), index.parts
    if parts is not None:
        parts = Parts(parts.names, parts.xy_NK2[row_N])
    columns = {name: getattr(index, name) for name in ("label_N", "split_N", "box_N4", "size_N2")}
    taken = {name: None if values is None else values[row_N] for name, values in columns.items()}
    return replace(index, path=path, parts=parts, **taken)


def list_first(offenders: Iterable[object], limit: int = 5) -> str:
    """List the first offenders and count the rest: `a, b, c and 7 more`."""
    names = [str(offender) for offender in offenders]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def repeated(values: Sequence[Name]) -> list[Name]:
    """The values that occur more than once, in order of first occurrence."""
    # duplicates are rare: hashes take 8 bytes per value, a Counter about 100
    hash_N = np.fromiter(map(hash, values), dtype=np.int64, count=len(values))
    if len(np.unique(hash_N)) == len(values):
        return []
    return [value for value, count in Counter(values).items() if count > 1]


def count_classes(index: Index, split: int) -> np.ndarray:
    return np.bincount(index.label_N[index.split_N == split], minlength=len(index.labelmap))


def check_coverage(index: Index) -> tuple[str, ...]:
    """Check that each class has training images.

    Returns:
        A note on classes without test images, if there are any.

    Raises:
        UserError: classes without a training image, or no test image at all.
    """
    train_C, test_C = (count_classes(index, split) for split in (TRAIN, TEST))
    names = np.array(index.labelmap.names, dtype=object)
    if untrained := names[train_C == 0].tolist():
        raise UserError(
            f"{index.root}: {len(untrained)} of {len(names)} classes have no training image "
            f"({list_first(untrained)}): add some, or leave these classes out"
        )
    if not test_C.any():
        raise UserError(f"{index.root}: no test image, so there is nothing to report on; add some")
    if untested := names[test_C == 0].tolist():
        count = "1 class has" if len(untested) == 1 else f"{len(untested)} classes have"
        return (f"{count} no test image ({list_first(untested)})",)
    return ()


def check_boxes(index: Index) -> tuple[str, ...]:
    """Check the boxes for `dataset.box_crop=true`, which crops every image to its box.

    If the index states no image sizes, a box right of or below its image is only found on decoding.

    Returns:
        Notes to print beside every number of such a run.

    Raises:
        UserError: no boxes, images without a box, boxes without area or outside their images, or
            boxes given in fractions of the image.
    """
    if index.box_N4 is None:
        raise UserError(
            f"dataset.box_crop=true: {index.root} has no bounding boxes; set dataset.box_crop=false"
        )
    box_N4 = index.box_N4
    _refuse_boxes(index, ~np.isfinite(box_N4).all(axis=1), "no bounding box", "add it")
    advice = "correct it (x, y, width, height in pixels)"
    _refuse_boxes(index, (box_N4[:, 2:] <= 0).any(axis=1), "a bounding box without area", advice)
    end_N2 = box_N4[:, :2] + box_N4[:, 2:]
    if len(index) and end_N2.max() <= 1:
        raise UserError(
            f"dataset.box_crop=true: all boxes of {index.root} are within 0..1 (first: "
            f"{_box(index, 0)}), like fractions of the image; multiply them by its width and "
            "height in pixels, or set dataset.box_crop=false"
        )
    size_N2 = np.full_like(end_N2, np.nan) if index.size_N2 is None else index.size_N2
    outside_N2 = (end_N2 <= 0) | (box_N4[:, :2] >= size_N2)  # False where the size is not stated
    _refuse_boxes(index, outside_N2.any(axis=1), "a bounding box outside the image", advice)
    partly = np.flatnonzero(((box_N4[:, :2] < 0) | (end_N2 > size_N2)).any(axis=1)).tolist()
    notes = ["every image, in test too, is cropped to its bounding box"]
    if partly:
        notes.append(
            f"{len(partly)} bounding boxes are partly outside their images and are cut at the edge "
            f"(first: {_box(index, partly[0])})"
        )
    return tuple(notes)


def _refuse_boxes(index: Index, wrong_N: np.ndarray | np.bool_, what: str, advice: str) -> None:
    if len(rows := np.flatnonzero(wrong_N)):
        raise UserError(
            f"dataset.box_crop=true: {len(rows)} of {len(index)} images have {what} "
            f"(first: {_box(index, int(rows[0]))}); {advice}, or set dataset.box_crop=false"
        )


def _box(index: Index, row: int) -> str:
    assert index.box_N4 is not None
    box_4 = index.box_N4[row]
    if np.isnan(box_4).all():
        return index.path[row]
    return f"{index.path[row]}: {', '.join(f'{value:g}' for value in box_4.tolist())}"


def check_counts(
    index: Index, official: schema.OfficialCounts, partial: bool
) -> tuple[bool, tuple[str, ...]]:
    """Compare the counts of a copy with the official counts.

    Returns:
        Whether the copy is partial, and notes on that.

    Raises:
        UserError: fewer classes or images than official without `dataset.partial=true`, or more.
    """
    test = int((index.split_N == TEST).sum())
    counts = {  # train includes the dataset's validation split
        "classes": (len(index.labelmap), official.classes),
        "train": (len(index) - test, official.train),
        "test": (test, official.test),
    }
    differing = {name: pair for name, pair in counts.items() if pair[1] and pair[0] != pair[1]}
    text = ", ".join(f"{number} of {known} {name}" for name, (number, known) in differing.items())
    if any(number > known for number, known in differing.values()):
        raise UserError(
            f"{index.root}: {text}: more than the official dataset holds; "
            "set dataset.root= to an unmixed copy of it"
        )
    if differing and not partial:
        raise UserError(
            f"{index.root}: {text}: this copy is incomplete; "
            "complete it, or accept it with dataset.partial=true"
        )
    if differing:
        return True, (f"partial copy: {text}",)
    if partial and any(known for _, known in counts.values()):
        return False, ("dataset.partial=true, but this copy is complete: treated as complete",)
    return partial, ()
