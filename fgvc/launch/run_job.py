"""One job -> its task, run to its end -> a JobResult: exit code, state and one line.

Exit codes: 0 done, 1 failed, 2 wrong command, 75 preempted and resumable.
"""

from __future__ import annotations

import functools
import importlib
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fgvc.config.compose import composed, config_hash, is_operation, typed
from fgvc.config.errors import ConfigError
from fgvc.config.overrides import JobConfig, of_run
from fgvc.config.schema import TASKS, Config
from fgvc.config.weight_files import sidecars
from fgvc.exit_codes import DONE, FAILED, PREEMPTED, WRONG_COMMAND
from fgvc.launch.next_commands import next_commands
from fgvc.parallel import signals
from fgvc.pipeline.job import Job, Skipped
from fgvc.record import console
from fgvc.record.run_dir import IN_PROGRESS, state_of
from fgvc.store import temporary_files
from fgvc.store.disk_errors import disk_error_line, missing_home_line
from fgvc.types import Preempted, UserError, is_interruption
from fgvc.untrusted.escape import visible
from fgvc.untrusted.shell import escaped


@dataclass(frozen=True)
class JobResult:
    """How a job ended.

    Attributes:
        state: done, skipped (complete before it began), failed, oom or preempted.
        line: the error in one line.
    """

    code: int
    state: str
    line: str | None = None
    traceback: str | None = None


def run_here(jobs: Sequence[JobConfig], run_id: str, command: str, started: float) -> int:
    """Run jobs in this process, one after another: a single job, or operations such as report.

    started: of the command, as of `run_job`.

    Returns:
        The largest of their exit codes. After a signal, the remaining jobs do not start.
    """
    code = DONE
    for job in jobs:
        if code != PREEMPTED:
            conf = replace(job.conf, runtime=replace(job.conf.runtime, run_id=run_id))
            result = run_job(conf, of_run(job.overrides, run_id), command, started)
            code = max(code, result.code)
            if result.code == DONE and not is_operation(conf):
                _print_next_commands(job, conf)
    return code


@functools.cache
def _default_output_root() -> str:
    return composed().runtime.output_root


def _print_next_commands(job: JobConfig, conf: Config) -> None:
    """Print the commands that use the run of a job; nothing if it ended before its record."""
    run_id, root = conf.runtime.run_id, Path(conf.runtime.output_root).expanduser()
    is_default = conf.runtime.output_root == _default_output_root()
    run_hash = config_hash(job.plain) if job.is_experiment else None
    with suppress(OSError):  # a folder of another run that cannot be read fails no run
        for line in next_commands(str(run_id), run_hash, root, is_default):
            console.say(line)


def run_job(
    cfg: DictConfig | Config,
    overrides: Sequence[str],
    command: str,
    started: float | None = None,
) -> JobResult:
    """Run one job to its end. Every error is reported and becomes a result.

    started: when the job was started, by the monotonic clock; None: now.
    """
    started = time.monotonic() if started is None else started
    try:
        with signals.raise_on_signal(Preempted):
            conf = cfg if isinstance(cfg, Config) else typed(cfg)
            _check_weights(conf)
            _remove_stale_files(conf)
            task = importlib.import_module(f"fgvc.task.{conf.task.name}")
            code = task.run(Job(conf, tuple(overrides), command, started))
    except (Exception, KeyboardInterrupt) as error:
        return _failure(error, cfg)
    if isinstance(code, Skipped):
        return JobResult(DONE, "skipped")
    return JobResult(code or DONE, "failed" if code else "done")


def _failure(error: BaseException, cfg: DictConfig | Config) -> JobResult:
    """Report the error that ended a job; a signal to stop hides the errors that it caused."""
    node: Any = OmegaConf.create(escaped(asdict(cfg))) if isinstance(cfg, Config) else cfg
    if is_interruption(error):
        run_id = node.runtime.run_id
        line = f"stopped; the same command with runtime.run_id={run_id} resumes it"
        return _report(error, line, PREEMPTED)
    if isinstance(error, ConfigError):
        return _report(error, str(error), WRONG_COMMAND)
    if isinstance(error, UserError):
        return _report(error, str(error))
    if isinstance(error, OSError):
        keys = ["task.output", "task.overlay"]  # places outside runtime where a job writes
        if node.dataset.reader == "synthetic" or OmegaConf.select(node, "dataset.download"):
            keys.append("dataset.root")
        paths = {key: OmegaConf.select(node, key) for key in keys}
        return _report(error, disk_error_line(error, node.runtime, paths))
    no_home = isinstance(error, RuntimeError) and missing_home_line(error, node.runtime)
    if no_home:
        return _report(error, no_home)
    traceback.print_exception(error)
    return _report(error, f"{type(error).__name__}: {error}")


def _check_weights(conf: Config) -> None:
    """Find the weights before torch and a dataset load, and before a run folder is made.

    Raises:
        UserError: they are not here and the hub does not answer.
        ConfigError: they expect other pixels than the config gives.
    """
    task = TASKS[conf.task.name]
    reads_weights = task.experiment and "checkpoint" not in task.inputs
    if reads_weights and conf.backbone.weights is None:
        from fgvc.model.backbone import weights

        path = weights.find(conf.backbone).path
        if path is not None:
            sidecars.check_normalization(conf.backbone, path, conf.preprocess)
        if conf.preprocess == "native":
            from fgvc.data.preprocess import check_geometry

            check_geometry(conf, path)


def _remove_stale_files(conf: Config) -> None:
    """Remove temporary files of killed processes from the folders that this command writes.

    Complete runs are listed, not searched: only their status and retention change later.
    """
    runtime, dataset = conf.runtime, conf.dataset
    folders: list[tuple[str, int]] = [  # with the number of levels to search below each
        (runtime.cache_root, 2),  # cache/features/KEY/
        (runtime.output_root, 3),  # outputs/RUN/CONFIG/CHECKPOINT/
        (runtime.multirun_root, 2),  # multirun/RUN/jobs/
    ]
    if dataset.reader == "synthetic" and dataset.root is not None:
        folders.append((str(Path(dataset.root).parent), 0))
    if (output := getattr(conf.task, "output", None)) is not None:
        folders += [(output, 0), (str(Path(output).parent), 0)]
    if (overlay := getattr(conf.task, "overlay", None)) is not None:
        folders.append((overlay, 1_000))
    for folder, depth in folders:
        with suppress(RuntimeError):  # no home folder; the writer reports this
            temporary_files.remove_stale(Path(folder).expanduser(), depth, whole=(IN_PROGRESS,))


def _report(error: BaseException, text: str, code: int = FAILED) -> JobResult:
    """Print the error in one line; returns the result of its job."""
    line = " ".join(text.split())
    with suppress(OSError):  # standard error may be on the full disk too; the exit code remains
        print(f"fgvc: {visible(line)}", file=sys.stderr, flush=True)
    trace = "".join(traceback.format_exception(error))
    return JobResult(code, state_of(error), line, trace)
