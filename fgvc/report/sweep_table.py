"""One row per job of a sweep -> its table: on the terminal, as sweep.json and as sweep.html.

Each row is a file of its own, written by the process that ran the job, possibly on another machine.
A job without a row has not begun.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import quote

from fgvc import untrusted
from fgvc.html.formats import duration
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
    """The row of a job: NOT_BEGUN without a file, failed with a damaged file."""
    try:
        stored = untrusted.read_json(_row_file(sweep, choices))
        row = Row(**{**stored, "choices": tuple(stored["choices"])})
        _check_row(row, sweep, choices)
    except FileNotFoundError:
        return Row(tuple(choices), NOT_BEGUN)
    except (ValueError, TypeError, KeyError):
        return Row(
            tuple(choices), "failed", line="the row of the job is damaged: run the job again"
        )
    return row


def _check_row(row: Row, sweep: Path, choices: Sequence[str]) -> None:
    """Raise ValueError unless the row has the declared types and belongs to this job and sweep."""
    typed_fields.check_types(replace(row, traceback=None, line=None))
    if not all(isinstance(text, str | None) for text in (row.line, row.traceback)):
        raise ValueError("no text")
    if row.choices != tuple(choices) or row.state not in (*STATES, RUNNING):
        raise ValueError("of another job")
    if row.sweep != sweep.name:
        raise ValueError("of another sweep")


def print_sweep(table: SweepTable) -> None:
    """Print the jobs, then one line per error."""
    names = table.names()
    rows = [
        [name, row.state, duration(row.seconds)]
        for name, row in zip(names, table.rows, strict=True)
    ]
    console.table(f"jobs of {table.run_id}: {_format_counts(table)}", ("job", "", "time"), rows)
    for name, row in zip(names, table.rows, strict=True):
        if row.state not in (*GOOD, NOT_BEGUN):
            console.say(f"{row.state}: {name}: {one_line(row.line)}")


def write_sweep(table: SweepTable, target: Path) -> None:
    """Write sweep.json and sweep.html into `target`, each atomically.

    Both may be read on other machines, so they contain no path of this machine.
    """
    table = replace(
        table,
        command=privacy.portable_command(table.command),
        rows=tuple(_without_places(row) for row in table.rows),
        left_out=tuple(map(privacy.without_user_paths, table.left_out)),
    )
    plain = {
        "run_id": table.run_id,
        "command": table.command,
        "counts": table.counts,
        "jobs": [
            {"name": name, **asdict(row)}
            for name, row in zip(table.names(), table.rows, strict=True)
        ],
        "left_out": list(table.left_out),
    }
    atomic.write_json(target / "sweep.json", plain)
    facts = {
        "table": table,
        "lines": list(_job_lines(table, target)),
        "counted": _format_counts(table),
        "baselines": _link(table.output_root / "baselines.html", target),
    }
    atomic.write_text(target / "sweep.html", render("sweep.html", facts))


def _without_places(row: Row) -> Row:
    texts = {"line": row.line, "traceback": row.traceback}
    shown = {key: text and privacy.without_user_paths(text) for key, text in texts.items()}
    return replace(row, choices=tuple(map(privacy.without_user_paths, row.choices)), **shown)


def _job_lines(table: SweepTable, target: Path) -> Iterator[Mapping[str, object]]:
    for name, row in zip(table.names(), table.rows, strict=True):
        page = table.output_root / row.folder / FILE if row.folder else None
        link = _link(page, target) if page and page.is_file() else None
        yield {"name": name, "row": row, "link": link, "good": row.state in GOOD}


def _link(file: Path, target: Path) -> str:
    return quote(os.path.relpath(file, target))


def _format_counts(table: SweepTable) -> str:
    return ", ".join(f"{number} {state}" for state, number in table.counts.items())


def _row_file(sweep: Path, choices: Sequence[str]) -> Path:
    name = hashing.sha256_bytes(hashing.canonical_json(list(choices)))
    return sweep / ROWS / f"{name[:16]}.json"
