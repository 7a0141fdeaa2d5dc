"""The jobs of a sweep -> a row each on disk, whatever becomes of them, and one table at the end.

`Sweep.job` is what a launcher calls, in this process or on another machine: it needs nothing but
itself, and what it has to tell is on disk. The same sweep again skips what is complete, goes on
with what was stopped and tries again what failed.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from fgvc import untrusted
from fgvc.config.compose import config_hash, resolved
from fgvc.config.errors import ConfigError
from fgvc.config.overrides import Job, choices
from fgvc.config.sweep_exclusions import Exclusion, summarize
from fgvc.exit_codes import DONE, FAILED, PREEMPTED
from fgvc.launch.job import Ended
from fgvc.launch.job_process import asked, isolated, noticing
from fgvc.record.run_dir import IN_PROGRESS, SHORT, complete_runs, mark_abandoned, now
from fgvc.report import sweep_table as report
from fgvc.report.baselines import build_table, write_baselines
from fgvc.report.sweep_table import GOOD, Row, SweepTable
from fgvc.report.terminal_table import print_table
from fgvc.store import atomic
from fgvc.store.disk_advice import ROOTS, disk_error_line
from fgvc.store.disk_errors import add_path
from fgvc.store.file_lock import lock
from fgvc.types import Preempted, UserError
from fgvc.untrusted.escape import visible


@dataclass(frozen=True)
class Sweep:
    """Where a sweep keeps what it knows. folder: multirun/<run_id>, absolute."""

    run_id: str
    command: str
    folder: Path

    def job(self, cfg: DictConfig, overrides: Sequence[str]) -> None:
        """Run one job in a process of its own and keep its row."""
        if asked():  # to stop: the jobs that are left wait for the next time
            return
        row = Row(
            choices(overrides), "running", started=now().isoformat(), config_hash=hash_of(cfg)
        )
        report.write_row(self.folder, row)
        start = time.monotonic()
        ended = isolated(cfg, overrides, self.command)
        seconds = round(time.monotonic() - start, 2)
        settle(cfg, row.config_hash, ended)
        told = {"state": ended.state, "code": ended.code, "line": ended.line}
        report.write_row(
            self.folder, replace(row, **told, seconds=seconds, traceback=ended.traceback)
        )


Launch = Callable[[Callable[[DictConfig, Sequence[str]], None]], object]


def run(
    run_id: str, command: str, jobs: Sequence[Job], left_out: Sequence[Exclusion], launch: Launch
) -> int:
    """Run a sweep to its table; returns its exit code.

    While it runs, Ctrl-C or a cluster's notice stops the job that runs, which saves, and begins no
    other; a second one stops it at once.

    Args:
        launch: has every job run by the function it is given.
    """
    folder = Path(jobs[0].conf.runtime.multirun_root).expanduser().absolute() / run_id
    sweep = Sweep(run_id, command, folder)
    try:
        with lock(folder / ".lock"), noticing():
            # the table says which jobs were not begun
            with contextlib.suppress(Preempted, KeyboardInterrupt, SystemExit):
                _check_room(sweep, jobs[0])
                with add_path(folder):
                    launch(sweep.job)
            return _close(sweep, jobs, left_out)
    except UserError as error:
        print(f"fgvc: {visible(str(error))}", file=sys.stderr, flush=True)
        return FAILED
    except OSError as error:
        line = disk_error_line(error, {name: getattr(jobs[0].conf.runtime, name) for name in ROOTS})
        print(f"fgvc: {visible(line)}", file=sys.stderr, flush=True)
        return FAILED


def _check_room(sweep: Sweep, job: Job) -> None:
    """Write multirun.yaml, which Hydra overwrites: the error of Hydra lacks path and bytes.

    Raises:
        OSError: the disk refuses.
    """
    atomic.write_text(sweep.folder / "multirun.yaml", OmegaConf.to_yaml(job.compose()))


def _close(sweep: Sweep, jobs: Sequence[Job], left_out: Sequence[Exclusion]) -> int:
    """Print and write the sweep's table; returns its exit code."""
    runtime = jobs[0].conf.runtime
    root = Path(runtime.output_root).expanduser()
    rows = tuple(_placed(root, sweep, _final(sweep, job)) for job in jobs)
    table = SweepTable(
        sweep.run_id, sweep.command, rows, tuple(summarize(left_out)), root.absolute()
    )
    print_table(build_table(untrusted.folders_below(root / sweep.run_id, 2)))
    report.print_sweep(table)
    report.write_sweep(table, sweep.folder)
    report.console.say(f"records: {root / sweep.run_id}; jobs: {sweep.folder / 'sweep.html'}")
    if any(row.state in GOOD for row in rows):
        write_baselines(root, root, runtime.retention_days)
        report.console.say(f"every run so far: {root / 'baselines.html'}, .csv (task=report)")
    return _code(sweep, rows)


def _code(sweep: Sweep, rows: Sequence[Row]) -> int:
    if all(row.state in GOOD for row in rows):
        return DONE
    report.console.say(f"the same command with runtime.run_id={sweep.run_id} does what is not done")
    stopped = asked() or any(row.state == "preempted" for row in rows)
    return PREEMPTED if stopped else max(FAILED, *(row.code or 0 for row in rows))


def _final(sweep: Sweep, job: Job) -> Row:
    row = report.read_row(sweep.folder, choices(job.overrides))
    if row.state != "running":
        return row
    return replace(row, state="failed", line="what ran it is gone, and it with it")


def _placed(root: Path, sweep: Sweep, row: Row) -> Row:
    """The row with its run folder, below the output root."""
    if row.config_hash is None:
        return row
    home = Path(sweep.run_id) / row.config_hash[:SHORT]
    if row.state in GOOD and (found := complete_runs(root, sweep.run_id, row.config_hash)):
        return replace(row, folder=str(home / found[-1].name))
    return replace(row, folder=str(home / IN_PROGRESS) if (root / home).is_dir() else None)


def hash_of(cfg: DictConfig) -> str | None:
    """None where a job's config is that of the checkpoint it reads."""
    if cfg.task.name == "eval":
        return None
    try:
        return config_hash(resolved(cfg))
    except (ConfigError, OSError):  # the job itself says so, in its own row
        return None


def settle(cfg: DictConfig, run_hash: str | None, ended: Ended) -> None:
    """A run whose process could not write how it ended is told so."""
    if ended.code != DONE and run_hash is not None:
        root = Path(cfg.runtime.output_root).expanduser()
        mark_abandoned(root, cfg.runtime.run_id, run_hash, ended.line or ended.state, ended.state)
