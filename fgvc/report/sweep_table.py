"""The rows of a sweep's jobs -> its table: on the terminal, as sweep.json and as sweep.html.

A row is a file of its own, so that it is written by whatever process ran the job, on whatever
machine; a job without one has not begun.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import quote

from fgvc import untrusted
from fgvc.record import console, privacy
from fgvc.record.page import FILE
from fgvc.record.page.render import duration, render
from fgvc.report import typed_fields
from fgvc.store import atomic, hashing
from fgvc.untrusted.escape import one_line

HOME = "fgvc.report.page"
ROWS = "jobs"
GOOD = ("done", "skipped")
NOT_BEGUN, RUNNING = "not begun", "running"
PLACES = ("runtime.", "dataset.root=")
STATES = (*GOOD, "failed", "oom", "preempted", NOT_BEGUN)


@dataclass(frozen=True)
class Row:
    """One job. choices: the overrides that tell it from others; state: one of STATES, or running.

    line, traceback: what went wrong. seconds: its process's, None where it has none.
    folder: of its run, below the output root; None where it has none. sweep: its run_id; None
    until the row is written.
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
    """A sweep as it stands. left_out: combinations that cannot be, and why; output_root: where the
    runs lie."""

    run_id: str
    command: str
    rows: tuple[Row, ...]
    left_out: tuple[str, ...]
    output_root: Path

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(row.state for row in self.rows)
        return {state: found[state] for state in STATES if found[state]}

    def names(self) -> list[str]:
        """Each row by the choices in which the rows differ."""
        shown = [[one for one in row.choices if not one.startswith(PLACES)] for row in self.rows]
        everywhere = set.intersection(*map(set, shown))
        if len(self.rows) == 1 or all(set(row) == everywhere for row in shown):
            everywhere = set()
        return [" ".join(one for one in row if one not in everywhere) for row in shown]


def write_row(sweep: Path, row: Row) -> None:
    """Write a row under the name of its sweep; it replaces a row of the same choices."""
    atomic.write_json(_file(sweep, row.choices), asdict(replace(row, sweep=sweep.name)))


def read_row(sweep: Path, choices: Sequence[str]) -> Row:
    """What is known of a job by its choices."""
    try:
        stored = untrusted.read_json(_file(sweep, choices))
        row = Row(**{**stored, "choices": tuple(stored["choices"])})
        _check(row, sweep, choices)
    except FileNotFoundError:
        return Row(tuple(choices), NOT_BEGUN)
    except (ValueError, TypeError, KeyError):
        return Row(tuple(choices), "failed", line="its row is damaged: run it again")
    return row


def _check(row: Row, sweep: Path, choices: Sequence[str]) -> None:
    """ValueError unless the row has the types of a row, and is of this job and sweep."""
    typed_fields.check_types(replace(row, traceback=None, line=None))
    if not all(isinstance(text, str | None) for text in (row.line, row.traceback)):
        raise ValueError("no text")
    if row.choices != tuple(choices) or row.state not in (*STATES, RUNNING):
        raise ValueError("of another job")
    if row.sweep != sweep.name:
        raise ValueError("of another sweep")


def print_sweep(table: SweepTable) -> None:
    """The jobs on the terminal; what went wrong stands below, a line each."""
    names = table.names()
    rows = [
        [name, row.state, duration(row.seconds)]
        for name, row in zip(names, table.rows, strict=True)
    ]
    console.table(f"jobs of {table.run_id}: {_counted(table)}", ("job", "", "time"), rows)
    for name, row in zip(names, table.rows, strict=True):
        if row.state not in (*GOOD, NOT_BEGUN):
            console.say(f"{row.state}: {name}: {one_line(row.line)}")


def write_sweep(table: SweepTable, target: Path) -> None:
    """Write sweep.json and sweep.html into `target`, each whole or not at all.

    Both are read on other machines, so they name no place of this machine.
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
        "lines": list(_lines(table, target)),
        "counted": _counted(table),
        "baselines": _link(table.output_root / "baselines.html", target),
    }
    atomic.write_text(target / "sweep.html", render("sweep.html", HOME, facts))


def _without_places(row: Row) -> Row:
    texts = {"line": row.line, "traceback": row.traceback}
    shown = {key: text and privacy.without_user_paths(text) for key, text in texts.items()}
    return replace(row, choices=tuple(map(privacy.without_user_paths, row.choices)), **shown)


def _lines(table: SweepTable, target: Path) -> Iterator[Mapping[str, object]]:
    for name, row in zip(table.names(), table.rows, strict=True):
        page = table.output_root / row.folder / FILE if row.folder else None
        link = _link(page, target) if page and page.is_file() else None
        yield {"name": name, "row": row, "link": link, "good": row.state in GOOD}


def _link(file: Path, target: Path) -> str:
    return quote(os.path.relpath(file, target))


def _counted(table: SweepTable) -> str:
    return ", ".join(f"{number} {state}" for state, number in table.counts.items())


def _file(sweep: Path, choices: Sequence[str]) -> Path:
    name = hashing.sha256_bytes(hashing.canonical_json(list(choices)))
    return sweep / ROWS / f"{name[:16]}.json"
