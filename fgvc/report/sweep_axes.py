"""Rows of a sweep -> the keys in which they differ, the value of each, and a pivot of two of them.

A pivot shows the mean top-1 of the jobs of a cell, if their numbers compare with each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

PLACE_KEYS = ("runtime.", "dataset.root=")
ABSENT = "–"  # a job whose options do not have the key
DATASET, SEED = "dataset", "seed"


@dataclass(frozen=True)
class Result:
    """The number of a finished job: top-1 on test with its 95 % interval, as fractions.

    key: comparability key; numbers with different keys do not compare.
    """

    top1: float
    low: float
    high: float
    mean_per_class: float
    key: str


@dataclass(frozen=True)
class Cell:
    """The finished jobs of a cell of a pivot. mean: None if their numbers do not compare."""

    mean: float | None
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Pivot:
    """rows, columns: the names of two axes with their values; cells: by row and column."""

    rows: tuple[str, tuple[str, ...]]
    columns: tuple[str, tuple[str, ...]]
    cells: tuple[tuple[Cell, ...], ...]


def own_choices(choices: Iterable[str]) -> list[str]:
    """The overrides of a job without places."""
    return [choice for choice in choices if not choice.startswith(PLACE_KEYS)]


def axes(jobs: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """key -> its value in each job, for the keys in which jobs differ, in the order of the command.

    Args:
        jobs: the overrides of each job.
    """
    settings = [_values(job) for job in jobs]
    keys = dict.fromkeys(key for values in settings for key in values)
    table = {key: [values.get(key, ABSENT) for values in settings] for key in keys}
    return {key: values for key, values in table.items() if len(set(values)) > 1}


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each key, or the whole key where another key ends in the same part."""
    tails = [key.rpartition(".")[2] for key in keys]
    pairs = zip(keys, tails, strict=True)
    return {key: tail if tails.count(tail) == 1 else key for key, tail in pairs}


def pivot(
    table: Mapping[str, Sequence[str]], results: Sequence[Result | None], keys: Sequence[str] = ()
) -> Pivot | None:
    """A table of two axes; None for a sweep of fewer axes.

    Args:
        table: as from `axes`. results: of each job.
        keys: the axes of rows and columns. Otherwise the two with most values: the longer one in
            rows, datasets before other axes, seeds last.
    """
    if not keys:
        order = sorted(table, key=lambda key: (key != DATASET, key == SEED, -len({*table[key]})))
        keys = sorted(order[:2], key=lambda key: -len({*table[key]}))
    if len(keys) < 2:
        return None
    down, across = (tuple(dict.fromkeys(table[key])) for key in keys)
    cells: dict[tuple[str, str], list[Result]] = {}
    for row, column, result in zip(table[keys[0]], table[keys[1]], results, strict=True):
        if result is not None:
            cells.setdefault((row, column), []).append(result)
    rows = tuple(tuple(_cell(cells.get((row, column), [])) for column in across) for row in down)
    return Pivot((keys[0], down), (keys[1], across), rows)


def _values(job: Sequence[str]) -> dict[str, str]:
    pairs = (choice.partition("=") for choice in own_choices(job))
    return {key: _unquoted(value) for key, _, value in pairs}


def _unquoted(value: str) -> str:
    """A value without the quotes of Hydra, where it reads the same."""
    inside = value[1:-1]
    quotes = len(value) > 2 and value[0] == value[-1] and value[0] in "\"'"
    return inside if quotes and value[0] not in inside and "\\" not in inside else value


def _cell(results: Sequence[Result]) -> Cell:
    comparable = len({result.key for result in results}) == 1
    mean = sum(result.top1 for result in results) / len(results) if comparable else None
    return Cell(mean, tuple(results))
