"""reader=cars: Stanford Cars in either of its layouts -> Index.

(a) car_ims/ and cars_annos.mat, one numbering for all images; (b) cars_train/, cars_test/ and a
devkit with one file of annotations a split. The same pictures under other names: annotations of one
layout never fit the pictures of the other. Boxes are given by two corners.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import numpy as np

from fgvc.data import find_root, labelmap, matlab
from fgvc.data.index import Index, list_first, repeated
from fgvc.types import TEST, TRAIN, LabelMap, UserError

CORNERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
WITH_LABELS, WITHOUT_LABELS = "cars_test_annos_withlabels.mat", "cars_test_annos.mat"


def read(root: Path, partial: bool) -> Index:
    """Read a copy; every file is looked for at the root and in the folders below it.

    Args:
        root: a folder above the pictures and the annotations.
        partial: whether classes may have no image; these are left out of the label map.

    Returns:
        Index in the order of the annotations, train before test in layout (b).

    Raises:
        UserError: neither layout is complete, or its files contradict each other.
    """
    together, annotations = find_root.find(root, "car_ims"), find_root.find(root, "cars_annos.mat")
    if together and annotations:
        return _read_single_folder(together, matlab.load(annotations), partial)
    train, meta = find_root.find(root, "cars_train"), find_root.find(root, "cars_meta.mat")
    if train and meta:
        return _read_devkit(root, train, meta, partial)
    raise UserError(f"dataset.root={root}: {_missing_files(together, annotations, train)}")


def _missing_files(together: Path | None, annotations: Path | None, train: Path | None) -> str:
    """What keeps a copy from being read, in words."""
    if annotations and train:
        return (
            "cars_annos.mat numbers the pictures of car_ims/, and here are those of cars_train/, "
            "which are named differently: get the devkit (cars_meta.mat, cars_train_annos.mat, "
            f"{WITH_LABELS})"
        )
    if together:
        return "holds car_ims/ but no cars_annos.mat; get it, or set dataset.root="
    if train:
        return (
            "holds cars_train/ but no cars_meta.mat; get the devkit (cars_meta.mat, "
            f"cars_train_annos.mat, {WITH_LABELS}), or set dataset.root="
        )
    return (
        "holds neither car_ims/ with cars_annos.mat nor cars_train/ with cars_meta.mat; "
        "set dataset.root="
    )


def _read_single_folder(folder: Path, file: matlab.MatFile, partial: bool) -> Index:
    """Layout (a)."""
    rows = file.struct("annotations")
    test_N = rows.integers("test")
    if strange := sorted(set(test_N.tolist()) - {0, 1}):
        raise UserError(f"{file.file}: test is 0 or 1, not {list_first(strange)}")
    raw_N = rows.integers("class")
    classes = _classes(file, raw_N, partial)
    return Index(
        folder.parent,
        _paths(folder.parent, folder, rows, "relative_im_path"),
        labelmap.to_indices(raw_N, classes, file.file, "its class_names"),
        np.where(test_N == 1, TEST, TRAIN).astype(np.uint8),
        classes,
        rows.boxes(CORNERS),
    )


def _read_devkit(root: Path, train: Path, meta_file: Path, partial: bool) -> Index:
    """Layout (b)."""
    test = find_root.find(root, "cars_test")
    train_annos = find_root.find(root, "cars_train_annos.mat")
    if test is None or train_annos is None:
        lacking = "cars_test/" if test is None else "cars_train_annos.mat"
        raise UserError(f"dataset.root={root}: holds cars_train/ but no {lacking}; complete it")
    files = [meta_file, train_annos, _test_annotations(root)]
    meta, *loaded = matlab.load_all(files)
    halves = [half.struct("annotations") for half in loaded]
    if "class" not in halves[1]:
        raise UserError(
            f"{files[2]}: holds no classes (those of the test pictures were published later): "
            f"put {WITH_LABELS} beside it or at the root"
        )
    raw = [half.integers("class") for half in halves]
    classes = _classes(meta, np.concatenate(raw), partial)
    base = Path(os.path.commonpath([train.parent, test.parent]))
    path, label, box = [], [], []
    for half, folder, raw_N in zip(halves, (train, test), raw, strict=True):
        path += _paths(base, folder, half, "fname")
        label.append(labelmap.to_indices(raw_N, classes, half.file, meta.file.name))
        box.append(half.boxes(CORNERS))
    return Index(
        base,
        tuple(path),
        np.concatenate(label),
        np.repeat([TRAIN, TEST], [len(raw_N) for raw_N in raw]).astype(np.uint8),
        classes,
        None if any(box_N4 is None for box_N4 in box) else np.concatenate(box),
    )


def _test_annotations(root: Path) -> Path:
    file = find_root.find(root, WITH_LABELS) or find_root.find(root, WITHOUT_LABELS)
    if file is None:
        raise UserError(f"dataset.root={root}: holds no {WITH_LABELS}; put it there or in devkit/")
    return file


def _classes(file: matlab.MatFile, raw_N: np.ndarray, partial: bool) -> LabelMap:
    """class_names, counted from 1."""
    names = file.texts("class_names")
    ids = list(range(1, len(names) + 1))
    if partial:
        ids, names = labelmap.drop_empty_classes(ids, names, raw_N)
    return labelmap.from_ids(ids, names, str(file.file), gaps=partial)


def _paths(base: Path, folder: Path, rows: matlab.MatFile, field: str) -> tuple[str, ...]:
    """Paths of pictures, which the files name by their last part or by the official folder."""
    names = [PurePosixPath(name).name for name in rows.texts(field)]
    if twice := repeated(names):
        raise UserError(f"{rows.file}: picture listed twice: {list_first(twice)}")
    return tuple(f"{find_root.relative(base, folder)}/{name}" for name in names)
