"""A folder -> its split folders; a split folder -> its class folders.

A folder is a split if it is named like a split (training, Val, cars_test beside cars_train) and
holds class folders. A folder that itself has images is a class, unless its siblings show that the
images are strays.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from fgvc.data.datasets.folder.listing import Folder
from fgvc.data.index import list_first
from fgvc.data.split_names import plain_name, split_of, splits_among
from fgvc.types import TEST, TRAIN, VAL, UserError, nfc
from fgvc.untrusted.shell import setting

SPLIT_NAMES = {TRAIN: "train", VAL: "val", TEST: "test"}
# folders that hold the classes of a whole dataset, or another version of the same images
WRAPPERS = re.compile(
    r"((all|raw|full|color|colour|new|jpeg)?(images?|imgs?|pictures?|pics?|photos?|jpe?gs?|pngs?|data"
    r"|datasets?|files|classes|folders?|archive)|originals?|raw|processed|preprocessed|resized"
    r"|crops?|cropped|augmented|augmentations?|masks?|annotations?|labels?"
    r"|segmentations?(class|object)?|segmented|groundtruths?|gt|documentation|docs|figures?|samples?|thumbnails?|thumbs)\d*"
)
UNLABELLED = re.compile(r"(un)?(known|labell?ed|classified)|none|all|all ?classes")


def splits_by_name(folders: Sequence[Folder]) -> dict[str, int]:
    """{name: split} of the folders that are named like splits."""
    return splits_among([folder.name for folder in folders])


def is_wrapper(name: str) -> bool:
    """Whether a folder's name suggests that it wraps a dataset rather than being a class."""
    return WRAPPERS.fullmatch(plain_name(name)) is not None


def candidates(folder: Folder) -> dict[int, list[Folder]]:
    """{split: folders named like it that hold class folders}; may be empty, never raises."""
    split = splits_by_name(folder.folders)
    named = [inner for inner in folder.folders if inner.name in split]
    with_folders = [inner for inner in named if inner.folders and not inner.images]
    only_words = all(inner.name in split for inner in folder.image_folders)
    if not with_folders and not only_words:
        return {}
    by_split: dict[int, list[Folder]] = defaultdict(list)
    for inner in named:
        if inner in with_folders or inner.image_folders:
            same = [other for other in by_split[split[inner.name]] if other.inode == inner.inode]
            by_split[split[inner.name]] += [] if same else [inner]
    return {split: folders for split, folders in by_split.items() if folders}


def all_folders(by_split: Mapping[int, Sequence[Folder]]) -> list[Folder]:
    return [folder for folders in by_split.values() for folder in folders]


def find_datasets(folder: Folder, depth: int) -> list[Folder]:
    """The nearest folders, at or below a folder, that certainly hold splits.

    These are two splits, or train alone with two classes.
    """
    by_split = candidates(folder)
    alone = all_folders(by_split) == folder.image_folders and TRAIN in by_split
    if len(by_split) > 1 or (alone and len(unwrap(by_split[TRAIN][0]).image_folders) > 1):
        return [folder]
    subfolders = folder.image_folders if depth else []
    return [dataset for inner in subfolders for dataset in find_datasets(inner, depth - 1)]


def unwrap(folder: Folder) -> Folder:
    """The folder that holds the classes of a split: itself, or train/images, test/test."""
    while not folder.images and len(folder.image_folders) == 1:
        (inner,) = folder.image_folders
        if not (_is_wrapper_in(inner.name, folder.name) and inner.image_folders):
            break
        folder = inner
    return folder


def find(folder: Folder) -> tuple[dict[int, Folder], list[Folder], list[Folder]]:
    """The split folders of a folder that has candidates; UserError: two for one split, or no train.

    Returns:
        {split: folder}; folders named like splits, but without class folders; other folders with
        images.
    """
    by_split_all = candidates(folder)
    for split, folders in by_split_all.items():
        if len(folders) > 1:
            names = list_first(f"{inner.name}/" for inner in folders)
            raise UserError(
                f"{folder.path}: {names} both mean the split {SPLIT_NAMES[split]}; merge them, or "
                "rename those that are not"
            )
    by_split = {split: folders[0] for split, folders in by_split_all.items()}
    if TRAIN in by_split:
        class_names = {nfc(inner.name) for inner in unwrap(by_split[TRAIN]).image_folders}
        for split in [split for split in by_split if split != TRAIN]:
            if is_unlabelled(by_split[split], class_names):
                del by_split[split]
    used = {inner.inode for inner in by_split.values()}
    rest = [inner for inner in folder.folders if inner.inode not in used]
    words = splits_by_name(folder.folders)
    unlabelled = [inner for inner in rest if inner.name in words]
    if TRAIN not in by_split:
        raise _no_train_error(folder, by_split, unlabelled, rest)
    beside = [inner for inner in rest if inner not in unlabelled and inner.holds_images]
    return by_split, unlabelled, beside


def is_unlabelled(folder: Folder, class_names: set[str] | frozenset[str] = frozenset()) -> bool:
    """Whether a test only wraps images without labels (test/images) in a folder of no class."""
    folder = unwrap(folder)
    if len(folder.image_folders) != 1 or len(folder.folders) != 1:
        return False
    (inner,) = folder.image_folders
    name = inner.name.casefold()
    is_no_class = _is_wrapper_in(inner.name, folder.name) or UNLABELLED.fullmatch(name) is not None
    return is_no_class and not inner.image_folders and nfc(inner.name) not in class_names


def _is_wrapper_in(name: str, parent: str) -> bool:
    return is_wrapper(name) or split_of(name) is not None or name.casefold() == parent.casefold()


def _no_train_error(
    folder: Folder,
    by_split: Mapping[int, Folder],
    unlabelled: Sequence[Folder],
    rest: Sequence[Folder],
) -> UserError:
    names = list_first(f"{inner.name}/" for inner in by_split.values())
    words, why = splits_by_name(folder.folders), ""
    for inner in unlabelled:
        if words[inner.name] == TRAIN:
            lies = "images, but no class folders" if inner.holds_images else "no images"
            why = f" with class folders ({inner.name}/ holds {lies})"
    places = [place for place in by_split.values() if not is_unlabelled(place)]
    places += [place for place in rest if place.image_folders]
    way_out = "rename the folder with the training images to train/"
    if places:
        way_out += (
            f", or set {setting('dataset.root', places[0].path)} to train on that folder and carve "
            "a test from it"
        )
    return UserError(f"dataset.root={folder.path}: holds {names} but no train/{why}; {way_out}")
