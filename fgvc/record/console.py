"""Progress and results of a run -> lines, bars and tables of at most 80 columns."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich import get_console
from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fgvc import types
from fgvc.html.formats import rounded_time
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
    def seconds(self) -> float:
        return time.monotonic() - self.start

    @property
    def seconds_left(self) -> float | None:
        """At the pace of this process, pauses included; None if unknown, or at the end."""
        now = self.done - self.before
        if self.total is None or now <= 0 or self.done >= self.total:
            return None
        return (self.total - self.done) * self.seconds / now

    def times(self) -> str:
        """As in "24 s, 10 s left"."""
        left = self.seconds_left
        rest = "" if left is None else f", {rounded_time(left)} left"
        return f"{rounded_time(self.seconds)}{rest}"

    def count(self, unit: str) -> str:
        """As in "450/1115 images"; without the total if it is unknown."""
        return f"{self.done}{'' if self.total is None else f'/{self.total}'} {unit}"


@contextmanager
def progress(title: str, total: int | None, unit: str) -> Iterator[types.Progress]:
    """A bar with count and times; plain lines if the output is not a terminal.

    Args:
        total: number of units; None if unknown.
    """
    pace, name = _Pace(total), title

    def print_line(n: int, note: str = "") -> None:
        if pace.advance(n):
            say(f"{title} {note}".strip() + f": {pace.count(unit)}, {pace.times()}")

    if not get_console().is_terminal:
        yield print_line
        return

    def advance(n: int, note: str = "") -> None:
        nonlocal name
        pace.advance(n)
        name = f"{title} {note}".strip()

    with _Bar(pace, lambda: (name, f"{pace.count(unit)}, {pace.times()}")):
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
    pace, numbers = _Pace(epochs * steps, done), ""

    def position() -> str:
        epoch, step = divmod(max(pace.done - 1, 0), steps)
        return f"epoch {epoch + 1}/{epochs} step {step + (pace.done > 0)}/{steps}"

    def print_line(pulse: Pulse) -> None:
        if pace.advance(1):
            say(f"{position()}: {pulse}, {pace.times()}")

    if not get_console().is_terminal:
        yield print_line
        return

    def step(pulse: Pulse) -> None:
        nonlocal numbers
        pace.advance(1)
        numbers = str(pulse)

    # the last step on its own line: on one line they would exceed 80 columns
    with _Bar(pace, lambda: (position(), pace.times()), lambda: numbers):
        yield step


class _Bar:
    """A bar in a line that never wraps: title, bar, state; then lines of text below it.

    The bar takes the width that the texts leave, up to 40 columns. Within `with`, it is drawn ten
    times per second; its last state stays on the screen.
    """

    def __init__(
        self,
        pace: _Pace,
        texts: Callable[[], tuple[str, str]],
        below: Callable[[], str] = lambda: "",
    ) -> None:
        self.pace, self.texts, self.below, self.ended = pace, texts, below, False
        self.live = Live(self, console=get_console(), refresh_per_second=10)

    def __enter__(self) -> None:
        self.live.start()

    def __exit__(self, *error: object) -> None:
        self.ended = True
        self.live.stop()

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        (title, state), width = self.texts(), options.max_width
        title = visible(title)
        bar_width = min(40, width - len(title) - len(state) - 2)
        cells: list[RenderableType] = [_one_line(title, max(width - len(state) - 1, 1))]
        if self.pace.total is not None and bar_width >= 4:
            total = max(self.pace.total, 1)
            cells.append(ProgressBar(total, min(self.pace.done, total), width=bar_width))
        line = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
        line.add_row(*cells, _one_line(state, width))
        yield line
        for text in (self.below(), "" if self.ended else _sweep_footer()):
            if text:
                yield _one_line(text, width)


@contextmanager
def status_line(text: Callable[[], str]) -> Iterator[None]:
    """During the block, the last line of a terminal shows a text, drawn again every second."""
    if not get_console().is_terminal:
        yield
        return
    line = Live(
        get_renderable=lambda: _one_line(text(), width()),
        console=get_console(),
        refresh_per_second=1,
        transient=True,
    )
    with line:
        yield


def _one_line(text: str, width: int) -> Text:
    """A text that is cut, never wrapped."""
    line = Text(text, no_wrap=True, overflow="ellipsis")
    line.truncate(width, overflow="ellipsis")
    return line


# --- a job of a sweep, in its own process ---


@dataclass(frozen=True)
class SweepPosition:
    """The place of a job in its sweep; text: as in "job 3 of 8: head=knn".

    seconds_left: of the whole sweep when the job started; None: unknown. is_repeat: whether an
    earlier job has printed the notes on the same dataset.
    """

    text: str = ""
    seconds_left: float | None = None
    is_repeat: bool = False


_position: tuple[SweepPosition, float] | None = None


def set_sweep(position: SweepPosition) -> None:
    """Mark this process as the job of a sweep, whose table summarizes its runs at the end."""
    global _position
    _position = position, time.monotonic()


def is_job_of_sweep() -> bool:
    return _position is not None


def say_summary(line: str) -> None:
    """Print a line that a job of a sweep leaves to the table at the end of its sweep."""
    if not is_job_of_sweep():
        say(line)


def say_note(line: str) -> None:
    """Print a note on code or dataset; a sweep prints it once per dataset, and each job logs it."""
    if _position is not None and _position[0].is_repeat:
        log.info(visible(line))
    else:
        say(line)


def _sweep_footer() -> str:
    """The place of this job in its sweep, below a bar; the time left counts down."""
    if _position is None or not _position[0].text:
        return ""
    position, since = _position
    if position.seconds_left is None:
        return position.text
    left = max(position.seconds_left - (time.monotonic() - since), 0.0)
    return f"{position.text}; about {rounded_time(left)} left"


def width() -> int:
    """Columns of the terminal; 80 without a terminal, unless COLUMNS is set."""
    return Console(file=sys.stdout).width


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: bool = True,
    left: int = 1,
) -> None:
    """Print a table; the first `left` columns are aligned left, numbers right.

    Args:
        numbers: whether the other columns are numbers; otherwise lines separate the rows.
    """
    rich_table = Table(header_style="bold", show_lines=not numbers)
    for index, name in enumerate(columns):
        justify = "right" if numbers and index >= left else "left"
        rich_table.add_column(visible(name, keep="\n"), justify=justify, overflow="fold")
    for row in rows:
        # Text, because names may look like Rich markup
        cells = (Text(visible(cell, keep="\n"), style=STYLES.get(cell, "")) for cell in row)
        rich_table.add_row(*cells)
    out = Console(file=sys.stdout, highlight=False)
    # the table's own title would wrap at the width of the table
    out.print(Text(visible(title), style="italic"))
    out.print(rich_table)


# what qualifies every number on a dataset: key of its card -> word
PROVENANCE = {
    "license": "licence",
    "contamination": "contamination",
    "label_noise": "label noise",
}


def provenance(dataset: str, card: Mapping[str, str]) -> None:
    """Print the parts of a dataset's card that are in PROVENANCE."""
    for key, word in PROVENANCE.items():
        if key in card:
            say_summary(f"dataset {dataset}, {word}: {card[key]}")


TEST_MARKS = {"val": "test = val", "carved": "test carved"}  # by Dataset.test_source


def test_mark(source: str) -> str:
    """Addition to a title if `test` is not the dataset's own test split; otherwise empty."""
    return f", {TEST_MARKS[source].upper()}" if source in TEST_MARKS else ""
