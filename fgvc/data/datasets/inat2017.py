"""reader=inat2017: train2017.json and val2017.json of iNaturalist 2017 -> Index.

The competition's validation images are the test split, because its test images have no labels.
Annotations are joined on image_id and labelled by category_id. Classes are in the order of their
category ids; the supercategory becomes the level above. Separate files hold boxes for some of the
images; the first box of an image is used. N images, C classes.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fgvc.data import find_root, json_stream, labelmap
from fgvc.data.dataset_spec import DatasetSpec, root_of
from fgvc.data.index import Index, list_first, repeated
from fgvc.types import TEST, TRAIN, Hierarchy, UserError

TRAIN_FILE, VAL_FILE, MERGED_FILE = "train2017.json", "val2017.json", "train_val2017.json"
BOX_FILES = {TRAIN_FILE: "train_2017_bboxes.json", VAL_FILE: "val_2017_bboxes.json"}
IMAGES = "train_val_images"
MAX_PIXELS = 1e9  # of a side or a coordinate
MEMBERS = ("images", "annotations", "categories")


class Category(NamedTuple):
    """One row of `categories`."""

    name: str
    above: str


@dataclass(frozen=True)
class AnnotationFile:
    """One of the two files as columns.

    image_N, raw_N: image and category ids, int64. size_N2: width and height, float32.
    """

    file: Path
    path: list[str]
    image_N: np.ndarray
    raw_N: np.ndarray
    size_N2: np.ndarray
    categories: Mapping[int, Category]


def read(root: Path, partial: bool) -> Index:
    """Read train and then val; paths are those of the files."""
    files = [_read_annotations(file) for file in _find_files(root)]
    train, val = files
    _check_disjoint(train, val)
    raw_N = np.concatenate([train.raw_N, val.raw_N])
    # a name that occurs in two branches of the tree gets its branch appended
    categories = list(train.categories.values())
    duplicates = set(repeated([category.name for category in categories]))
    names = [f"{name} ({branch})" if name in duplicates else name for name, branch in categories]
    where = f"{train.file} and {val.file.name}"
    classes = labelmap.from_ids(list(train.categories), names, raw_N, where, partial)
    label_N = labelmap.to_indices(raw_N, classes, train.file.parent, "categories")
    path = (*train.path, *val.path)
    folders = [train.categories[int(number)].name for number in classes.ids]
    labelmap.check_class_folders(
        path, label_N, folders, train.file.parent, allow_other_folders=True
    )
    images = find_root.find(root, IMAGES)
    above = [train.categories[int(number)].above for number in classes.ids]
    box_files = [find_root.find(root, BOX_FILES[annotations.file.name]) for annotations in files]
    boxes = [_read_box_file(*pair) for pair in zip(files, box_files, strict=True)]
    return Index(
        images.parent if images else root,
        path,
        label_N,
        np.repeat([TRAIN, TEST], [len(annotations.path) for annotations in files]).astype(np.uint8),
        classes,
        np.concatenate(boxes) if any(box_files) else None,
        size_N2=np.concatenate([annotations.size_N2 for annotations in files]),
        hierarchy=Hierarchy(tuple((name,) for name in above), {n: n for n in sorted(set(above))}),
    )


def _find_files(root: Path) -> list[Path]:
    train, val = find_root.find(root, TRAIN_FILE), find_root.find(root, VAL_FILE)
    if train and val:
        return [train, val]
    if merged := find_root.find(root, MERGED_FILE):
        raise UserError(
            f"{merged}: train and val merged into one file, so the test images (val) are unknown: "
            f"get {TRAIN_FILE} and {VAL_FILE}"
        )
    if single := train or val:
        other = VAL_FILE if train else TRAIN_FILE
        raise UserError(
            f"{single}: a single split, or train and val merged: {other} is missing, and "
            f"{'its images are the test split' if train else 'nothing can be trained'}; get it too"
        )
    raise UserError(f"dataset.root={root}: holds no {TRAIN_FILE} and {VAL_FILE}; set dataset.root=")


def _read_annotations(file: Path) -> AnnotationFile:
    """Read a file into columns, one row in memory at a time."""
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
                added = Category(_text(row, "name"), _text(row, "supercategory", ""))
                if categories.setdefault(_id(row, "id"), added) != added:
                    raise ValueError(f"category id {row['id']} listed twice")
        except KeyError as error:
            raise UserError(f"{file}: row {number} ({member}) has no {error.args[0]}") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{file}: row {number} ({member}): {error}") from None
    if not path or not categories:
        raise UserError(f"{file}: lists no {'categories' if path else 'images'}")
    if duplicates := repeated(path):
        raise UserError(f"{file}: file_name listed twice: {list_first(duplicates)}")
    image_N, of_image_A, raw_A = (np.array(ids, np.int64) for ids in (image, of_image, category))
    raw_N = _join_categories(file, image_N, of_image_A, raw_A)
    return AnnotationFile(
        file, path, image_N, raw_N, np.array(size, np.float32).reshape(-1, 2), categories
    )


def _id(row: Mapping[str, Any], key: str) -> int:
    """An integer that fits int64; ValueError for any other value, including true and false."""
    value = row[key]
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError(f"{key} {str(value)[:40]!r} is not a 64-bit integer")
    return value


def _number(value: Any) -> float:
    """A finite number; NaN for None."""
    if value is None:
        return math.nan
    if type(value) not in (int, float) or not abs(value) <= MAX_PIXELS:
        raise ValueError(f"{str(value)[:40]!r} is not a number of pixels")
    return float(value)


def _text(row: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = row[key] if default is None else row.get(key, default)
    if not isinstance(value, str):
        raise TypeError(f"{key} {str(value)[:40]!r} is not a string")
    value.encode()  # UnicodeEncodeError, a ValueError, for half a surrogate pair
    return value


def _image_path(path: object) -> str:
    if not isinstance(path, str) or "\0" in path:
        raise ValueError(f"file_name {str(path)[:40]!r} is not a path")
    path.encode()
    if path.startswith("train_val_images/") and ".." not in path:
        return path  # fast path for the original files
    plain = find_root.safe_relative(path)
    if plain is None:
        raise ValueError(f"file_name {path!r} leaves the dataset")
    return plain


def _join_categories(
    file: Path, image_N: np.ndarray, of_image_A: np.ndarray, raw_A: np.ndarray
) -> np.ndarray:
    """Category id of each image, from A annotations in any order."""
    order_N = np.argsort(image_N, kind="stable")
    sorted_N = image_N[order_N]
    if len(duplicates := sorted_N[1:][sorted_N[1:] == sorted_N[:-1]]):
        raise UserError(f"{file}: image id listed twice: {list_first(duplicates.tolist())}")
    place_A = np.minimum(np.searchsorted(sorted_N, of_image_A), len(sorted_N) - 1)
    if len(unknown := of_image_A[sorted_N[place_A] != of_image_A]):
        raise UserError(
            f"{file}: annotations of images it does not list: {list_first(unknown.tolist())}"
        )
    row_A = order_N[place_A]
    raw_N, labelled_N = np.zeros(len(image_N), np.int64), np.zeros(len(image_N), bool)
    raw_N[row_A], labelled_N[row_A] = raw_A, True
    if len(unlabelled := image_N[~labelled_N]):
        raise UserError(
            f"{file}: {len(unlabelled)} images without an annotation: "
            f"{list_first(unlabelled.tolist())}"
        )
    if len(conflicting := of_image_A[raw_N[row_A] != raw_A]):
        raise UserError(f"{file}: images of two categories: {list_first(conflicting.tolist())}")
    return raw_N


def _read_box_file(annotations: AnnotationFile, file: Path | None) -> np.ndarray:
    """x, y, width, height; NaN for an image without a box, or without a file."""
    box_N4 = np.full((len(annotations.path), 4), np.nan, dtype=np.float32)
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
    _, row_B, place_B = np.intersect1d(annotations.image_N, image_A, True, return_indices=True)
    box_N4[row_B] = np.array(corner, np.float32).reshape(-1, 4)[first_A[place_B]]
    return box_N4


def _check_disjoint(train: AnnotationFile, val: AnnotationFile) -> None:
    """Refuse files that share images or number their categories differently."""
    shared = set(val.path).intersection(train.path)
    if shared:
        raise UserError(
            f"{train.file}: {len(shared)} images are also in {val.file.name} "
            f"({list_first(sorted(shared), 1)}): train and val merged; get the original files"
        )
    differing = sorted(
        number
        for number in train.categories.keys() | val.categories.keys()
        if train.categories.get(number) != val.categories.get(number)
    )
    if differing:
        raise UserError(
            f"{train.file}: category ids with another meaning in {val.file.name}: "
            f"{list_first(differing)}; get both files from one release"
        )


DATASET = DatasetSpec(
    lambda conf, *_: read(root_of(conf), conf.partial),
    title="iNaturalist 2017",
    signature=re.compile(r"(train|val)2017\.json"),
    index_files=frozenset({TRAIN_FILE, VAL_FILE}),
    first_id=0,
)
