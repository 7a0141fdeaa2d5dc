"""reader=folder: one folder per class -> Index.

The root holds train/, val/ and test/ (or other common names) with a folder per class, or the class
folders themselves, with a seeded test split; either may begin below the root. A class is named
after its folder in composed Unicode (NFC), so copies on macOS and Linux agree; images are opened by
the name on disk. Images in subfolders of a class folder belong to that class.

find_classes: root -> the folder in which the dataset begins. split_folders: its split folders.
images: paths with class and split. listing: contents of a folder, and the note on skipped files.
N images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fgvc.data.dataset_spec import DatasetSpec, root_of
from fgvc.data.datasets.folder import find_classes, images
from fgvc.data.datasets.folder.find_classes import DatasetRoot
from fgvc.data.datasets.folder.listing import Folder, skipped_note
from fgvc.data.find_root import require_folder
from fgvc.data.image_formats import file_kind
from fgvc.data.index import Index, list_first
from fgvc.data.labelmap import from_names
from fgvc.data.recognize_dataset import official_note
from fgvc.data.split import resolve_splits
from fgvc.data.split_names import split_of
from fgvc.types import UserError
from fgvc.untrusted.shell import setting


def read(root: Path, test_fraction: float, seed: int) -> Index:
    """Read the folders; a note counts the skipped files by kind.

    Args:
        root: holds the splits or the class folders, directly or in a folder below it.
        test_fraction: share of each class that becomes test if there is no other split.
        seed: of that split.

    Raises:
        UserError: no such root, an ambiguous root, fewer than two classes, an empty class folder,
            names that collide, a class that train lacks, no train, an unreadable file or folder, or
            a class too small to be split.
    """
    if root.is_file():
        way_out = "unpack it if it is an archive, and set"
        if root.suffix.lower() in find_classes.TABLE_SUFFIXES:
            way_out = f"read it with dataset=table {setting('dataset.table', root)}, or set"
        raise UserError(
            f"dataset.root={root}: a file ({file_kind(root) or 'unknown kind'}), not a folder; "
            f"{way_out} dataset.root= to the folder that holds the class folders"
        )
    top = Folder(str(require_folder(root)))
    dataset_root = find_classes.find(top)
    content = images.read(dataset_root)
    strays = [path for above in dataset_root.above for path in above.images] + content.strays
    place = dataset_root.folder.path
    start = len(place.rstrip("/")) + 1
    path, names, splits = zip(
        *sorted((path[start:], name, split) for path, name, split in content.rows), strict=True
    )
    for name in path:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{place}: {name!a}: a file name that is not UTF-8; rename it"
            ) from None
    labelmap, label_N = from_names(names)
    if len(labelmap) < 2:
        raise find_classes.one_class_error(str(root), list_first(labelmap.names))
    split_N = np.array(splits, dtype=np.uint8)
    if content.test_source == "carved":
        stated_N = split_N if dataset_root.has_splits else None
        split_N, _ = resolve_splits(place, stated_N, path, label_N, labelmap, test_fraction, seed)
    folders = [*dataset_root.above, dataset_root.folder, *content.folders]
    source = content.test_source
    notes = [*_root_notes(dataset_root, source), *content.notes]
    notes += [*skipped_note(folders, strays, str(root)), *official_note(Path(place))]
    return Index(
        Path(place), path, label_N, split_N, labelmap, notes=tuple(notes), test_source=source
    )


def _root_notes(dataset_root: DatasetRoot, test_source: str) -> list[str]:
    """Notes on a root that is too high or too low, and on split lists that are not read."""
    notes = []
    if dataset_root.above:
        what = "splits" if dataset_root.has_splits else "class folders"
        notes.append(
            f"dataset.root={dataset_root.above[0].path}: the {what} begin below it: "
            f"read {dataset_root.folder.path}"
        )
    notes += images.unused_folders_note(dataset_root.beside, "beside the dataset")
    if not dataset_root.above and not dataset_root.has_splits:
        notes += _sibling_splits_note(dataset_root.folder)
    if test_source == "carved" and (lists := find_classes.split_lists(dataset_root)):
        top = Path((dataset_root.above or (dataset_root.folder,))[0].path)
        names = list_first(Path(path).relative_to(top).as_posix() for path in lists)
        notes.append(
            f"{names}: dataset=folder does not read lists of splits; dataset=table reads a column "
            "split"
        )
    return notes


def _sibling_splits_note(folder: Folder) -> list[str]:
    """A note on other splits beside a root that is named like a split."""
    place = Path(folder.path).absolute()
    if (split := split_of(place.name)) is None:
        return []
    try:
        others = [
            other.path
            for other in Folder(str(place.parent)).folders
            if split_of(other.name) not in (None, split) and other.folders and not other.images
        ]
    except UserError:  # the parent may not be readable
        return []
    if not others:
        return []
    return [
        f"dataset.root={folder.path}: {list_first(others)} beside it is not read; to use it, set "
        f"{setting('dataset.root', place.parent)}"
    ]


DATASET = DatasetSpec(
    lambda conf, *_: read(root_of(conf), conf.test_fraction, conf.split_seed),
    index=None,
    layout_fix="arrange the images as train/<class>/ and test/<class>/, or as <class>/",
    coverage_fix="add images of these classes to train/, or remove their folders",
    restore="restore or remove such files",
)
