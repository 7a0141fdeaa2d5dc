"""The rows of a running sweep -> a line per job that starts or ends, and its page, which is live.

Only the process of the sweep prints them and writes the page. It reads the rows that the processes
of the jobs write, maybe on other machines, so this works under every launcher.
"""

from __future__ import annotations

import datetime
import os
import statistics
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from fgvc.config.overrides import JobConfig, choices
from fgvc.html.formats import duration, rounded_time
from fgvc.record import console
from fgvc.record.console import SweepPosition
from fgvc.record.run_dir import now
from fgvc.report import sweep_page
from fgvc.report import sweep_table as report
from fgvc.report.sweep_page import HEARTBEAT, Running
from fgvc.report.sweep_table import GOOD, NOT_BEGUN, RUNNING, Row, SweepTable

POLL = 1.0  # seconds between two looks at the rows
SHARE = 0.05  # of the time may go into the page of a sweep of many jobs
UNKNOWN = "time left unknown until a job ends"


class SweepProgress:
    """The state of a running sweep.

    Attributes:
        rows: of each job, in the order of the jobs.
    """

    def __init__(
        self,
        folder: Path,
        jobs: Sequence[JobConfig],
        table: Callable[[Sequence[Row]], SweepTable],
        locate: Callable[[Row], Row],
        are_silent: bool,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            folder: of the sweep.
            table: the rows of the jobs -> the table of the sweep.
            locate: a row -> the row with its run folder.
            are_silent: whether the jobs print into files, so that the terminal is free for a bar.
        """
        self.folder, self.table, self.locate, self.are_silent = folder, table, locate, are_silent
        self.since = now().isoformat()
        self.datasets = [job.conf.dataset.name for job in jobs]
        self.noted: set[str] = set()  # datasets whose notes a job has printed
        self.tasks = [job.conf.task.name for job in jobs]
        self.choices = [choices(job.overrides) for job in jobs]
        files = [report.row_file(folder, job) for job in self.choices]
        self.indices = {file.name: index for index, file in enumerate(files)}
        self.rows = [Row(job, NOT_BEGUN) for job in self.choices]
        self.names = table(self.rows).names()
        self.seen: dict[int, tuple[int, int]] = {}  # identity and time of each file of a row
        self.at_once = 1  # the most jobs that ran at the same time
        self.written, self.cost = -HEARTBEAT, 0.0  # when the page was written, and its seconds
        self.is_dirty = True
        self.lock = threading.RLock()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Print and write what changes during the block, from the start on."""
        with suppress(OSError):  # the sweep's own files report a full disk
            self._read()
            self._write()
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(POLL):
                self.refresh()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        bar = console.status_line(self._describe) if self.are_silent else nullcontext()
        try:
            with bar:
                yield
        finally:
            stop.set()
            thread.join()
            self.refresh()
            with suppress(OSError):  # also if an error ends the sweep, whose page is not live then
                sweep_page.write_page(self.table(self.rows), self.folder)

    def refresh(self) -> None:
        """Print the jobs that started or ended since the last call, and write the page if due."""
        with self.lock, suppress(OSError):  # a full disk ends the jobs; the page is not needed
            for index in self._read():
                self._say(index)
            self.at_once = max(self.at_once, self._count(RUNNING))
            waited = time.monotonic() - self.written
            due = 0.0 if self.is_dirty else HEARTBEAT
            if waited >= max(due, self.cost / SHARE):
                self._write()

    def position(self, job: Sequence[str]) -> SweepPosition:
        """The place of a job that starts now, in this process."""
        self.refresh()
        index = self.choices.index(choices(job))
        is_repeat = self.datasets[index] in self.noted
        self.noted.add(self.datasets[index])
        seconds, covers_tasks = self.seconds_left()
        return SweepPosition(
            f"job {index + 1} of {len(self.rows)}: {self.names[index]}",
            seconds if covers_tasks else None,
            is_repeat,
        )

    def seconds_left(self) -> tuple[float | None, bool]:
        """The time left for all jobs, at the pace of those that ended in this process.

        Returns:
            Seconds, None if no job has ended; and whether a job of every task has ended, as
            otherwise the time is longer.
        """
        ended: dict[str, list[float]] = {}
        for row, task in zip(self.rows, self.tasks, strict=True):
            if row.state == "done" and row.seconds is not None and self._is_of_now(row):
                ended.setdefault(task, []).append(row.seconds)
        seconds, covers_tasks = 0.0, True
        for row, task in zip(self.rows, self.tasks, strict=True):
            if row.state not in (NOT_BEGUN, RUNNING):
                continue
            covers_tasks &= task in ended
            spent = _seconds_since(row.started) if row.state == RUNNING else 0.0
            seconds += max(statistics.fmean(ended.get(task, [0.0])) - spent, 0.0)
        todo = self._count(NOT_BEGUN) + self._count(RUNNING)
        return (seconds / max(min(self.at_once, todo), 1) if ended else None), covers_tasks

    def _left(self) -> str:
        """The time left in words; empty after the last job."""
        seconds, covers_tasks = self.seconds_left()
        if not self._count(NOT_BEGUN) + self._count(RUNNING):
            return ""
        if seconds is None:
            return UNKNOWN
        return f"{'about' if covers_tasks else 'more than'} {rounded_time(seconds)} left"

    def _describe(self) -> str:
        """As in "3 of 8 jobs have ended, 2 running; about 4 min left"."""
        ended = len(self.rows) - self._count(NOT_BEGUN) - self._count(RUNNING)
        counts = f"{ended} of {len(self.rows)} jobs have ended, {self._count(RUNNING)} running"
        return f"{counts}; {self._left() or 'the tables follow'}"

    def _count(self, state: str) -> int:
        return sum(row.state == state for row in self.rows)

    def _is_of_now(self, row: Row) -> bool:
        return row.started is not None and row.started >= self.since

    def _read(self) -> list[int]:
        """Read the rows whose files changed; the indices of those of this process's jobs."""
        changed = []
        with suppress(FileNotFoundError):  # no job has begun
            for entry in os.scandir(self.folder / report.ROWS):
                index = self.indices.get(entry.name)
                if index is None:
                    continue
                status = entry.stat()
                identity = (status.st_ino, status.st_mtime_ns)
                if self.seen.get(index) == identity:
                    continue
                self.seen[index] = identity
                row = self.locate(report.read_row(self.folder, self.choices[index]))
                if self._is_of_now(row):
                    changed.append(index)
                elif row.state not in GOOD:  # of an earlier attempt: this one runs it again
                    row = Row(self.choices[index], NOT_BEGUN)
                self.rows[index] = row
                self.is_dirty = True
        return sorted(changed)

    def _say(self, index: int) -> None:
        """Print that a job started or ended."""
        row, name = self.rows[index], self.names[index]
        place = f"job {index + 1} of {len(self.rows)}"
        if row.state == RUNNING:
            line = f"{place}: {name}; {self._left()}"
        else:
            (result,) = self.table([row]).results
            number = "" if result is None else f" top-1 {report.with_interval(result)},"
            line = f"{place} {row.state}:{number} {duration(row.seconds)}"
            if self.at_once > 1:  # otherwise the job's start is the line above its own lines
                line += f": {name}"
        for part in textwrap.wrap(line, console.width(), subsequent_indent="  "):
            console.say(part)

    def _write(self) -> None:
        start = time.monotonic()
        running = Running(now(), self._describe())
        sweep_page.write_page(self.table(self.rows), self.folder, running)
        self.written = time.monotonic()
        self.cost, self.is_dirty = self.written - start, False


def _seconds_since(started: str | None) -> float:
    """Seconds since a time in a row, which another program may have written."""
    try:
        return (now() - datetime.datetime.fromisoformat(started or "")).total_seconds()
    except (ValueError, TypeError):
        return 0.0
