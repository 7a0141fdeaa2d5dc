"""reader=nabirds: the index files of NABirds -> Index with the species hierarchy.

classes.txt names 1,011 nodes of a tree. The 555 nodes with images are the classes; the label map
lists them in the order of their ids. N images, C classes.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from fgvc.data import cub_files, find_root, labelmap
from fgvc.data.cub_files import INDEX_FILES, ImageList
from fgvc.data.dataset_spec import DatasetSpec, root_of
from fgvc.data.index import Index, list_first
from fgvc.types import Hierarchy, LabelMap, UserError

FILES = (*INDEX_FILES, "hierarchy.txt")


def read(root: Path) -> Index:
    """Read a copy and check its files for contradictions.

    Args:
        root: the folder that holds images.txt and hierarchy.txt, or one above it.

    Returns:
        Index in the order of images.txt; paths begin with `images/`.

    Raises:
        UserError: a missing or malformed file, or files that contradict each other.
    """
    root = _find_root(root)
    images = cub_files.read_images(root, _parse_uuid)
    _check_names(images)
    raw_N = cub_files.read_labels(images)
    ids, names = cub_files.read_classes(root)
    classes = labelmap.from_ids(
        *labelmap.drop_empty_classes(ids, names, raw_N),
        where=str(root / "classes.txt"),
        allow_gaps=True,
    )
    label_N = labelmap.to_indices(raw_N, classes, root / "image_class_labels.txt", "classes.txt")
    folders = [f"{int(number):04d}" for number in classes.ids]
    labelmap.check_class_folders(images.path, label_N, folders, root, allow_other_folders=False)
    return Index(
        root,
        images.path,
        label_N,
        cub_files.read_split(images),
        classes,
        cub_files.read_numbers(images, "bounding_boxes.txt", 4),
        cub_files.read_parts(images),
        cub_files.read_numbers(images, "sizes.txt", 2),
        _hierarchy(root, dict(zip(ids, names, strict=True)), classes),
    )


def _missing_files(folder: Path) -> list[str]:
    return [name for name in FILES if not (folder / name).exists()]


def _find_root(root: Path) -> Path:
    """The folder of the index files.

    Raises:
        UserError: there is none, or some of its files are missing.
    """

    def is_complete(folder: Path) -> bool:
        return not _missing_files(folder)

    def holds_several(folder: Path) -> bool:
        return len(_missing_files(folder)) < len(FILES) - 1

    contents = f"{', '.join(FILES[:-1])} and {FILES[-1]} of NABirds"
    exists_below = find_root.exists_below
    if exists_below(root, is_complete) or not exists_below(root, holds_several):
        return find_root.find_folder(root, is_complete, contents)
    folder = find_root.find_folder(root, holds_several, contents)
    missing = _missing_files(folder)
    raise UserError(
        f"{folder}: holds no {list_first(missing)}; take {'it' if len(missing) == 1 else 'them'} "
        "from nabirds.tar.gz"
    )


def _parse_uuid(text: str) -> str:
    """An image id without dashes, as in file names."""
    plain = text.replace("-", "").lower()
    if len(plain) != 32 or not set(plain) <= set("0123456789abcdef"):
        raise ValueError("an image id of 32 hex digits")
    return plain


def _check_names(images: ImageList) -> None:
    """Check that each file is named after its image id, to detect shifted lines."""
    messages = []
    for image_id, path in zip(images.row, images.path, strict=True):
        stem = PurePosixPath(path).stem.replace("-", "").lower()
        if stem != image_id:
            messages.append(f"{path} listed as {image_id}")
    if messages:
        raise UserError(
            f"{images.root / 'images.txt'}: {len(messages)} images are named after another image "
            f"id than they are listed with: {list_first(messages, limit=2)}"
        )


def _hierarchy(root: Path, name_of: dict[int, str], classes: LabelMap) -> Hierarchy:
    """Read hierarchy.txt (lines of child and parent): the ancestors of each class.

    Raises:
        UserError: a node with two parents, a node that classes.txt lacks, or a cycle.
    """
    file = root / "hierarchy.txt"
    parent: dict[int, int] = {}
    for line, *texts in cub_files.read_rows(file, 2):
        child, parent_node = (
            cub_files.parse(cub_files.parse_integer, text, file, line) for text in texts
        )
        if parent.setdefault(child, parent_node) != parent_node:
            raise UserError(f"{file}:{line}: node {child} has two parents")
        if unknown := {child, parent_node} - name_of.keys():
            raise UserError(
                f"{file}:{line}: nodes that classes.txt does not list: {list_first(unknown)}"
            )
    chain = tuple(_ancestors(file, parent, int(number)) for number in classes.ids)
    parent_node = {node for way in chain for node in way}
    names = {str(node): name_of[node] for node in sorted(parent_node)}
    return Hierarchy(tuple(tuple(map(str, way)) for way in chain), names)


def _ancestors(file: Path, parent: dict[int, int], node: int) -> list[int]:
    ancestors: list[int] = []
    while node in parent and parent[node] != node:
        node = parent[node]
        if node in ancestors:
            raise UserError(f"{file}: node {node} lies above itself")
        ancestors.append(node)
    return ancestors


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
