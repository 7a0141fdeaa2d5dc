"""Label cells of a table -> label map, labels of the rows, and notes on names that look like slips.

N rows.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fgvc.data.datasets.table.parquet_file import ParquetTable
from fgvc.data.datasets.table.split_column import NO, YES, is_flag
from fgvc.data.datasets.table.text_file import TextTable
from fgvc.data.index import list_first
from fgvc.data.labelmap import from_names
from fgvc.data.split import SPLIT_NAMES
from fgvc.types import TRAIN, LabelMap, UserError

# what programs write where there is no value
MISSING_VALUES = (
    "nan",
    "none",
    "null",
    "na",
    "n/a",
    "<na>",
    "#n/a",
    "nat",
    "nil",
    "undefined",
    "-",
    "?",
)
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def read_labels(table: object, cells: Sequence[str]) -> tuple[LabelMap, np.ndarray]:
    """Number the classes in the order of their names.

    Raises:
        UserError: a single class.
    """
    composed = {cell: unicodedata.normalize("NFC", cell) for cell in set(cells)}
    classes = from_names(set(composed.values()))
    if len(classes) == 1:
        raise UserError(
            f"dataset.table={table}: holds a single class ({classes.names[0]}); "
            "a classifier needs at least two"
        )
    index_of = {name: index for index, name in enumerate(classes.names)}
    return classes, np.array([index_of[composed[cell]] for cell in cells], dtype=np.int64)


def refuse_empty(
    cells: Sequence[str], column: str, split_N: np.ndarray | None, where: Callable[[int], str]
) -> None:
    """Refuse rows without a label; a whole split without labels, as in competitions, by name."""
    empty = [row for row, cell in enumerate(cells) if not cell]
    if not empty:
        return
    if split_N is not None:
        splits = set(split_N[empty].tolist())
        split = splits.pop()
        if not splits and split != TRAIN and len(empty) == np.count_nonzero(split_N == split):
            raise UserError(
                f"{where(empty[0])}: no {column}, nor in any other row of split "
                f"{SPLIT_NAMES[split]} ({len(empty)}): unlabelled images can be predicted "
                "(task=predict image=FOLDER), not evaluated; take these rows or files out of the "
                "table"
            )
    raise UserError(
        f"{where(empty[0])}: no {column}; fill it in, or remove the row "
        f"({len(empty)} of {len(cells)} rows lack it)"
    )


def refuse_column_per_class(table: TextTable | ParquetTable, file: Path, path: int) -> None:
    """Refuse a table that has a column of 0 and 1 per class, with the way to a single column."""
    places = [place for place in range(len(table.names)) if place != path]
    places = [place for place in places if not is_flag(table.names[place])]
    places = table.all_pass(places, lambda cell: cell.lower() in (*YES, *NO))
    if len(places) < 2:
        return
    columns = table.columns(places)
    said_N = [sum(cell.lower() in YES for cell in cells) for cells in zip(*columns, strict=True)]
    start = (
        f"dataset.table={file}: has no column label, but the columns "
        f"{list_first((table.names[place] for place in places), 10)} of 0 and 1"
    )
    if 2 * said_N.count(1) < len(said_N):
        return
    if others := sum(said != 1 for said in said_N):
        raise UserError(
            f"{start}; an image has a single label, and {others} of {len(said_N)} rows have "
            "several of these or none; write one label per row into a column label, or set "
            "dataset.label_column= to one of them to tell 0 from 1"
        )
    is_block = places == list(range(places[0], places[-1] + 1))
    block = f"{places[0]}:{places[-1] + 1}" if is_block else str(places)
    raise UserError(
        f"{start}, one per class; write the name of the class into a column label, for example in "
        f"pandas with table['label'] = table.iloc[:, {block}].idxmax(axis=1)"
    )


def label_notes(table: object, names: Sequence[str]) -> tuple[str, ...]:
    """Notes on labels that are perhaps slips; each stays a class of its own."""
    notes = []
    if absent := [name for name in names if name.casefold() in MISSING_VALUES]:
        notes.append(
            f"{table}: {list_first(absent)} is a class here, though programs write it for a missing "
            "label; if so, remove these rows"
        )
    if several := [name for name in names if re.fullmatch(r"\[.*\]|\{.*\}", name)]:
        notes.append(
            f"{table}: labels that look like lists are classes as they are written, since an image "
            f"has a single label: {list_first(several)}"
        )
    numbers = [name for name in names if NUMBER.fullmatch(name)]
    alike = {
        "are equal as numbers": _equal_names(numbers, float),
        "differ only in case, spaces, hyphens or underscores": _equal_names(names, _spelling),
    }
    notes += [
        f"{table}: labels that {what} are classes of their own: {list_first(found)}"
        for what, found in alike.items()
        if found
    ]
    return tuple(notes)


def _equal_names(names: Sequence[str], key: Callable[[str], object]) -> list[str]:
    """The names that share their key with another name, group by group."""
    groups = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return [name for group in groups.values() if len(group) > 1 for name in group]


def _spelling(name: str) -> str:
    composed = unicodedata.normalize("NFKC", name).casefold()
    visible = "".join(sign for sign in composed if unicodedata.category(sign) != "Cf")
    return re.sub(r"[\s_]+|(?<=\w)-+(?=\w)", " ", visible).strip()  # -1 is not 1
