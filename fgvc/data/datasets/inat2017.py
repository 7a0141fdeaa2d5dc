"""reader=inat2017: train2017.json and val2017.json of iNaturalist 2017 -> Index.

The competition's validation images are the test split here, as its test images have no labels.
Annotations are joined on image_id and labelled by category_id; index order is the order of the
category ids, and the supercategory is kept as the level above. Boxes were drawn for part of the
images, in files of their own; of several in a picture the first is kept. N images, C classes.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgvc.data import find_root, json_stream, labelmap
from fgvc.data.index import Index, list_first, repeated
from fgvc.types import TEST, TRAIN, Hierarchy, LabelMap, UserError

TRAIN_FILE, VAL_FILE, MERGED_FILE = "train2017.json", "val2017.json", "train_val2017.json"
BOX_FILES = {TRAIN_FILE: "train_2017_bboxes.json", VAL_FILE: "val_2017_bboxes.json"}
IMAGES = "train_val_images"
MAX_PIXELS = 1e9  # pixels of a side or a coordinate
MEMBERS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class Category:
    """One row of `categories`."""

    name: str
    above: str


@dataclass(frozen=True)
class AnnotationFile:
    """One of the two files. image_N, raw_N: image and category ids, int64; size_N2: width, height,
    float32."""

    file: Path
    path: list[str]
    image_N: np.ndarray
    raw_N: np.ndarray
    size_N2: np.ndarray
    categories: Mapping[int, Category]


def read(root: Path, partial: bool) -> Index:
    """Read both files, wherever they and train_val_images/ lie at or below the root.

    Args:
        partial: whether categories may have no image; these are left out of the label map.

    Returns:
        Index of train and then val in the order of the files; paths as the files write them.

    Raises:
        UserError: a file is missing or damaged, the two contradict each other, or they are one.
    """
    halves = [_read_annotations(file) for file in _find_files(root)]
    train, val = halves
    _check_disjoint(train, val)
    raw_N = np.concatenate([train.raw_N, val.raw_N])
    classes = _classes(train, val, raw_N, partial)
    label_N = labelmap.to_indices(raw_N, classes, train.file.parent, "categories")
    path = (*train.path, *val.path)
    folders = [train.categories[int(number)].name for number in classes.ids]
    labelmap.check_class_folders(path, label_N, folders, train.file.parent, lax=True)
    images = find_root.find(root, IMAGES)
    return Index(
        images.parent if images else root,
        path,
        label_N,
        np.repeat([TRAIN, TEST], [len(half.path) for half in halves]).astype(np.uint8),
        classes,
        _read_boxes(root, halves),
        size_N2=np.concatenate([half.size_N2 for half in halves]),
        hierarchy=_hierarchy(train.categories, classes),
    )


def _find_files(root: Path) -> list[Path]:
    train, val = find_root.find(root, TRAIN_FILE), find_root.find(root, VAL_FILE)
    if train and val:
        return [train, val]
    if merged := find_root.find(root, MERGED_FILE):
        raise UserError(
            f"{merged}: train and val merged into one file, so nothing tells the test images "
            f"(those of val) apart: get {TRAIN_FILE} and {VAL_FILE}"
        )
    if one := train or val:
        other = VAL_FILE if train else TRAIN_FILE
        raise UserError(
            f"{one}: a single split, or train and val merged: {other} is missing, and "
            f"{'its images are the test split' if train else 'nothing can be trained'}; get it too"
        )
    raise UserError(f"dataset.root={root}: holds no {TRAIN_FILE} and {VAL_FILE}; set dataset.root=")


def _read_annotations(file: Path) -> AnnotationFile:
    """One file as columns; its rows are looked at one by one and forgotten."""
    image, size, of_image, category = array("q"), array("f"), array("q"), array("q")
    path: list[str] = []
    categories: dict[int, Category] = {}
    for number, (member, row) in enumerate(json_stream.members(file)):
        try:
            if member in MEMBERS and not isinstance(row, dict):
                raise TypeError(f"holds {str(row)[:40]!r}, not an object")
            if member == "images":
                image.append(_id(row, "id"))
                path.append(_image_path(row["file_name"]))
                size.extend((_number(row.get("width")), _number(row.get("height"))))
            elif member == "annotations":
                of_image.append(_id(row, "image_id"))
                category.append(_id(row, "category_id"))
            elif member == "categories":
                _add_category(categories, row)
        except KeyError as error:
            raise UserError(f"{file}: row {number} ({member}) has no {error.args[0]}") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{file}: row {number} ({member}): {error}") from None
    if not path or not categories:
        raise UserError(f"{file}: lists no {'categories' if path else 'images'}")
    if twice := repeated(path):
        raise UserError(f"{file}: file_name listed twice: {list_first(twice)}")
    image_N, of_image_A, raw_A = (np.array(ids, np.int64) for ids in (image, of_image, category))
    raw_N = _join_categories(file, image_N, of_image_A, raw_A)
    return AnnotationFile(
        file, path, image_N, raw_N, np.array(size, np.float32).reshape(-1, 2), categories
    )


def _id(row: Mapping[str, Any], key: str) -> int:
    """A whole number that fits int64; ValueError otherwise, true and false included."""
    value = row[key]
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError(f"{key} {str(value)[:40]!r} is no whole number of 64 bits")
    return value


def _number(value: object) -> float:
    """A finite number; NaN where there is none."""
    if value is None:
        return math.nan
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not abs(value) <= MAX_PIXELS
    ):
        raise ValueError(f"{str(value)[:40]!r} is no number of pixels")
    return float(value)


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} {str(value)[:40]!r} is no text")
    value.encode()  # UnicodeEncodeError, a ValueError, for half a surrogate pair
    return value


def _image_path(path: object) -> str:
    if not isinstance(path, str) or "\0" in path:
        raise ValueError(f"file_name {str(path)[:40]!r} is no path")
    path.encode()
    if path.startswith("train_val_images/") and ".." not in path:
        return path  # as every path of the original files
    plain = find_root.safe_relative(path)
    if plain is None:
        raise ValueError(f"file_name {path!r} leaves the dataset")
    return plain


def _add_category(categories: dict[int, Category], row: Mapping[str, Any]) -> None:
    added = Category(_text(row, "name"), _text({"supercategory": "", **row}, "supercategory"))
    if categories.setdefault(_id(row, "id"), added) != added:
        raise ValueError(f"category id {row['id']} listed twice")


def _join_categories(
    file: Path, image_N: np.ndarray, of_image_A: np.ndarray, raw_A: np.ndarray
) -> np.ndarray:
    """Category id of each image, from A annotations in any order."""
    order_N = np.argsort(image_N, kind="stable")
    sorted_N = image_N[order_N]
    if len(twice := sorted_N[1:][sorted_N[1:] == sorted_N[:-1]]):
        raise UserError(f"{file}: image id listed twice: {list_first(twice.tolist())}")
    place_A = np.minimum(np.searchsorted(sorted_N, of_image_A), len(sorted_N) - 1)
    if len(strange := of_image_A[sorted_N[place_A] != of_image_A]):
        raise UserError(
            f"{file}: annotations of images it does not list: {list_first(strange.tolist())}"
        )
    row_A = order_N[place_A]
    raw_N, labelled_N = np.zeros(len(image_N), np.int64), np.zeros(len(image_N), bool)
    raw_N[row_A], labelled_N[row_A] = raw_A, True
    if len(lacking := image_N[~labelled_N]):
        raise UserError(
            f"{file}: {len(lacking)} images without an annotation: {list_first(lacking.tolist())}"
        )
    if len(torn := of_image_A[raw_N[row_A] != raw_A]):
        raise UserError(f"{file}: images of two categories: {list_first(torn.tolist())}")
    return raw_N


def _read_boxes(root: Path, halves: list[AnnotationFile]) -> np.ndarray | None:
    """x, y, width, height; NaN where there is no box, None where there is no file of boxes."""
    files = [find_root.find(root, BOX_FILES[half.file.name]) for half in halves]
    if not any(files):
        return None
    parts = [_read_box_file(half, file) for half, file in zip(halves, files, strict=True)]
    return np.concatenate(parts)


def _read_box_file(half: AnnotationFile, file: Path | None) -> np.ndarray:
    box_N4 = np.full((len(half.path), 4), np.nan, dtype=np.float32)
    if file is None:
        return box_N4
    of_image, corner = array("q"), array("f")
    for number, (member, row) in enumerate(json_stream.members(file)):
        if member == "annotations":
            try:
                x, y, width, height = map(_number, row["bbox"])
                of_image.append(_id(row, "image_id"))
                corner.extend((x, y, width, height))
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{file}: row {number} has no image_id and bbox ({error})"
                ) from None
    image_A, first_A = np.unique(np.array(of_image, np.int64), return_index=True)
    _, row_B, place_B = np.intersect1d(half.image_N, image_A, True, return_indices=True)
    box_N4[row_B] = np.array(corner, np.float32).reshape(-1, 4)[first_A[place_B]]
    return box_N4


def _check_disjoint(train: AnnotationFile, val: AnnotationFile) -> None:
    """Refuse files that share images or number their categories differently."""
    both = set(val.path).intersection(train.path)
    if both:
        raise UserError(
            f"{train.file}: {len(both)} images also stand in {val.file.name} "
            f"({list_first(sorted(both), 1)}): train and val merged; get the original files"
        )
    differ = sorted(
        number
        for number in train.categories.keys() | val.categories.keys()
        if train.categories.get(number) != val.categories.get(number)
    )
    if differ:
        raise UserError(
            f"{train.file}: category ids that mean something else in {val.file.name}: "
            f"{list_first(differ)}; get both files from one release"
        )


def _classes(
    train: AnnotationFile, val: AnnotationFile, raw_N: np.ndarray, partial: bool
) -> LabelMap:
    ids = list(train.categories)
    names = [train.categories[number].name for number in ids]
    # a name that two branches of the tree share is told apart by its branch
    twice = set(repeated(names))
    names = [
        f"{name} ({train.categories[number].above})" if name in twice else name
        for number, name in zip(ids, names, strict=True)
    ]
    if partial:
        ids, names = labelmap.drop_empty_classes(ids, names, raw_N)
    return labelmap.from_ids(ids, names, f"{train.file} and {val.file.name}", gaps=partial)


def _hierarchy(categories: Mapping[int, Category], classes: LabelMap) -> Hierarchy:
    above = [categories[int(number)].above for number in classes.ids]
    return Hierarchy(tuple((name,) for name in above), {name: name for name in sorted(set(above))})
