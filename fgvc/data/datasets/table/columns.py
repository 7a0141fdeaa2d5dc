"""Column names of a table -> the columns of path and label.

Exact names come first, then common names of other libraries, ignoring case, spaces and underscores.
Two common names of the same rank are refused, and the user chooses. See split_column for the split.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from fgvc.data.index import list_first, repeated
from fgvc.types import UserError
from fgvc.untrusted.shell import setting


@dataclass(frozen=True)
class Keys:
    """dataset.path_column, dataset.label_column, dataset.split_column; None: by common names."""

    path: str | None = None
    label: str | None = None
    split: str | None = None


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


def plain_name(name: str) -> str:
    """A column name in lower case, without spaces, underscores and punctuation."""
    return re.sub(r"[\W_]+", "", name.casefold())


def rank_of(name: str, ranks: Sequence[Sequence[str]]) -> int | None:
    """Index of the rank that lists a name or its singular; None if no rank does."""
    return next((column for column, words in enumerate(ranks) if _matching_form(name, words)), None)


def _matching_form(name: str, words: Sequence[str]) -> str | None:
    """The name or its singular, whichever is among the words."""
    plain = plain_name(name)
    return next((form for form in (plain, plain.removesuffix("s")) if form in words), None)


def check_unique_names(table: object, names: Sequence[str]) -> None:
    """Raise if two columns have the same name."""
    if duplicates := repeated([name for name in names if name]):
        raise UserError(
            f"dataset.table={table}: several columns are called {list_first(duplicates)}; "
            "rename them"
        )


def find_column(table: object, names: Sequence[str], role: str, key: str) -> int:
    """Index of the column that dataset.ROLE_column names, ignoring case if necessary.

    Raises:
        UserError: no such column.
    """
    if key in names:
        return names.index(key)
    similar = [column for column, name in enumerate(names) if plain_name(name) == plain_name(key)]
    if len(similar) == 1:
        return similar[0]
    raise UserError(
        f"dataset.{role}_column={key}: {table} has no such column, only {list_first(names, 20)}"
    )


def choose(
    table: object,
    names: Sequence[str],
    role: str,
    ranks: Sequence[Sequence[str]],
    allowed: Callable[[int], bool],
) -> int | None:
    """Index of the best allowed column for a role; None if no name is common.

    Raises:
        UserError: two columns of the best rank.
    """
    ranked = [
        (rank, column)
        for column, name in enumerate(names)
        if (rank := rank_of(name, ranks)) is not None and allowed(column)
    ]
    best = [column for rank, column in ranked if rank == min(ranked)[0]]
    if len(best) > 1:  # the most likely first: species before class (Aves)
        words = ranks[min(ranked)[0]]
        best.sort(key=lambda column: words.index(_matching_form(names[column], words) or ""))
        raise_ambiguous(table, role, [names[column] for column in best])
    return best[0] if best else None


def raise_ambiguous(table: object, role: str, names: Sequence[str]) -> NoReturn:
    """Raise because several columns could be meant."""
    raise UserError(
        f"dataset.table={table}: columns {' and '.join(names)} could each be the {role}; "
        f"set {setting(f'dataset.{role}_column', names[0])}, or another of them"
    )


def raise_missing(table: object, names: Sequence[str], missing: Sequence[str]) -> NoReturn:
    """Raise because a table has no path or label column; list its columns."""
    if len(names) == 1:
        raise UserError(
            f"dataset.table={table}: the first line has a single column ({names[0]!r}); columns "
            "are separated by comma, tab, semicolon or |, and the first line names them: path,label"
        )
    keys = " and ".join(f"dataset.{role}_column=" for role in missing)
    columns = list_first(names, 20) or "an empty line"
    raise UserError(
        f"dataset.table={table}: has no column {list_first(missing)}, only {columns}; set {keys} "
        "to the right column, or add a first line with the column names"
    )
