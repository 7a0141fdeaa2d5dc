"""Cells of a table -> TRAIN, VAL or TEST of every row, or None where nothing states it.

In this order: the column of dataset.split_column, a column with a usual name and words for splits,
flags (is_train, is_valid, is_test), names of Parquet shards, folders in the paths. N rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fgvc.data.datasets.table.columns import Keys, find_column, plain_name, refuse_several
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
)  # usual for other things than splits too: passed over with numbers
_FLAG_WORDS = {
    TRAIN: r"train|training",
    TEST: r"test|testing|holdout",
    VAL: r"val|validation|(?<=is|in)valid|(?<=for)valid",
}
_FLAG_TAIL = r"(?:(?:image|img|picture|photo|set|split|data|sample|flag)s?)*"
FLAGS = {  # is_train, training_set, in_test_set, is_training_img
    split: re.compile(rf"(?:is|in|for|usedfor)?(?:{words}){_FLAG_TAIL}")
    for split, words in _FLAG_WORDS.items()
}
# columns that say a split, but not in which way: train_test_split, split_id
UNCLEAR_NAMES = re.compile(
    r"(?:is)?(?:train|training|trn|val|valid|validation|test|testing|tst|or){2,}(?:split|set|data)?s?"
    r"|(?:data)?(?:split|subset|set|partition)s?(?:id|idx|index|number|no|code|label|\d)*|valid"
)
YES, NO = ("1", "true", "t", "yes", "y", "1.0"), ("0", "false", "f", "no", "n", "0.0")
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
MAX_DEPTH = 16  # of folders in a path that may be splits: images/train/gull/1.jpg
MAX_FOLDERS = 1000  # at a depth that may be splits
EXPECTED = "one of train, val, test"


@dataclass(frozen=True)
class TableSplit:
    """The split as a table states it.

    split_N: uint8, or None. source: where it stands, for a note. places: its columns.
    """

    split_N: np.ndarray | None = None
    source: str | None = None
    places: tuple[int, ...] = ()
    exact: bool = False  # a column that is called split
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read_splits(
    table: TextTable | ParquetTable, file: Path, keys: Keys, taken: Sequence[int]
) -> TableSplit:
    """Read the split of every row.

    Args:
        file: the table, for notes and messages.
        keys: the columns that the user names.
        taken: places of the columns for path and label.

    Raises:
        UserError: a cell of the split column that is empty or no word for a split, or two columns
            that contradict each other.
    """
    free = [place for place in range(len(table.names)) if place not in taken]
    if keys.split is not None:
        place = find_column(file, table.names, "split", keys.split)
        return TableSplit(*_split_from_key(table, place), (place,), exact=True)
    given, notes = _split_from_names(table, file, free)
    if given is None:
        given = _split_from_flags(table, file, free) or _split_from_shards(table) or TableSplit()
    rest = [place for place in free if place not in given.places]
    unused = [
        f"{file.name}: column {table.names[place]} holds words for splits and is not read; "
        f"to read it, set {setting('dataset.split_column', table.names[place])}"
        for place in _columns_of_split_words(table, rest)
    ]
    if given.split_N is None:
        unused += _unclear_columns(table, file, rest)
        return TableSplit(notes=tuple(notes), warnings=tuple(unused))
    return replace(given, notes=(*notes, *unused))


def _columns_of_split_words(table: TextTable | ParquetTable, rest: Sequence[int]) -> list[int]:
    """The columns that hold nothing but words for splits."""
    places = table.all_pass(rest, may_be_split)
    cells_of = zip(places, map(set, table.columns(places)), strict=True)
    return [place for place, cells in cells_of if len(splits_among([*cells])) == len(cells - {""})]


def _unclear_columns(table: TextTable | ParquetTable, file: Path, rest: Sequence[int]) -> list[str]:
    """Warnings of columns that are called like splits and hold numbers, marks, or yes and no."""
    names = {place: table.names[place] for place in rest}
    places = [
        place
        for place, name in names.items()
        if plain_name(name) not in SPLIT_COLUMN_NAMES  # which have their own note
        and (is_flag(name) or UNCLEAR_NAMES.fullmatch(plain_name(name)))
    ]
    return [
        f"{file.name}: column {names[place]} is called like a split and is not read, since its "
        "values do not say which of them is train; write train, val or test into it and set "
        f"{setting('dataset.split_column', names[place])}"
        for place in table.all_pass(places, lambda cell: split_of(cell) is None)
    ]


def split_from_folders(file: Path, path: Sequence[str]) -> TableSplit:
    """Split of every path by the folders train/, test/ and the like that all paths have at a depth.

    Returns:
        No split where no depth has such folders alone, or there is a single one; with a warning
        where only some folders at a depth are called like splits.
    """
    warnings = []
    for depth in range(MAX_DEPTH):
        parts = (name.split("/", depth + 1) for name in path)
        folder_N = [part[depth] if len(part) > depth + 1 else "" for part in parts]
        folders = sorted(set(folder_N))
        if len(folders) > MAX_FOLDERS:
            continue
        known = splits_among(folders)
        if len(set(known.values())) > 1 and len(known) == len(folders):
            split_N = np.array([known[folder] for folder in folder_N], dtype=np.uint8)
            return TableSplit(split_N, "the folders in the paths")
        if TRAIN in known.values() and len(set(known.values())) > 1:
            names = list_first(sorted(known, key=known.__getitem__))
            others = [folder or "no folder" for folder in folders if folder not in known]
            warnings.append(
                f"{file.name}: the folders {names} in the paths are not read as splits, since "
                f"other paths have {list_first(others)} there; remove these rows, or add a column split"
            )
        if not any(folder_N):
            break
    return TableSplit(warnings=tuple(warnings))


def _split_from_names(
    table: TextTable | ParquetTable, file: Path, free: Sequence[int]
) -> tuple[TableSplit | None, list[str]]:
    """The column with a usual name whose cells are words; notes on those that hold others."""
    usual = [place for place in free if plain_name(table.names[place]) in SPLIT_COLUMN_NAMES]
    usual = [place for place in usual if _is_readable(table, place)]
    exact = [place for place in usual if plain_name(table.names[place]) == "split"]
    if len(exact) > 1:
        refuse_several(file, "split", [table.names[place] for place in exact])
    usual = exact or sorted(
        usual, key=lambda place: SPLIT_COLUMN_NAMES.index(plain_name(table.names[place]))
    )
    found: list[tuple[int, np.ndarray]] = []
    notes = []
    for place in usual:
        (cells,) = table.columns([place])
        name = table.names[place]
        words = _split_of_cells(cells)
        if plain_name(name) != "split" and _is_no_split(name, words):
            shown = list_first(sorted(filter(None, words)), 3)
            notes.append(f"{file.name}: column {name} holds no splits ({shown}) and is not read")
            continue
        found.append((place, _parse_splits(table, name, cells)))
    if len(found) > 1 and any((split_N != found[0][1]).any() for _, split_N in found):
        refuse_several(file, "split", [table.names[place] for place, _ in found])
    if not found:
        return None, notes
    place, split_N = found[0]
    name = table.names[place]
    return TableSplit(split_N, f"column {name}", (place,), exact=name == "split"), notes


def _split_of_cells(cells: Sequence[str]) -> dict[str, int | None]:
    """{cell: its split, or None} of the different cells of a column."""
    different = sorted(set(cells))
    return {**dict.fromkeys(different), **splits_among(different)}


def _is_no_split(name: str, words: Mapping[str, int | None]) -> bool:
    """Whether a column holds other things than splits, rather than splits in an unknown form."""
    if any(split is not None for split in words.values()):
        return False
    return plain_name(name) in AMBIGUOUS_NAMES or not any(map(NUMBER.fullmatch, words))


def _is_readable(table: TextTable | ParquetTable, place: int) -> bool:
    if isinstance(table, TextTable) or table.holds_text(place):
        return True
    return _flag_split(table.names[place]) is not None and table.holds_numbers(place)


def _split_from_key(table: TextTable | ParquetTable, place: int) -> tuple[np.ndarray, str]:
    """The column that the user names: words, or yes and no under the name of a flag."""
    name = table.names[place]
    if not _is_readable(table, place):
        assert isinstance(table, ParquetTable)
        raise UserError(f"dataset.split_column={name}: holds {table.kind(place)}, not text")
    (cells,) = table.columns([place])
    if (split := _flag_split(name)) is not None and {cell.lower() for cell in cells} <= {*YES, *NO}:
        return _combine_flags(table, {split: cells}, [name]), f"column {name}"
    return _parse_splits(table, name, cells), f"column {name}"


def _parse_splits(table: TextTable | ParquetTable, name: str, cells: Sequence[str]) -> np.ndarray:
    """Words -> splits, or a refusal of the first cell that is none."""
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
    """Whether a column is called like a flag for a split."""
    return _flag_split(name) is not None


def _flag_split(name: str) -> int | None:
    plain = plain_name(name)
    return next((split for split, known in FLAGS.items() if known.fullmatch(plain)), None)


def _split_from_flags(
    table: TextTable | ParquetTable, file: Path, free: Sequence[int]
) -> TableSplit | None:
    """Columns such as is_train and is_test, if all their cells are yes or no."""
    flags = [place for place in free if _flag_split(table.names[place]) is not None]
    flags = [place for place in flags if _is_readable(table, place)]
    places = table.all_pass(flags, lambda cell: cell.lower() in (*YES, *NO))
    for place in flags:
        if place not in places and plain_name(table.names[place]).startswith(("is", "in", "for")):
            _refuse_mixed_flag(table, place)
    if not places:
        return None
    cells_of: dict[int, list[str]] = {}
    names = [table.names[place] for place in places]
    for place, cells in zip(places, table.columns(places), strict=True):
        split = _flag_split(table.names[place])
        assert split is not None
        if split in cells_of:
            refuse_several(file, "split", names)
        cells_of[split] = cells
    source = f"column {names[0]}" if len(names) == 1 else f"columns {' and '.join(names)}"
    return TableSplit(_combine_flags(table, cells_of, names), source, tuple(places))


def _refuse_mixed_flag(table: TextTable | ParquetTable, place: int) -> None:
    """Refuse a flag that says yes or no in some rows and something else in others."""
    (cells,) = table.columns([place])
    other = [row for row, cell in enumerate(cells) if cell.lower() not in (*YES, *NO)]
    if len(other) < len(cells):
        raise UserError(
            f"{table.where(other[0])}: {table.names[place]} {cells[other[0]]!r}: neither yes nor "
            "no; write 1 or 0"
        )


def _combine_flags(
    table: TextTable | ParquetTable, cells_of: dict[int, list[str]], names: Sequence[str]
) -> np.ndarray:
    """The split whose flag a row sets; in a row without, the first split that has no flag."""
    count = len(next(iter(cells_of.values())))
    rest = [split for split in (TRAIN, TEST, VAL) if split not in cells_of][:1]
    split_N = np.empty(count, dtype=np.uint8)
    for row in range(count):
        cells = {split: column[row].lower() for split, column in cells_of.items()}
        if "" in cells.values():
            raise UserError(f"{table.where(row)}: no {list_first(names)}; fill it in")
        set_splits = [split for split, cell in cells.items() if cell in YES] or rest
        if len(set_splits) != 1:
            what = " and ".join(SPLIT_NAMES[split] for split in set_splits) or "of no split"
            raise UserError(f"{table.where(row)}: is {what} by {list_first(names)}; correct it")
        split_N[row] = set_splits[0]
    return split_N


def _split_from_shards(table: TextTable | ParquetTable) -> TableSplit | None:
    """Splits by the names of Parquet files: train-00000-of-00002.parquet, default/test/0.parquet.

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
            f"dataset.table={file}: the name says no split, while other files' names do; "
            "rename it (train-, validation- or test-), or move it elsewhere"
        )
    split_N = np.repeat(np.array(splits, dtype=np.uint8), table.counts)
    return TableSplit(split_N, "the names of the files")


def _shard_split(file: Path) -> int | None:
    stem = re.sub(r"-\d{3,}(-of-\d+)?([-_.].*)?$", "", file.stem)
    if (split := split_of(stem)) is not None:
        return split
    return split_of(file.parent.name) if stem.isdigit() else None
