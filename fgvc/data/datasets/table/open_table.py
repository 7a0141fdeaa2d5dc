"""dataset.table -> an open table: a text, or Parquet by name, folder or pattern."""

from __future__ import annotations

import glob
from pathlib import Path

from fgvc import untrusted
from fgvc.data.datasets.table.parquet_file import ParquetTable
from fgvc.data.datasets.table.text_file import JSON_LINES, TextTable, refuse_other_formats
from fgvc.data.find_root import walk
from fgvc.data.index import list_first
from fgvc.types import UserError
from fgvc.untrusted.shell import setting

PARQUET_SUFFIXES = (".parquet", ".parq", ".pq")
SUFFIXES = (".csv", ".tsv", ".tab", ".psv", ".txt", *JSON_LINES, *PARQUET_SUFFIXES)


def open_table(file: Path) -> TextTable | ParquetTable:
    """The table by what it is: a folder or a pattern of files, Parquet by its bytes, or text.

    Raises:
        UserError: no such file, or none that is read.
    """
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
            refuse_other_formats(name)
            raise UserError(
                f"dataset.table={name}: not one of {', '.join(SUFFIXES)}; save it as CSV UTF-8, or "
                "rename it if it is one of these"
            )
    if _starts_as_parquet(files[0]):
        return ParquetTable(files)
    if files[0].suffix.lower() in PARQUET_SUFFIXES:
        refuse_other_formats(files[0])
        return ParquetTable(files)  # which names what is wrong
    if len(files) > 1:
        raise UserError(
            f"dataset.table={file}: {len(files)} files ({list_first(files, 2)}); several are read "
            "only of Parquet: join them into one table with a column split"
        )
    return TextTable(files[0])


def _list_files(file: Path) -> list[Path]:
    """The files that dataset.table names, in the order of their names."""
    if file.is_dir():
        below = sorted(
            Path(folder, name)
            for folder, _, names in walk(file)
            for name in names
            if Path(name).suffix.lower() in PARQUET_SUFFIXES
        )
        below = [path for path in below if not _is_hidden(path.relative_to(file))]
        if not below:
            raise _no_parquet_error(file)
        return below
    if not file.exists() and any(mark in str(file) for mark in "*?["):
        return [Path(name) for name in sorted(glob.glob(str(file)))] or [file]  # noqa: PTH207
    return [file]


def _no_parquet_error(folder: Path) -> UserError:
    """A folder is read for its Parquet files alone: name what else may be meant."""
    others = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
    way_out = "set dataset.table= to the table, or read a folder per class with dataset=folder"
    if others:
        way_out = f"set {setting('dataset.table', others[0])}"
    elif any(folder.rglob("*.arrow")):
        way_out = "it holds Arrow files: load it with datasets.load_from_disk and write to_parquet"
    return UserError(f"dataset.table={folder}: a folder without Parquet files; {way_out}")


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _starts_as_parquet(file: Path) -> bool:
    with untrusted.open_regular(file) as source:
        return source.read(4) == b"PAR1"


def folder_of(file: Path) -> Path:
    """The folder that paths are relative to without dataset.root."""
    return file if file.is_dir() else file.parent
