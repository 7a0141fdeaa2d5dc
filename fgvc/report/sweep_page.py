"""The table of a sweep -> sweep.json, and sweep.html: its jobs, and a pivot of two axes.

While the sweep runs, the page reloads itself. A sweep that is killed cannot change its page, so the
page says when it was written, and how often it would be written if the sweep still ran.
"""

from __future__ import annotations

import datetime
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType

from fgvc.html.formats import percent, relative_link
from fgvc.html.render import render
from fgvc.record import privacy
from fgvc.record.run_page import FILE
from fgvc.report import sweep_axes
from fgvc.report.ranking import Group
from fgvc.report.sweep_axes import Cell, Pivot, short_names
from fgvc.report.sweep_table import GOOD, NOT_BEGUN, RUNNING, Row, SweepTable
from fgvc.report.terminal_table import describe_test
from fgvc.store import atomic

PAGE, DATA = "sweep.html", "sweep.json"
HEARTBEAT = 30.0  # seconds after which a running sweep writes its page again
STALE = 120  # seconds after which a page that was not written again is of a dead sweep
RELOAD = 5  # seconds between two reloads


@dataclass(frozen=True)
class Running:
    """A sweep that runs: when the page is written, and the time left in words."""

    written: datetime.datetime
    left: str


def write_data(table: SweepTable, target: Path) -> None:
    """Write sweep.json into `target`, atomically.

    It may be read on other machines, so it contains no path of this machine; so does the page.
    """
    table = without_user_paths(table)
    axes, results = table.axes(), table.results
    jobs = [
        {
            "name": name,
            "axes": {key: values[index] for key, values in axes.items()},
            "top1": result and result.top1,
            "top1_ci95": result and [result.low, result.high],
            **asdict(row),
        }
        for index, (name, row, result) in enumerate(
            zip(table.names(), table.rows, results, strict=True)
        )
    ]
    plain = {
        "run_id": table.run_id,
        "command": table.command,
        "counts": table.counts,
        "jobs": jobs,
        "left_out": list(table.left_out),
    }
    atomic.write_json(target / DATA, plain)


def against_best(groups: Iterable[Group]) -> dict[str, tuple[float, str]]:
    """By folder of a run below the output root: points from the best line of its group, and words.

    Runs of a group of one line are left out.
    """
    words = {}
    for entry in (entry for group in groups if len(group.entries) > 1 for entry in group.entries):
        test = entry.versus
        text = (0.0, "best") if test is None else (100 * test.value, describe_test(test))
        words |= {"/".join(run.path.parts[-3:]): text for run in entry.line.runs}
    return words


def write_page(
    table: SweepTable,
    target: Path,
    running: Running | None = None,
    verdicts: Mapping[str, tuple[float, str]] = MappingProxyType({}),
) -> None:
    """Write sweep.html into `target`, atomically.

    Args:
        running: None: the sweep has ended.
        verdicts: of `against_best`.
    """
    table = without_user_paths(table)
    axes, results = table.axes(), table.results
    lines = []
    for index, (row, result) in enumerate(zip(table.rows, results, strict=True)):
        page = table.output_root / row.folder / FILE if row.folder else None
        link = relative_link(page, target) if page and page.is_file() else None
        values = [column[index] for column in axes.values()]
        verdict = verdicts.get(row.folder or "")
        line = {"values": values, "row": row, "link": link, "result": result, "verdict": verdict}
        lines.append(line)
    every_run = table.output_root / "baselines.html"
    pivot = sweep_axes.pivot(axes, results) if any(results) else None
    facts = {
        "table": table,
        "lines": lines,
        "errors": group_errors(
            (number, row.line, row.traceback)
            for number, row in enumerate(table.rows, 1)
            if row.line is not None
        ),
        "axes": short_names([*axes]),
        "kind": _kind,
        "pivot": pivot,
        "shades": _shades(pivot),
        "several": _describe_several,
        "running": running,
        "has_verdicts": any(line["verdict"] for line in lines),
        "reload": RELOAD,
        "stale": STALE,
        "heartbeat": round(HEARTBEAT),
        "baselines": relative_link(every_run, target) if every_run.is_file() else None,
    }
    atomic.write_text(target / PAGE, render(PAGE, facts))


def group_errors(
    errors: Iterable[tuple[int, str, str | None]],
) -> dict[tuple[str, str | None], list[int]]:
    """(number of a job, message, traceback) -> the numbers per message and traceback."""
    numbers: dict[tuple[str, str | None], list[int]] = {}
    for number, message, traceback in errors:
        numbers.setdefault((message, traceback), []).append(number)
    return numbers


def without_user_paths(table: SweepTable) -> SweepTable:
    """The table without paths and names of this machine's user."""
    hide = functools.cache(privacy.without_user_paths)  # jobs share most of their overrides
    return replace(
        table,
        command=privacy.portable_command(table.command),
        rows=tuple(
            replace(
                row,
                choices=tuple(map(hide, row.choices)),
                line=row.line and hide(row.line),
                traceback=row.traceback and hide(row.traceback),
            )
            for row in table.rows
        ),
        left_out=tuple(map(hide, table.left_out)),
    )


def _kind(row: Row) -> str:
    """The class of the mark of a state."""
    if row.state in (NOT_BEGUN, RUNNING):
        return ""
    return "good" if row.state in GOOD else "warn"


def _describe_several(cell: Cell) -> str:
    """The number of jobs of a cell, and their range; empty for one job."""
    top1s = [result.top1 for result in cell.results]
    if len(top1s) < 2:
        return ""
    if cell.mean is None:
        return f"{len(top1s)} jobs that do not compare"
    return f"{len(top1s)} jobs, {percent(min(top1s))} to {percent(max(top1s))}"


def _shades(pivot: Pivot | None) -> Sequence[Sequence[float]]:
    """The opacity of the colour of each cell: 0 for the lowest mean of those that compare."""
    rows = () if pivot is None else pivot.cells
    means: dict[str, list[float]] = {}
    for cell in (cell for row in rows for cell in row):
        if cell.mean is not None:
            means.setdefault(cell.results[0].key, []).append(cell.mean)
    return [[_shade(cell, means) for cell in row] for row in rows]


def _shade(cell: Cell, means: Mapping[str, Sequence[float]]) -> float:
    if cell.mean is None:
        return 0.0
    others = means[cell.results[0].key]
    span = (max(others) - min(others)) or math.inf
    return round(0.4 * (cell.mean - min(others)) / span, 3)
