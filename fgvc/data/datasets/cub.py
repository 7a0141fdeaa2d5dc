"""reader=cub: the official index files of CUB-200-2011 -> Index.

The same layout is written by the synthetic generator.
"""

from __future__ import annotations

from pathlib import Path

from fgvc.data import cub_files, find_root
from fgvc.data.dataset_spec import DatasetSpec, root_of
from fgvc.data.index import Index
from fgvc.types import UserError


def read(root: Path, partial: bool) -> Index:
    """Read the files; paths begin with `images/`."""
    if not find_root.find(root, "images.txt") and (
        find_root.find(root, "annotations-mat") or find_root.find(root, "lists/files.txt")
    ):
        raise UserError(
            f"dataset.root={root}: this is CUB-200 (2010), another set of images; "
            "get CUB-200-2011 and set dataset.root="
        )
    root = cub_files.find_index(root, cub_files.INDEX_FILES, "CUB_200_2011.tgz")
    if (root / "hierarchy.txt").exists():
        raise UserError(f"dataset.root={root}: this is NABirds; read it with dataset=nabirds")
    images = cub_files.read_images(root, cub_files.parse_integer)
    classes = cub_files.read_classes(root / "classes.txt")
    return cub_files.read_index(images, classes, partial, lambda _, name: name)


DATASET = DatasetSpec(
    lambda conf, *_: read(root_of(conf), conf.partial),
    title="CUB-200-2011",
    index_files=frozenset(cub_files.INDEX_FILES),
    first_id=1,
)
