"""Column names of a table -> the columns of path and label.

Exact names come first, then common names of other libraries, ignoring case, spaces and underscores.
Two common names of the same rank are refused, and the user chooses. See split_column for the split.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from fgvc.data.index import list_first
from fgvc.data.split_names import plain_name
from fgvc.types import UserError
from fgvc.untrusted.shell import setting


class DatasetTable(ABC):
    """The rows of a table as text. file: dataset.table. names: names of the columns."""

    file: Path
    names: list[str]

    @abstractmethod
    def cells(self, column: int) -> Iterator[str]:
        """The stripped cells of a column; "" for an empty or a missing cell."""

    @abstractmethod
    def where(self, row: int) -> str:
        """File and line or row number of a row, for a message."""

    def holds_text(self, column: int) -> bool:
        return True

    def holds_numbers(self, column: int) -> bool:
        """Whether a column holds text or numbers."""
        return True

    def first(self, column: int) -> str:
        """The text of the first row; "" if there is none."""
        return next(self.cells(column), "") if self.holds_text(column) else ""

    def all_pass(self, columns: Sequence[int], test: Callable[[str], bool]) -> list[int]:
        """The columns that have non-empty cells, all of which pass a test."""
        passed = []
        for column in filter(self.holds_numbers, columns):
            filled = 0
            for cell in self.cells(column):
                if cell and not test(cell):
                    break
                filled += bool(cell)
            else:
                passed += [column] if filled else []
        return passed


# one tuple per rank, the best first; plurals count as well
PATH_NAMES = (
    ("path",),
    (
        *("filepath", "imagepath", "imgpath", "impath", "picturepath", "photopath", "fullpath"),
        *("relativepath", "relpath", "relativeimpath", "relativeimagepath", "imagefilepath"),
    ),
    (
        *("filename", "imagefilename", "imgfilename", "file", "imagefile", "imgfile", "imagename"),
        *("imgname", "picturename", "photoname", "fname"),
    ),
    ("image", "img", "picture", "photo", "pic"),
    ("id", "imageid", "imgid", "photoid", "pictureid", "idcode", "imageindex"),
    ("name",),
    ("url", "imageurl", "imgurl", "photourl", "uri", "imageuri", "link"),
)
LABEL_NAMES = (
    ("label",),
    (
        *("labelname", "classname", "categoryname", "speciesname", "breedname", "targetname"),
        *("classlabel", "labeltext", "labelstr"),
    ),
    ("species", "breed", "class", "category", "categories", "target", "y", "cls"),
    (
        *("labelid", "classid", "categoryid", "speciesid", "breedid", "targetid", "labelindex"),
        *("classindex", "labelidx", "classidx", "labelencoded", "classnumber"),
    ),
    ("finelabel", "coarselabel", "diagnosis", "dx", "emotion", "choice", "landmarkid"),
)


def rank_of(name: str, ranks: Sequence[Sequence[str]]) -> tuple[int, int] | None:
    """The rank that lists a name or its singular, and its place there; None if no rank does."""
    plain = plain_name(name)
    for rank, words in enumerate(ranks):
        for form in (plain, plain.removesuffix("s")):
            if form in words:
                return rank, words.index(form)
    return None


def find_column(table: DatasetTable, role: str, key: str) -> int:
    """Index of the column that dataset.ROLE_column names, in any case; UserError: there is none."""
    if key in table.names:
        return table.names.index(key)
    plain = list(map(plain_name, table.names))
    if plain.count(plain_name(key)) == 1:
        return plain.index(plain_name(key))
    raise UserError(
        f"dataset.{role}_column={key}: {table.file} has no such column, only "
        f"{list_first(table.names, 20)}"
    )


def choose(
    table: DatasetTable, role: str, ranks: Sequence[Sequence[str]], allowed: Container[int]
) -> int | None:
    """The best allowed column, None if no name is common; UserError: two columns of that rank."""
    ranked = sorted(  # within a rank, the most likely first: species before class (Aves)
        (place, column)
        for column, name in enumerate(table.names)
        if (place := rank_of(name, ranks)) is not None and column in allowed
    )
    best = [column for (rank, _), column in ranked if rank == ranked[0][0][0]]
    if len(best) > 1:
        raise_ambiguous(table, role, best)
    return best[0] if best else None


def raise_ambiguous(table: DatasetTable, role: str, columns: Sequence[int]) -> NoReturn:
    """Raise because several columns could be meant."""
    names = [table.names[column] for column in columns]
    raise UserError(
        f"dataset.table={table.file}: columns {' and '.join(names)} could each be the {role}; "
        f"set {setting(f'dataset.{role}_column', names[0])}, or another of them"
    )


def raise_missing(table: DatasetTable, missing: Sequence[str]) -> NoReturn:
    """Raise because a table has no path or label column; list its columns."""
    start = f"dataset.table={table.file}:"
    if len(table.names) == 1:
        raise UserError(
            f"{start} the first line has a single column ({table.names[0]!r}); columns are "
            "separated by comma, tab, semicolon or |, and the first line names them: path,label"
        )
    keys = " and ".join(f"dataset.{role}_column=" for role in missing)
    columns = list_first(table.names, 20) or "an empty line"
    raise UserError(
        f"{start} has no column {list_first(missing)}, only {columns}; set {keys} "
        "to the right column, or add a first line with the column names"
    )
