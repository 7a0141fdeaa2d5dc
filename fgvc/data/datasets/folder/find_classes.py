"""dataset.root -> the folder in which the splits or the classes begin.

A root that is too high leads down while only one folder holds pictures. Where several do, they are
the classes, unless exactly one of them holds a whole dataset with splits; where it is not clear
which is meant, the root is refused and the candidates are named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fgvc.data.datasets.folder import split_folders
from fgvc.data.datasets.folder.listing import Folder, Inode
from fgvc.data.datasets.folder.skipped_files import summary
from fgvc.data.find_root import MAX_DEPTH
from fgvc.data.index import list_first
from fgvc.data.split_names import split_of
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

    has_splits: whether its folders are splits. above: from the root down, without itself. beside:
    folders with pictures on the way that are not read. copies: folders in it that repeat the
    classes beside them.
    """

    folder: Folder
    has_splits: bool
    above: tuple[Folder, ...] = ()
    beside: tuple[Folder, ...] = ()
    copies: tuple[Folder, ...] = ()


def find(root: Folder) -> DatasetRoot:
    """The folder in which the dataset begins.

    Raises:
        UserError: several candidates, class folders that are called like splits, or none at all.
    """
    above: list[Folder] = []
    folder = root
    while not _is_root(folder):
        if not folder.holding:
            raise _no_classes_error(root, folder, above)
        above.append(folder)
        (folder,) = _without_links(folder.holding)
    if split_folders.candidates(folder) and not (
        _is_container(folder) or _is_unlabelled_test_beside_dataset(folder)
    ):
        _check_single_split(folder)
        return DatasetRoot(folder, True, tuple(above))
    return _class_root(folder, above)


def _is_root(folder: Folder) -> bool:
    """Whether a folder holds splits, or several folders with pictures."""
    if len(_without_links(folder.holding)) > 1:
        return True
    return bool(split_folders.candidates(folder)) and not _is_container(folder)


def _is_container(folder: Folder) -> bool:
    """Whether the only folder called like a split holds a whole dataset: "test data/train"."""
    found = split_folders.all_folders(split_folders.candidates(folder))
    return len(found) == 1 and found == folder.holding and bool(_find_datasets(found))


def _is_unlabelled_test_beside_dataset(folder: Folder) -> bool:
    """Whether a test without labels is the only split, and a whole dataset lies beside it."""
    found = split_folders.all_folders(split_folders.candidates(folder))
    others = [inside for inside in folder.holding if inside not in found]
    return all(map(split_folders.is_unlabelled, found)) and bool(_find_datasets(others))


def _find_datasets(folders: Iterable[Folder]) -> list[Folder]:
    found = [
        below for folder in folders for below in split_folders.find_datasets(folder, MAX_DEPTH - 1)
    ]
    return _without_links(found)


def _without_links(folders: Iterable[Folder]) -> list[Folder]:
    """The folders without those that are another one by a link."""
    links_last = sorted(folders, key=lambda folder: os.path.islink(folder.path))  # noqa: PTH114
    first: dict[Inode, Folder] = {}
    for folder in links_last:
        first.setdefault(folder.inode, folder)
    return list(first.values())


def _check_single_split(folder: Folder) -> None:
    """Refuse a single split beside several folders that look like classes."""
    found = split_folders.all_folders(split_folders.candidates(folder))
    others = [inside for inside in folder.holding if inside not in found]
    classes = [
        inside
        for inside in others
        if inside.name not in split_folders.splits_by_name(folder.folders)
    ]
    if len(found) == 1 and len(classes) > 1:
        (split,) = found
        raise UserError(
            f"dataset.root={folder.path}: ambiguous: {split.name}/ holds the class folders "
            f"{_names(split.holding)}, but {_names(classes)} lie beside it; set "
            f"{setting('dataset.root', split.path)} to read only that folder, or rename "
            f"{split.name}/ if it is a class"
        )


def _class_root(folder: Folder, above: Sequence[Folder]) -> DatasetRoot:
    """The base where several folders with pictures lie side by side."""
    datasets = _find_datasets(folder.holding)
    if len(datasets) > 1:
        raise _ambiguous_error(folder, datasets)
    if datasets:
        inside = datasets[0].path + os.sep
        beside = [other for other in folder.holding if not inside.startswith(other.path + os.sep)]
        return DatasetRoot(datasets[0], True, (*above, folder), tuple(beside))
    copies = find_copies(folder)
    classes = [inside for inside in folder.holding if inside not in copies]
    if any(_wraps_classes(inside) for inside in classes):
        raise _ambiguous_error(folder, [inside for inside in classes if not inside.pictures])
    _check_names(folder, classes)
    return DatasetRoot(folder, False, tuple(above), copies=tuple(copies))


def find_copies(folder: Folder) -> list[Folder]:
    """The folders in a folder that hold the classes beside them once more."""
    return [inside for inside in folder.holding if _is_copy(inside, folder)]


def _is_copy(inside: Folder, folder: Folder) -> bool:
    """Whether a folder holds the classes beside it once more.

    In a folder of the same name, two classes suffice. Otherwise these are all classes, with
    pictures of the same names.
    """
    siblings = {nfc(other.name): other for other in folder.holding if other is not inside}
    inner = {nfc(other.name): other for other in inside.holding}
    if inside.name.casefold() == folder.name.casefold():
        return len(siblings.keys() & inner.keys()) > 1
    is_wrapper = split_folders.is_wrapper(
        inside.name
    )  # images/ is refused: another version of them?
    if is_wrapper or inside.pictures or len(inner) < 2 or siblings.keys() != inner.keys():
        return False
    return all(_file_names(inner[name]) == _file_names(siblings[name]) for name in inner)


def _file_names(folder: Folder) -> set[str]:
    return {os.path.basename(path) for path in folder.pictures}  # noqa: PTH119 - texts


def _wraps_classes(folder: Folder) -> bool:
    return split_folders.is_wrapper(folder.name) and not folder.pictures and len(folder.holding) > 1


def _check_names(folder: Folder, classes: Sequence[Folder]) -> None:
    """Refuse a model of training against validation, or of one part against another."""
    check_parts(folder, classes)
    words = split_folders.splits_by_name(classes)
    different = set(words.values())
    if len(words) == len(classes) or (TRAIN in different and len(different) > 1):
        raise UserError(
            f"dataset.root={folder.path}: {list_first(f'{name}/' for name in words)} are called like "
            "splits, but hold pictures instead of class folders; sort the pictures of each into "
            f"one folder per class, or {_table_hint(folder, classes)}; if these are the classes, "
            "rename them"
        )


def check_parts(folder: Folder, classes: Sequence[Folder]) -> None:
    """Refuse a model of images against masks, or of fold_0 against fold_1.

    Raises:
        UserError: all classes are called like parts of one dataset.
    """
    plain = [re.sub(r"[\W_]+", "", inside.name.casefold()) for inside in classes]
    numbered = {match and match[1] for match in map(NUMBERED_PART.fullmatch, plain)}
    if all(split_folders.is_wrapper(inside.name) for inside in classes) or (
        len(numbered) == 1 and None not in numbered
    ):
        raise UserError(
            f"dataset.root={folder.path}: {list_first(f'{inside.name}/' for inside in classes)} have "
            "names of parts of one dataset, not of classes; sort the pictures into one "
            f"folder per class, or {_table_hint(folder, classes)}; if these are the classes, "
            "rename them"
        )


def _ambiguous_error(folder: Folder, places: Sequence[Folder]) -> UserError:
    """A refusal that names where the classes may begin."""
    ways = [setting("dataset.root", place.path) for place in places[:3]]
    rest = [inside.name for inside in folder.holding if inside not in places]
    other = f"; {list_first(rest)} would not be read then" if rest else ""
    return UserError(
        f"dataset.root={folder.path}: {len(places)} of its {len(folder.holding)} folders with "
        f"pictures ({_names(places)}) are ambiguous: they look like whole datasets, not like "
        f"classes; set {' or '.join(ways)}{other}; or rename those that are classes"
    )


def _no_classes_error(root: Folder, last: Folder, above: Sequence[Folder]) -> UserError:
    """A refusal of a root without two classes. last: the deepest folder that holds pictures."""
    start = f"dataset.root={root.path}: "
    if not root.holds_pictures:
        return UserError(
            f"{start}holds no class folder with pictures{summary(root)}; {_parquet_hint(root)}set "
            "dataset.root= to the folder that holds one folder per class"
        )
    hint = _table_hint(last, [*above, *last.folders])
    if last is root:
        parent = _parent_hint(root)
        return UserError(
            f"{start}holds {len(last.pictures)} pictures, but no class folder; {parent}sort the "
            f"pictures into one folder per class, or {hint}"
        )
    if split_folders.is_wrapper(last.name) or split_of(last.name) is not None:
        return UserError(
            f"{start}holds {len(last.pictures)} pictures in {last.path}, but no class folders; "
            f"sort them into one folder per class, or {hint}"
        )
    return UserError(
        f"{start}holds one class ({last.name}), and a classifier needs two or more; add class "
        f"folders, set dataset.root= to the folder that holds all of them, or {hint}"
    )


def one_class_error(root: str, name: str) -> UserError:
    """The refusal of splits that hold a single class."""
    return UserError(
        f"dataset.root={root}: holds one class ({name}), and a classifier needs two or more; add "
        "class folders, or name the classes of the pictures in a table (dataset=table)"
    )


def _parent_hint(root: Folder) -> str:
    """The advice to choose the parent of the root, if the root is a class folder beside others."""
    parent = Path(root.path).absolute().parent
    try:
        siblings = [inside for inside in Folder(str(parent)).folders if inside.name != root.name]
        if any(inside.pictures for inside in siblings):
            return (
                f"if it is a class folder itself, set {setting('dataset.root', parent)}, otherwise "
            )
    except UserError:  # other people's folders may be closed
        pass
    return ""


def _table_hint(folder: Folder, others: Iterable[Folder]) -> str:
    """The advice to use a table, which is named if it lies there."""
    files = [file.path for place in (folder, *others) for file in place.content.skipped]
    tables = [path for path in files if path.lower().endswith(TABLE_SUFFIXES)]
    if tables:
        tables.sort(key=lambda path: split_of(os.path.basename(os.path.dirname(path))) != TRAIN)  # noqa: PTH119, PTH120
        table = setting("dataset.table", tables[0])
        return f"if it names their classes, read a table: dataset=table {table}"
    return "name their classes in a table (dataset=table)"


def _parquet_hint(root: Folder) -> str:
    """The advice to read the Parquet files below the root as a table, if there are any."""
    skipped = [file.path for part in root.walk() for file in part.content.skipped]
    folders = sorted(
        {str(Path(path).parent) for path in skipped if path.lower().endswith(".parquet")}
    )
    if not folders:
        return ""
    return f"read the Parquet files with dataset=table {setting('dataset.table', folders[0])}, or "


def split_lists(base: DatasetRoot) -> list[str]:
    """Paths of files above the classes that are called like splits: meta/train.txt."""
    places = [*base.above, base.folder]
    places += [inside for above in base.above for inside in above.folders if not inside.holding]
    files = [file.path for place in places for file in place.content.skipped]
    lists = {}
    for path in files:
        stem, suffix = os.path.splitext(os.path.basename(path))  # noqa: PTH119, PTH122 - texts
        if suffix.lower() in LIST_SUFFIXES and (split := split_of(stem)) is not None:
            lists[path] = split
    return sorted(lists) if len(set(lists.values())) > 1 else []


def _names(folders: Iterable[Folder]) -> str:
    return list_first(folder.name for folder in folders)
