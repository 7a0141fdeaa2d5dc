"""Cells of a table -> TRAIN, VAL or TEST per row, or None if the table states no split.

Tried in this order: the column of dataset.split_column, a column with a common name and words for
splits, flags (is_train, is_valid, is_test), names of Parquet shards, folders in the paths. N rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fgvc.data.datasets.table.columns import Keys, find_column, plain_name, raise_ambiguous
from fgvc.data.datasets.table.parquet_file import ParquetTable
from fgvc.data.datasets.table.text_file import TextTable
from fgvc.data.index import list_first
from fgvc.data.split import SPLIT_NAMES
from fgvc.data.split_names import may_be_split, split_of, splits_among
from fgvc.types import TEST, TRAIN, VAL, UserError
from fgvc.untrusted.shell import setting

SPLIT_COLUMN_NAMES = (
    *("split", "splits", "dataset", "set", "subset", "partition", "phase", "usage", "splitname"),
    *("splitset", "setname", "settype", "splittype", "datasplit", "datasetsplit", "fold", "mode"),
)
AMBIGUOUS_NAMES = (
    "fold",
    "mode",
)  # have other common meanings: skipped if they hold numbers
_FLAG_WORDS = {
    TRAIN: r"train|training",
    TEST: r"test|testing|holdout",
    VAL: r"val|validation|(?<=is|in)valid|(?<=for)valid",
}
_FLAG_TAIL = r"(?:(?:image|img|image|photo|set|split|data|sample|flag)s?)*"
FLAGS = {  # is_train, training_set, in_test_set, is_training_img
    split: re.compile(rf"(?:is|in|for|usedfor)?(?:{words}){_FLAG_TAIL}")
    for split, words in _FLAG_WORDS.items()
}
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
    """The split that a table states.

    split_N: uint8, or None. source: where it was found, for a note. columns: its columns.
    """

    split_N: np.ndarray | None = None
    source: str | None = None
    places: tuple[int, ...] = ()
    exact: bool = False  # the column is named split
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read_splits(
    table: TextTable | ParquetTable, file: Path, keys: Keys, taken: Sequence[int]
) -> TableSplit:
    """Read the split of every row.

    Args:
        file: the table, for notes and messages.
        keys: the columns that the user chose.
        taken: the columns of path and label.

    Raises:
        UserError: a cell of the split column is empty or no word for a split, or two columns
            contradict each other.
    """
    candidates = [column for column in range(len(table.names)) if column not in taken]
    if keys.split is not None:
        column = find_column(file, table.names, "split", keys.split)
        return TableSplit(*_split_from_key(table, column), (column,), exact=True)
    split, notes = _split_from_names(table, file, candidates)
    if split is None:
        split = (
            _split_from_flags(table, file, candidates) or _split_from_shards(table) or TableSplit()
        )
    unused_columns = [column for column in candidates if column not in split.places]
    notes_unused = [
        f"{file.name}: column {table.names[column]} holds words for splits and is not read; "
        f"to read it, set {setting('dataset.split_column', table.names[column])}"
        for column in _columns_of_split_words(table, unused_columns)
    ]
    if split.split_N is None:
        notes_unused += _unclear_columns(table, file, unused_columns)
        return TableSplit(notes=tuple(notes), warnings=tuple(notes_unused))
    return replace(split, notes=(*notes, *notes_unused))


def _columns_of_split_words(table: TextTable | ParquetTable, rest: Sequence[int]) -> list[int]:
    """The columns that only hold words for splits."""
    columns = table.all_pass(rest, may_be_split)
    cells_of = zip(columns, map(set, table.columns(columns)), strict=True)
    return [
        column for column, cells in cells_of if len(splits_among([*cells])) == len(cells - {""})
    ]


def _unclear_columns(table: TextTable | ParquetTable, file: Path, rest: Sequence[int]) -> list[str]:
    """Warnings on columns that are named like splits but hold numbers, marks, or yes and no."""
    names = {column: table.names[column] for column in rest}
    columns = [
        column
        for column, name in names.items()
        if plain_name(name) not in SPLIT_COLUMN_NAMES  # those have their own note
        and (is_flag(name) or UNCLEAR_NAMES.fullmatch(plain_name(name)))
    ]
    return [
        f"{file.name}: column {names[column]} is named like a split and is not read, because its "
        "values do not say which of them is train; write train, val or test into it and set "
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
    table: TextTable | ParquetTable, file: Path, free: Sequence[int]
) -> tuple[TableSplit | None, list[str]]:
    """The column with a common name that holds splits; notes on such columns that do not."""
    named = [column for column in free if plain_name(table.names[column]) in SPLIT_COLUMN_NAMES]
    named = [column for column in named if _is_readable(table, column)]
    exact = [column for column in named if plain_name(table.names[column]) == "split"]
    if len(exact) > 1:
        raise_ambiguous(file, "split", [table.names[column] for column in exact])
    named = exact or sorted(
        named, key=lambda column: SPLIT_COLUMN_NAMES.index(plain_name(table.names[column]))
    )
    candidates: list[tuple[int, np.ndarray]] = []
    notes = []
    for column in named:
        (cells,) = table.columns([column])
        name = table.names[column]
        words = _split_of_cells(cells)
        if plain_name(name) != "split" and _is_no_split(name, words):
            shown = list_first(sorted(filter(None, words)), 3)
            notes.append(f"{file.name}: column {name} holds no splits ({shown}) and is not read")
            continue
        candidates.append((column, _parse_splits(table, name, cells)))
    if len(candidates) > 1 and any(
        (split_N != candidates[0][1]).any() for _, split_N in candidates
    ):
        raise_ambiguous(file, "split", [table.names[column] for column, _ in candidates])
    if not candidates:
        return None, notes
    column, split_N = candidates[0]
    name = table.names[column]
    return TableSplit(split_N, f"column {name}", (column,), exact=name == "split"), notes


def _split_of_cells(cells: Sequence[str]) -> dict[str, int | None]:
    """{cell: its split, or None} for the distinct cells of a column."""
    different = sorted(set(cells))
    return {**dict.fromkeys(different), **splits_among(different)}


def _is_no_split(name: str, words: Mapping[str, int | None]) -> bool:
    """Whether a column holds something else, rather than splits in an unknown form."""
    if any(split is not None for split in words.values()):
        return False
    return plain_name(name) in AMBIGUOUS_NAMES or not any(map(NUMBER.fullmatch, words))


def _is_readable(table: TextTable | ParquetTable, column: int) -> bool:
    if isinstance(table, TextTable) or table.holds_text(column):
        return True
    return _flag_split(table.names[column]) is not None and table.holds_numbers(column)


def _split_from_key(table: TextTable | ParquetTable, column: int) -> tuple[np.ndarray, str]:
    """Read the column that the user chose: words, or yes and no if it is named like a flag."""
    name = table.names[column]
    if not _is_readable(table, column):
        assert isinstance(table, ParquetTable)
        raise UserError(f"dataset.split_column={name}: holds {table.kind(column)}, not text")
    (cells,) = table.columns([column])
    if (split := _flag_split(name)) is not None and {cell.lower() for cell in cells} <= {*YES, *NO}:
        return _combine_flags(table, {split: cells}, [name]), f"column {name}"
    return _parse_splits(table, name, cells), f"column {name}"


def _parse_splits(table: TextTable | ParquetTable, name: str, cells: Sequence[str]) -> np.ndarray:
    """Words -> splits; UserError for the first cell that is no word for a split."""
    words = _split_of_cells(cells)
    if None in words.values():
        row = next(row for row, cell in enumerate(cells) if words[cell] is None)
        cell, where = cells[row], table.where(row)
        if not cell:
            raise UserError(f"{where}: no {name}; fill it in, or remove the row")
        if NUMBER.fullmatch(cell) or cell.lower() in (*YES, *NO):
            raise UserError(
                f"{where}: {name} {cell!r} does not say which rows are train; write {EXPECTED}"
            )
        raise UserError(f"{where}: {name} {cell!r}: {EXPECTED}; correct it")
    return np.array([words[cell] for cell in cells], dtype=np.uint8)


def is_flag(name: str) -> bool:
    """Whether a column is named like a flag for a split."""
    return _flag_split(name) is not None


def _flag_split(name: str) -> int | None:
    plain = plain_name(name)
    return next((split for split, splits in FLAGS.items() if splits.fullmatch(plain)), None)


def _split_from_flags(
    table: TextTable | ParquetTable, file: Path, free: Sequence[int]
) -> TableSplit | None:
    """Read columns such as is_train and is_test if all their cells are yes or no."""
    flags = [column for column in free if _flag_split(table.names[column]) is not None]
    flags = [column for column in flags if _is_readable(table, column)]
    columns = table.all_pass(flags, lambda cell: cell.lower() in (*YES, *NO))
    for column in flags:
        if column not in columns and plain_name(table.names[column]).startswith(
            ("is", "in", "for")
        ):
            _check_mixed_flag(table, column)
    if not columns:
        return None
    cells_of: dict[int, list[str]] = {}
    names = [table.names[column] for column in columns]
    for column, cells in zip(columns, table.columns(columns), strict=True):
        split = _flag_split(table.names[column])
        assert split is not None
        if split in cells_of:
            raise_ambiguous(file, "split", names)
        cells_of[split] = cells
    source = f"column {names[0]}" if len(names) == 1 else f"columns {' and '.join(names)}"
    return TableSplit(_combine_flags(table, cells_of, names), source, tuple(columns))


def _check_mixed_flag(table: TextTable | ParquetTable, column: int) -> None:
    """Raise for a flag that is yes or no in some rows and something else in others."""
    (cells,) = table.columns([column])
    other = [row for row, cell in enumerate(cells) if cell.lower() not in (*YES, *NO)]
    if len(other) < len(cells):
        raise UserError(
            f"{table.where(other[0])}: {table.names[column]} {cells[other[0]]!r}: neither yes nor "
            "no; write 1 or 0"
        )


def _combine_flags(
    table: TextTable | ParquetTable, cells_of: dict[int, list[str]], names: Sequence[str]
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


def _split_from_shards(table: TextTable | ParquetTable) -> TableSplit | None:
    """Splits from the names of Parquet files: train-00000-of-00002.parquet, test/0.parquet.

    Raises:
        UserError: only some files are named after a split.
    """
    if not isinstance(table, ParquetTable):
        return None
    splits = [_shard_split(file) for file in table.files]
    if all(split is None for split in splits):
        return None
    if None in splits:
        file = table.files[splits.index(None)]
        raise UserError(
            f"dataset.table={file}: the name contains no split, but the names of other files do; "
            "rename it (train-, validation- or test-), or move it elsewhere"
        )
    split_N = np.repeat(np.array(splits, dtype=np.uint8), table.counts)
    return TableSplit(split_N, "the names of the files")


def _shard_split(file: Path) -> int | None:
    stem = re.sub(r"-\d{3,}(-of-\d+)?([-_.].*)?$", "", file.stem)
    if (split := split_of(stem)) is not None:
        return split
    return split_of(file.parent.name) if stem.isdigit() else None
