"""dataset.root -> the folder in which the splits or the classes begin.

From a root that is too high, the search descends while only one folder holds images. Several such
folders are the classes, unless exactly one of them holds a whole dataset with splits. If the
meaning is unclear, the root is refused and the message names the candidates.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fgvc.data.datasets.folder import split_folders
from fgvc.data.datasets.folder.listing import Folder, Inode, summarize_skipped
from fgvc.data.find_root import MAX_DEPTH
from fgvc.data.index import list_first
from fgvc.data.split_names import plain_name, split_of
from fgvc.types import TRAIN, UserError, nfc
from fgvc.untrusted.shell import setting

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
# parts of one dataset, as archives and cross-validation number them: images_part_1, fold_0
NUMBERED_PART = re.compile(
    r"(.*)(?:parts?|batch(?:es)?|folds?|chunks?|shards?|images?|imgs?|pictures?|photos?|folders?"
    r"|downloads?)\d+"
)
LIST_SUFFIXES = (*TABLE_SUFFIXES, ".txt", ".lst", ".list", ".json", ".jsonl")


@dataclass(frozen=True)
class DatasetRoot:
    """The folder in which a dataset begins.

    has_splits: whether its folders are splits. above: the folders from the root to it. beside:
    folders with images on that path that are not read. copies: folders in it that repeat the
    classes.
    """

    folder: Folder
    has_splits: bool
    above: tuple[Folder, ...] = ()
    beside: tuple[Folder, ...] = ()
    copies: tuple[Folder, ...] = ()


def find(root: Folder) -> DatasetRoot:
    """Find the folder in which the dataset begins; UserError: none, or several candidates."""
    above: list[Folder] = []
    folder = root
    while not _is_root(folder):
        if not folder.image_folders:
            raise _no_classes_error(root, folder, above)
        above.append(folder)
        (folder,) = _without_links(folder.image_folders)
    splits, others = _splits_and_others(folder)
    # the only split may be a test without labels, beside a whole dataset
    is_unlabelled = all(map(split_folders.is_unlabelled, splits)) and _find_datasets(others)
    if not splits or _is_container(folder) or is_unlabelled:
        return _class_root(folder, above)
    words = split_folders.splits_by_name(folder.folders)
    classes = [inner for inner in others if inner.name not in words]
    if len(splits) == 1 and len(classes) > 1:
        (split,) = splits
        raise UserError(
            f"dataset.root={folder.path}: ambiguous: {split.name}/ holds the class folders "
            f"{_names(split.image_folders)}, but {_names(classes)} are beside it; set "
            f"{setting('dataset.root', split.path)} to read only that folder, or rename "
            f"{split.name}/ if it is a class"
        )
    return DatasetRoot(folder, True, tuple(above))


def _is_root(folder: Folder) -> bool:
    """Whether a folder holds splits, or several folders with images."""
    if len(_without_links(folder.image_folders)) > 1:
        return True
    return bool(_splits_and_others(folder)[0]) and not _is_container(folder)


def _splits_and_others(folder: Folder) -> tuple[list[Folder], list[Folder]]:
    """The folders that may be splits, and the other folders with images."""
    splits = split_folders.all_folders(split_folders.candidates(folder))
    return splits, [inner for inner in folder.image_folders if inner not in splits]


def _is_container(folder: Folder) -> bool:
    """Whether the only folder named like a split holds a whole dataset: "test data/train"."""
    splits, _ = _splits_and_others(folder)
    return len(splits) == 1 and splits == folder.image_folders and bool(_find_datasets(splits))


def _find_datasets(folders: Iterable[Folder]) -> list[Folder]:
    below = (split_folders.find_datasets(folder, MAX_DEPTH - 1) for folder in folders)
    return _without_links(itertools.chain.from_iterable(below))


def _without_links(folders: Iterable[Folder]) -> list[Folder]:
    """Drop folders that are links to other folders of the list."""
    links_last = sorted(folders, key=lambda folder: os.path.islink(folder.path))  # noqa: PTH114
    first: dict[Inode, Folder] = {}
    for folder in links_last:
        first.setdefault(folder.inode, folder)
    return list(first.values())


def _class_root(folder: Folder, above: Sequence[Folder]) -> DatasetRoot:
    """The dataset root if several folders with images are siblings."""
    datasets = _find_datasets(folder.image_folders)
    if len(datasets) > 1:
        raise _ambiguous_error(folder, datasets)
    if datasets:
        prefix = datasets[0].path + os.sep
        beside = [
            other for other in folder.image_folders if not prefix.startswith(other.path + os.sep)
        ]
        return DatasetRoot(datasets[0], True, (*above, folder), tuple(beside))
    copies = find_copies(folder)
    classes = [inner for inner in folder.image_folders if inner not in copies]
    without_images = [inner for inner in classes if not inner.images]
    if any(split_folders.is_wrapper(f.name) and len(f.image_folders) > 1 for f in without_images):
        raise _ambiguous_error(folder, without_images)
    check_parts(folder, classes)
    words = split_folders.splits_by_name(classes)
    different = set(words.values())
    if len(words) == len(classes) or (TRAIN in different and len(different) > 1):
        raise UserError(
            f"dataset.root={folder.path}: {list_first(f'{name}/' for name in words)} are named "
            "like splits, but hold images instead of class folders; sort the images of each "
            f"into one folder per class, or {_table_hint(folder, classes)}; if these are the "
            "classes, rename them"
        )
    return DatasetRoot(folder, False, tuple(above), copies=tuple(copies))


def find_copies(folder: Folder) -> list[Folder]:
    """The subfolders that repeat the classes beside them."""
    return [inner for inner in folder.image_folders if _is_copy(inner, folder)]


def _is_copy(inner: Folder, folder: Folder) -> bool:
    """Whether a folder repeats the classes beside it.

    If it has the name of its parent, two common classes suffice. Otherwise all classes and all file
    names must be the same.
    """
    siblings = {nfc(other.name): other for other in folder.image_folders if other is not inner}
    classes = {nfc(other.name): other for other in inner.image_folders}
    if inner.name.casefold() == folder.name.casefold():
        return len(siblings.keys() & classes.keys()) > 1
    # images/ is refused: perhaps another version of them
    is_wrapper = split_folders.is_wrapper(inner.name)
    if is_wrapper or inner.images or len(classes) < 2 or siblings.keys() != classes.keys():
        return False
    files_of = {
        inner: {os.path.basename(path) for path in inner.images}  # noqa: PTH119 - texts
        for inner in (*classes.values(), *siblings.values())
    }
    return all(files_of[classes[name]] == files_of[siblings[name]] for name in classes)


def check_parts(folder: Folder, classes: Sequence[Folder]) -> None:
    """Raise UserError if all classes are named like parts: images and masks, fold_0 and fold_1."""
    parts = [NUMBERED_PART.fullmatch(plain_name(inner.name)) for inner in classes]
    numbered = {match and match[1] for match in parts}
    if all(split_folders.is_wrapper(inner.name) for inner in classes) or (
        len(numbered) == 1 and None not in numbered
    ):
        raise UserError(
            f"dataset.root={folder.path}: {list_first(f'{part.name}/' for part in classes)} have "
            "names of parts of one dataset, not of classes; sort the images into one "
            f"folder per class, or {_table_hint(folder, classes)}; if these are the classes, "
            "rename them"
        )


def _ambiguous_error(folder: Folder, places: Sequence[Folder]) -> UserError:
    ways = [setting("dataset.root", place.path) for place in places[:3]]
    rest = [inner.name for inner in folder.image_folders if inner not in places]
    other = f"; {list_first(rest)} would not be read then" if rest else ""
    return UserError(
        f"dataset.root={folder.path}: {len(places)} of its {len(folder.image_folders)} folders "
        f"with images ({_names(places)}) are ambiguous: they look like whole datasets, not like "
        f"classes; set {' or '.join(ways)}{other}; or rename those that are classes"
    )


def _no_classes_error(root: Folder, last: Folder, above: Sequence[Folder]) -> UserError:
    """Error for a root without two classes. last: the deepest folder with images."""
    start = f"dataset.root={root.path}: "
    if not root.holds_images:
        skipped = [Path(file.path) for part in root.walk() for file in part.content.skipped]
        parquet = sorted({str(f.parent) for f in skipped if f.suffix.lower() == ".parquet"})
        way_out = "set"
        if parquet:
            table = setting("dataset.table", parquet[0])
            way_out = f"read the Parquet files with dataset=table {table}, or set"
        return UserError(
            f"{start}holds no class folder with images{summarize_skipped(root)}; {way_out} "
            "dataset.root= to the folder that holds one folder per class"
        )
    hint = _table_hint(last, [*above, *last.folders])
    images = f"{start}holds {len(last.images)} images"
    if last is root:
        return UserError(
            f"{images}, but no class folder; {_parent_hint(root)}sort the images into one folder "
            f"per class, or {hint}"
        )
    if split_folders.is_wrapper(last.name) or split_of(last.name) is not None:
        return UserError(
            f"{images} in {last.path}, but no class folders; sort them into one folder per class, "
            f"or {hint}"
        )
    return UserError(
        f"{start}holds one class ({last.name}), and a classifier needs two or more; add class "
        f"folders, set dataset.root= to the folder that holds all of them, or {hint}"
    )


def one_class_error(root: str, name: str) -> UserError:
    return UserError(
        f"dataset.root={root}: holds one class ({name}), and a classifier needs two or more; add "
        "class folders, or name the classes of the images in a table (dataset=table)"
    )


def _parent_hint(root: Folder) -> str:
    """Advice to choose the parent of a root that is itself a class folder."""
    parent = Path(root.path).absolute().parent
    try:
        siblings = [inner for inner in Folder(str(parent)).folders if inner.name != root.name]
        is_class = any(inner.images for inner in siblings)
    except UserError:  # the parent may not be readable
        is_class = False
    hint = f"if it is a class folder itself, set {setting('dataset.root', parent)}, otherwise "
    return hint if is_class else ""


def _table_hint(folder: Folder, others: Iterable[Folder]) -> str:
    """Advice to use a table, naming it if it is there."""
    files = [file.path for place in (folder, *others) for file in place.content.skipped]
    tables = [path for path in files if path.lower().endswith(TABLE_SUFFIXES)]
    if tables:
        tables.sort(key=lambda path: split_of(os.path.basename(os.path.dirname(path))) != TRAIN)  # noqa: PTH119, PTH120
        table = setting("dataset.table", tables[0])
        return f"if it names their classes, read a table: dataset=table {table}"
    return "name their classes in a table (dataset=table)"


def split_lists(dataset_root: DatasetRoot) -> list[str]:
    """Paths of files above the classes that are named like splits: meta/train.txt."""
    places = [*dataset_root.above, dataset_root.folder]
    places += [
        inner for above in dataset_root.above for inner in above.folders if not inner.image_folders
    ]
    files = [file.path for place in places for file in place.content.skipped]
    lists = {}
    for path in files:
        stem, suffix = os.path.splitext(os.path.basename(path))  # noqa: PTH119, PTH122 - texts
        if suffix.lower() in LIST_SUFFIXES and (split := split_of(stem)) is not None:
            lists[path] = split
    return sorted(lists) if len(set(lists.values())) > 1 else []


def _names(folders: Iterable[Folder]) -> str:
    return list_first(folder.name for folder in folders)
