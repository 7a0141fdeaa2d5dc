"""Space-separated index files -> columns in the order of images.txt, joined by image id.

CUB-200-2011 and NABirds share these files and differ in the form of image ids. Files are never
joined by line order, because they may be sorted differently. N images, K parts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from fgvc import untrusted
from fgvc.data import find_root, labelmap
from fgvc.data.index import Index, list_first, repeated
from fgvc.types import TEST, TRAIN, Parts, UserError

Value = TypeVar("Value")
INTEGER = re.compile(r"[+-]?[0-9]+")
INDEX_FILES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
MAX_NUMBER = float(np.finfo(np.float32).max)  # of an index file


@dataclass(frozen=True)
class ImageList:
    """images.txt. key: text of an image id -> its canonical form; row: {image id: row}."""

    root: Path
    key: Callable[[str], Hashable]
    row: dict[Hashable, int]
    path: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.path)


def find_index(root: Path, files: Sequence[str], archive: str) -> Path:
    """The nearest folder at or below the root that holds all index files.

    Args:
        archive: the official archive that contains the files, for the message.

    Raises:
        UserError: there is none; a folder that holds several of the files is named.
    """

    def lacking_in(folder: Path) -> list[str]:
        return [name for name in files if not (folder / name).exists()]

    def is_cut(folder: Path) -> bool:
        lacking = lacking_in(folder)
        return "images.txt" not in lacking or len(lacking) <= len(files) - 2

    folders = find_root.nearest(root, lambda folder: not lacking_in(folder))
    folders = folders or find_root.nearest(root, is_cut)
    contents = f"{', '.join(files[:-1])} and {files[-1]} of {archive}"
    if len(folders) > 1:
        raise UserError(
            f"dataset.root={root}: {list_first(folders)} each hold {contents}; "
            "set dataset.root= to one of them"
        )
    if not folders:
        raise UserError(f"dataset.root={root}: holds no {contents}; set dataset.root=")
    (folder,) = folders
    if lacking := lacking_in(folder):
        raise UserError(
            f"{folder}: holds no {list_first(lacking)}; take "
            f"{'it' if len(lacking) == 1 else 'them'} from {archive}, or set dataset.root="
        )
    return folder


def read_rows(file: Path, columns: int) -> list[list[str]]:
    """Rows of a space-separated file, each led by its line number; blank lines are skipped.

    The last column keeps its spaces, so it can hold any file name.

    Raises:
        UserError: missing, not UTF-8, or a line with too few columns.
    """
    try:
        text = untrusted.read_text(file, untrusted.LIST, "utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; is dataset.root={file.parent} right?") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text (byte {error.start})") from None
    rows = []
    # not splitlines(): names may hold the other line separators of Unicode
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row = line.rstrip("\r").split(None, columns - 1)
        if len(row) != columns:
            raise _malformed(file, number, line, f"{columns} columns")
        rows.append([str(number), *row])
    return rows


def read_images(root: Path, key: Callable[[str], Hashable]) -> ImageList:
    """Read images.txt; paths begin with `images/`.

    Args:
        key: ValueError for a text that is no image id.

    Raises:
        UserError: a duplicate id or path, a path outside images/, or no image at all.
    """
    file = root / "images.txt"
    rows = read_rows(file, 2)
    for line, _, path in rows:
        if find_root.safe_relative(path) is None:
            raise _malformed(file, line, path, "a path inside images/")
    path = tuple(f"images/{path}" for _, _, path in rows)
    if duplicates := repeated(path):
        raise UserError(f"{file}: path listed twice: {list_first(duplicates)}")
    image_row: dict[Hashable, int] = {}
    for row, (line, raw, _) in enumerate(rows):
        image_id = parse(key, raw, file, line)
        if image_row.setdefault(image_id, row) != row:
            raise UserError(f"{file}:{line}: image id {raw} listed twice")
    if not image_row:
        raise UserError(f"{file}: lists no image")
    return ImageList(root, key, image_row, path)


def read_classes(file: Path) -> list[tuple[int, str]]:
    """Id and name per line of classes.txt or parts.txt."""
    return [(parse(parse_integer, raw, file, line), name) for line, raw, name in read_rows(file, 2)]


def read_index(
    images: ImageList,
    classes: Sequence[tuple[int, str]],
    partial: bool,
    class_folder: Callable[[int, str], str],
) -> Index:
    """Join the files to an index: labels, splits, boxes and parts of the images.

    Args:
        classes: as `read_classes` returns them.
        partial: see `labelmap.from_ids`.
        class_folder: id and name of a class -> the folder of its images.

    Raises:
        UserError: files that contradict each other.
    """
    labels = images.root / "image_class_labels.txt"
    splits = images.root / "train_test_split.txt"
    raw_N, train_N = _read_column(labels, images), _read_column(splits, images)
    ids, names = [number for number, _ in classes], [name for _, name in classes]
    where = str(images.root / "classes.txt")
    classmap = labelmap.from_ids(ids, names, raw_N, where, partial)
    label_N = labelmap.to_indices(raw_N, classmap, labels, "classes.txt")
    pairs = zip(map(int, classmap.ids), classmap.names, strict=True)
    folders = [class_folder(number, name) for number, name in pairs]
    labelmap.check_class_folders(images.path, label_N, folders, images.root, False)
    if unknown := sorted(set(train_N.tolist()) - {0, 1}):
        raise UserError(f"{splits}: is_training is 0 or 1, not {list_first(unknown)}")
    split_N = np.where(train_N == 1, TRAIN, TEST).astype(np.uint8)
    box_N4, parts = read_numbers(images, "bounding_boxes.txt", 4), _read_parts(images)
    return Index(images.root, images.path, label_N, split_N, classmap, box_N4, parts)


def read_numbers(images: ImageList, name: str, columns: int) -> np.ndarray | None:
    """An optional file with `columns` numbers per image, float32; NaN for an image without a line.

    Raises:
        UserError: an image listed twice, or a line with another number of columns.
    """
    file = images.root / name
    if not file.exists():
        return None
    value_NC = np.full((len(images), columns), np.nan, dtype=np.float32)
    for image_id, (line, _, *values) in _rows_by_image(file, images, columns + 1).items():
        if (row := images.row.get(image_id)) is not None:
            value_NC[row] = [parse(parse_number, value, file, line) for value in values]
    return value_NC


def _read_parts(images: ImageList) -> Parts | None:
    """Names and locations of parts, NaN if a part is not visible; None without the files."""
    names_file, file = (images.root / "parts" / name for name in ("parts.txt", "part_locs.txt"))
    if not (names_file.exists() and file.exists()):
        return None
    names = read_classes(names_file)
    part_of = {number: part for part, (number, _) in enumerate(names)}
    xy_NK2 = np.full((len(images), len(names), 2), np.nan, dtype=np.float32)
    seen_ids = set()
    for line, raw_image, raw_part, x, y, visible in read_rows(file, 5):
        image_id = parse(images.key, raw_image, file, line)
        row = images.row.get(image_id)
        part = part_of.get(parse(parse_integer, raw_part, file, line))
        if part is None:
            raise UserError(f"{file}:{line}: part {raw_part} is not in parts.txt")
        if (image_id, part) in seen_ids:
            raise UserError(f"{file}:{line}: part {raw_part} of image {raw_image} listed twice")
        seen_ids.add((image_id, part))
        if row is not None and parse(parse_integer, visible, file, line):
            xy_NK2[row, part] = [parse(parse_finite, value, file, line) for value in (x, y)]
    return Parts(names=tuple(name for _, name in names), xy_NK2=xy_NK2)


def parse_integer(text: str) -> int:
    """Parse an integer in ASCII digits that fits int64; ValueError names what was expected."""
    if INTEGER.fullmatch(text) is None:
        raise ValueError("a number")
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise ValueError("a number that fits 64 bits")
    return int(text)


def parse_number(text: str) -> float:
    """Parse a number in ASCII; inf and nan are legal (a missing box); ValueError for other text.

    A finite number that overflows float32 is refused, because it would become inf.
    """
    try:
        if text.isascii() and "_" not in text:
            value = float(text)
            if not math.isfinite(value) or abs(value) <= MAX_NUMBER:
                return value
    except ValueError:
        pass
    raise ValueError("a number")


def parse_finite(text: str) -> float:
    """Parse a finite number in ASCII; ValueError names what was expected."""
    if not math.isfinite(value := parse_number(text)):
        raise ValueError("a number")
    return value


def parse(kind: Callable[[str], Value], text: str, file: Path, line: str) -> Value:
    """`kind(text)`; its ValueError becomes a UserError with file:line."""
    try:
        return kind(text)
    except ValueError as error:
        raise _malformed(file, line, text, str(error)) from None


def _read_column(file: Path, images: ImageList) -> np.ndarray:
    """One integer per image, in the order of images.txt."""
    rows = _rows_by_image(file, images, 2)
    value = {key: parse(parse_integer, raw, file, line) for key, (line, _, raw) in rows.items()}
    if unknown := [raw for key, (_, raw, _) in rows.items() if key not in images.row]:
        raise UserError(f"{file}: image ids that images.txt does not list: {list_first(unknown)}")
    if missing := [image_id for image_id in images.row if image_id not in value]:
        raise UserError(f"{file}: lacks image ids {list_first(missing)} of images.txt")
    return np.array([value[image_id] for image_id in images.row], dtype=np.int64)


def _rows_by_image(file: Path, images: ImageList, columns: int) -> dict[Hashable, list[str]]:
    """{image id: row of a file whose first column it is}; UserError: an image listed twice."""
    rows: dict[Hashable, list[str]] = {}
    for row in read_rows(file, columns):
        image_id = parse(images.key, row[1], file, row[0])
        if rows.setdefault(image_id, row) is not row:
            raise UserError(f"{file}:{row[0]}: image id {row[1]} listed twice")
    return rows


def _malformed(file: Path, line: int | str, text: str, expected: str) -> UserError:
    return UserError(f"{file}:{line}: expected {expected}, found {' '.join(text.split())[:80]!r}")
