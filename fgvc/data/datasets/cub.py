"""reader=cub: the official index files of CUB-200-2011 -> Index.

The same layout is written by the synthetic generator.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fgvc.data import cub_files, find_root, labelmap
from fgvc.data.cub_files import INDEX_FILES
from fgvc.data.dataset_spec import DatasetSpec, root_of
from fgvc.data.index import Index, list_first
from fgvc.types import LabelMap, UserError


def read(root: Path, partial: bool) -> Index:
    """Read a copy and check its files for contradictions.

    Args:
        root: the folder that holds images.txt, or one above it.
        partial: whether class ids may have gaps and classes may have no image.

    Returns:
        Index in the order of images.txt; paths begin with `images/`.

    Raises:
        UserError: a missing or malformed file, or files that contradict each other.
    """
    root = _find_root(root)
    images = cub_files.read_images(root, cub_files.parse_integer)
    raw_N = cub_files.read_labels(images)
    classes = _classes(root, raw_N, partial)
    label_N = labelmap.to_indices(raw_N, classes, root / "image_class_labels.txt", "classes.txt")
    labelmap.check_class_folders(
        images.path, label_N, classes.names, root, allow_other_folders=False
    )
    return Index(
        root,
        images.path,
        label_N,
        cub_files.read_split(images),
        classes,
        cub_files.read_numbers(images, "bounding_boxes.txt", 4),
        cub_files.read_parts(images),
    )


def _find_root(root: Path) -> Path:
    if not find_root.find(root, "images.txt") and (
        find_root.find(root, "annotations-mat") or find_root.find(root, "lists/files.txt")
    ):
        raise UserError(
            f"dataset.root={root}: this is CUB-200 (2010), another set of images; "
            "get CUB-200-2011 and set dataset.root="
        )
    root = find_root.find_folder(
        root, lambda folder: (folder / "images.txt").exists(), "images.txt"
    )
    if missing := [name for name in INDEX_FILES if not (root / name).exists()]:
        raise UserError(
            f"{root}: holds no {list_first(missing)} beside images.txt; take "
            f"{'it' if len(missing) == 1 else 'them'} from CUB_200_2011.tgz, or set dataset.root="
        )
    if (root / "hierarchy.txt").exists():
        raise UserError(f"dataset.root={root}: this is NABirds; read it with dataset=nabirds")
    return root


def _classes(root: Path, raw_N: np.ndarray, partial: bool) -> LabelMap:
    ids, names = cub_files.read_classes(root)
    if partial:
        ids, names = labelmap.drop_empty_classes(ids, names, raw_N)
    return labelmap.from_ids(ids, names, str(root / "classes.txt"), allow_gaps=partial)


DATASET = DatasetSpec(
    lambda conf, *_: read(root_of(conf), conf.partial),
    title="CUB-200-2011",
    index_files=frozenset(INDEX_FILES),
    first_id=1,
)
