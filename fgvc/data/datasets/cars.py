"""reader=cars: Stanford Cars in either of its layouts -> Index.

(a) car_ims/ and cars_annos.mat, one numbering for all images; (b) cars_train/, cars_test/ and a
devkit with one annotation file per split. Both hold the same images under different names, so the
annotations of one layout never match the images of the other. Boxes are stored as two corners.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

import numpy as np

from fgvc.data import find_root, labelmap, matlab
from fgvc.data.dataset_spec import DatasetSpec, root_of
from fgvc.data.index import Index, list_first, repeated
from fgvc.types import TEST, TRAIN, LabelMap, UserError

CORNERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
WITH_LABELS, WITHOUT_LABELS = "cars_test_annos_withlabels.mat", "cars_test_annos.mat"


def read(root: Path, partial: bool) -> Index:
    """Read either layout; in layout (b), train comes before test."""
    images, annotations = find_root.find(root, "car_ims"), find_root.find(root, "cars_annos.mat")
    if images and annotations:
        return _read_single_folder(images, matlab.load_all([annotations])[0], partial)
    train, meta = find_root.find(root, "cars_train"), find_root.find(root, "cars_meta.mat")
    if train and meta:
        return _read_devkit(root, train, meta, partial)
    devkit = f"get the devkit (cars_meta.mat, cars_train_annos.mat, {WITH_LABELS})"
    if annotations and train:
        reason = (
            "cars_annos.mat numbers the images of car_ims/, but this copy holds cars_train/, whose "
            f"files have other names: {devkit}"
        )
    elif images:
        reason = "holds car_ims/ but no cars_annos.mat; get it, or set dataset.root="
    elif train:
        reason = f"holds cars_train/ but no cars_meta.mat; {devkit}, or set dataset.root="
    else:
        reason = (
            "holds neither car_ims/ with cars_annos.mat nor cars_train/ with cars_meta.mat; "
            "set dataset.root="
        )
    raise UserError(f"dataset.root={root}: {reason}")


def _read_single_folder(folder: Path, file: matlab.MatFile, partial: bool) -> Index:
    """Layout (a)."""
    rows = file.struct("annotations")
    test_N = rows.integers("test")
    if unknown := sorted(set(test_N.tolist()) - {0, 1}):
        raise UserError(f"{file.file}: test is 0 or 1, not {list_first(unknown)}")
    raw_N = rows.integers("class")
    classes = _classes(file, raw_N, partial)
    path = _paths(folder.parent, folder, rows, "relative_im_path")
    label_N = labelmap.to_indices(raw_N, classes, file.file, "its class_names")
    split_N = np.where(test_N == 1, TEST, TRAIN).astype(np.uint8)
    return Index(folder.parent, path, label_N, split_N, classes, rows.boxes(CORNERS))


def _read_devkit(root: Path, train: Path, meta_file: Path, partial: bool) -> Index:
    """Layout (b)."""
    test = find_root.find(root, "cars_test")
    train_annos = find_root.find(root, "cars_train_annos.mat")
    if test is None or train_annos is None:
        missing = "cars_test/" if test is None else "cars_train_annos.mat"
        raise UserError(f"dataset.root={root}: holds cars_train/ but no {missing}; complete it")
    test_annos = find_root.find(root, WITH_LABELS) or find_root.find(root, WITHOUT_LABELS)
    if test_annos is None:
        raise UserError(f"dataset.root={root}: holds no {WITH_LABELS}; put it there or in devkit/")
    files = [meta_file, train_annos, test_annos]
    meta, *loaded = matlab.load_all(files)
    splits = [half.struct("annotations") for half in loaded]
    if "class" not in splits[1]:
        raise UserError(
            f"{files[2]}: holds no classes (the test labels were published later): "
            f"put {WITH_LABELS} beside it or at the root"
        )
    class_ids = [half.integers("class") for half in splits]
    classes = _classes(meta, np.concatenate(class_ids), partial)
    base = Path(os.path.commonpath([train.parent, test.parent]))
    path, label, box = [], [], []
    for split, folder, raw_N in zip(splits, (train, test), class_ids, strict=True):
        path += _paths(base, folder, split, "fname")
        label.append(labelmap.to_indices(raw_N, classes, split.file, meta.file.name))
        box.append(split.boxes(CORNERS))
    split_N = np.repeat([TRAIN, TEST], [len(raw_N) for raw_N in class_ids]).astype(np.uint8)
    box_N4 = None if any(box_N4 is None for box_N4 in box) else np.concatenate(box)
    return Index(base, tuple(path), np.concatenate(label), split_N, classes, box_N4)


def _classes(file: matlab.MatFile, raw_N: np.ndarray, partial: bool) -> LabelMap:
    names = file.texts("class_names")
    return labelmap.from_ids(range(1, len(names) + 1), names, raw_N, str(file.file), partial)


def _paths(base: Path, folder: Path, rows: matlab.MatFile, field: str) -> tuple[str, ...]:
    """Paths of images; the annotations state the file name, with or without the official folder."""
    names = [PurePosixPath(name).name for name in rows.texts(field)]
    if duplicates := repeated(names):
        raise UserError(f"{rows.file}: image listed twice: {list_first(duplicates)}")
    return tuple(f"{folder.relative_to(base).as_posix()}/{name}" for name in names)


DATASET = DatasetSpec(
    lambda conf, *_: read(root_of(conf), conf.partial),
    title="Stanford Cars",
    signature=re.compile(r"cars_.*\.mat"),
    index_files=frozenset({"cars_annos.mat"}),
    first_id=1,
    download_steps="no host serves Stanford Cars any more. 1) get cars_train.tgz, cars_test.tgz, "
    "car_devkit.tgz and cars_test_annos_withlabels.mat from someone who has them; 2) unpack the "
    "three into {root}; 3) put the .mat file beside them; 4) run task=doctor dataset=cars, which "
    "verifies these archives by their known md5",
)
