"""The index of a copy against the dataset's definition: layout, counts, classes, splits, files.

Nothing here opens a picture. N images.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fgvc.config import schema
from fgvc.data import dataset, recognize_dataset
from fgvc.data.doctor.finding import ERROR, NOTE, Finding, from_error
from fgvc.data.find_root import walk
from fgvc.data.image_formats import has_image_suffix
from fgvc.data.index import Index, check_counts, check_coverage, list_first, repeated
from fgvc.data.split_source import source_notes
from fgvc.types import TEST, TRAIN, VAL, Progress, UserError

FIRST_ID = {"cub": 1, "cars": 1, "dogs": 1, "inat2017": 0}  # the dataset's own numbering
LISTS_ALL = ("folder",)  # readers whose index is whatever pictures lie there
CAVEATS = {
    "dogs": "all images, test too, are in ImageNet-1k's training set: a backbone trained on its "
    "labels has seen the test",
}
LAYOUT_FIX = {  # what to do about a refusal that names no way out
    "folder": "arrange the pictures as train/<class>/ and test/<class>/, or as <class>/",
    "table": "correct the table: a row per picture with columns path and label, and perhaps split",
    "synthetic": "delete the folder, and its pictures are drawn again",
}
COVERAGE_FIX = {
    "folder": "add pictures of these classes to train/, or remove their folders",
    "table": "add rows of these classes with split train, or remove their rows",
}


def read(
    conf: schema.Dataset, progress: Progress, cache_root: Path | None = None
) -> tuple[Index | None, list[Finding]]:
    """The copy as its reader sees it; None where the reader refuses it altogether.

    A refusal that a partial copy would not meet is one finding, and the examination goes on.
    """
    try:
        return dataset.READERS[conf.reader](conf, progress, cache_root), []
    except UserError as error:
        found = [_reader_error(conf, error)]
    if conf.partial or not dataset_folder(conf).is_dir():
        return None, found
    try:
        return dataset.READERS[conf.reader](
            replace(conf, partial=True), progress, cache_root
        ), found
    except UserError:
        return None, found


def dataset_folder(conf: schema.Dataset) -> Path:
    """Where the user says that the copy lies."""
    if conf.root is None:
        table = Path(conf.table or "").expanduser()
        return table if table.is_dir() else table.parent
    return Path(conf.root).expanduser()


def check_index(conf: schema.Dataset, index: Index) -> tuple[bool, list[Finding]]:
    """Whether the copy is a partial one, as declared, and what is to be said about its index."""
    notes = (*index.notes, *source_notes(index, conf), *index.warnings)
    found = [Finding(NOTE, "layout", note, "nothing, if you expected it") for note in notes]
    found += _check_splits(index) + _check_classes(conf, index) + _check_coverage(conf, index)
    official = dataset.expected_counts(conf)
    try:
        partial, notes = check_counts(index, official, conf.partial)
    except UserError as error:
        return conf.partial, [from_error(error, "counts", "compare the index files"), *found]
    counts = [Finding(NOTE, "counts", note, "nothing: as declared") for note in notes]
    return partial, [*counts, *found]


def compare_counts(conf: schema.Dataset, index: Index) -> dict[str, dict[str, int]]:
    """What the copy has beside the official numbers (0: there is none)."""
    official = dataset.expected_counts(conf)
    have = {"classes": len(index.labelmap)}
    for name, split in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        have[name] = int((index.split_N == split).sum())
    if not have["val"]:
        del have["val"]
    return {
        name: {"found": number, "official": getattr(official, name, 0)}
        for name, number in have.items()
    }


def unlisted_images(conf: schema.Dataset, index: Index) -> list[Finding]:
    """Pictures that lie in the copy and that its index does not name."""
    if conf.reader in LISTS_ALL:
        return []
    known = {unicodedata.normalize("NFC", path) for path in index.path}
    strange = [
        path for path in images_below(index.root) if unicodedata.normalize("NFC", path) not in known
    ]
    if not strange:
        return []
    what = "table" if conf.reader == "table" else "index"
    return [
        Finding(
            NOTE,
            "files",
            f"{len(strange)} pictures that the {what} does not name: {list_first(strange, 2)}",
            f"harmless, as nothing reads them; remove them, or complete the {what}",
            tuple(strange),
        )
    ]


def images_below(root: Path) -> Iterator[str]:
    """Paths, relative to root, of every picture by name; hidden ones are passed over."""
    for folder, subfolders, files in walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        inside = os.path.relpath(folder, root)
        for name in sorted(files):
            if not name.startswith(".") and has_image_suffix(name):
                yield name if inside == "." else f"{inside}/{name}"


def _reader_error(conf: schema.Dataset, error: UserError) -> Finding:
    """The reader's refusal, or the name of what lies there instead."""
    root = dataset_folder(conf)
    if conf.reader == "inat2017" and recognize_dataset.is_merged_inat2017(root):
        return Finding(
            ERROR,
            "layout",
            f"{root}: iNaturalist with train and val merged: pictures by species, but no "
            "train2017.json and val2017.json, without which nobody knows which were test",
            "unpack train_val2017.zip beside train_val_images/",
            (str(error),),
        )
    found = from_error(
        error, "layout", LAYOUT_FIX.get(conf.reader, "restore the official index files")
    )
    way = recognize_dataset.advice(root, conf.reader)
    return found if way is None else replace(found, mend=way)


def _check_splits(index: Index) -> list[Finding]:
    twice = repeated(index.path)
    if not twice:
        return []
    return [
        Finding(
            ERROR,
            "splits",
            f"{len(twice)} pictures are listed more than once: {list_first(twice, 2)}",
            "name each picture once, in train or in test",
            tuple(twice),
        )
    ]


def _check_classes(conf: schema.Dataset, index: Index) -> list[Finding]:
    """The dataset's own numbers: range and, where the names carry it too, order."""
    ids, names = index.labelmap.ids, index.labelmap.names
    if conf.reader not in FIRST_ID or not all(number.isdigit() for number in ids):
        return []
    first, most = FIRST_ID[conf.reader], dataset.expected_counts(conf).classes
    outside = [number for number in ids if not first <= int(number) < first + most]
    slipped = [
        f"{number} {name}"
        for number, name in zip(ids, names, strict=True)
        if conf.reader == "cub" and name[:3].isdigit() and int(name[:3]) != int(number)
    ]
    found = []
    if most and outside:
        found.append(
            f"class ids {list_first(outside)} lie outside the official {first} to {first + most - 1}"
        )
    if slipped:
        found.append(
            f"{len(slipped)} classes have another number than their name: {list_first(slipped, 2)}"
        )
    mend = "the class file was changed: restore the official one, and the labels with it"
    return [Finding(ERROR, "classes", says, mend) for says in found]


def _check_coverage(conf: schema.Dataset, index: Index) -> list[Finding]:
    try:
        notes = check_coverage(index)
    except UserError as error:
        return [
            from_error(error, "classes", COVERAGE_FIX.get(conf.reader, "compare the index files"))
        ]
    return [Finding(NOTE, "classes", note, "their accuracy cannot be measured") for note in notes]
