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
    ProgressColumn,
    Task,
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


@contextmanager
def progress(
    title: str, total: int | None, unit: str, passing: bool = False
) -> Iterator[types.Progress]:
    """A bar with rate and time left; plain lines if the output is not a terminal.

    Args:
        total: number of units; None if unknown.
        passing: whether the bar disappears when it is full (a bar within `training`).
    """
    if not get_console().is_terminal:
        yield _PlainProgress(title, total, unit)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=get_console(), transient=passing) as bar:
        task = bar.add_task(title, total=total)

        def advance(n: int, note: str = "") -> None:
            bar.update(task, advance=n, description=f"{title} {note}".strip())

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
    line every ten seconds and after the last step. A passing `progress` may run meanwhile.

    Args:
        steps: per epoch. done: steps of earlier processes.
    """
    position = _TrainingProgress(epochs, steps, done)
    if not get_console().is_terminal:
        yield _PlainTraining(position)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("left {task.fields[left]}"),
    )
    with _TwoLineProgress(*columns, console=get_console()) as bar:
        task = bar.add_task(
            str(position), total=position.total, completed=done, left=position.left(), pulse=""
        )

        def step(pulse: Pulse) -> None:
            position.done += 1
            bar.update(
                task, advance=1, description=str(position), left=position.left(), pulse=str(pulse)
            )

        yield step


class _TrainingProgress:
    """The current epoch and step of a training."""

    def __init__(self, epochs: int, steps: int, done: int) -> None:
        self.epochs, self.steps, self.done = epochs, steps, done
        self.before, self.start = done, time.monotonic()

    @property
    def total(self) -> int:
        return self.epochs * self.steps

    def __str__(self) -> str:
        epoch, step = divmod(max(self.done - 1, 0), self.steps)
        return f"epoch {epoch + 1}/{self.epochs} step {step + (self.done > 0)}/{self.steps}"

    def left(self) -> str:
        """Time left as H:MM:SS, at the pace of this process, pauses between steps included."""
        taken = self.done - self.before
        if not taken:
            return "-:--:--"
        seconds = (time.monotonic() - self.start) / taken * (self.total - self.done)
        minutes, second = divmod(round(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


class _TwoLineProgress(Progress):
    """A bar, and the last step on its own line: on one line they would exceed 80 columns."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            yield Text(task.fields["pulse"], no_wrap=True, overflow="ellipsis")


class _PlainTraining:
    """The progress of a training as lines."""

    def __init__(self, position: _TrainingProgress) -> None:
        self.position, self.next = position, position.start + PLAIN_EVERY

    def __call__(self, pulse: Pulse) -> None:
        self.position.done += 1
        now = time.monotonic()
        if now < self.next and self.position.done != self.position.total:
            return
        self.next = now + PLAIN_EVERY
        say(f"{self.position}: {pulse}, {self.position.left()} left")


class _Rate(ProgressColumn):
    """Units per second since the start."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        rate = task.completed / task.elapsed if task.elapsed else 0.0
        return Text(f"{rate:.1f} {self.unit}/s")


class _PlainProgress:
    """Progress as lines, every ten seconds and at the end."""

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
        rich_table.add_row(
            *(Text(visible(cell, keep="\n"), style=STYLES.get(cell, "")) for cell in row)
        )
    out = Console(file=sys.stdout, highlight=False)
    # the table's own title would wrap at the width of the table
    out.print(Text(visible(title), style="italic"))
    out.print(rich_table)


def provenance(dataset: str, card: Mapping[str, str]) -> None:
    """Print what qualifies every number on a dataset: licence, contamination, label noise."""
    for key in ("license", "contamination", "label_noise"):
        if key in card:
            say(f"{dataset}, {key.replace('_', ' ')}: {card[key]}")


TEST_MARKS = {"val": "test = val", "carved": "test carved"}  # by Dataset.test_source


def test_mark(source: str) -> str:
    """Addition to a title if `test` is not the dataset's own test split; otherwise empty."""
    return f", {TEST_MARKS[source].upper()}" if source in TEST_MARKS else ""
