"""One row per job of a sweep -> its table, on the terminal; `sweep_page` writes it as a page.

Each row is a separate file, written by the process that ran the job, possibly on another machine.
A job without a row has not begun.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from fgvc import untrusted
from fgvc.html.formats import NONE, duration, interval, percent
from fgvc.record import console
from fgvc.report import typed_fields
from fgvc.report.sweep_axes import Result, axes, own_choices, short_names
from fgvc.store import atomic, hashing
from fgvc.untrusted.escape import one_line

ROWS = "jobs"
GOOD = ("done", "skipped")
NOT_BEGUN, RUNNING = "not begun", "running"
SHORT = 8  # hex digits of a config in a table
STATES = (*GOOD, "failed", "oom", "preempted", NOT_BEGUN)


@dataclass(frozen=True)
class Row:
    """One job. choices: the overrides that distinguish it from other jobs; state: one of STATES,
    or RUNNING.

    line, traceback: the error. seconds: duration of its process. folder: of its run, below the
    output root. sweep: run_id of the sweep; None until the row is written.
    """

    choices: tuple[str, ...]
    state: str
    code: int | None = None
    line: str | None = None
    traceback: str | None = None
    seconds: float | None = None
    started: str | None = None
    config_hash: str | None = None
    folder: str | None = None
    sweep: str | None = None


@dataclass(frozen=True)
class SweepTable:
    """The current state of a sweep. left_out: combinations that are left out, with the reason."""

    run_id: str
    command: str
    rows: tuple[Row, ...]
    left_out: tuple[str, ...]
    output_root: Path

    @property
    def counts(self) -> dict[str, int]:
        counts = Counter(row.state for row in self.rows)
        return {state: counts[state] for state in (*STATES, RUNNING) if counts[state]}

    def count_states(self) -> str:
        """As in "3 done, 1 failed"."""
        return ", ".join(f"{number} {state}" for state, number in self.counts.items())

    def axes(self) -> dict[str, list[str]]:
        """As from `sweep_axes.axes`."""
        return axes([row.choices for row in self.rows])

    def names(self) -> list[str]:
        """Name of each row: the choices in which the rows differ."""
        choices = [own_choices(row.choices) for row in self.rows]
        shared = set.intersection(*map(set, choices))
        if len(self.rows) == 1 or all(set(row) == shared for row in choices):
            shared = set()
        return [" ".join(choice for choice in row if choice not in shared) for row in choices]

    @cached_property
    def results(self) -> tuple[Result | None, ...]:
        """The numbers of each finished job; None for the others."""
        folders = [row.folder if row.state in GOOD else None for row in self.rows]
        return tuple(_read_result(self.output_root / name) if name else None for name in folders)


@functools.lru_cache(maxsize=2000)  # a complete folder does not change
def _read_result(folder: Path) -> Result | None:
    """The numbers of a complete run; None if it has none on test, or they cannot be read."""
    try:
        numbers = untrusted.read_json(folder / "metrics.json")
        test = numbers["test"]
        low, high = test["top1_ci95"]
        key, per_class = str(numbers["comparability_key"]), float(test["mean_per_class"])
        return Result(float(test["top1"]), float(low), float(high), per_class, key)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_row(sweep: Path, row: Row) -> None:
    """Write a row of a sweep; it replaces the row of the same choices."""
    atomic.write_json(row_file(sweep, row.choices), asdict(replace(row, sweep=sweep.name)))


def read_row(sweep: Path, choices: Sequence[str]) -> Row:
    """The row of a job: NOT_BEGUN without a file; failed if its file is damaged, or the row of
    another job or sweep."""
    try:
        stored = untrusted.read_json(row_file(sweep, choices))
        row = Row(**{**stored, "choices": tuple(stored["choices"])})
        typed_fields.check_types(replace(row, traceback=None, line=None))
        if not all(isinstance(text, str | None) for text in (row.line, row.traceback)):
            raise ValueError("no text")
        if (row.choices, row.sweep) != (tuple(choices), sweep.name):
            raise ValueError("of another job or sweep")
        if row.state not in (*STATES, RUNNING):
            raise ValueError("no state of a job")
        return row
    except FileNotFoundError:
        return Row(tuple(choices), NOT_BEGUN)
    except (ValueError, TypeError, KeyError):
        line = "the row of the job is damaged: run the job again"
        return Row(tuple(choices), "failed", line=line)


def print_sweep(table: SweepTable, width: int | None = None) -> None:
    """Print the jobs with their axes and top-1, then one line per error.

    Args:
        width: columns of the terminal; a wider one shows more. None: of this terminal.
    """
    title = f"jobs of {table.run_id}: {table.count_states()}"
    columns = _columns(table, width or console.width())
    rows = list(zip(*columns.values(), strict=True))
    console.table(title, [*columns], rows, left=len(table.axes()) + ("job" in columns))
    for name, row in zip(table.names(), table.rows, strict=True):
        if row.state not in (*GOOD, NOT_BEGUN):
            console.say(f"{row.state}: {name}: {one_line(row.line)}")


def _columns(table: SweepTable, width: int) -> dict[str, list[str]]:
    """header -> cells: all that the width has room for, at least axes, top-1, state and time."""
    rows, results = table.rows, table.results
    names, axes = short_names([*table.axes()]), table.axes()
    job = {"job": [str(number) for number in range(1, len(rows) + 1)]}
    # names of several words are on two lines, because the values are narrower
    left = {name.replace("_", "\n", 1): axes[key] for key, name in names.items()}
    state = {"": [row.state for row in rows], "time": [duration(row.seconds) for row in rows]}
    top1 = {"top-1": [percent(result and result.top1) for result in results]}
    intervals = [NONE if result is None else with_interval(result) for result in results]
    full = {"top-1 [95 %]": intervals}
    per_class = {"per class": [percent(result and result.mean_per_class) for result in results]}
    config = {"config": [(row.config_hash or NONE)[:SHORT] for row in rows]}
    for columns in (
        {**job, **left, **full, **per_class, **state, **config},
        {**job, **left, **full, **per_class, **state},
        {**job, **left, **full, **state},
        {**left, **full, **state},
    ):
        if _table_width(columns) <= width:
            return columns
    return {**left, **top1, **state} if left else {**job, **top1, **state}


def with_interval(result: Result) -> str:
    return interval({"top1": result.top1, "top1_ci95": (result.low, result.high)})


def _table_width(columns: Mapping[str, Sequence[str]]) -> int:
    """The width of a table in which no cell is on two lines."""
    widths = (max(map(len, [*name.split("\n"), *cells])) for name, cells in columns.items())
    return sum(width + 3 for width in widths) + 1


def row_file(sweep: Path, choices: Sequence[str]) -> Path:
    """The file of a job's row in the folder of its sweep."""
    return sweep / ROWS / f"{hashing.sha256_json(list(choices))[:16]}.json"
