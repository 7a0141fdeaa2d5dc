"""What a person sees while a run goes on: progress, and a closing table that fits 80 columns."""

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
PLAIN_EVERY = 10.0  # seconds between lines where no bar can be drawn


def say(line: str) -> None:
    """One plain line for the person at the terminal, and for the run's log."""
    line = visible(line)
    log.info(line)
    with contextlib.suppress(BrokenPipeError):  # a reader that had enough ends no run
        print(line, flush=True)


@contextmanager
def progress(
    title: str, total: int | None, unit: str, passing: bool = False
) -> Iterator[types.Progress]:
    """A bar with rate and time left; plain lines where the output is not a terminal.

    Args:
        total: units in all; None where it is not known beforehand.
        passing: the bar is gone when it is full (one within `training`, epoch after epoch).
    """
    if not get_console().is_terminal:
        yield _Plain(title, total, unit)
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
    """What a step of training tells.

    images_per_s: over all devices. memory_mib: the device's peak; None where it does not tell.
    """

    loss: float
    learning_rate: float
    images_per_s: float
    memory_mib: float | None = None

    def __str__(self) -> str:
        told = (
            f"loss {self.loss:.4g}, lr {self.learning_rate:.2e}, {self.images_per_s:.1f} images/s"
        )
        return told if self.memory_mib is None else f"{told}, {self.memory_mib / 1024:.1f} GiB"


@contextmanager
def training(epochs: int, steps: int, done: int = 0) -> Iterator[Callable[[Pulse], None]]:
    """Progress of a whole training, to be told of every step.

    On a terminal a bar over all epochs with what the last step told below it; elsewhere a line
    every ten seconds, and the last. A passing `progress` may run meanwhile.

    Args:
        steps: of one epoch. done: steps that an earlier process took.
    """
    course = _Course(epochs, steps, done)
    if not get_console().is_terminal:
        yield _PlainTraining(course)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("left {task.fields[left]}"),
    )
    with _TwoLines(*columns, console=get_console()) as bar:
        task = bar.add_task(
            str(course), total=course.total, completed=done, left=course.left(), pulse=""
        )

        def step(pulse: Pulse) -> None:
            course.done += 1
            bar.update(
                task, advance=1, description=str(course), left=course.left(), pulse=str(pulse)
            )

        yield step


class _Course:
    """Where a training stands."""

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
        """Hours, minutes and seconds, at the pace of this process, what lies between steps too."""
        taken = self.done - self.before
        if not taken:
            return "-:--:--"
        seconds = (time.monotonic() - self.start) / taken * (self.total - self.done)
        minutes, second = divmod(round(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


class _TwoLines(Progress):
    """A bar, and what the last step told on a line of its own: together they pass 80 columns."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            yield Text(task.fields["pulse"], no_wrap=True, overflow="ellipsis")


class _PlainTraining:
    """A training's progress as lines."""

    def __init__(self, course: _Course) -> None:
        self.course, self.next = course, course.start + PLAIN_EVERY

    def __call__(self, pulse: Pulse) -> None:
        self.course.done += 1
        now = time.monotonic()
        if now < self.next and self.course.done != self.course.total:
            return
        self.next = now + PLAIN_EVERY
        say(f"{self.course}: {pulse}, {self.course.left()} left")


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
    drawn = Table(header_style="bold", show_lines=not numbers)
    for index, name in enumerate(columns):
        justify = "right" if numbers and index else "left"
        drawn.add_column(visible(name, keep="\n"), justify=justify, overflow="fold")
    for row in rows:
        # Text: names may hold what Rich takes for markup
        drawn.add_row(*(Text(visible(cell, keep="\n"), style=STYLES.get(cell, "")) for cell in row))
    out = Console(file=sys.stdout, highlight=False)
    # as the table's own title it would wrap at the table's width
    out.print(Text(visible(title), style="italic"))
    out.print(drawn)


def provenance(dataset: str, card: Mapping[str, str]) -> None:
    """What must be known of the data beside any number made with it."""
    for about in ("license", "contamination", "label_noise"):
        if about in card:
            say(f"{dataset}, {about.replace('_', ' ')}: {card[about]}")


TEST_MARKS = {"val": "test = val", "carved": "test carved"}  # by Dataset.test_source


def test_mark(source: str) -> str:
    """Addition to a title where the test is no test split of the dataset; may be empty."""
    return f", {TEST_MARKS[source].upper()}" if source in TEST_MARKS else ""


def percent(fraction: object) -> str:
    """A fraction of 0..1 as a percentage with one decimal; a dash where it does not exist."""
    return f"{100 * fraction:.1f}" if isinstance(fraction, int | float) else "–"


def number(value: object) -> str:
    """Four decimals; a dash where it does not exist."""
    return f"{value:.4f}" if isinstance(value, int | float) else "–"


def interval(numbers: Mapping[str, object], key: str = "top1") -> str:
    """A number with its 95 % interval, in percent."""
    bounds = numbers[f"{key}_ci95"]
    assert isinstance(bounds, Sequence)
    low, high = bounds
    return f"{percent(numbers[key])} [{percent(low)}, {percent(high)}]"
