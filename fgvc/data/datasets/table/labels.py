"""Label cells of a table -> label map, labels of the rows, and notes on suspicious labels.

N rows.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from fgvc.data.datasets.table.columns import DatasetTable
from fgvc.data.datasets.table.split_column import YES, is_flag, is_yes_or_no
from fgvc.data.index import list_first
from fgvc.data.labelmap import from_names
from fgvc.data.split import SPLIT_NAMES
from fgvc.types import TRAIN, LabelMap, UserError, nfc

# what programs write for a missing value
MISSING_VALUES = (
    *("nan", "none", "null", "na", "n/a", "<na>", "#n/a", "nat", "nil", "undefined", "-", "?"),
)
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def read_labels(table: object, cells: Sequence[str]) -> tuple[LabelMap, np.ndarray]:
    """Number the classes in the order of their names; UserError: a single class."""
    classes, label_N = from_names([nfc(cell) for cell in cells])
    if len(classes) == 1:
        raise UserError(
            f"dataset.table={table}: holds a single class ({classes.names[0]}); "
            "a classifier needs at least two"
        )
    return classes, label_N


def check_not_empty(
    cells: Sequence[str], column: str, split_N: np.ndarray | None, where: Callable[[int], str]
) -> None:
    """Raise for rows without a value, naming a split that has no labels at all (competitions)."""
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


def check_column_per_class(table: DatasetTable, path: int) -> None:
    """Raise for a table with a 0/1 column per class, and describe how to get a label column."""
    others = [
        column for column, name in enumerate(table.names) if column != path and not is_flag(name)
    ]
    class_columns = table.all_pass(others, is_yes_or_no)
    rows = zip(*map(table.cells, class_columns), strict=True)
    yes_count_N = [sum(cell.lower() in YES for cell in cells) for cells in rows]
    if len(class_columns) < 2 or 2 * yes_count_N.count(1) < len(yes_count_N):
        return
    names = list_first((table.names[column] for column in class_columns), 10)
    start = f"dataset.table={table.file}: has no column label, but the columns {names} of 0 and 1"
    if unclear_rows := sum(yes_count != 1 for yes_count in yes_count_N):
        raise UserError(
            f"{start}; an image has a single label, and {unclear_rows} of {len(yes_count_N)} rows "
            "have several of these or none; write one label per row into a column label, or set "
            "dataset.label_column= to one of them to classify 0 against 1"
        )
    is_block = class_columns == list(range(class_columns[0], class_columns[-1] + 1))
    block = f"{class_columns[0]}:{class_columns[-1] + 1}" if is_block else str(class_columns)
    raise UserError(
        f"{start}, one per class; write the name of the class into a column label, for example in "
        f"pandas with table['label'] = table.iloc[:, {block}].idxmax(axis=1)"
    )


def label_notes(table: object, names: Sequence[str]) -> tuple[str, ...]:
    """Notes on labels that may be mistakes; each stays a separate class."""
    notes = []
    if absent := [name for name in names if name.casefold() in MISSING_VALUES]:
        notes.append(
            f"{table}: {list_first(absent)} is a class here, though programs write it for a "
            "missing label; if so, remove these rows"
        )
    if lists := [name for name in names if re.fullmatch(r"\[.*\]|\{.*\}", name)]:
        notes.append(
            f"{table}: labels that look like lists are single classes, because an image has one "
            f"label: {list_first(lists)}"
        )
    numbers = [name for name in names if NUMBER.fullmatch(name)]
    for what, candidates, key in (
        ("are equal as numbers", numbers, float),
        ("differ only in case, spaces, hyphens or underscores", names, _spelling),
    ):
        groups: dict[object, list[str]] = defaultdict(list)
        for name in candidates:
            groups[key(name)].append(name)
        if same := [name for group in groups.values() if len(group) > 1 for name in group]:
            notes.append(f"{table}: labels that {what} are separate classes: {list_first(same)}")
    return tuple(notes)


def _spelling(name: str) -> str:
    composed = unicodedata.normalize("NFKC", name).casefold()
    visible = "".join(sign for sign in composed if unicodedata.category(sign) != "Cf")
    return re.sub(r"[\s_]+|(?<=\w)-+(?=\w)", " ", visible).strip()  # -1 is not 1
