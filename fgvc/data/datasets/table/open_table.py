"""dataset.table -> an open table: a text file, or Parquet files by name, folder or pattern."""

from __future__ import annotations

import glob
from pathlib import Path

from fgvc import untrusted
from fgvc.data.datasets.table.columns import DatasetTable
from fgvc.data.datasets.table.parquet_file import ParquetTable
from fgvc.data.datasets.table.text_file import JSON_LINES, TextTable, check_format
from fgvc.data.find_root import walk
from fgvc.data.index import list_first
from fgvc.types import UserError
from fgvc.untrusted.shell import setting

PARQUET_SUFFIXES = (".parquet", ".parq", ".pq")
SUFFIXES = (".csv", ".tsv", ".tab", ".psv", ".txt", *JSON_LINES, *PARQUET_SUFFIXES)


def open_table(file: Path) -> DatasetTable:
    """Open a table, Parquet by its first bytes, others by suffix; UserError: no file, no table."""
    files = _list_files(file)
    for name in files:
        try:
            untrusted.require_regular(name)
        except untrusted.NotRegularError as error:
            raise UserError(
                f"dataset.table={name}: {error.strerror}; set dataset.table= to a file"
            ) from None
        except (OSError, ValueError):  # reported below
            pass
        if not name.is_file():
            raise UserError(f"dataset.table={name}: no such file; correct the path")
        if name.suffix.lower() not in SUFFIXES:
            check_format(name)
            raise UserError(
                f"dataset.table={name}: not one of {', '.join(SUFFIXES)}; save it as CSV UTF-8, or "
                "rename it if it is one of these"
            )
    with untrusted.open_regular(files[0]) as source:
        is_parquet = source.read(4) == b"PAR1"
    if not is_parquet and files[0].suffix.lower() in PARQUET_SUFFIXES:
        check_format(files[0])  # otherwise ParquetTable names the damage
        is_parquet = True
    if is_parquet:
        return ParquetTable(file, files)
    if len(files) > 1:
        raise UserError(
            f"dataset.table={file}: {len(files)} files ({list_first(files, 2)}); only Parquet may "
            "have several files: join them into one table with a column split"
        )
    return TextTable(files[0])


def _list_files(file: Path) -> list[Path]:
    """The files that dataset.table names, sorted by name."""
    if file.is_dir():
        below = sorted(Path(folder, name) for folder, _, names in walk(file) for name in names)
        parquet = [
            path
            for path in below
            if path.suffix.lower() in PARQUET_SUFFIXES
            and not any(part.startswith(".") for part in path.relative_to(file).parts)
        ]
        if parquet:
            return parquet
        way_out = "set dataset.table= to the table, or read a folder per class with dataset=folder"
        if others := [path for path in sorted(file.iterdir()) if path.suffix.lower() in SUFFIXES]:
            way_out = f"set {setting('dataset.table', others[0])}"
        elif any(path.suffix == ".arrow" for path in below):
            way_out = "it holds Arrow files: load it with datasets.load_from_disk, write to_parquet"
        raise UserError(f"dataset.table={file}: a folder without Parquet files; {way_out}")
    if not file.exists() and any(mark in str(file) for mark in "*?["):
        return [Path(name) for name in sorted(glob.glob(str(file)))] or [file]  # noqa: PTH207
    return [file]
