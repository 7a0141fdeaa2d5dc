"""reader=dogs: Stanford Dogs, its lists, folders and annotations -> Index.

The lists number the classes and only the folders name them, so the label map is built from both,
and both must agree. A box is the first dog of an annotation, stored as corners and returned as x,
y, width, height. N images, C classes.
"""

from __future__ import annotations

import math
import re
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np

from fgvc import untrusted
from fgvc.data import find_root, labelmap, matlab
from fgvc.data.dataset_spec import DatasetSpec, root_of
from fgvc.data.index import Index, list_first, repeated
from fgvc.types import TEST, TRAIN, LabelMap, UserError

LISTS = {"train_list.mat": TRAIN, "test_list.mat": TEST}
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read(root: Path, partial: bool) -> Index:
    """Read the lists, train first."""
    folder = find_root.find(root, "Images")
    if folder is None:
        raise UserError(f"dataset.root={root}: holds no Images/; set dataset.root=")
    files = {name: find_root.find(root, name) for name in LISTS}
    if missing := [name for name, file in files.items() if file is None]:
        raise UserError(f"dataset.root={root}: holds no {missing[0]}; put it there or in lists/")
    names, raw, split = [], [], []
    lists = matlab.load_all([file for file in files.values() if file])
    for list_file, part in zip(lists, LISTS.values(), strict=True):
        names += list_file.texts("file_list")
        raw.append(list_file.integers("labels"))
        split.append(np.full(len(raw[-1]), part, dtype=np.uint8))
    raw_N = np.concatenate(raw)
    if len(names) != len(raw_N):
        raise UserError(f"{root}: the lists name {len(names)} images and {len(raw_N)} labels")
    if malformed := [n for n in names if find_root.safe_relative(n) != n or n.count("/") != 1]:
        raise UserError(f"{root}: the lists name no CLASS/IMAGE: {list_first(malformed)}")
    if duplicates := repeated(names):
        raise UserError(
            f"{root}: listed twice, within a list or in train and test: {list_first(duplicates)}"
        )
    classes = _classes(root, names, raw_N, partial)
    label_N = labelmap.to_indices(raw_N, classes, root, "the folders")
    box_N4, size_N2 = _read_annotations(root, names)
    path, split_N = tuple(f"Images/{name}" for name in names), np.concatenate(split)
    return Index(folder.parent, path, label_N, split_N, classes, box_N4, size_N2=size_N2)


def _classes(root: Path, names: list[str], raw_N: np.ndarray, partial: bool) -> LabelMap:
    """Label map with exactly one folder per number, numbered from 1."""
    folder_N = [name.partition("/")[0] for name in names]
    pairs = sorted(set(zip(raw_N.tolist(), folder_N, strict=True)))
    ids, folders = [raw for raw, _ in pairs], [folder for _, folder in pairs]
    for what, values in (("label", [*map(str, ids)]), ("folder", folders)):
        if duplicates := repeated(values):
            several = [
                f"{raw} = {folder}" for raw, folder in pairs if duplicates[0] in (str(raw), folder)
            ]
            raise UserError(
                f"{root}: labels and folders of the lists disagree: {what} {duplicates[0]} occurs "
                f"as {list_first(several)}"
            )
    if pairs and pairs[0][0] < 1:
        raise UserError(f"{root}: the lists count classes from {pairs[0][0]}, not from 1")
    return labelmap.from_ids(ids, folders, raw_N, f"{root}: the lists", partial)


def _read_annotations(root: Path, names: list[str]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Boxes and stated sizes; None without Annotation/, NaN for an image without a file."""
    folder = find_root.find(root, "Annotation")
    if folder is None:
        return None, None
    value_N6 = np.full((len(names), 6), np.nan, dtype=np.float32)
    for row, name in enumerate(names):
        file = folder / PurePosixPath(name).with_suffix("")
        try:
            value_N6[row] = _parse_annotation(untrusted.read_bytes(file, untrusted.MIB))
        except FileNotFoundError:
            continue
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            raise UserError(f"{file}: no annotation that can be read ({error})") from None
    return value_N6[:, :4], value_N6[:, 4:]


def _parse_annotation(text: bytes) -> list[float]:
    """x, y, width, height of the first object's box; width and height of the image."""
    tree = ElementTree.fromstring(text)
    box = tree.find("object/bndbox")
    if box is None:
        raise ValueError("no object with a bndbox")
    x1, y1, x2, y2 = (float(box.findtext(corner, "")) for corner in CORNERS)
    size = [float(tree.findtext(f"size/{side}", "nan")) for side in ("width", "height")]
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise ValueError("a bndbox without numbers")
    return [x1, y1, x2 - x1, y2 - y1, *size]


DATASET = DatasetSpec(
    lambda conf, *_: read(root_of(conf), conf.partial),
    title="Stanford Dogs",
    signature=re.compile(r"(train|test|file)_list\.mat"),
    index_files=frozenset(LISTS),
    first_id=1,
    caveat="all images, test too, are in ImageNet-1k's training set: a backbone trained on its "
    "labels has seen the test",
)
