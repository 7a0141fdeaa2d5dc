"""Index of a copy -> findings on its layout, counts, classes, splits and files.

No image is opened. N images.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fgvc.config import schema
from fgvc.data import dataset, recognize_dataset
from fgvc.data.dataset_spec import readers
from fgvc.data.doctor.finding import ERROR, NOTE, Finding, about, from_error
from fgvc.data.find_root import named_root, walk
from fgvc.data.image_formats import has_image_suffix
from fgvc.data.index import Index, check_counts, check_coverage
from fgvc.types import TEST, TRAIN, VAL, Progress, UserError, nfc


def read(
    conf: schema.Dataset, progress: Progress, cache_root: Path | None = None
) -> tuple[Index | None, list[Finding]]:
    """Read the index; None if the reader refuses the copy.

    If the reader only accepts the copy as partial, its error is a finding and the index is
    returned.
    """
    read_index = readers()[conf.reader].read
    try:
        return read_index(conf, progress, cache_root), []
    except UserError as error:
        findings = [_reader_error(conf, error)]
    if conf.partial or not named_root(conf.root, conf.table).is_dir():
        return None, findings
    try:
        return read_index(replace(conf, partial=True), progress, cache_root), findings
    except UserError:
        return None, findings


def check_index(conf: schema.Dataset, index: Index) -> tuple[bool, list[Finding]]:
    """Whether the copy is partial as declared, and the findings on its index."""
    notes = (*index.notes, *dataset.source_notes(index, conf), *index.warnings)
    findings = [Finding(NOTE, "layout", note, "nothing, if you expected it") for note in notes]
    findings += _check_classes(conf, index)
    try:
        notes = check_coverage(index)
        fix = "their accuracy cannot be measured"
        findings += [Finding(NOTE, "classes", note, fix) for note in notes]
    except UserError as error:
        fix = readers()[conf.reader].coverage_fix
        findings.append(from_error(error, "classes", fix))
    official = dataset.expected_counts(conf)
    try:
        partial, notes = check_counts(index, official, conf.partial)
    except UserError as error:
        return conf.partial, [from_error(error, "counts", "compare the index files"), *findings]
    counts = [Finding(NOTE, "counts", note, "nothing: as declared") for note in notes]
    return partial, [*counts, *findings]


def compare_counts(conf: schema.Dataset, index: Index) -> dict[str, dict[str, int]]:
    """Counts of the copy beside the official counts (0 if there is none)."""
    official = dataset.expected_counts(conf)
    counts = {"classes": len(index.labelmap)}
    for name, split in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        counts[name] = int((index.split_N == split).sum())
    return {
        name: {"found": number, "official": getattr(official, name, 0)}
        for name, number in counts.items()
        if number or name != "val"
    }


def unlisted_images(conf: schema.Dataset, index: Index) -> list[Finding]:
    source = readers()[conf.reader].index
    if source is None:
        return []
    listed = set(map(nfc, index.path))
    unlisted = (path for path in images_below(index.root) if nfc(path) not in listed)
    message = f"{{count}} images that the {source} does not name: {{first}}"
    fix = f"harmless, because nothing reads them; remove them, or complete the {source}"
    return about(unlisted, NOTE, "files", message, fix)


def images_below(root: Path) -> Iterator[str]:
    """Yield the path of every image, relative to root; hidden files and folders are skipped."""
    for folder, subfolders, files in walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        inside = os.path.relpath(folder, root)
        for name in sorted(files):
            if not name.startswith(".") and has_image_suffix(name):
                yield name if inside == "." else f"{inside}/{name}"


def _reader_error(conf: schema.Dataset, error: UserError) -> Finding:
    """The reader's error as a finding, with advice if the folder is recognised."""
    root = named_root(conf.root, conf.table)
    if conf.reader == "inat2017" and recognize_dataset.is_merged_inat2017(root):
        message = (
            f"{root}: iNaturalist with train and val merged: images by species, but no "
            "train2017.json and val2017.json, so the test images are unknown"
        )
        fix = "unpack train_val2017.zip beside train_val_images/"
        return Finding(ERROR, "layout", message, fix, (str(error),))
    finding = from_error(error, "layout", readers()[conf.reader].layout_fix)
    advice = recognize_dataset.advice(root, conf.reader)
    return finding if advice is None else replace(finding, fix=advice)


def _check_classes(conf: schema.Dataset, index: Index) -> list[Finding]:
    """Check the range of the class ids and, where the class names contain the id, their order."""
    ids, names = index.labelmap.ids, index.labelmap.names
    first, count = readers()[conf.reader].first_id, dataset.expected_counts(conf).classes
    if first is None or not all(number.isdigit() for number in ids):
        return []
    outside = [number for number in ids if not first <= int(number) < first + count]
    mismatched = [
        f"{number} {name}"
        for number, name in zip(ids, names, strict=True)
        if re.match(r"\d{3}\.", name) and int(name[:3]) != int(number)
    ]
    limits = f"class ids {{first}} are outside the official range {first} to {first + count - 1}"
    numbers = "{count} classes have another number than their name: {first}"
    fix = "the class file was changed: restore the official file and the labels"
    return [
        *about(outside if count else (), ERROR, "classes", limits, fix, shown=5),
        *about(mismatched, ERROR, "classes", numbers, fix),
    ]
