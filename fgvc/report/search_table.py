"""Rows of a search -> its best trial, and the table of all on the terminal, 80 columns wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fgvc.record import console

DONE, STOPPED = "done", "stopped"
WIDTH = 80
Row = Mapping[str, Any]


def best_trial(rows: Sequence[Row], select: str) -> Row | None:
    """The best trial on validation; of equals that of lower loss, then the earlier.

    Args:
        select: top1 or loss.
    """
    done = [row for row in rows if row["state"] == DONE]
    if select == "top1":
        return min(done, key=lambda row: (-row["top1"], row["loss"], row["number"]), default=None)
    return min(done, key=lambda row: (row["loss"], row["number"]), default=None)


def describe_trial(row: Row) -> str:
    """What a trial is worth, in a few words."""
    if row["state"] != DONE:
        return f"{row['state']}: {row['error']}"
    top1, loss = console.percent(row["top1"]), console.number(row["loss"])
    return f"validation top-1 {top1} %, loss {loss} on {row['n']} images"


def print_trials(rows: Sequence[Row], keys: Sequence[str], select: str, best: Row | None) -> None:
    """Every trial with the searched values only, then what failed and why."""
    names = _names(keys)
    short = [_broken(names[key]) for key in keys]
    cells = [[_trial(row, best), *_values(row, keys), *_worth(row)] for row in rows]
    columns = ["trial", *short, "top-1", "loss", "time"]
    title = f"{len(rows)} trials on validation, best by {select}; test was not read"
    console.table(title, columns, cells)
    for row in rows:
        if row["state"] != DONE:
            console.say(f"trial {row['number'] + 1} {describe_trial(row)}")


def _names(keys: Sequence[str]) -> dict[str, str]:
    """A key by its last word, where no other ends in the same."""
    tails = [key.rpartition(".")[2] for key in keys]
    return {
        key: tail if tails.count(tail) == 1 else key for key, tail in zip(keys, tails, strict=True)
    }


def _broken(name: str) -> str:
    """On two lines where it has two words: the numbers below are narrower."""
    return name.replace("_", "\n", 1)


def _values(row: Row, keys: Sequence[str]) -> list[str]:
    found = (row["values"][key] for key in keys)
    return [_brief(value) if isinstance(value, float) else str(value) for value in found]


def _brief(value: float) -> str:
    """Two digits, as five columns of them must fit; search.json has all."""
    return f"{value:.1e}".replace("e-0", "e-") if 0 < abs(value) < 0.01 else f"{value:.2g}"


def _trial(row: Row, best: Row | None) -> str:
    return f"{row['number'] + 1}{' best' if row is best else ''}"


def _worth(row: Row) -> list[str]:
    if row["state"] != DONE:
        return ["–", "–", row["state"]]
    return [console.percent(row["top1"]), f"{row['loss']:.3f}", f"{row['seconds']:.0f} s"]
