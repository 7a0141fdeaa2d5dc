"""reader=table: a table with a row per image -> Index.

open_table opens a text_file (CSV, TSV, JSON lines) or a parquet_file. columns chooses the columns
of path and label, split_column reads the split, paths (or embedded_images, for images inside
Parquet) finds the files, labels numbers the classes. A label is any text. N images.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fgvc.config import schema
from fgvc.data.dataset_spec import DatasetSpec, root_of
from fgvc.data.datasets.table import embedded_images
from fgvc.data.datasets.table.columns import (
    LABEL_NAMES,
    PATH_NAMES,
    DatasetTable,
    choose,
    find_column,
    raise_ambiguous,
    raise_missing,
    rank_of,
)
from fgvc.data.datasets.table.labels import (
    check_column_per_class,
    check_not_empty,
    label_notes,
    read_labels,
)
from fgvc.data.datasets.table.open_table import open_table
from fgvc.data.datasets.table.parquet_file import ParquetTable
from fgvc.data.datasets.table.paths import is_image_path, resolve
from fgvc.data.datasets.table.split_column import TableSplit, read_splits, split_from_folders
from fgvc.data.datasets.table.text_file import TextTable
from fgvc.data.find_root import named_root, require_folder
from fgvc.data.image_formats import has_image_suffix
from fgvc.data.index import Index, list_first, repeated
from fgvc.data.split import resolve_splits
from fgvc.types import Progress, UserError
from fgvc.untrusted.shell import setting


def read(
    conf: schema.Dataset, progress: Progress | None = None, cache_root: Path | None = None
) -> Index:
    """Read dataset.table: a text file, or Parquet files by name, folder or pattern.

    Args:
        progress: advanced by images unpacked.
        cache_root: where images inside Parquet are unpacked; None: they are only counted.

    Raises:
        UserError: no such file or column, an empty or invalid cell, a path listed twice or outside
            the root, a single class, or a class too small to be split.
    """
    if conf.table is None:
        raise UserError("dataset.table=null: reader table needs dataset.table=FILE")
    root = None if conf.root is None else root_of(conf)
    file = Path(conf.table).expanduser()
    table = open_table(file)
    path_column, label_column = _choose_columns(table, conf)
    cells, labels = None, list(table.cells(label_column))
    if not (isinstance(table, ParquetTable) and table.holds_images(path_column)):
        cells = list(table.cells(path_column))
    elif not embedded_images.has_bytes(table, path_column):
        cells = table.image_paths(path_column)
    if not labels:
        raise UserError(f"dataset.table={file}: lists no image")
    split = read_splits(table, conf.split_column, (path_column, label_column))
    check_not_empty(labels, table.names[label_column], split.split_N, table.where)
    if cells is None:
        assert isinstance(table, ParquetTable)
        root, path, path_notes = _embedded_images(table, path_column, root, cache_root, progress)
    else:
        root = require_folder(named_root(None, str(file)) if root is None else root)
        check_not_empty(cells, table.names[path_column], None, table.where)
        path, path_notes = resolve(file, root, cells, table.where)
    if duplicates := repeated(path):
        reason = f"path listed twice: {list_first(duplicates)}; keep one row"
        if (root / duplicates[0]).is_dir():
            reason = (
                f"column {table.names[path_column]} does not name images: {duplicates[0]} is a "
                "folder; set dataset.path_column= to the column that names them"
            )
        raise UserError(f"dataset.table={file}: {reason}")
    if split.split_N is None:
        by_folder = split_from_folders(file, path)
        split = replace(by_folder, notes=split.notes, warnings=split.warnings + by_folder.warnings)
    classes, label_N = read_labels(file, labels)
    key, fraction, seed = f"dataset.table={file.name}", conf.test_fraction, conf.split_seed
    split_N, test_source = resolve_splits(
        key, split.split_N, path, label_N, classes, fraction, seed
    )
    notes = _column_notes(table, path_column, label_column, split) + split.notes + path_notes
    notes += label_notes(file.name, classes.names)
    index = Index(root, path, label_N, split_N, classes, notes=notes, test_source=test_source)
    return replace(index, warnings=split.warnings)


def _choose_columns(table: DatasetTable, conf: schema.Dataset) -> tuple[int, int]:
    file, names = table.file, table.names
    if isinstance(table, TextTable) and any(has_image_suffix(name) for name in names):
        raise UserError(
            f"{file}:1: holds {list_first(names, 3)}, which is a row, not names of columns; add a "
            "first line with the names, such as path,label"
        )
    if duplicates := repeated([name for name in names if name]):
        raise UserError(
            f"dataset.table={file}: several columns are called {list_first(duplicates)}; "
            "rename them"
        )
    path = None if conf.path_column is None else find_column(table, "path", conf.path_column)
    label = None if conf.label_column is None else find_column(table, "label", conf.label_column)
    if path is not None and path == label:
        raise UserError(f"dataset.label_column={conf.label_column}: is dataset.path_column too")
    path = _choose_path(table, label) if path is None else path
    label = _choose_label(table, path) if label is None else label
    if path is None or label is None:
        if path is not None:
            check_column_per_class(table, path)
        roles = {"path": path, "label": label}
        raise_missing(table, [role for role, column in roles.items() if column is None])
    if isinstance(table, ParquetTable):
        for column, what, is_valid in (
            (path, "paths or images", table.holds_text(path) or table.holds_images(path)),
            (label, "text", table.holds_text(label)),
        ):
            if not is_valid:
                raise UserError(
                    f"dataset.table={table.file}: column {table.names[column]} holds "
                    f"{table.kind(column)}, not {what}; convert it, or set another column"
                )
    return path, label


def _choose_path(table: DatasetTable, label: int | None) -> int | None:
    """Choose the path column by a common name, or the image column of a Parquet file."""
    allowed = set(range(len(table.names))) - {label}
    if isinstance(table, ParquetTable):
        images = [column for column in sorted(allowed) if table.holds_images(column)]
        if len(images) == 1:
            return images[0]
        allowed = set(images) or allowed
    if "path" not in table.names:  # e.g. id and name: take the column that holds image files
        usual = {column for column in allowed if rank_of(table.names[column], PATH_NAMES)}
        allowed = {column for column in usual if is_image_path(table.first(column))} or allowed
    return choose(table, "path", PATH_NAMES, allowed)


def _choose_label(table: DatasetTable, path: int | None) -> int | None:
    """Choose the label column by a common name, or the only ClassLabel column of a Parquet file."""
    allowed = set(range(len(table.names))) - {path}
    column = choose(table, "label", LABEL_NAMES, allowed)
    if column is None and isinstance(table, ParquetTable):
        classes = [table.names.index(name) for name in table.class_names[0] if name in table.names]
        if len(classes) > 1:
            raise_ambiguous(table, "label", sorted(classes))
        column = classes[0] if classes else None
    return column


def _embedded_images(
    table: ParquetTable,
    column: int,
    given_root: Path | None,
    cache_root: Path | None,
    progress: Progress | None,
) -> tuple[Path, tuple[str, ...], tuple[str, ...]]:
    file, notes = table.file, list[str]()
    if given_root is not None:
        notes.append(f"dataset.root={given_root}: not read, because {file.name} holds the images")
    if cache_root is None:
        path = tuple(f"{row:09}" for row in range(len(table)))
        return named_root(None, str(file)), path, tuple(notes)
    root, path, size = embedded_images.unpack(table, column, cache_root, progress, notes.append)
    cache_path = root.parent.relative_to(cache_root).as_posix()
    notes.append(
        f"{file.name}: {len(path)} images of column {table.names[column]} are unpacked into "
        f"runtime.cache_root/{cache_path} ({size / 2**20:.1f} MiB); fgvc never removes this "
        "folder: delete it when the table is no longer used"
    )
    return root, tuple(path), tuple(notes)


def _column_notes(table: DatasetTable, path: int, label: int, split: TableSplit) -> tuple[str, ...]:
    """Notes on the chosen columns, unless named path, label and split, and on other candidates."""
    file, names, notes = table.file, [table.names[path], table.names[label]], []
    others = [name for name in table.names if name not in names and rank_of(name, LABEL_NAMES)]
    if names != ["path", "label"] or not (split.exact or split.source is None):
        source = f", the split is {split.source}" if split.source else ""
        notes.append(
            f"{file.name}: the path is column {names[0]}, the label is column {names[1]}{source}"
        )
    if others:
        notes.append(
            f"{file.name}: {list_first(others)} could also be the label and is not read; to read "
            f"it, set {setting('dataset.label_column', others[0])}"
        )
    return tuple(notes)


DATASET = DatasetSpec(
    read,
    index="table",
    layout_fix="correct the table: a row per image with columns path and label, and perhaps split",
    coverage_fix="add rows of these classes with split train, or remove their rows",
    restore="restore such files or remove their rows from the table",
)
