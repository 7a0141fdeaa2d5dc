"""What a person sees while a run goes on: progress, and a closing table that fits 80 columns."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from fgvc import types

log = logging.getLogger("fgvc")
STYLES = {"error": "bold red", "note": "yellow"}
PLAIN_EVERY = 10.0  # seconds between lines where no bar can be drawn


def say(line: str) -> None:
    """One plain line for the person at the terminal, and for the run's log."""
    log.info(line)
    with contextlib.suppress(BrokenPipeError):  # a reader that had enough ends no run
        print(line, flush=True)


@contextmanager
def progress(title: str, total: int | None, unit: str) -> Iterator[types.Progress]:
    """A bar with rate and time left; plain lines where the output is not a terminal.

    Args:
        total: units in all; None where it is not known beforehand.
    """
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        yield _Plain(title, total, unit)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total)

        def advance(n: int, note: str = "") -> None:
            bar.update(task, advance=n, description=f"{title} {note}".strip())

        yield advance


class _Rate(ProgressColumn):
    """Units a second since the start."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        rate = task.completed / task.elapsed if task.elapsed else 0.0
        return Text(f"{rate:.1f} {self.unit}/s")


class _Plain:
    """Progress as lines: one every ten seconds, and the last."""

    def __init__(self, title: str, total: int | None, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done, self.start = 0, time.monotonic()
        self.next = self.start + PLAIN_EVERY

    def __call__(self, n: int, note: str = "") -> None:
        self.done += n
        now = time.monotonic()
        if now < self.next and self.done != self.total:
            return
        self.next = now + PLAIN_EVERY
        rate = self.done / max(now - self.start, 1e-9)
        line = f"{self.title} {note}".strip() + f": {self.done}"
        if self.total is not None:
            left = (self.total - self.done) / max(rate, 1e-9)
            line += f"/{self.total}, {rate:.1f} {self.unit}/s, {left:.0f} s left"
        else:
            line += f", {rate:.1f} {self.unit}/s"
        say(line)


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True
) -> None:
    """A table on the terminal; the first column reads left, and numbers right.

    Args:
        numbers: whether the other columns are numbers; text is set left, with a line between rows.
    """
    drawn = Table(
        title=Text(title), title_justify="left", header_style="bold", show_lines=not numbers
    )
    for index, name in enumerate(columns):
        justify = "right" if numbers and index else "left"
        drawn.add_column(name, justify=justify, overflow="fold")
    for row in rows:
        # Text: names may hold what Rich takes for markup
        drawn.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    Console(file=sys.stdout, highlight=False).print(drawn)


def provenance(dataset: str, card: Mapping[str, str]) -> None:
    """What must be known of the data beside any number made with it."""
    for about in ("license", "contamination", "label_noise"):
        if about in card:
            say(f"{dataset}, {about.replace('_', ' ')}: {card[about]}")


def percent(fraction: object) -> str:
    """A fraction of 0..1 as a percentage with one decimal; a dash where it does not exist."""
    return f"{100 * fraction:.1f}" if isinstance(fraction, int | float) else "–"


def number(value: object) -> str:
    """Four decimals; a dash where it does not exist."""
    return f"{value:.4f}" if isinstance(value, int | float) else "–"


def interval(numbers: Mapping[str, object]) -> str:
    """Top-1 with its 95 % interval, in percent."""
    bounds = numbers["top1_ci95"]
    assert isinstance(bounds, Sequence)
    low, high = bounds
    return f"{percent(numbers['top1'])} [{percent(low)}, {percent(high)}]"
