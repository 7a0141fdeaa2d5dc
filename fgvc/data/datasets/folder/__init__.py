"""reader=folder: one folder per class -> Index.

Either train/, val/ and test/ (or other usual names) with a folder per class, or the class folders
themselves with a seeded test split; both may begin below the root. The class is the folder's name
in Unicode's composed form (NFC), so that copies from macOS and Linux agree; pictures are opened by
the name the disk has. Pictures in folders inside a class folder belong to that class.

locate: root -> where the dataset begins. splits: its split folders. contents: pictures with class
and split. listing: what lies in a folder. skipped: the note on what is passed over. N images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fgvc.data.datasets.folder import find_classes, images, skipped_files
from fgvc.data.datasets.folder.find_classes import DatasetRoot
from fgvc.data.datasets.folder.listing import Folder
from fgvc.data.find_root import require_folder
from fgvc.data.image_formats import file_kind
from fgvc.data.index import Index, list_first
from fgvc.data.labelmap import from_names
from fgvc.data.split import carve_test
from fgvc.data.split_names import split_of
from fgvc.types import UserError
from fgvc.untrusted.shell import setting


def read(root: Path, test_fraction: float, seed: int) -> Index:
    """Read the folders; what is passed over is counted by kind in a note.

    Args:
        root: holds the splits or the class folders, itself or below.
        test_fraction: share of each class that becomes test where there is no other split.
        seed: of that split.

    Raises:
        UserError: no such root, several candidates for where the classes begin, fewer than two
            classes, an empty class folder, names that collide, a class that train lacks, no train,
            what cannot be read, or a class too small to be split.
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
    base = find_classes.find(top)
    content = images.read(base)
    strays = [path for above in base.above for path in above.pictures] + content.strays
    start = len(base.folder.path.rstrip("/")) + 1
    rows = sorted(
        (_check_utf8(path[start:], base.folder.path), name, split)
        for path, name, split in content.rows
    )
    names = {name for _, name, _ in rows}
    if len(names) < 2:
        raise find_classes.one_class_error(str(root), list_first(names))
    labelmap = from_names(names)
    index_of = {name: index for index, name in enumerate(labelmap.names)}
    path = tuple(path for path, *_ in rows)
    label_N = np.array([index_of[name] for _, name, _ in rows], dtype=np.int64)
    split_N = np.array([split for *_, split in rows], dtype=np.uint8)
    if content.test_source == "carved":
        where = f"{base.folder.path} has no test/"
        split_N = carve_test(where, path, label_N, labelmap, test_fraction, seed)
    notes = (
        *_root_notes(base, content.test_source),
        *content.notes,
        *skipped_files.note([*base.above, base.folder, *content.folders], strays, str(root)),
    )
    place, source = Path(base.folder.path), content.test_source
    return Index(place, path, label_N, split_N, labelmap, notes=notes, test_source=source)


def _check_utf8(path: str, root: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UserError(f"{root}: {path!a}: a file name that is not UTF-8; rename it") from None
    return path


# --- where the dataset begins ---


def _root_notes(base: DatasetRoot, test_source: str) -> list[str]:
    """Notes on a root that is too high or too low, and on lists of splits that are not read."""
    notes = []
    if base.above:
        what = "splits" if base.has_splits else "class folders"
        notes.append(
            f"dataset.root={base.above[0].path}: the {what} begin below it: read {base.folder.path}"
        )
    notes += images.unused_folders_note(base.beside, "beside the dataset")
    if not base.above and not base.has_splits:
        notes += _sibling_splits_note(base.folder)
    if test_source == "carved" and (lists := find_classes.split_lists(base)):
        top = Path((base.above or (base.folder,))[0].path)
        names = list_first(Path(path).relative_to(top).as_posix() for path in lists)
        notes.append(
            f"{names}: a folder dataset reads no lists of splits; dataset=table reads one from its "
            "column split"
        )
    return notes


def _sibling_splits_note(folder: Folder) -> list[str]:
    """A note on other splits beside a root that is called like a split."""
    place = Path(folder.path).absolute()
    split = split_of(place.name)
    if split is None:
        return []
    try:
        siblings = Folder(str(place.parent)).folders
        others = [other for other in siblings if split_of(other.name) not in (None, split)]
        others = [other for other in others if other.folders and not other.pictures]
    except UserError:  # other people's folders may be closed
        return []
    if not others:
        return []
    return [
        f"dataset.root={folder.path}: {list_first(other.path for other in others)} beside it is not "
        f"read; to use it, set {setting('dataset.root', place.parent)}"
    ]
