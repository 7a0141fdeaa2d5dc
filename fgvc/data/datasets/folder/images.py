"""The folder in which a dataset begins -> its images with class and split, and notes on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from fgvc.data.datasets.folder import split_folders
from fgvc.data.datasets.folder.find_classes import (
    DatasetRoot,
    check_parts,
    find_copies,
    one_class_error,
)
from fgvc.data.datasets.folder.listing import Folder, summarize_skipped
from fgvc.data.datasets.folder.split_folders import SPLIT_NAMES
from fgvc.data.index import list_first
from fgvc.types import TEST, TRAIN, VAL, UserError, nfc
from fgvc.untrusted.escape import one_line
from fgvc.untrusted.shell import setting

Row = tuple[str, str, int]  # path, class, split


@dataclass
class DatasetContent:
    """What is read. folders: those whose direct content is read. strays: images in no class."""

    rows: list[Row] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    test_source: str = "carved"


def read(root: DatasetRoot) -> DatasetContent:
    """Collect the images of a dataset, before a test is carved; UserError: as in `folder.read`."""
    return _read_splits(root) if root.has_splits else _read_classes(root)


def _read_splits(root: DatasetRoot) -> DatasetContent:
    folder = root.folder
    by_split, unlabelled, beside = split_folders.find(folder)
    contents = DatasetContent(strays=list(folder.images))
    by_split = {split: split_folders.unwrap(part) for split, part in by_split.items()}
    if TEST in by_split:
        contents.test_source = "test"
    elif VAL in by_split:
        contents.test_source = "val"
        by_split = {TRAIN: by_split[TRAIN], TEST: by_split[VAL]}
    classes_of = {}
    names = [part.name for part in by_split[TRAIN].image_folders]
    if len(names) == 1 and split_folders.is_wrapper(names[0]):  # train/images beside train/labels
        raise one_class_error(folder.path, names[0])
    check_parts(by_split[TRAIN], by_split[TRAIN].image_folders)
    for split, split_folder in by_split.items():
        copies = find_copies(split_folder)
        where = f"a copy of the classes in {split_folder.name}/"
        contents.notes += unused_folders_note(copies, where)
        folders = [inner for inner in split_folder.folders if inner not in copies]
        classes_of[split] = _add_classes(contents, folders, split)
        contents.folders.append(split_folder)
        contents.strays += split_folder.images
    for split, classes in classes_of.items():
        if untrained := sorted(classes - classes_of[TRAIN]):
            raise UserError(
                f"{by_split[split].path}: holds classes that {by_split[TRAIN].name}/ lacks: "
                f"{list_first(untrained)}; add training images of them, or move them out"
            )
    names = {split: part.path[len(folder.path) + 1 :] for split, part in by_split.items()}
    why, usual = "", dict(SPLIT_NAMES)
    if contents.test_source == "val":
        why, usual[TEST] = " because there is no test split", SPLIT_NAMES[VAL]
    if any(name != usual[split] for split, name in names.items()):
        texts = [f"{names[split]}/ is {SPLIT_NAMES[split]}" for split in usual if split in names]
        contents.notes.append(f"splits: {', '.join(texts)}{why}")
    contents.notes += _depth_note(by_split[TRAIN].image_folders)
    for part in unlabelled:
        holds = f"{part.count()} images without class folders and thus without labels"
        contents.notes.append(
            f"{part.name}/ holds {holds if part.holds_images else 'no images'}: not used"
        )
    contents.notes += unused_folders_note(beside, "beside the splits")
    return contents


def unused_folders_note(folders: Sequence[Folder], where: str) -> list[str]:
    """A note on folders whose images are not used, if there are any."""
    texts = []
    for folder in folders:
        count = folder.count()
        texts.append(f"{one_line(folder.name)} ({count} image{'' if count == 1 else 's'})")
    return [f"{where}, not used: {list_first(texts)}"] if texts else []


def _read_classes(root: DatasetRoot) -> DatasetContent:
    """Read class folders; if each holds folders named like splits, those are the splits."""
    contents = DatasetContent(strays=list(root.folder.images))
    classes = [folder for folder in root.folder.folders if folder not in root.copies]
    contents.notes += unused_folders_note(root.copies, "a copy of the classes beside it")
    split = [folder for folder in classes if _inner_splits(folder)]
    if split:
        _read_inner_splits(contents, root.folder, classes, split)
    else:
        _add_classes(contents, classes, TRAIN)
        if words := split_folders.splits_by_name(classes):
            why = "because there are other classes beside them"
            contents.notes.append(f"{list_first(words)}: read as classes, {why}")
        contents.notes += _depth_note(classes)
    return contents


def _inner_splits(folder: Folder) -> dict[str, int]:
    """{name: split} of the folders in a class folder if all of them are splits; otherwise empty."""
    splits = split_folders.splits_by_name(folder.image_folders)
    several = len(set(splits.values())) > 1 and TRAIN in splits.values()
    is_whole = len(splits) == len(folder.image_folders) and not folder.images
    return splits if several and is_whole else {}


def _read_inner_splits(
    contents: DatasetContent,
    folder_above: Folder,
    classes: Sequence[Folder],
    split_classes: Sequence[Folder],
) -> None:
    """Read <class>/train, <class>/test; UserError: some classes have splits, and others do not."""
    splits = {part for folder in split_classes for part in _inner_splits(folder).values()}
    example = list_first(_inner_splits(split_classes[0]))
    for folder in classes:
        words = split_folders.splits_by_name(folder.image_folders)
        if folder.images or not folder.image_folders or len(words) < len(folder.image_folders):
            raise UserError(
                f"{folder_above.path}: {split_classes[0].name}/ holds {example}, but "
                f"{folder.name}/ is not split that way; use one layout, preferably train/<class>/ "
                "and test/<class>/"
            )
    contents.test_source = "test" if TEST in splits else "val"
    for folder in classes:
        contents.folders.append(folder)
        words = split_folders.splits_by_name(folder.image_folders)
        for part in folder.image_folders:
            is_test = words[part.name] == VAL and contents.test_source == "val"
            _add_class(contents, nfc(folder.name), part, TEST if is_test else words[part.name])
    contents.notes.append(f"splits: read from the folders {example} in each class folder")


def _depth_note(classes: Sequence[Folder]) -> list[str]:
    """A note on classes that may be one level further down."""
    deep = [folder for folder in classes if not folder.images]
    if len(deep) < len(classes):
        return [
            f"{folder.name}/ holds only folders "
            f"({list_first(f.name for f in folder.image_folders)}), "
            f"whose images belong to the class {folder.name}"
            for folder in deep[:1]
            if len(folder.image_folders) > 1
        ]
    names = sorted({inner.name for folder in classes for inner in folder.image_folders})
    return [
        f"the class folders ({list_first(folder.name for folder in classes)}) hold only folders "
        f"({list_first(names)}), whose images belong to the class above; if these are the "
        f"classes, set {setting('dataset.root', classes[0].path)}"
    ]


def _add_classes(contents: DatasetContent, folders: Sequence[Folder], split: int) -> set[str]:
    places: dict[str, list[str]] = defaultdict(list)
    for folder in folders:
        if not folder.holds_images:
            raise UserError(
                f"{folder.path}: a class folder without "
                f"images{summarize_skipped(folder)}; fill or remove it"
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
        contents.rows += [(path, name, split) for path in part.images]
