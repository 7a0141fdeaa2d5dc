"""One row per job of a sweep -> its table: on the terminal, as sweep.json and as sweep.html.

Each row is a separate file, written by the process that ran the job, possibly on another machine.
A job without a row has not begun.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fgvc import untrusted
from fgvc.html.formats import duration, relative_link
from fgvc.html.render import render
from fgvc.record import console, privacy
from fgvc.record.run_page import FILE
from fgvc.report import typed_fields
from fgvc.store import atomic, hashing
from fgvc.untrusted.escape import one_line

ROWS = "jobs"
GOOD = ("done", "skipped")
NOT_BEGUN, RUNNING = "not begun", "running"
PLACE_KEYS = ("runtime.", "dataset.root=")
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
        return {state: counts[state] for state in STATES if counts[state]}

    def names(self) -> list[str]:
        """Name of each row: the choices in which the rows differ."""
        choices = [
            [choice for choice in row.choices if not choice.startswith(PLACE_KEYS)]
            for row in self.rows
        ]
        shared = set.intersection(*map(set, choices))
        if len(self.rows) == 1 or all(set(row) == shared for row in choices):
            shared = set()
        return [" ".join(choice for choice in row if choice not in shared) for row in choices]


def write_row(sweep: Path, row: Row) -> None:
    """Write a row of a sweep; it replaces the row of the same choices."""
    atomic.write_json(_row_file(sweep, row.choices), asdict(replace(row, sweep=sweep.name)))


def read_row(sweep: Path, choices: Sequence[str]) -> Row:
    """The row of a job: NOT_BEGUN without a file; failed if its file is damaged, or the row of
    another job or sweep."""
    try:
        stored = untrusted.read_json(_row_file(sweep, choices))
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


def print_sweep(table: SweepTable) -> None:
    """Print the jobs, then one line per error."""
    named_rows = list(zip(table.names(), table.rows, strict=True))
    cells = [[name, row.state, duration(row.seconds)] for name, row in named_rows]
    console.table(f"jobs of {table.run_id}: {_format_counts(table)}", ("job", "", "time"), cells)
    for name, row in named_rows:
        if row.state not in (*GOOD, NOT_BEGUN):
            console.say(f"{row.state}: {name}: {one_line(row.line)}")


def write_sweep(table: SweepTable, target: Path) -> None:
    """Write sweep.json and sweep.html into `target`, each atomically.

    Both may be read on other machines, so they contain no path of this machine.
    """
    hide = privacy.without_user_paths
    table = replace(
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
    named_rows = list(zip(table.names(), table.rows, strict=True))
    plain = {
        "run_id": table.run_id,
        "command": table.command,
        "counts": table.counts,
        "jobs": [{"name": name, **asdict(row)} for name, row in named_rows],
        "left_out": list(table.left_out),
    }
    atomic.write_json(target / "sweep.json", plain)
    lines = []
    for name, row in named_rows:
        page = table.output_root / row.folder / FILE if row.folder else None
        link = relative_link(page, target) if page and page.is_file() else None
        lines.append({"name": name, "row": row, "link": link, "good": row.state in GOOD})
    facts = {
        "table": table,
        "lines": lines,
        "counted": _format_counts(table),
        "baselines": relative_link(table.output_root / "baselines.html", target),
    }
    atomic.write_text(target / "sweep.html", render("sweep.html", facts))


def _format_counts(table: SweepTable) -> str:
    return ", ".join(f"{number} {state}" for state, number in table.counts.items())


def _row_file(sweep: Path, choices: Sequence[str]) -> Path:
    return sweep / ROWS / f"{hashing.sha256_json(list(choices))[:16]}.json"
