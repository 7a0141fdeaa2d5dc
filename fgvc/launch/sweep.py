"""The jobs of a sweep -> a row on disk per job, whether it succeeds or fails, and one table.

A launcher calls `Sweep.run_job`, here or in a worker on another machine; it starts a process for
the job and leaves the result on disk. The same sweep again skips complete jobs, resumes stopped
jobs and retries failed jobs.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig

from fgvc import untrusted
from fgvc.config.compose import config_hash, resolved
from fgvc.config.errors import ConfigError
from fgvc.config.experiment_file import single_run
from fgvc.config.option_files import KEY as SEARCH_PATH
from fgvc.config.override_grammar import key_of
from fgvc.config.overrides import RUN_ID_KEY, JobConfig, choices
from fgvc.config.schema import Runtime
from fgvc.config.sweep_expansion import Exclusion, summarize
from fgvc.exit_codes import DONE, FAILED, PREEMPTED
from fgvc.launch import hydra_app
from fgvc.launch.job_process import SOMEWHERE, forward_signals, run_in_process, stop_signals
from fgvc.launch.run_job import JobResult
from fgvc.launch.sweep_progress import SweepProgress
from fgvc.record import command_file, console
from fgvc.record.console import SweepPosition
from fgvc.record.run_dir import IN_PROGRESS, SHORT, complete_runs, mark_abandoned, now
from fgvc.report import sweep_page
from fgvc.report import sweep_table as report
from fgvc.report.baselines import build_table, write_baselines
from fgvc.report.sweep_page import PAGE
from fgvc.report.sweep_table import GOOD, RUNNING, Row, SweepTable
from fgvc.report.terminal_table import print_table
from fgvc.store.disk_errors import ROOTS, add_path, disk_error_line
from fgvc.store.file_lock import lock
from fgvc.types import UserError
from fgvc.untrusted import shell
from fgvc.untrusted.escape import visible


@dataclass(frozen=True)
class Sweep:
    """A sweep and its folder, multirun/<run_id>, as an absolute path.

    search_path: the override of the user's own folders of options, if there is one. noting: the
    choices of the first job of each dataset, which alone prints its notes in a launcher's worker.
    """

    run_id: str
    command: str
    folder: Path
    search_path: tuple[str, ...] = ()
    noting: frozenset[tuple[str, ...]] = frozenset()

    def run_job(self, cfg: DictConfig, overrides: Sequence[str]) -> None:
        """Run one job in its own process and write its row."""
        if stop_signals():  # the remaining jobs do not start
            return
        earlier = report.read_row(self.folder, choices(overrides))
        row = Row(choices(overrides), RUNNING, started=now().isoformat(), config_hash=job_hash(cfg))
        report.write_row(self.folder, row)
        if _progress is None:
            position = replace(SOMEWHERE, is_repeat=row.choices not in self.noting)
        else:
            position = _progress.position(overrides)
        start = time.monotonic()
        command = command_of_job([*self.search_path, *overrides], self.run_id, self.command)
        result = run_recorded(cfg, overrides, command, row.config_hash, position)
        seconds: float | None = round(time.monotonic() - start, 2)
        if result.state == "skipped":  # the time of the run, not of finding it
            seconds = earlier.seconds if earlier.state in GOOD else None
        row = replace(row, state=result.state, code=result.code, line=result.line)
        report.write_row(self.folder, replace(row, seconds=seconds, traceback=result.traceback))
        if _progress is not None:
            _progress.refresh()


_progress: SweepProgress | None = None  # of the sweep that this process started


def run(
    run_id: str,
    overrides: Sequence[str],
    command: str,
    jobs: Sequence[JobConfig],
    exclusions: Sequence[Exclusion],
) -> int:
    """Run a sweep to its table; returns its exit code.

    During the sweep, Ctrl-C or a cluster's signal stops the running job, which saves, and no other
    job starts. A second signal stops the running job at once.

    Args:
        overrides: of the command, without its run_id.
        exclusions: combinations that do not run, for the table.
    """
    runtime = jobs[0].conf.runtime
    folder = Path(runtime.multirun_root).expanduser().absolute() / run_id
    first = {job.conf.dataset.name: choices(job.overrides) for job in reversed(jobs)}
    sweep = Sweep(run_id, command, folder, search_path(overrides), frozenset(first.values()))
    root, left_out = Path(runtime.output_root).expanduser(), tuple(summarize(exclusions))

    def table(rows: Sequence[Row]) -> SweepTable:
        return SweepTable(run_id, command, tuple(rows), left_out, root.absolute())

    def start() -> None:
        global _progress
        are_silent = any(item.startswith("hydra/launcher=submitit") for item in overrides)
        locate = functools.partial(_locate, root, run_id)
        _progress = SweepProgress(folder, jobs, table, locate, are_silent)
        try:
            with _progress.watching():
                count = f"{len(jobs)} job{'s' if len(jobs) > 1 else ''}"
                console.say(f"sweep of {count}: {_short_path(folder / PAGE)}")
                hydra_app.launch(sweep.run_job, jobs, run_id, overrides)
        finally:
            _progress = None

    return run_in_folder(folder, runtime, start, lambda: _finish(sweep, jobs, table))


def run_in_folder(
    folder: Path, runtime: Runtime, start: Callable[[], None], finish: Callable[[], int]
) -> int:
    """Start and finish a sweep or a search, the only process that writes to its folder.

    Args:
        finish: writes the tables, also after a signal; returns the exit code.

    Returns:
        The exit code; FAILED, with one line, if the disk refuses a write.
    """
    try:
        with lock(folder / ".lock"), forward_signals():
            stopped = contextlib.suppress(KeyboardInterrupt, SystemExit)
            with stopped, add_path(folder):
                start()
            return finish()
    except UserError as error:
        line = str(error)
    except OSError as error:
        line = disk_error_line(error, {name: getattr(runtime, name) for name in ROOTS})
    print(f"fgvc: {visible(line)}", file=sys.stderr, flush=True)
    return FAILED


def run_recorded(
    cfg: DictConfig,
    overrides: Sequence[str],
    command: str,
    run_hash: str | None,
    position: SweepPosition = SOMEWHERE,
) -> JobResult:
    """Run a job in its own process; if it fails, its run folder has its state."""
    result = run_in_process(cfg, overrides, command, position)
    if result.code != DONE and run_hash is not None:  # its process may have been killed
        root, run_id = Path(cfg.runtime.output_root).expanduser(), cfg.runtime.run_id
        mark_abandoned(root, run_id, run_hash, result.line or result.state, result.state)
    return result


def search_path(overrides: Sequence[str]) -> tuple[str, ...]:
    """The override that names the user's own folders of options, if there is one."""
    return tuple(item for item in overrides if key_of(item) == SEARCH_PATH)


def command_of_job(overrides: Sequence[str], run_id: str, command: str) -> str:
    """The text of a job's command.txt: its own command, then the command of its sweep or search.

    Args:
        overrides: of the job, with the search path. command: of the sweep or search.
    """
    try:
        own = single_run([*overrides])
    except ConfigError:  # a sweep of the user's own whose values no override can hold
        return command
    kept = [item for item in own if item in choices([item]) or key_of(item) == SEARCH_PATH]
    return command_file.join(shell.fgvc(*kept, f"{RUN_ID_KEY}{run_id}"), command)


def _finish(
    sweep: Sweep, jobs: Sequence[JobConfig], table: Callable[[Sequence[Row]], SweepTable]
) -> int:
    """Print and write the sweep's tables; returns its exit code."""
    runtime = jobs[0].conf.runtime
    root = Path(runtime.output_root).expanduser()
    rows = tuple(_final_row(root, sweep, job) for job in jobs)
    ended = table(rows)
    compared = build_table(untrusted.folders_below(root / sweep.run_id, 2))
    print_table(compared)
    report.print_sweep(ended)
    sweep_page.write_data(ended, sweep.folder)
    any_good = any(row.state in GOOD for row in rows)
    if any_good:  # before the page, which links it
        write_baselines(root, root, runtime.retention_days)
    verdicts = sweep_page.against_best(compared.groups)
    sweep_page.write_page(ended, sweep.folder, verdicts=verdicts)
    console.say(f"records: {_short_path(root / sweep.run_id)}")
    console.say(f"jobs: {_short_path(sweep.folder / PAGE)}")
    if any_good:
        console.say(f"every run so far: {_short_path(root / 'baselines.html')}, .csv (task=report)")
    if all(row.state in GOOD for row in rows):
        return DONE
    console.say(f"remaining jobs: the same command with runtime.run_id={sweep.run_id}")
    stopped = stop_signals() or any(row.state == "preempted" for row in rows)
    return PREEMPTED if stopped else max(FAILED, *(row.code or 0 for row in rows))


def _final_row(root: Path, sweep: Sweep, job: JobConfig) -> Row:
    """The row of a job, with its run folder relative to the output root."""
    row = report.read_row(sweep.folder, choices(job.overrides))
    if row.state == RUNNING:
        row = replace(row, state="failed", line="the process running this job died")
    return _locate(root, sweep.run_id, row)


def _locate(root: Path, run_id: str, row: Row) -> Row:
    """The row with its run folder relative to the output root, if there is one."""
    if row.config_hash is None:
        return replace(row, folder=None)
    home = Path(run_id) / row.config_hash[:SHORT]
    if row.state in GOOD and (runs := complete_runs(root, run_id, row.config_hash)):
        return replace(row, folder=str(home / runs[-1].name))
    return replace(row, folder=str(home / IN_PROGRESS) if (root / home).is_dir() else None)


def _short_path(path: Path) -> str:
    """A path from the working folder if it is below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def job_hash(cfg: DictConfig) -> str | None:
    """The config hash of a job; None if the job takes its config from a checkpoint."""
    if cfg.task.name == "eval":
        return None
    try:
        return config_hash(resolved(cfg))
    except (ConfigError, OSError):  # the job reports this itself, in its row
        return None
