"""A folder -> the folders in it that are splits; a split folder -> its class folders.

A folder is a split if it is called like one (training, Val, cars_test beside cars_train) and holds
class folders. One that holds pictures itself is a class, unless its neighbours show that the
pictures are strays.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fgvc.data.datasets.folder.listing import Folder
from fgvc.data.index import list_first
from fgvc.data.split_names import split_of, splits_among
from fgvc.types import TEST, TRAIN, VAL, UserError, nfc
from fgvc.untrusted.shell import setting

SPLIT_NAMES = {TRAIN: "train", VAL: "val", TEST: "test"}
# names of folders that hold the classes of a whole dataset, or another version of the same pictures
WRAPPERS = re.compile(
    r"((all|raw|full|color|colour|new|jpeg)?(images?|imgs?|pictures?|pics?|photos?|jpe?gs?|pngs?|data"
    r"|datasets?|files|classes|folders?|archive)|originals?|raw|processed|preprocessed|resized"
    r"|crops?|cropped|augmented|augmentations?|masks?|annotations?|labels?"
    r"|segmentations?(class|object)?|segmented|groundtruths?|gt|documentation|docs|figures?|samples?|thumbnails?|thumbs)\d*"
)
UNLABELLED = re.compile(r"(un)?(known|labell?ed|classified)|none|all|all ?classes")


@dataclass(frozen=True)
class SplitFolders:
    """Split folders of a folder. unlabelled: called like splits, but without class folders."""

    by_split: Mapping[int, Folder]
    unlabelled: tuple[Folder, ...]
    beside: tuple[Folder, ...]


def splits_by_name(folders: Sequence[Folder]) -> dict[str, int]:
    """{name: split} of the folders that are called like splits."""
    return splits_among([folder.name for folder in folders])


def is_wrapper(name: str) -> bool:
    """Whether a folder's name says that it wraps a dataset rather than names a class."""
    return WRAPPERS.fullmatch(re.sub(r"[\W_]+", "", name.casefold())) is not None


def candidates(folder: Folder) -> dict[int, list[Folder]]:
    """{split: folders called like it that hold class folders}; nothing refused, maybe empty."""
    split = splits_by_name(folder.folders)
    named = [inside for inside in folder.folders if inside.name in split]
    plain = [inside for inside in named if inside.folders and not inside.pictures]
    only_words = all(inside.name in split for inside in folder.holding)
    if not plain and not only_words:
        return {}
    found: dict[int, list[Folder]] = defaultdict(list)
    for inside in named:
        if inside in plain or inside.holding:
            same = [other for other in found[split[inside.name]] if other.inode == inside.inode]
            found[split[inside.name]] += [] if same else [inside]
    return {split: folders for split, folders in found.items() if folders}


def all_folders(by_split: Mapping[int, Sequence[Folder]]) -> list[Folder]:
    """The folders of all splits."""
    return [folder for folders in by_split.values() for folder in folders]


def is_split_layout(folder: Folder) -> bool:
    """Whether a folder surely holds splits: two of them, or train alone with two classes."""
    by_split = candidates(folder)
    alone = all_folders(by_split) == folder.holding and TRAIN in by_split
    return len(by_split) > 1 or (alone and len(unwrap(by_split[TRAIN][0]).holding) > 1)


def find_datasets(folder: Folder, depth: int) -> list[Folder]:
    """The nearest folders, at or below a folder, that surely hold splits."""
    if is_split_layout(folder):
        return [folder]
    below = folder.holding if depth else []
    return [found for inside in below for found in find_datasets(inside, depth - 1)]


def unwrap(folder: Folder) -> Folder:
    """A split folder, or the folder in it that holds all its classes: train/images, test/test."""
    while not folder.pictures and len(folder.holding) == 1:
        (inside,) = folder.holding
        if not (_is_wrapper_in(inside.name, folder.name) and inside.holding):
            break
        folder = inside
    return folder


def find(folder: Folder) -> SplitFolders:
    """The split folders of a folder that has candidates.

    Raises:
        UserError: two folders for one split, or no train.
    """
    found = candidates(folder)
    for split, folders in found.items():
        if len(folders) > 1:
            raise UserError(
                f"{folder.path}: {_list_folders(folders)} both mean the split {SPLIT_NAMES[split]}; "
                "merge them, or rename those that are not"
            )
    by_split = {split: folders[0] for split, folders in found.items()}
    if TRAIN in by_split:
        known = {nfc(inside.name) for inside in unwrap(by_split[TRAIN]).holding}
        for split in [split for split in by_split if split != TRAIN]:
            if is_unlabelled(by_split[split], known):
                del by_split[split]
    rest = [inside for inside in folder.folders if inside not in by_split.values()]
    aliases = {inside.inode for inside in by_split.values()}
    rest = [inside for inside in rest if inside.inode not in aliases]
    words = splits_by_name(folder.folders)
    unlabelled = tuple(inside for inside in rest if inside.name in words)
    if TRAIN not in by_split:
        raise _no_train_error(folder, by_split, unlabelled, rest)
    beside = tuple(inside for inside in rest if inside not in unlabelled and inside.holds_pictures)
    return SplitFolders(by_split, unlabelled, beside)


def is_unlabelled(folder: Folder, known: set[str] | frozenset[str] = frozenset()) -> bool:
    """Whether a test folder only wraps pictures without labels: test/images, test1/test1.

    Args:
        known: names of the classes, which a folder of pictures in it is not.
    """
    folder = unwrap(folder)
    if len(folder.holding) != 1 or len(folder.folders) != 1:
        return False
    (inside,) = folder.holding
    name = inside.name.casefold()
    says_nothing = (
        _is_wrapper_in(inside.name, folder.name) or UNLABELLED.fullmatch(name) is not None
    )
    return says_nothing and not inside.holding and nfc(inside.name) not in known


def _is_wrapper_in(name: str, above: str) -> bool:
    return is_wrapper(name) or split_of(name) is not None or name.casefold() == above.casefold()


def _no_train_error(
    folder: Folder,
    by_split: Mapping[int, Folder],
    unlabelled: Sequence[Folder],
    rest: Sequence[Folder],
) -> UserError:
    names = _list_folders(list(by_split.values()))
    words, why = splits_by_name(folder.folders), ""
    for inside in unlabelled:
        if words[inside.name] == TRAIN:
            lies = "pictures, but no class folders" if inside.holds_pictures else "no pictures"
            why = f" with class folders ({inside.name}/ holds {lies})"
    places = [place for place in by_split.values() if not is_unlabelled(place)]
    places += [place for place in rest if place.holding]
    way_out = "rename the folder with the training pictures to train/"
    if places:
        way_out += (
            f", or set {setting('dataset.root', places[0].path)} to train on that folder and carve "
            "a test from it"
        )
    return UserError(f"dataset.root={folder.path}: holds {names} but no train/{why}; {way_out}")


def _list_folders(folders: Sequence[Folder]) -> str:
    return list_first(f"{folder.name}/" for folder in folders)
