"""The folder in which a dataset begins -> its pictures with class and split, and notes on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fgvc.data.datasets.folder import skipped_files, split_folders
from fgvc.data.datasets.folder.find_classes import (
    DatasetRoot,
    check_parts,
    find_copies,
    one_class_error,
)
from fgvc.data.datasets.folder.listing import Folder
from fgvc.data.datasets.folder.split_folders import SPLIT_NAMES
from fgvc.data.index import list_first
from fgvc.types import TEST, TRAIN, VAL, UserError, nfc
from fgvc.untrusted.shell import setting

Row = tuple[str, str, int]  # path, class, split


@dataclass
class DatasetContent:
    """What is read. folders: all whose direct content is read. strays: pictures in no class."""

    rows: list[Row] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    test_source: str = "carved"


def read(base: DatasetRoot) -> DatasetContent:
    """All that is read of a dataset, before a test is carved.

    Raises:
        UserError: two folders for one split, no train, an empty class folder, names that collide,
            or a class that train lacks.
    """
    return _read_splits(base) if base.has_splits else _read_classes(base)


# --- splits that hold class folders ---


def _read_splits(base: DatasetRoot) -> DatasetContent:
    found, folder = split_folders.find(base.folder), base.folder
    contents = DatasetContent(strays=list(folder.pictures))
    split_of_folder = {split: split_folders.unwrap(part) for split, part in found.by_split.items()}
    by_split = dict(split_of_folder)
    if TEST in by_split:
        contents.test_source = "test"
    elif VAL in by_split:
        contents.test_source = "val"
        by_split = {TRAIN: by_split[TRAIN], TEST: by_split[VAL]}
    classes_of = {}
    names = [part.name for part in by_split[TRAIN].holding]
    if len(names) == 1 and split_folders.is_wrapper(names[0]):  # train/images beside train/labels
        raise one_class_error(folder.path, names[0])
    check_parts(by_split[TRAIN], by_split[TRAIN].holding)
    for split, part in by_split.items():
        copies = find_copies(part)
        contents.notes += unused_folders_note(copies, f"a copy of the classes in {part.name}/")
        folders = [inside for inside in part.folders if inside not in copies]
        classes_of[split] = _add_classes(contents, folders, split)
        contents.folders.append(part)
        contents.strays += part.pictures
    for split, classes in classes_of.items():
        if strange := sorted(classes - classes_of[TRAIN]):
            raise UserError(
                f"{by_split[split].path}: holds classes that {by_split[TRAIN].name}/ lacks: "
                f"{list_first(strange)}; add training pictures of them, or move them out"
            )
    contents.notes += _split_notes(folder, by_split, contents.test_source)
    contents.notes += _depth_note(by_split[TRAIN].holding)
    contents.notes += [_unlabelled_note(part) for part in found.unlabelled]
    contents.notes += unused_folders_note(found.beside, "beside the splits")
    return contents


def _split_notes(folder: Folder, by_split: Mapping[int, Folder], source: str) -> list[str]:
    """A note on split folders that are not just called train, val and test."""
    names = {split: part.path[len(folder.path) + 1 :] for split, part in by_split.items()}
    usual = SPLIT_NAMES | ({TEST: SPLIT_NAMES[VAL]} if source == "val" else {})
    if all(name == usual[split] for split, name in names.items()):
        return []
    order = [split for split in SPLIT_NAMES if split in names]
    texts = [f"{names[split]}/ is {SPLIT_NAMES[split]}" for split in order]
    why = " as there is no test split" if source == "val" else ""
    return [f"splits: {', '.join(texts)}{why}"]


def _unlabelled_note(part: Folder) -> str:
    if not (count := part.count()):
        return f"{part.name}/ holds no pictures: not used"
    return (
        f"{part.name}/ holds {count} pictures without class folders, thus without labels: not used"
    )


def unused_folders_note(folders: Sequence[Folder], where: str) -> list[str]:
    """A note on folders whose pictures are not used, or nothing."""
    if not folders:
        return []
    texts = [
        f"{skipped_files.printable(folder.name)} ({_count_text(folder)})" for folder in folders
    ]
    return [f"{where}, not used: {list_first(texts)}"]


# --- class folders without splits ---


def _read_classes(base: DatasetRoot) -> DatasetContent:
    """Class folders; where each holds folders called like splits, these are the splits."""
    contents = DatasetContent(strays=list(base.folder.pictures))
    classes = [folder for folder in base.folder.folders if folder not in base.copies]
    contents.notes += unused_folders_note(base.copies, "a copy of the classes beside it")
    split = [folder for folder in classes if _inner_splits(folder)]
    if split:
        _read_inner_splits(contents, base.folder, classes, split)
    else:
        _add_classes(contents, classes, TRAIN)
        contents.notes += _class_notes(classes)
    return contents


def _inner_splits(folder: Folder) -> dict[str, int]:
    """{name: split} of the folders in a class folder, if they are its splits; otherwise empty."""
    known = split_folders.splits_by_name(folder.holding)
    several = len(set(known.values())) > 1 and TRAIN in known.values()
    is_whole = len(known) == len(folder.holding) and not folder.pictures
    return known if several and is_whole else {}


def _read_inner_splits(
    contents: DatasetContent, base: Folder, classes: Sequence[Folder], split: Sequence[Folder]
) -> None:
    """Read <class>/train, <class>/test.

    Raises:
        UserError: some classes have splits, and others do not.
    """
    known = {part for folder in split for part in _inner_splits(folder).values()}
    for folder in classes:
        words = split_folders.splits_by_name(folder.holding)
        if folder.pictures or not folder.holding or len(words) < len(folder.holding):
            raise UserError(
                f"{base.path}: {split[0].name}/ holds {list_first(_inner_splits(split[0]))}, but "
                f"{folder.name}/ is not split so; sort them alike, best as train/<class>/ and "
                "test/<class>/"
            )
    contents.test_source = "test" if TEST in known else "val"
    for folder in classes:
        contents.folders.append(folder)
        words = split_folders.splits_by_name(folder.holding)
        for part in folder.holding:
            is_test = words[part.name] == VAL and contents.test_source == "val"
            _add_class(contents, nfc(folder.name), part, TEST if is_test else words[part.name])
    contents.notes.append(
        f"splits: read from the folders {list_first(_inner_splits(split[0]))} in each class folder"
    )


def _class_notes(classes: Sequence[Folder]) -> list[str]:
    """Notes on class folders that may be meant in another way."""
    notes = []
    if words := split_folders.splits_by_name(classes):
        notes.append(
            f"{list_first(words)}: read as classes, as there are other classes beside them"
        )
    return notes + _depth_note(classes)


def _depth_note(classes: Sequence[Folder]) -> list[str]:
    """A note on classes that lie perhaps one level further down."""
    deep = [folder for folder in classes if not folder.pictures]
    if len(deep) < len(classes):
        return [
            f"{folder.name}/ holds only folders ({list_first(inside.name for inside in folder.holding)}"
            f"), whose pictures belong to the class {folder.name}"
            for folder in deep[:1]
            if len(folder.holding) > 1
        ]
    inner = sorted({inside.name for folder in classes for inside in folder.holding})
    return [
        f"the class folders ({list_first(folder.name for folder in classes)}) hold only folders "
        f"({list_first(inner)}), whose pictures belong to the class above; if these are the "
        f"classes, set {setting('dataset.root', classes[0].path)}"
    ]


# --- classes ---


def _add_classes(contents: DatasetContent, folders: Sequence[Folder], split: int) -> set[str]:
    """Add all class folders of a split; returns the names of the classes.

    Raises:
        UserError: an empty one, or names that differ only in case, Unicode composition or spaces
            and dots at the end.
    """
    places: dict[str, list[str]] = defaultdict(list)
    for folder in folders:
        if not folder.holds_pictures:
            raise UserError(
                f"{folder.path}: a class folder without "
                f"pictures{skipped_files.summary(folder)}; fill or remove it"
            )
        places[nfc(folder.name).casefold().rstrip(" .")].append(folder.path)  # as Windows does
        _add_class(contents, nfc(folder.name), folder, split)
    for same in places.values():
        if len(same) > 1:
            raise UserError(
                f"{list_first(same)} are one class on some file systems; rename or merge them"
            )
    return {nfc(folder.name) for folder in folders}


def _add_class(contents: DatasetContent, name: str, folder: Folder, split: int) -> None:
    for part in folder.walk():
        contents.folders.append(part)
        contents.rows += [(path, name, split) for path in part.pictures]


def _count_text(folder: Folder) -> str:
    count = folder.count()
    return f"{count} picture" if count == 1 else f"{count} pictures"
