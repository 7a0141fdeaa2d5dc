"""Costs of the jobs of a sweep -> one line per value of each varying key, with counts and sums."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

MAX_ROWS = 24  # of all keys together; a key with many values is cut
MIN_ROWS = 3  # of a key
HEAD = ("jobs", "images", "time", "disk")
WIDTHS = (6, 12, 12, 8)  # of these columns, with the space before each
LONGEST_KEY = 18


@dataclass(frozen=True)
class GroupRow:
    """The jobs of some values of a key, which cost the same. cells: as in HEAD, of each value."""

    values: Sequence[str]
    cells: tuple[str, ...]


def format_groups(groups: Mapping[str, Sequence[GroupRow]], width: int) -> Iterator[str]:
    """A table in `width` columns.

    Args:
        groups: the rows of each key; values with equal cells stand together.
    """
    numbers = _aligned(HEAD)
    indent = 2 + max(4, *(min(len(key), LONGEST_KEY) for key in groups)) + 1
    room = width - indent - len(numbers)
    yield f"  {'each value':<{indent - 2 + room}}{numbers}"
    most = max(MIN_ROWS, MAX_ROWS // len(groups))
    for key, rows in groups.items():
        head = f"  {key}"
        if len(head) >= indent:
            yield head
            head = ""
        for row in rows[:most]:
            numbers = _aligned(row.cells)
            first, *more = textwrap.wrap(_listed(row.values), room - 1) or [""]
            yield f"{head:<{indent}}{first:<{room}}{numbers}"
            yield from (f"{'':<{indent}}{line}" for line in more)
            head = ""
        if len(rows) > most:
            yield f"{'':<{indent}}and {sum(len(row.values) for row in rows[most:])} more values"


def _aligned(cells: Sequence[str]) -> str:
    return "".join(f"{cell:>{size}}" for cell, size in zip(cells, WIDTHS, strict=True))


def merge_equal(cells: Mapping[str, tuple[str, ...]]) -> list[GroupRow]:
    """The values of a key with their cells; values with equal cells share a row."""
    values: dict[tuple[str, ...], list[str]] = {}
    for value, row in cells.items():
        values.setdefault(row, []).append(value)
    return [GroupRow(names, row) for row, names in values.items()]


def _listed(values: Sequence[str]) -> str:
    """The values, cut after the first five: first, second, … last."""
    if len(values) > 6:
        return f"{', '.join(values[:5])}, … {values[-1]} ({len(values)} values)"
    return ", ".join(values)
