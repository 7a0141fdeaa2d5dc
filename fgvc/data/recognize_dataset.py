"""A folder on disk -> the published dataset that it looks like, and the command that reads it.

Used only for advice: when a reader has refused a folder, and when dataset=folder reads a published
dataset. No image is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from fgvc.data import file_state
from fgvc.data.dataset_spec import readers
from fgvc.data.image_formats import has_image_suffix
from fgvc.data.split_names import split_of
from fgvc.untrusted.shell import setting

MAX_DEPTH = 3  # folders below the root that are searched
MAX_ENTRIES = 20_000  # entries read at most: the root may be any folder
ICONIC_GROUPS = {"Actinopterygii", "Amphibia", "Arachnida", "Aves", "Fungi", "Insecta", "Plantae"}
_IMAGE_FOLDERS = ("images", "car_ims", "train_val_images")  # in lower case
_OTHER_RELEASE = re.compile(r"(?:train|val|test|train_val)_?(2018|2019|2021)(?:\.json)?")
_SPECIES_FOLDER = re.compile(r"\d{5}_(Animalia|Fungi|Plantae)_\w+")


class PathEntry(NamedTuple):
    """A file or folder below the root."""

    path: Path
    is_folder: bool


def advice(root: Path, reader: str) -> str | None:
    """Suggest how to read a folder that a reader has refused; None without a suggestion.

    Args:
        reader: `dataset.reader`; table and synthetic have no alternative.
    """
    if reader in ("table", "synthetic") or not root.is_dir():
        return None
    entries = list(_walk(root))
    dataset = _identify(entries)
    if dataset == reader:
        return None
    if dataset is not None:
        return f"this looks like {readers()[dataset].title}: read it with {command(dataset, root)}"
    if reader == "folder":
        return None
    folder = class_folders(root)
    if year := next(filter(None, map(_year_of, entries)), None):
        suggestion = "list path, label and split in a table and read it with dataset=table"
        if folder is not None:
            suggestion = f"read its species folders with {command('folder', folder)}"
        return f"this is iNaturalist {year}, and dataset=inat2017 reads 2017 only: {suggestion}"
    is_cub_2010 = any(
        entry.path.name == "annotations-mat" or entry.path.parts[-2:] == ("lists", "files.txt")
        for entry in entries
    )
    if folder is None or is_cub_2010:
        return None
    return (
        f"{folder} holds folders of images: read them as classes, without an official split, "
        f"with {command('folder', folder)}"
    )


def official_note(root: Path) -> tuple[str, ...]:
    """A note if dataset=folder ignores the official files of a published dataset."""
    for place in (root, *([root.parent] if root.name.casefold() in _IMAGE_FOLDERS else [])):
        names = {e.path.name for folder in (place, place / "lists") for e in _entries(folder)}
        files_of = {name: spec.index_files for name, spec in readers().items()}
        complete = [name for name, files in files_of.items() if files and files <= names]
        if complete and "generator.json" not in names:  # of synthetic birds
            # NABirds has every file of CUB, and one more
            dataset = max(complete, key=lambda name: len(files_of[name]))
            return (
                f"{place} holds the official files of {readers()[dataset].title}, which "
                f"dataset=folder ignores: {command(dataset, place)} reads its official split",
            )
    return ()


def command(dataset: str, root: Path) -> str:
    """The overrides that read a root, quoted for a shell."""
    return f"dataset={dataset} {setting('dataset.root', root)}"


def is_merged_inat2017(root: Path) -> bool:
    """Whether a folder holds iNaturalist 2017 by species, without the lists of train and val.

    torchvision's INaturalist writes this layout.
    """
    names = {entry.path.name for entry in _walk(root)}
    lists = (_OTHER_RELEASE, readers()["inat2017"].signature)
    other = any(release and release.fullmatch(name) for release in lists for name in names)
    return len(ICONIC_GROUPS & names) >= 3 and not other


def class_folders(root: Path) -> Path | None:
    """Find the folder at or below a root that dataset=folder can read; None if none or several.

    It has at least two subfolders with images. Among several such folders, the one named images or
    train is chosen; if all are named like splits, their parent is chosen.
    """
    level = [root]
    for _ in range(MAX_DEPTH + 1):
        candidates = [folder for folder in level if _holds_classes(folder)]
        if candidates:
            break
        level = [e.path for folder in level for e in _entries(folder) if e.is_folder][:MAX_ENTRIES]
    else:
        return None
    parents = {folder.parent for folder in candidates}
    if len(parents) == 1 and all(split_of(folder.name) is not None for folder in candidates):
        parent = parents.pop()
        # another split may be beside a single one, with fewer classes
        beside = {split_of(entry.path.name) for entry in _entries(parent) if entry.is_folder}
        return parent if len(candidates) > 1 or len(beside - {None}) > 1 else candidates[0]
    if len(candidates) == 1:
        return candidates[0]
    for start in ("images", "train"):
        matches = [f for f in candidates if f.name.casefold().startswith(start)]
        if len(matches) == 1:
            return matches[0]
    return None


def _holds_classes(folder: Path) -> bool:
    subfolders = [entry.path for entry in _entries(folder) if entry.is_folder][:50]
    images = [
        any(not e.is_folder and has_image_suffix(e.path.name) for e in _entries(subfolder))
        for subfolder in subfolders
    ]
    return sum(images) > 1


def _identify(entries: list[PathEntry]) -> str | None:
    """The dataset that these files belong to; None if unknown."""
    files = [entry.path.name for entry in entries if not entry.is_folder]
    for dataset, spec in readers().items():
        if spec.signature is not None and any(map(spec.signature.fullmatch, files)):
            return dataset
    index = [e.path for e in entries if e.path.name in ("images.txt", "train_test_split.txt")]
    if not index:
        return None
    try:
        head = file_state.read(str(index[0]), 64)
    except file_state.UnreadableFileError:
        head = b""
    return "nabirds" if re.match(rb"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-", head) else "cub"


def _year_of(entry: PathEntry) -> str | None:
    """The year of the iNaturalist release that an entry belongs to, if it is not 2017."""
    if match := _OTHER_RELEASE.fullmatch(entry.path.name):
        return match[1]
    is_2021 = entry.path.name == "train_mini.json" or _SPECIES_FOLDER.fullmatch(entry.path.name)
    return "2021" if is_2021 else None


def _walk(root: Path) -> Iterator[PathEntry]:
    """Yield the entries at most MAX_DEPTH levels below the root, MAX_ENTRIES at most."""
    level, remaining = [root], MAX_ENTRIES
    for _ in range(MAX_DEPTH):
        subfolders = []
        for folder in level:
            for entry in _entries(folder):
                if remaining == 0:
                    return
                remaining -= 1
                yield entry
                if entry.is_folder:
                    subfolders.append(entry.path)
        level = subfolders


def _entries(folder: Path) -> list[PathEntry]:
    """Entries of a folder by name, without hidden entries; empty if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            first = [(entry.name, entry.is_dir()) for entry in islice(entries, MAX_ENTRIES)]
    except OSError:
        return []
    return [PathEntry(folder / name, is_dir) for name, is_dir in sorted(first) if name[0] != "."]
