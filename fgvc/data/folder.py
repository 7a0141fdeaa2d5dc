"""reader=folder: one folder per class -> Index.

Either root/train/<class>/ and root/test/<class>/, or root/<class>/ with a seeded test split. The
class is the folder's name in Unicode's composed form (NFC), so that copies from macOS and Linux
agree; pictures are opened by the name the disk has. Folders inside a class folder are searched too
(links to folders there are not followed). N images.
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fgvc.data.index import Index, listed
from fgvc.data.labelmap import named
from fgvc.data.split import carved_test
from fgvc.types import TEST, TRAIN, UserError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".mpo", ".avif"}
)
VALIDATION = ("val", "valid", "validation")


def read(root: Path, test_fraction: float, seed: int) -> Index:
    """Read the folders; files that are hidden or no pictures by name are counted in a note.

    Args:
        root: holds train/ and test/, or the class folders themselves.
        test_fraction: share of each class that becomes test where there is no test/.
        seed: of that split.

    Raises:
        UserError: no such root, an empty class folder, names that collide, a class of test that
            train lacks, a validation folder, or a class too small to be split.
    """
    if not root.is_dir():
        raise UserError(f"dataset.root={root}: no such folder; set dataset.root=")
    split_of = _splits(root)
    found: list[tuple[str, str, int]] = []  # path, class, split
    ignored: list[str] = []
    for folder, split in split_of.items():
        for name, path in _classes(root, folder, ignored):
            found += [(picture, name, split) for picture in path]
    found.sort()
    labelmap = named(_distinct(root, found))
    index_of = {name: index for index, name in enumerate(labelmap.names)}
    path = tuple(picture for picture, _, _ in found)
    label_N = np.array([index_of[name] for _, name, _ in found], dtype=np.int64)
    split_N = np.array([split for _, _, split in found], dtype=np.uint8)
    if "" in split_of:
        where = f"{root} has no test/"
        split_N = carved_test(where, path, label_N, labelmap, test_fraction, seed)
    _check_trained(root, split_N, label_N, labelmap.names)
    return Index(root, path, label_N, split_N, labelmap, notes=_ignored_note(ignored))


def _splits(root: Path) -> dict[str, int]:
    """{folder: split}; the folder "" means that root itself holds the classes."""
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    inside = {name.casefold(): name for name in folders}
    found = [name for name in folders if name.casefold() in ("train", "test")]
    if not found:
        return {"": TRAIN}
    if validation := sorted(inside.keys() & set(VALIDATION)):
        raise UserError(
            f"{root / inside[validation[0]]}: validation is carved from train/ "
            "(dataset.val_fraction); move these pictures into train/ or out of the dataset"
        )
    if lacking := {"train", "test"} - inside.keys():
        raise UserError(f"dataset.root={root}: holds {found[0]}/ but no {listed(lacking)}/")
    if len(found) > 2:
        raise UserError(
            f"dataset.root={root}: holds {listed(found)}; keep one train/ and one test/"
        )
    return {inside["train"]: TRAIN, inside["test"]: TEST}


def _classes(root: Path, folder: str, ignored: list[str]) -> Iterator[tuple[str, list[str]]]:
    """(class name, paths relative to root) of every class folder; what is passed over is noted."""
    for entry in sorted(os.scandir(root / folder), key=lambda entry: entry.name):
        place = f"{folder}/{entry.name}" if folder else entry.name
        if entry.name.startswith(".") or not entry.is_dir():
            ignored.append(place)
            continue
        path = list(_pictures(root, place, ignored))
        if not path:
            raise UserError(f"{root / place}: a class folder without pictures; fill or remove it")
        yield unicodedata.normalize("NFC", entry.name), path


def _pictures(root: Path, place: str, ignored: list[str]) -> Iterator[str]:
    for folder, subfolders, files in os.walk(root / place):
        inside = Path(folder).relative_to(root).as_posix()
        ignored += [f"{inside}/{name}" for name in subfolders if name.startswith(".")]
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            picture = f"{inside}/{name}"
            if name.startswith(".") or Path(name).suffix.lower() not in SUFFIXES:
                ignored.append(picture)
            else:
                yield _utf8(root, picture)


def _utf8(root: Path, path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UserError(f"{root}: {path!a}: a file name that is not UTF-8; rename it") from None
    return path


def _distinct(root: Path, found: list[tuple[str, str, int]]) -> set[str]:
    """Class names.

    Raises:
        UserError: no class, or two folders of one split that differ only in case or composition.
    """
    folders: dict[tuple[str, int], set[str]] = defaultdict(set)
    for path, name, split in found:
        depth = 2 if path.startswith(("train/", "test/")) else 1
        folders[name.casefold(), split].add("/".join(path.split("/")[:depth]))
    for places in folders.values():
        if len(places) > 1:
            raise UserError(
                f"{root}: {listed(sorted(places))} are one class on some file systems; "
                "rename or merge them"
            )
    if not folders:
        raise UserError(f"dataset.root={root}: holds no class folder; set dataset.root=")
    return {name for _, name, _ in found}


def _check_trained(
    root: Path, split_N: np.ndarray, label_N: np.ndarray, names: tuple[str, ...]
) -> None:
    strange = set(label_N[split_N == TEST].tolist()) - set(label_N[split_N == TRAIN].tolist())
    if strange:
        raise UserError(
            f"{root}: test/ holds classes that train/ lacks: "
            f"{listed(names[label] for label in sorted(strange))}"
        )


def _ignored_note(ignored: list[str]) -> tuple[str, ...]:
    if not ignored:
        return ()
    first = listed(sorted(ignored), 3)
    return (f"{len(ignored)} files that are hidden or no pictures ignored ({first})",)
