"""Progress and results of a run -> lines, bars and tables of at most 80 columns."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich import get_console
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from fgvc import types
from fgvc.untrusted.escape import visible

log = logging.getLogger("fgvc")
STYLES = {"error": "bold red", "note": "yellow"}
PLAIN_EVERY = 10.0  # seconds between progress lines without a terminal


def say(line: str) -> None:
    """Print one plain line, and write it to the run's log."""
    line = visible(line)
    log.info(line)
    with contextlib.suppress(BrokenPipeError):  # a closed reader must not end the run
        print(line, flush=True)


class _Pace:
    """How far a piece of work is, how fast this process is, and when its next line is due."""

    def __init__(self, total: int | None, done: int = 0) -> None:
        self.total, self.done, self.before = total, done, done
        self.start = time.monotonic()
        self.due = self.start + PLAIN_EVERY

    def advance(self, n: int) -> bool:
        """Add n units; whether a line is due: every ten seconds, and after the last unit."""
        self.done += n
        now = time.monotonic()
        if now < self.due and self.done != self.total:
            return False
        self.due = now + PLAIN_EVERY
        return True

    @property
    def rate(self) -> float:
        """Units per second, pauses included."""
        return (self.done - self.before) / max(time.monotonic() - self.start, 1e-9)

    @property
    def seconds_left(self) -> float:
        """At the pace of this process."""
        return ((self.total or 0) - self.done) / max(self.rate, 1e-9)


@contextmanager
def progress(title: str, total: int | None, unit: str) -> Iterator[types.Progress]:
    """A bar with rate and time left; plain lines if the output is not a terminal.

    Args:
        total: number of units; None if unknown.
    """
    pace = _Pace(total)

    def print_line(n: int, note: str = "") -> None:
        if pace.advance(n):
            name, rate = f"{title} {note}".strip(), f"{pace.rate:.1f} {unit}/s"
            if total is None:
                say(f"{name}: {pace.done}, {rate}")
            else:
                say(f"{name}: {pace.done}/{total}, {rate}, {pace.seconds_left:.0f} s left")

    if not get_console().is_terminal:
        yield print_line
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=get_console()) as bar:
        task = bar.add_task(title, total=total, rate="")

        def advance(n: int, note: str = "") -> None:
            pace.advance(n)
            rate = f"{pace.rate:.1f} {unit}/s"
            bar.update(task, advance=n, description=f"{title} {note}".strip(), rate=rate)

        yield advance


@dataclass(frozen=True)
class Pulse:
    """The numbers of one training step.

    images_per_s: over all devices. memory_mib: peak of the device; None if unknown.
    """

    loss: float
    learning_rate: float
    images_per_s: float
    memory_mib: float | None = None

    def __str__(self) -> str:
        loss, rate = f"loss {self.loss:.4g}", f"{self.images_per_s:.1f} images/s"
        memory = "" if self.memory_mib is None else f", {self.memory_mib / 1024:.1f} GiB"
        return f"{loss}, lr {self.learning_rate:.2e}, {rate}{memory}"


@contextmanager
def training(epochs: int, steps: int, done: int = 0) -> Iterator[Callable[[Pulse], None]]:
    """Progress of a training; call the yielded function after every step.

    On a terminal: a bar over all epochs with the numbers of the last step below it. Otherwise: a
    line every ten seconds and after the last step.

    Args:
        steps: per epoch. done: steps of earlier processes.
    """
    pace = _Pace(epochs * steps, done)

    def position() -> str:
        epoch, step = divmod(max(pace.done - 1, 0), steps)
        return f"epoch {epoch + 1}/{epochs} step {step + (pace.done > 0)}/{steps}"

    def left() -> str:
        minutes, second = divmod(round(pace.seconds_left), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{second:02}"

    def print_line(pulse: Pulse) -> None:
        if pace.advance(1):
            say(f"{position()}: {pulse}, {left()} left")

    if not get_console().is_terminal:
        yield print_line
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("left {task.fields[left]}"),
    )
    with _TwoLineProgress(*columns, console=get_console()) as bar:
        start = {"completed": done, "left": "-:--:--", "pulse": ""}
        task = bar.add_task(position(), total=pace.total, **start)

        def step(pulse: Pulse) -> None:
            pace.advance(1)
            bar.update(task, advance=1, description=position(), left=left(), pulse=str(pulse))

        yield step


class _TwoLineProgress(Progress):
    """A bar, and the last step on its own line: on one line they would exceed 80 columns."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            yield Text(task.fields["pulse"], no_wrap=True, overflow="ellipsis")


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True
) -> None:
    """Print a table; the first column is aligned left, numbers right.

    Args:
        numbers: whether the other columns are numbers; otherwise lines separate the rows.
    """
    rich_table = Table(header_style="bold", show_lines=not numbers)
    for index, name in enumerate(columns):
        justify = "right" if numbers and index else "left"
        rich_table.add_column(visible(name, keep="\n"), justify=justify, overflow="fold")
    for row in rows:
        # Text, because names may look like Rich markup
        cells = (Text(visible(cell, keep="\n"), style=STYLES.get(cell, "")) for cell in row)
        rich_table.add_row(*cells)
    out = Console(file=sys.stdout, highlight=False)
    # the table's own title would wrap at the width of the table
    out.print(Text(visible(title), style="italic"))
    out.print(rich_table)


def provenance(dataset: str, card: Mapping[str, str]) -> None:
    """Print what qualifies every number on a dataset: licence, contamination, label noise."""
    for key in ("license", "contamination", "label_noise"):
        if key in card:
            say(f"dataset {dataset}, {key.replace('_', ' ')}: {card[key]}")


TEST_MARKS = {"val": "test = val", "carved": "test carved"}  # by Dataset.test_source


def test_mark(source: str) -> str:
    """Addition to a title if `test` is not the dataset's own test split; otherwise empty."""
    return f", {TEST_MARKS[source].upper()}" if source in TEST_MARKS else ""
