"""reader=table: a table with a row per image -> Index.

files.py opens text.py (CSV, TSV, JSON lines) or parquet.py -> names.py (columns of path and label),
splits.py -> paths.py, or embedded.py for images inside Parquet -> labels.py -> Index. A label is
any text: spaces, slashes, other scripts. N images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fgvc.data.datasets.table import embedded_images
from fgvc.data.datasets.table.columns import (
    LABEL_NAMES,
    PATH_NAMES,
    Keys,
    choose,
    find_column,
    rank_of,
    refuse_missing,
    refuse_repeated,
    refuse_several,
)
from fgvc.data.datasets.table.labels import (
    label_notes,
    read_labels,
    refuse_column_per_class,
    refuse_empty,
)
from fgvc.data.datasets.table.open_table import folder_of, open_table
from fgvc.data.datasets.table.parquet_file import ParquetTable
from fgvc.data.datasets.table.paths import is_image_path, resolve
from fgvc.data.datasets.table.split_column import TableSplit, read_splits, split_from_folders
from fgvc.data.datasets.table.text_file import TextTable
from fgvc.data.find_root import require_folder
from fgvc.data.image_formats import has_image_suffix
from fgvc.data.index import Index, list_first, repeated
from fgvc.data.split import resolve_splits
from fgvc.types import Progress, UserError
from fgvc.untrusted.shell import setting

__all__ = ["Keys", "read"]


@dataclass(frozen=True)
class ColumnPair:
    """Places of the columns that are read."""

    path: int
    label: int


def read(
    file: Path,
    root: Path | None,
    test_fraction: float,
    seed: int,
    keys: Keys = Keys(),  # noqa: B008 - frozen
    cache_root: Path | None = None,
    progress: Progress | None = None,
) -> Index:
    """Read the table.

    Args:
        file: a name that ends in one of files.FORMATS; of Parquet, a pattern or a folder too.
        root: the folder that paths are relative to; None: the folder of the table.
        test_fraction: share of each class that becomes test where nothing states the split.
        seed: of that split.
        keys: the columns that the user names.
        cache_root: where images inside Parquet are unpacked; None: they are only counted.
        progress: advanced by images unpacked.

    Raises:
        UserError: no such file or column, a cell that is empty or means nothing, a path listed
            twice or outside the root, a single class, or a class too small to be split.
    """
    table = open_table(file)
    places = _choose_columns(table, file, keys)
    cells, labels = _read_columns(table, places)
    if not labels:
        raise UserError(f"dataset.table={file}: lists no picture")
    given = read_splits(table, file, keys, (places.path, places.label))
    refuse_empty(labels, table.names[places.label], given.split_N, table.where)
    if cells is None:
        assert isinstance(table, ParquetTable)
        given_root = root
        root, path, path_notes = _embedded_images(table, places.path, file, cache_root, progress)
        if given_root is not None:
            path_notes += (
                f"dataset.root={given_root}: not read, because {file.name} holds the images",
            )
    else:
        root = require_folder(folder_of(file) if root is None else root)
        refuse_empty(cells, table.names[places.path], None, table.where)
        path, path_notes = resolve(file, root, cells, table.where)
    _check_distinct(file, table.names[places.path], root, path)
    if given.split_N is None:
        found = split_from_folders(file, path)
        warnings = given.warnings + found.warnings
        given = replace(given, split_N=found.split_N, source=found.source, warnings=warnings)
    classes, label_N = read_labels(file, labels)
    where = f"dataset.table={file.name}"
    split_N, test_source = resolve_splits(
        where, given.split_N, path, label_N, classes, test_fraction, seed
    )
    notes = _column_notes(table, file, places, given) + given.notes + path_notes
    return Index(
        root,
        path,
        label_N,
        split_N,
        classes,
        notes=notes + label_notes(file.name, classes.names),
        warnings=given.warnings,
        test_source=test_source,
    )


def _check_distinct(file: Path, column: str, root: Path, path: Sequence[str]) -> None:
    """Refuse a path in two rows; most often, the column then names folders instead of pictures."""
    if not (twice := repeated(path)):
        return
    if (root / twice[0]).is_dir():
        raise UserError(
            f"dataset.table={file}: column {column} does not name pictures: {twice[0]} is a "
            "folder; set dataset.path_column= to the column that names them"
        )
    raise UserError(f"dataset.table={file}: path listed twice: {list_first(twice)}; keep one row")


def _choose_columns(table: TextTable | ParquetTable, file: Path, keys: Keys) -> ColumnPair:
    """The columns for path and label.

    Raises:
        UserError: there is none, or two that could be meant, or it holds something else.
    """
    names = table.names
    if isinstance(table, TextTable) and any(has_image_suffix(name) for name in names):
        raise UserError(
            f"{file}:1: holds {list_first(names, 3)}, which is a row, not names of columns; write a "
            "first line with the names, such as path,label"
        )
    refuse_repeated(file, names)
    given = {
        role: find_column(file, names, role, key)
        for role, key in (("path", keys.path), ("label", keys.label))
        if key is not None
    }
    if len(given) == 2 and given["path"] == given["label"]:
        raise UserError(f"dataset.label_column={keys.label}: is dataset.path_column too")
    taken = set(given.values())
    path = given["path"] if "path" in given else _choose_path(table, file, taken)
    label = given["label"] if "label" in given else _choose_label(table, file, {*taken, path})
    missing = [role for role, place in (("path", path), ("label", label)) if place is None]
    if path is None or label is None:
        if path is not None:
            refuse_column_per_class(table, file, path)
        refuse_missing(file, names, missing)
        raise AssertionError
    if isinstance(table, ParquetTable):
        _check_types(table, file, path, label)
    return ColumnPair(path, label)


def _choose_path(table: TextTable | ParquetTable, file: Path, taken: Iterable[int]) -> int | None:
    """By usual name; of a Parquet with images inside, the column of the images."""
    allowed = set(range(len(table.names))) - set(taken)
    if isinstance(table, ParquetTable):
        images = [place for place in sorted(allowed) if table.holds_images(place)]
        if len(images) == 1:
            return images[0]
        allowed = set(images) or allowed
    if "path" not in table.names:  # of id and name, the column that holds names of pictures
        usual = [place for place in allowed if rank_of(table.names[place], PATH_NAMES) is not None]
        pictures = {place for place in usual if is_image_path(table.first(place))}
        allowed = pictures or allowed
    return choose(file, table.names, "path", PATH_NAMES, allowed.__contains__)


def _choose_label(
    table: TextTable | ParquetTable, file: Path, taken: Sequence[int | None] | set[int | None]
) -> int | None:
    """By usual name; otherwise the single column whose class names a Parquet's metadata holds."""
    place = choose(file, table.names, "label", LABEL_NAMES, lambda place: place not in taken)
    if place is None and isinstance(table, ParquetTable):
        classes = [table.names.index(name) for name in table.class_names[0] if name in table.names]
        if len(classes) > 1:
            refuse_several(file, "label", [table.names[place] for place in sorted(classes)])
        place = classes[0] if classes else None
    return place


def _check_types(table: ParquetTable, file: Path, path: int, label: int) -> None:
    for place, fits in (
        (path, table.holds_text(path) or table.holds_images(path)),
        (label, table.holds_text(label)),
    ):
        if not fits:
            what = "text" if place == label else "paths or images"
            raise UserError(
                f"dataset.table={file}: column {table.names[place]} holds {table.kind(place)}, "
                f"not {what}; convert it, or set another column"
            )


def _read_columns(
    table: TextTable | ParquetTable, places: ColumnPair
) -> tuple[list[str] | None, list[str]]:
    """Path and label of every row; no paths where the images are inside the table."""
    if isinstance(table, ParquetTable) and table.holds_images(places.path):
        (labels,) = table.columns([places.label])
        if embedded_images.has_bytes(table, places.path):
            return None, labels
        return table.image_paths(places.path), labels
    cells, labels = table.columns([places.path, places.label])
    return cells, labels


def _embedded_images(
    table: ParquetTable, place: int, file: Path, cache_root: Path | None, progress: Progress | None
) -> tuple[Path, tuple[str, ...], tuple[str, ...]]:
    """Root, paths and notes of the images inside a Parquet."""
    if cache_root is None:
        return folder_of(file), tuple(f"{row:09}" for row in range(len(table))), ()
    notes: list[str] = []
    root, path, size = embedded_images.unpack(table, place, cache_root, progress, notes.append)
    below = root.parent.relative_to(cache_root).as_posix()
    note = (
        f"{file.name}: {len(path)} images of column {table.names[place]} are unpacked into "
        f"runtime.cache_root/{below} ({size / 2**20:.1f} MiB); fgvc never removes this folder: "
        "delete it when the table is no longer used"
    )
    return root, tuple(path), (note, *notes)


def _column_notes(
    table: TextTable | ParquetTable, file: Path, places: ColumnPair, given: TableSplit
) -> tuple[str, ...]:
    """Which columns are read, unless they are called path, label and split, and which are not."""
    names = [table.names[places.path], table.names[places.label]]
    others = [
        name for name in table.names if name not in names and rank_of(name, LABEL_NAMES) is not None
    ]
    notes = []
    if names != ["path", "label"] or not (given.exact or given.source is None):
        source = f", the split is {given.source}" if given.source else ""
        notes.append(
            f"{file.name}: the path is column {names[0]}, the label is column {names[1]}{source}"
        )
    if others:
        notes.append(
            f"{file.name}: {list_first(others)} could be the label too, and is not read; to read it, "
            f"set {setting('dataset.label_column', others[0])}"
        )
    return tuple(notes)
