"""reader=cub: the official index files of CUB-200-2011 -> Index.

The same layout is written by the synthetic generator. Image ids join every file, never line order.
N images, K parts.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from fgvc.data.index import Index, listed, repeated
from fgvc.data.labelmap import numbered
from fgvc.types import TEST, TRAIN, LabelMap, Parts, UserError

Number = TypeVar("Number", int, float)
INDEX_FILES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


def read(root: Path, partial: bool) -> Index:
    """Read a copy and hold its files against each other.

    Args:
        root: the folder that holds images.txt, or the parent of one named CUB_200_2011.
        partial: whether class ids may have gaps.

    Returns:
        Index in the order of images.txt; paths begin with `images/`.

    Raises:
        UserError: a missing or malformed file, or files that contradict each other.
    """
    root = _located(root)
    image_row, path = _images(root)
    labelmap = _classes(root, partial)
    split_N = _split(root, image_row)
    label_N = _labels(root, image_row, labelmap)
    _check_folders(root, path, label_N, labelmap)
    return Index(
        root, path, label_N, split_N, labelmap, _boxes(root, image_row), _parts(root, image_row)
    )


def table(file: Path, columns: int) -> list[list[str]]:
    """Rows of a space-separated file, each led by its line number; blank lines are passed over.

    The last column keeps its spaces, so that any file name can stand there.

    Raises:
        UserError: missing, not UTF-8, or a line with too few columns, named as file:line.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
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


def _located(root: Path) -> Path:
    inner = root / "CUB_200_2011"
    if not (root / "images.txt").exists() and inner.is_dir():
        root = inner
    if not root.is_dir():
        raise UserError(f"dataset.root={root}: no such folder; set dataset.root=")
    if (root / "annotations-mat").exists() or (root / "lists" / "files.txt").exists():
        raise UserError(
            f"dataset.root={root}: this is CUB-200 (2010), another set of images; "
            "get CUB-200-2011 and set dataset.root="
        )
    if absent := [name for name in INDEX_FILES if not (root / name).exists()]:
        raise UserError(f"dataset.root={root}: holds no {listed(absent)}; set dataset.root=")
    return root


def _images(root: Path) -> tuple[dict[int, int], tuple[str, ...]]:
    """images.txt: {image id: row} and the paths."""
    file = root / "images.txt"
    rows = table(file, 2)
    for line, _, path in rows:
        if path.startswith("/") or ".." in path.split("/"):
            raise _malformed(file, line, path, "a path inside images/")
    path = tuple(f"images/{path}" for _, _, path in rows)
    if twice := repeated(path):
        raise UserError(f"{file}: path listed twice: {listed(twice)}")
    image_row: dict[int, int] = {}
    for row, (line, raw, _) in enumerate(rows):
        image = _number(int, raw, file, line)
        if image_row.setdefault(image, row) != row:
            raise UserError(f"{file}:{line}: image id {image} listed twice")
    if not image_row:
        raise UserError(f"{file}: lists no image")
    return image_row, path


def _classes(root: Path, partial: bool) -> LabelMap:
    file = root / "classes.txt"
    rows = table(file, 2)
    ids = [_number(int, raw, file, line) for line, raw, _ in rows]
    return numbered(ids, [name for _, _, name in rows], str(file), gaps=partial)


def _labels(root: Path, image_row: dict[int, int], labelmap: LabelMap) -> np.ndarray:
    raw_N = _column(root / "image_class_labels.txt", image_row)
    index_of = {int(raw): index for index, raw in enumerate(labelmap.ids)}
    if unknown := sorted(set(raw_N.tolist()) - set(index_of)):
        raise UserError(
            f"{root / 'image_class_labels.txt'}: class ids that classes.txt does not list: "
            f"{listed(unknown)} (it lists {labelmap.ids[0]} to {labelmap.ids[-1]})"
        )
    return np.array([index_of[raw] for raw in raw_N.tolist()], dtype=np.int64)


def _split(root: Path, image_row: dict[int, int]) -> np.ndarray:
    file = root / "train_test_split.txt"
    train_N = _column(file, image_row)
    if strange := sorted(set(train_N.tolist()) - {0, 1}):
        raise UserError(f"{file}: is_training is 0 or 1, not {listed(strange)}")
    return np.where(train_N == 1, TRAIN, TEST).astype(np.uint8)


def _column(file: Path, image_row: dict[int, int]) -> np.ndarray:
    """One integer an image, in the order of images.txt.

    Raises:
        UserError: an image id that images.txt lacks, listed twice or without a value.
    """
    value: dict[int, int] = {}
    for line, raw_image, raw in table(file, 2):
        image = _number(int, raw_image, file, line)
        if image in value:
            raise UserError(f"{file}:{line}: image id {image} listed twice")
        value[image] = _number(int, raw, file, line)
    if strange := sorted(set(value) - set(image_row)):
        raise UserError(f"{file}: image ids that images.txt does not list: {listed(strange)}")
    if lacking := sorted(set(image_row) - set(value)):
        raise UserError(f"{file}: lacks image ids {listed(lacking)} of images.txt")
    return np.array([value[image] for image in image_row], dtype=np.int64)


def _check_folders(
    root: Path, path: tuple[str, ...], label_N: np.ndarray, labelmap: LabelMap
) -> None:
    """The class folder is a second witness of the label: a shifted label map shows here."""
    wrong = []
    for one, label in zip(path, label_N.tolist(), strict=True):
        folder = str(PurePosixPath(one).parent)
        if folder != "images" and folder != f"images/{labelmap.names[label]}":
            wrong.append(f"{one} labelled {labelmap.names[label]}")
    if wrong:
        raise UserError(
            f"{root}: {len(wrong)} images lie in another class's folder than their label says: "
            f"{listed(wrong, most=3)}"
        )


def _boxes(root: Path, image_row: dict[int, int]) -> np.ndarray | None:
    """bounding_boxes.txt as float32 x, y, width, height; NaN where an image has none."""
    file = root / "bounding_boxes.txt"
    if not file.exists():
        return None
    box_N4 = np.full((len(image_row), 4), np.nan, dtype=np.float32)
    for line, raw, *values in table(file, 5):
        row = image_row.get(_number(int, raw, file, line))
        if row is not None:
            box_N4[row] = [_number(float, value, file, line) for value in values]
    return box_N4


def _parts(root: Path, image_row: dict[int, int]) -> Parts | None:
    """parts/: names and locations; NaN where a part is not visible."""
    names_file, file = root / "parts" / "parts.txt", root / "parts" / "part_locs.txt"
    if not (names_file.exists() and file.exists()):
        return None
    names = [
        (_number(int, raw, names_file, line), name) for line, raw, name in table(names_file, 2)
    ]
    column = {part: place for place, (part, _) in enumerate(names)}
    xy_NK2 = np.full((len(image_row), len(names), 2), np.nan, dtype=np.float32)
    for line, raw_image, raw_part, x, y, visible in table(file, 5):
        row = image_row.get(_number(int, raw_image, file, line))
        part = column.get(_number(int, raw_part, file, line))
        if part is None:
            raise UserError(f"{file}:{line}: part {raw_part} is not in parts.txt")
        if row is not None and _number(int, visible, file, line):
            xy_NK2[row, part] = _number(float, x, file, line), _number(float, y, file, line)
    return Parts(names=tuple(name for _, name in names), xy_NK2=xy_NK2)


def _number(kind: type[Number], text: str, file: Path, line: str) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise _malformed(file, line, text, "a number") from None


def _malformed(file: Path, line: int | str, text: str, expected: str) -> UserError:
    return UserError(f"{file}:{line}: expected {expected}, found {' '.join(text.split())[:80]!r}")
