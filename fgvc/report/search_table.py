"""Trials of a search -> the best trial, and their table on the terminal, as JSON and as a page."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgvc.html.charts import Chart, chart
from fgvc.html.formats import number, percent
from fgvc.html.render import render
from fgvc.record import console, privacy
from fgvc.report.sweep_axes import short_names
from fgvc.report.sweep_page import RELOAD, Running, group_errors
from fgvc.store import atomic
from fgvc.untrusted import shell

DONE, STOPPED = "done", "stopped"
PAGE = "search.html"
WINNER = "best.yaml"  # the best trial as an experiment
Row = Mapping[str, Any]


def best_trial(rows: Sequence[Row], select: str) -> Row | None:
    """The best finished trial on validation; ties are broken by loss, then by number.

    Args:
        select: top1 or loss.
    """
    done = [row for row in rows if row["state"] == DONE]
    if select == "top1":
        return min(done, key=lambda row: (-row["top1"], row["loss"], row["number"]), default=None)
    return min(done, key=lambda row: (row["loss"], row["number"]), default=None)


def describe_trial(row: Row) -> str:
    """Accuracy and loss of a trial in one line, or its error."""
    if row["state"] != DONE:
        return f"{row['state']}: {row['error']}"
    top1, loss = percent(row["top1"]), number(row["loss"])
    return f"validation top-1 {top1} %, loss {loss} on {row['n']} images"


def write_search(target: Path, record: Row, best: Row | None) -> None:
    """Write search.json and search.html into `target`, each atomically.

    Args:
        record: the content of search.json.
        best: its best trial, which WINNER beside the page holds.
    """
    atomic.write_json(target / "search.json", record)
    write_page(target, record, best)


def write_page(target: Path, record: Row, best: Row | None, running: Running | None = None) -> None:
    """Write search.html into `target`, atomically.

    Args:
        record, best: as in `write_search`. running: None: the search has ended.
    """
    errors = [
        (row["number"] + 1, privacy.without_user_paths(row["error"]), None)
        for row in record["trials"]
        if row["error"]
    ]
    place = f"/{record['run_id']}/{WINNER}"
    words = [*shell.PROGRAM, shell.variable("experiment", "MULTIRUN_ROOT", place)]
    facts = {
        "record": record,
        "errors": group_errors(errors),
        "best": best,
        "running": running,
        "reload": RELOAD,
        "names": short_names(list(record["space"])),
        "winner": " ".join(words),
        "chart": _trial_chart(record["trials"], record["select"]),
    }
    atomic.write_text(target / PAGE, render(PAGE, facts))


def _trial_chart(rows: Sequence[Row], select: str) -> Chart | None:
    """The number of each finished trial, and the best number so far."""
    done = sorted((row for row in rows if row["state"] == DONE), key=lambda row: row["number"])
    scale, label = (100, "%") if select == "top1" else (1, "nats")
    values = [(row["number"] + 1.0, scale * row[select]) for row in done]
    better = max if select == "top1" else min
    best_so_far = itertools.accumulate((value for _, value in values), better)
    best = [(number, value) for (number, _), value in zip(values, best_so_far, strict=True)]
    title = f"Validation {'top-1' if select == 'top1' else 'loss'} by trial"
    curves = [("best so far", best), ("trial", values)]
    x, y = ("trial", False), (label, False)
    return chart(title, x, y, curves, size=(560, 230), dots=("trial",))


def print_trials(rows: Sequence[Row], keys: Sequence[str], select: str, best: Row | None) -> None:
    """Print every trial with its searched values, then the failed trials with their errors."""
    # names of several words are on two lines, because the values are narrower
    names = [name.replace("_", "\n", 1) for name in short_names(keys).values()]
    cells = []
    for row in rows:
        scores = ["–", "–", row["state"]]
        if row["state"] == DONE:
            scores = [percent(row["top1"]), f"{row['loss']:.3f}", f"{row['seconds']:.0f} s"]
        values = [_two_digits(row["values"][key]) for key in keys]
        cells.append([f"{row['number'] + 1}{' best' if row is best else ''}", *values, *scores])
    title = f"{len(rows)} trials on validation, best by {select}; test was not read"
    console.table(title, ["trial", *names, "top-1", "loss", "time"], cells)
    for row in rows:
        if row["state"] != DONE:
            console.say(f"trial {row['number'] + 1} {describe_trial(row)}")


def _two_digits(value: object) -> str:
    """A number in two digits, so that five columns fit; search.json has all digits."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1e}".replace("e-0", "e-") if 0 < abs(value) < 0.01 else f"{value:.2g}"
