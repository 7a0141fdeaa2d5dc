"""Names of a table's columns -> which of them hold the path and the label.

Exact names come first, then the usual ones of other libraries in any case, spaces and underscores
aside. Two usual names of one rank are refused: the user chooses. splits.py chooses the split.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fgvc.data.index import list_first, repeated
from fgvc.types import UserError
from fgvc.untrusted.shell import setting


@dataclass(frozen=True)
class Keys:
    """dataset.path_column, dataset.label_column, dataset.split_column; None: by usual names."""

    path: str | None = None
    label: str | None = None
    split: str | None = None


# each line is a rank, the best first; a plural counts as well
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
    """A column's name without case, spaces, underscores and punctuation."""
    return re.sub(r"[\W_]+", "", name.casefold())


def rank_of(name: str, ranks: Sequence[Sequence[str]]) -> int | None:
    """Place of the rank that lists a name or its singular; None where no rank does."""
    return next((place for place, words in enumerate(ranks) if _matching_form(name, words)), None)


def _matching_form(name: str, words: Sequence[str]) -> str | None:
    """The form of a name, as it is or singular, that is among the words."""
    plain = plain_name(name)
    return next((form for form in (plain, plain.removesuffix("s")) if form in words), None)


def refuse_repeated(table: object, names: Sequence[str]) -> None:
    """Refuse a name that two columns have: which of them is read would be a guess."""
    if twice := repeated([name for name in names if name]):
        raise UserError(
            f"dataset.table={table}: several columns are called {list_first(twice)}; rename them"
        )


def find_column(table: object, names: Sequence[str], role: str, key: str) -> int:
    """Place of the column that dataset.ROLE_column names, in any case if need be.

    Raises:
        UserError: no such column.
    """
    if key in names:
        return names.index(key)
    alike = [place for place, name in enumerate(names) if plain_name(name) == plain_name(key)]
    if len(alike) == 1:
        return alike[0]
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
    """Place of the best column for a role among those allowed; None where no name is usual.

    Raises:
        UserError: two columns of the best rank.
    """
    ranked = [
        (rank, place)
        for place, name in enumerate(names)
        if (rank := rank_of(name, ranks)) is not None and allowed(place)
    ]
    best = [place for rank, place in ranked if rank == min(ranked)[0]]
    if len(best) > 1:  # the likeliest first: species before the class Aves
        words = ranks[min(ranked)[0]]
        best.sort(key=lambda place: words.index(_matching_form(names[place], words) or ""))
        refuse_several(table, role, [names[place] for place in best])
    return best[0] if best else None


def refuse_several(table: object, role: str, names: Sequence[str]) -> None:
    """Refuse to guess which of several columns is meant."""
    raise UserError(
        f"dataset.table={table}: columns {' and '.join(names)} could each be the {role}; "
        f"set {setting(f'dataset.{role}_column', names[0])}, or another of them"
    )


def refuse_missing(table: object, names: Sequence[str], missing: Sequence[str]) -> None:
    """Refuse a table without a path or a label, with the columns that it has."""
    if len(names) == 1:
        raise UserError(
            f"dataset.table={table}: the first line has a single column ({names[0]!r}); columns "
            "are separated by comma, tab, semicolon or |, and the first line names them: path,label"
        )
    keys = " and ".join(f"dataset.{role}_column=" for role in missing)
    raise UserError(
        f"dataset.table={table}: has no column {list_first(missing)}, only "
        f"{list_first(names, 20) or 'an empty line'}; set {keys} to the right one of these, or write a "
        "first line with the names of the columns"
    )
