"""Rows of many classes -> lists by super-category, which a page folds and a reader searches.

The bound: at most MAX_ROWS rows, and at most MAX_CHARACTERS characters of class names and cells; a
row has 70 bytes of markup. Thus 6,000 classes take at most 1.5 MB of a page.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter

MAX_ROWS, MAX_CHARACTERS = 6_000, 1_000_000
LISTED_FROM = 41  # classes; fewer fit the confusion matrix of a page


@dataclass(frozen=True)
class ClassRow:
    """A class. group: its super-category, or "". counts: what a summary adds up. cells: texts."""

    group: str
    counts: tuple[int, ...]
    cells: tuple[str, ...]


@dataclass(frozen=True)
class ClassList:
    """name: of the super-category. summary: its numbers, of all its classes. rows: those shown."""

    name: str
    summary: str
    rows: tuple[ClassRow, ...]


@dataclass(frozen=True)
class ClassLists:
    """headings: of the columns. shown: number of rows in the lists. total: number of classes."""

    headings: tuple[str, ...]
    lists: tuple[ClassList, ...]
    shown: int
    total: int


def class_lists(
    headings: tuple[str, ...],
    rows: Sequence[ClassRow],
    summarize: Callable[[Sequence[ClassRow]], tuple[float, str]],
) -> ClassLists:
    """One list per super-category, or one for all classes.

    Args:
        rows: the most important class first; rows beyond the bound are only in the summaries.
        summarize: all rows of a list -> its place among the lists, ascending, and its summary.
    """
    shown = _count_bounded(rows)
    lists = []
    for name in {row.group for row in rows}:
        place, summary = summarize([row for row in rows if row.group == name])
        listed = tuple(row for row in rows[:shown] if row.group == name)
        lists.append((place, name, ClassList(name, summary, listed)))
    ordered = tuple(of_group for _, _, of_group in sorted(lists, key=itemgetter(0, 1)))
    return ClassLists(headings, ordered, shown, len(rows))


def _count_bounded(rows: Sequence[ClassRow]) -> int:
    """The number of first rows that are within the bound."""
    characters = itertools.accumulate(sum(map(len, row.cells)) for row in rows[:MAX_ROWS])
    return sum(total <= MAX_CHARACTERS for total in characters)
