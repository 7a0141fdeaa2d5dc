"""Trials of a search -> the best trial, and the table of all trials, 80 columns wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fgvc.html.formats import number, percent
from fgvc.record import console

DONE, STOPPED = "done", "stopped"
WIDTH = 80
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


def print_trials(rows: Sequence[Row], keys: Sequence[str], select: str, best: Row | None) -> None:
    """Print every trial with its searched values, then the failed trials with their errors."""
    tails = [key.rpartition(".")[2] for key in keys]
    names = [tail if tails.count(tail) == 1 else key for key, tail in zip(keys, tails, strict=True)]
    # names of several words are on two lines, because the values are narrower
    columns = ["trial", *(name.replace("_", "\n", 1) for name in names), "top-1", "loss", "time"]
    title = f"{len(rows)} trials on validation, best by {select}; test was not read"
    console.table(title, columns, [_cells(row, keys, row is best) for row in rows])
    for row in rows:
        if row["state"] != DONE:
            console.say(f"trial {row['number'] + 1} {describe_trial(row)}")


def _cells(row: Row, keys: Sequence[str], is_best: bool) -> list[str]:
    cells = [f"{row['number'] + 1}{' best' if is_best else ''}"]
    cells += [_two_digits(row["values"][key]) for key in keys]
    if row["state"] != DONE:
        return [*cells, "–", "–", row["state"]]
    scores = (percent(row["top1"]), f"{row['loss']:.3f}", f"{row['seconds']:.0f} s")
    return [*cells, *scores]


def _two_digits(value: object) -> str:
    """A number in two digits, so that five columns fit; search.json has all digits."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1e}".replace("e-0", "e-") if 0 < abs(value) < 0.01 else f"{value:.2g}"
