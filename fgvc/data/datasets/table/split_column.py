"""Cells of a table -> TRAIN, VAL or TEST per row, or None if the table states no split.

Tried in this order: the column of dataset.split_column, a column with a common name and words for
splits, flags (is_train, is_valid, is_test), names of Parquet shards, folders in the paths. N rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fgvc.data.datasets.table.columns import DatasetTable, find_column, raise_ambiguous
from fgvc.data.datasets.table.parquet_file import ParquetTable
from fgvc.data.index import list_first
from fgvc.data.split import SPLIT_NAMES
from fgvc.data.split_names import may_be_split, plain_name, split_of, splits_among
from fgvc.types import TEST, TRAIN, VAL, UserError
from fgvc.untrusted.shell import setting

SPLIT_COLUMN_NAMES = (
    *("split", "splits", "dataset", "set", "subset", "partition", "phase", "usage", "splitname"),
    *("splitset", "setname", "settype", "splittype", "datasplit", "datasetsplit", "fold", "mode"),
)
AMBIGUOUS_NAMES = ("fold", "mode")  # have other common meanings: skipped if they hold numbers
FLAG = re.compile(  # is_train, training_set, in_test_set, is_training_img
    r"(?:is|in|for|usedfor)?(?:(?P<train>train|training)|(?P<test>test|testing|holdout)"
    r"|(?P<val>val|validation|(?<=is|in)valid|(?<=for)valid))"
    r"(?:(?:image|img|photo|set|split|data|sample|flag)s?)*"
)
# columns that encode a split in an unknown way: train_test_split, split_id
UNCLEAR_NAMES = re.compile(
    r"(?:is)?(?:train|training|trn|val|valid|validation|test|testing|tst|or){2,}(?:split|set|data)?s?"
    r"|(?:data)?(?:split|subset|set|partition)s?(?:id|idx|index|number|no|code|label|\d)*|valid"
)
YES, NO = ("1", "true", "t", "yes", "y", "1.0"), ("0", "false", "f", "no", "n", "0.0")
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
MAX_DEPTH = 16  # folders of a path that may be splits: images/train/gull/1.jpg
MAX_FOLDERS = 1000  # different folders at a depth that may be splits
EXPECTED = "one of train, val, test"


@dataclass(frozen=True)
class TableSplit:
    """The split that a table states: split_N, uint8, or None.

    source: where it was found, for a note. places: its columns. exact: its column is named split.
    """

    split_N: np.ndarray | None = None
    source: str | None = None
    places: tuple[int, ...] = ()
    exact: bool = False
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read_splits(table: DatasetTable, key: str | None, taken: Sequence[int]) -> TableSplit:
    """Read the split of every row.

    Args:
        key: dataset.split_column.
        taken: the columns of path and label.

    Raises:
        UserError: a cell of the split column is empty or no word for a split, or two columns
            contradict each other.
    """
    candidates = [column for column in range(len(table.names)) if column not in taken]
    if key is not None:
        column = find_column(table, "split", key)
        source = f"column {table.names[column]}"
        return TableSplit(_split_from_key(table, column), source, (column,), exact=True)
    split, notes = _split_from_names(table, candidates)
    split = split or _split_from_flags(table, candidates) or _split_from_shards(table)
    unused = [column for column in candidates if split is None or column not in split.places]
    columns = table.all_pass(unused, may_be_split)
    notes_unused = [
        f"{table.file.name}: column {table.names[column]} holds words for splits and is not read; "
        f"to read it, set {setting('dataset.split_column', table.names[column])}"
        for column, cells in ((column, set(table.cells(column))) for column in columns)
        if len(splits_among([*cells])) == len(cells - {""})
    ]
    if split is None:
        notes_unused += _unclear_columns(table, unused)
        return TableSplit(notes=tuple(notes), warnings=tuple(notes_unused))
    return replace(split, notes=(*notes, *notes_unused))


def _unclear_columns(table: DatasetTable, rest: Sequence[int]) -> list[str]:
    """Warnings on columns that are named like splits but hold numbers, marks, or yes and no."""
    names = {column: table.names[column] for column in rest}
    plain_names = {column: plain_name(name) for column, name in names.items()}
    columns = [  # the columns of SPLIT_COLUMN_NAMES have their own note
        column
        for column, plain in plain_names.items()
        if plain not in SPLIT_COLUMN_NAMES and (is_flag(plain) or UNCLEAR_NAMES.fullmatch(plain))
    ]
    return [
        f"{table.file.name}: column {names[column]} is named like a split and is not read, because "
        "its values do not state which one is train; write train, val or test into it and set "
        f"{setting('dataset.split_column', names[column])}"
        for column in table.all_pass(columns, lambda cell: split_of(cell) is None)
    ]


def split_from_folders(file: Path, path: Sequence[str]) -> TableSplit:
    """Split of every path by folders such as train/ and test/ that all paths have at some depth.

    Returns:
        No split if no depth has only such folders, or only a single one; with a warning if some
        folders at a depth are named like splits.
    """
    warnings = []
    for depth in range(MAX_DEPTH):
        parts = (name.split("/", depth + 1) for name in path)
        folder_N = [part[depth] if len(part) > depth + 1 else "" for part in parts]
        folders = sorted(set(folder_N))
        if len(folders) > MAX_FOLDERS:
            continue
        splits = splits_among(folders)
        if len(set(splits.values())) > 1 and len(splits) == len(folders):
            split_N = np.array([splits[folder] for folder in folder_N], dtype=np.uint8)
            return TableSplit(split_N, "the folders in the paths")
        if TRAIN in splits.values() and len(set(splits.values())) > 1:
            names = list_first(sorted(splits, key=splits.__getitem__))
            others = [folder or "no folder" for folder in folders if folder not in splits]
            warnings.append(
                f"{file.name}: the folders {names} in the paths are not read as splits, because "
                f"other paths have {list_first(others)} there; remove these rows, or add a column "
                "split"
            )
        if not any(folder_N):
            break
    return TableSplit(warnings=tuple(warnings))


def _split_from_names(
    table: DatasetTable, free: Sequence[int]
) -> tuple[TableSplit | None, list[str]]:
    """The column with a common name that holds splits; notes on such columns that do not."""
    plain = {column: plain_name(table.names[column]) for column in free}
    named = [
        column
        for column, name in plain.items()
        if name in SPLIT_COLUMN_NAMES and _is_readable(table, column)
    ]
    exact = [column for column in named if plain[column] == "split"]
    if len(exact) > 1:
        raise_ambiguous(table, "split", exact)
    named = exact or sorted(named, key=lambda column: SPLIT_COLUMN_NAMES.index(plain[column]))
    splits: dict[int, np.ndarray] = {}
    notes = []
    for column in named:
        cells = list(table.cells(column))
        name = table.names[column]
        words = _split_of_cells(cells)
        # a column with another meaning, rather than splits in an unknown form
        has_numbers = any(map(NUMBER.fullmatch, words)) and plain[column] not in AMBIGUOUS_NAMES
        if not (exact or has_numbers or any(split is not None for split in words.values())):
            shown = list_first(sorted(filter(None, words)), 3)
            notes.append(
                f"{table.file.name}: column {name} holds no splits ({shown}) and is not read"
            )
            continue
        splits[column] = _parse_splits(table, name, cells)
    if not splits:
        return None, notes
    column, split_N = next(iter(splits.items()))
    if any((other_N != split_N).any() for other_N in splits.values()):
        raise_ambiguous(table, "split", list(splits))
    name = table.names[column]
    return TableSplit(split_N, f"column {name}", (column,), exact=name == "split"), notes


def _split_of_cells(cells: Sequence[str]) -> dict[str, int | None]:
    """{cell: its split, or None} for the distinct cells of a column."""
    different = sorted(set(cells))
    return {**dict.fromkeys(different), **splits_among(different)}


def _is_readable(table: DatasetTable, column: int) -> bool:
    is_number = is_flag(table.names[column]) and table.holds_numbers(column)
    return table.holds_text(column) or is_number


def _split_from_key(table: DatasetTable, column: int) -> np.ndarray:
    """Read the column that the user chose: words, or yes and no if it is named like a flag."""
    name = table.names[column]
    if isinstance(table, ParquetTable) and not _is_readable(table, column):
        raise UserError(f"dataset.split_column={name}: holds {table.kind(column)}, not text")
    cells = list(table.cells(column))
    if (split := _flag_split(name)) is not None and all(map(is_yes_or_no, set(cells))):
        return _combine_flags(table, {split: cells}, [name])
    return _parse_splits(table, name, cells)


def _parse_splits(table: DatasetTable, name: str, cells: Sequence[str]) -> np.ndarray:
    """Words -> splits; UserError for the first cell that is no word for a split."""
    words = _split_of_cells(cells)
    if None in words.values():
        row = next(row for row, cell in enumerate(cells) if words[cell] is None)
        cell, where = cells[row], table.where(row)
        if not cell:
            raise UserError(f"{where}: no {name}; fill it in, or remove the row")
        if NUMBER.fullmatch(cell) or is_yes_or_no(cell):
            raise UserError(
                f"{where}: {name} {cell!r} does not state which rows are train; write {EXPECTED}"
            )
        raise UserError(f"{where}: {name} {cell!r}: {EXPECTED}; correct it")
    return np.array([words[cell] for cell in cells], dtype=np.uint8)


def is_flag(name: str) -> bool:
    """Whether a column is named like a flag for a split."""
    return _flag_split(name) is not None


def _flag_split(name: str) -> int | None:
    match = FLAG.fullmatch(plain_name(name))
    splits = {"train": TRAIN, "test": TEST, "val": VAL}
    return splits[match.lastgroup] if match and match.lastgroup else None


def is_yes_or_no(cell: str) -> bool:
    return cell.lower() in (*YES, *NO)


def _split_from_flags(table: DatasetTable, free: Sequence[int]) -> TableSplit | None:
    """Read columns such as is_train and is_test if all their cells are yes or no."""
    flags = {
        column: split
        for column in free
        if (split := _flag_split(table.names[column])) is not None and _is_readable(table, column)
    }
    columns = table.all_pass(list(flags), is_yes_or_no)
    for column in flags:
        plain = plain_name(table.names[column])
        if column not in columns and plain.startswith(("is", "in", "for")):
            cells = list(table.cells(column))
            other = [row for row, cell in enumerate(cells) if not is_yes_or_no(cell)]
            if len(other) < len(cells):  # yes or no in some rows, other values in the rest
                raise UserError(
                    f"{table.where(other[0])}: {table.names[column]} {cells[other[0]]!r}: neither "
                    "yes nor no; write 1 or 0"
                )
    if not columns:
        return None
    names = [table.names[column] for column in columns]
    cells_of = {flags[column]: list(table.cells(column)) for column in columns}
    if len(cells_of) < len(columns):
        raise_ambiguous(table, "split", columns)
    source = f"column {names[0]}" if len(names) == 1 else f"columns {' and '.join(names)}"
    return TableSplit(_combine_flags(table, cells_of, names), source, tuple(columns))


def _combine_flags(
    table: DatasetTable, cells_of: dict[int, list[str]], names: Sequence[str]
) -> np.ndarray:
    """The split whose flag a row sets; without a set flag, the first split that has no flag."""
    count = len(next(iter(cells_of.values())))
    default = [split for split in (TRAIN, TEST, VAL) if split not in cells_of][:1]
    split_N = np.empty(count, dtype=np.uint8)
    for row in range(count):
        cells = {split: column[row].lower() for split, column in cells_of.items()}
        if "" in cells.values():
            raise UserError(f"{table.where(row)}: no {list_first(names)}; fill it in")
        set_splits = [split for split, cell in cells.items() if cell in YES] or default
        if len(set_splits) != 1:
            what = " and ".join(SPLIT_NAMES[split] for split in set_splits) or "of no split"
            raise UserError(f"{table.where(row)}: is {what} by {list_first(names)}; correct it")
        split_N[row] = set_splits[0]
    return split_N


def _split_from_shards(table: DatasetTable) -> TableSplit | None:
    """Splits from the names of Parquet files: train-00000-of-00002.parquet, test/0.parquet."""
    if not isinstance(table, ParquetTable):
        return None
    splits = []
    for file in table.files:
        stem = re.sub(r"-\d{3,}(-of-\d+)?([-_.].*)?$", "", file.stem)
        split = split_of(stem)
        splits.append(split_of(file.parent.name) if split is None and stem.isdigit() else split)
    if all(split is None for split in splits):
        return None
    if None in splits:
        file = table.files[splits.index(None)]
        raise UserError(
            f"dataset.table={file}: the name contains no split, but the names of other files do; "
            "rename it (train-, validation- or test-), or move it to another folder"
        )
    split_N = np.repeat(np.array(splits, dtype=np.uint8), table.counts)
    return TableSplit(split_N, "the names of the files")
