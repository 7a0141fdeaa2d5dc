"""The index of a copy against the dataset's definition: layout, counts, classes, splits, files.

Nothing here opens a picture. N images.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from fgvc.config import schema
from fgvc.data import dataset
from fgvc.data.doctor.finding import ERROR, NOTE, Finding, refusal
from fgvc.data.formats import SUFFIXES
from fgvc.data.index import Index, check_counts, check_coverage, listed, repeated
from fgvc.data.split import source_notes
from fgvc.types import TEST, TRAIN, VAL, Progress, UserError

FIRST_ID = {"cub": 1, "cars": 1, "dogs": 1, "inat2017": 0}  # the dataset's own numbering
LISTS_ALL = ("folder",)  # readers whose index is whatever pictures lie there
INATURALIST = {"Actinopterygii", "Amphibia", "Arachnida", "Aves", "Fungi", "Insecta", "Plantae"}


def read(conf: schema.Dataset, progress: Progress) -> tuple[Index | None, list[Finding]]:
    """The copy as its reader sees it; None where the reader refuses it altogether.

    A refusal that a partial copy would not meet is one finding, and the examination goes on.
    """
    try:
        return dataset.READERS[conf.reader](conf, progress), []
    except UserError as error:
        found = [_refused(conf, error)]
    if conf.partial or not place(conf).is_dir():
        return None, found
    try:
        return dataset.READERS[conf.reader](replace(conf, partial=True), progress), found
    except UserError:
        return None, found


def place(conf: schema.Dataset) -> Path:
    """Where the user says that the copy lies."""
    if conf.root is None:
        return Path(conf.table or "").expanduser().parent
    return Path(conf.root).expanduser()


def findings(conf: schema.Dataset, index: Index) -> tuple[bool, list[Finding]]:
    """Whether the copy is a partial one, as declared, and what is to be said about its index."""
    notes = (*index.notes, *source_notes(index, conf))
    found = [Finding(NOTE, "layout", note, "nothing, if you expected it") for note in notes]
    found += _splits(index) + _classes(conf, index) + _coverage(index)
    official = dataset.official(conf)
    try:
        partial, notes = check_counts(index, official, conf.partial)
    except UserError as error:
        return conf.partial, [refusal(error, "counts", "compare the index files"), *found]
    counts = [Finding(NOTE, "counts", note, "nothing: as declared") for note in notes]
    return partial, [*counts, *found]


def counts(conf: schema.Dataset, index: Index) -> dict[str, dict[str, int]]:
    """What the copy has beside the official numbers (0: there is none)."""
    official = dataset.official(conf)
    have = {"classes": len(index.labelmap)}
    for name, split in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        have[name] = int((index.split_N == split).sum())
    if not have["val"]:
        del have["val"]
    return {
        name: {"found": number, "official": getattr(official, name, 0)}
        for name, number in have.items()
    }


def extra(conf: schema.Dataset, index: Index) -> list[Finding]:
    """Pictures that lie in the copy and that its index does not name."""
    if conf.reader in LISTS_ALL:
        return []
    known = {unicodedata.normalize("NFC", path) for path in index.path}
    strange = [
        path
        for path in pictures_below(index.root)
        if unicodedata.normalize("NFC", path) not in known
    ]
    if not strange:
        return []
    return [
        Finding(
            NOTE,
            "files",
            f"{len(strange)} pictures that the index does not name: {listed(strange, 2)}",
            "harmless, as nothing reads them; remove them, or complete the index files",
            tuple(strange),
        )
    ]


def pictures_below(root: Path) -> Iterator[str]:
    """Paths, relative to root, of every picture by name; hidden ones are passed over."""
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        inside = os.path.relpath(folder, root)
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:  # noqa: PTH122 - a Path for each of 675,000 files costs seconds
                yield name if inside == "." else f"{inside}/{name}"


def _refused(conf: schema.Dataset, error: UserError) -> Finding:
    """The reader's refusal, or the name of what lies there instead."""
    root = place(conf)
    if conf.reader == "inat2017" and _merged(root):
        return Finding(
            ERROR,
            "layout",
            f"{root}: iNaturalist with train and val merged: pictures by species, but no "
            "train2017.json and val2017.json, without which nobody knows which were test",
            "unpack train_val2017.zip beside train_val_images/",
            (str(error),),
        )
    found = refusal(error, "layout", "restore the official index files")
    looks_like = _looks_like(root)
    if looks_like in (None, conf.reader):
        return found
    return replace(found, mend=f"this looks like dataset={looks_like}: examine it as that")


def _merged(root: Path) -> bool:
    return len(INATURALIST & {path.name for path in _near(root)}) >= 3 and not any(
        path.name in ("train2017.json", "val2017.json") for path in _near(root)
    )


def _looks_like(root: Path) -> str | None:
    """The dataset whose files lie there, by the surest sign."""
    names = {path.name for path in _near(root)}
    signs: list[tuple[str, Callable[[str], object]]] = [
        ("inat2017", lambda name: name in ("train2017.json", "val2017.json")),
        ("cars", re.compile(r"cars_.*\.mat").fullmatch),
        ("dogs", lambda name: name in ("train_list.mat", "file_list.mat")),
        ("nabirds", lambda name: name in ("hierarchy.txt", "sizes.txt")),
        ("cub", lambda name: name == "train_test_split.txt"),
    ]
    return next((other for other, sign in signs if any(map(sign, names))), None)


def _near(root: Path) -> Iterator[Path]:
    """What lies in the root and in its folders."""
    for pattern in ("*", "*/*"):
        yield from root.glob(pattern)


def _splits(index: Index) -> list[Finding]:
    twice = repeated(index.path)
    if not twice:
        return []
    return [
        Finding(
            ERROR,
            "splits",
            f"{len(twice)} pictures are listed more than once: {listed(twice, 2)}",
            "name each picture once, in train or in test",
            tuple(twice),
        )
    ]


def _classes(conf: schema.Dataset, index: Index) -> list[Finding]:
    """The dataset's own numbers: range and, where the names carry it too, order."""
    ids, names = index.labelmap.ids, index.labelmap.names
    if conf.reader not in FIRST_ID or not all(number.isdigit() for number in ids):
        return []
    first, most = FIRST_ID[conf.reader], dataset.official(conf).classes
    outside = [number for number in ids if not first <= int(number) < first + most]
    slipped = [
        f"{number} {name}"
        for number, name in zip(ids, names, strict=True)
        if conf.reader == "cub" and name[:3].isdigit() and int(name[:3]) != int(number)
    ]
    found = []
    if most and outside:
        found.append(
            f"class ids {listed(outside)} lie outside the official {first} to {first + most - 1}"
        )
    if slipped:
        found.append(
            f"{len(slipped)} classes have another number than their name: {listed(slipped, 2)}"
        )
    mend = "the class file was changed: restore the official one, and the labels with it"
    return [Finding(ERROR, "classes", says, mend) for says in found]


def _coverage(index: Index) -> list[Finding]:
    try:
        notes = check_coverage(index)
    except UserError as error:
        return [refusal(error, "classes", "compare the index files")]
    return [Finding(NOTE, "classes", note, "their accuracy cannot be measured") for note in notes]
