"""reader=nabirds: the index files of NABirds -> Index with the species hierarchy.

classes.txt names 1,011 nodes of a tree. The 555 nodes with images are the classes; the label map
lists them in the order of their ids. N images, C classes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

from fgvc.data import cub_files
from fgvc.data.dataset_spec import DatasetSpec, root_of
from fgvc.data.index import Index, list_first
from fgvc.types import Hierarchy, LabelMap, UserError

FILES = (*cub_files.INDEX_FILES, "hierarchy.txt")


def read(root: Path) -> Index:
    """Read the files; paths begin with `images/`."""
    root = cub_files.find_index(root, FILES, "nabirds.tar.gz")
    images = cub_files.read_images(root, _parse_uuid)
    if slipped := [
        f"{path} listed as {image_id}"
        for image_id, path in zip(images.row, images.path, strict=True)
        if PurePosixPath(path).stem.replace("-", "").lower() != image_id
    ]:
        raise UserError(
            f"{root / 'images.txt'}: {len(slipped)} images are named after another image id than "
            f"they are listed with: {list_first(slipped, limit=2)}"
        )
    classes = cub_files.read_classes(root / "classes.txt")
    index = cub_files.read_index(images, classes, True, lambda number, _: f"{number:04d}")
    return replace(
        index,
        size_N2=cub_files.read_numbers(images, "sizes.txt", 2),
        hierarchy=_hierarchy(root, dict(classes), index.labelmap),
    )


def _parse_uuid(text: str) -> str:
    """An image id without dashes, as in file names."""
    plain = text.replace("-", "").lower()
    if len(plain) != 32 or not set(plain) <= set("0123456789abcdef"):
        raise ValueError("an image id of 32 hex digits")
    return plain


def _hierarchy(root: Path, name_of: dict[int, str], classes: LabelMap) -> Hierarchy:
    """Read hierarchy.txt (lines of child and parent): the ancestors of each class."""
    file = root / "hierarchy.txt"
    parent: dict[int, int] = {}
    for line, *texts in cub_files.read_rows(file, 2):
        child = cub_files.parse(cub_files.parse_integer, texts[0], file, line)
        parent_node = cub_files.parse(cub_files.parse_integer, texts[1], file, line)
        if parent.setdefault(child, parent_node) != parent_node:
            raise UserError(f"{file}:{line}: node {child} has two parents")
        if unknown := {child, parent_node} - name_of.keys():
            raise UserError(
                f"{file}:{line}: nodes that classes.txt does not list: {list_first(unknown)}"
            )
    chain: list[tuple[str, ...]] = []
    for number in classes.ids:
        node, ancestors = int(number), []
        while node in parent and parent[node] != node:
            node = parent[node]
            if node in ancestors:
                raise UserError(f"{file}: node {node} is its own ancestor")
            ancestors.append(node)
        chain.append(tuple(map(str, ancestors)))
    above = sorted({int(node) for ancestors in chain for node in ancestors})
    return Hierarchy(tuple(chain), {str(node): name_of[node] for node in above})


DATASET = DatasetSpec(
    lambda conf, *_: read(root_of(conf)),
    title="NABirds",
    signature=re.compile(r"hierarchy\.txt|sizes\.txt"),
    index_files=frozenset(FILES),
    download_steps="NABirds requires a form. 1) agree to the terms at "
    "https://dl.allaboutbirds.org/nabirds and take nabirds.tar.gz; 2) unpack it into {root}; "
    "3) run task=doctor dataset=nabirds, which verifies an archive beside the folder by its "
    "known md5",
)
