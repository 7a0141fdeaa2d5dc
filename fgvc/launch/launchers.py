"""Hydra's launchers -> jobs in workers, watched: what is lost is named, Ctrl-C stops them all.

They stand in for the plugins of the same name. Those wait for ever for a job that is lost, end the
sweep with the first that fails, start every local job at once and leave the jobs behind after
Ctrl-C. What a job has to tell is its row; here it is only waited for.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import submitit
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import LocalLauncher, SlurmLauncher
from joblib import cpu_count
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import BrokenProcessPool
from omegaconf import DictConfig
from submitit.core.utils import FailedJobError

from fgvc.config.overrides import choices
from fgvc.exit_codes import FAILED, PREEMPTED
from fgvc.launch import slurm_queue
from fgvc.launch.job_process import AT_ONCE, NOTICES, asked
from fgvc.launch.launched_job import CUDA, STOP, Elsewhere
from fgvc.record.run_dir import now
from fgvc.report.sweep_table import Row, read_row, write_row
from fgvc.store import atomic

LOOK = 0.2  # seconds between looks at local jobs
LOOK_FAR = 2.0  # at SLURM's
PATIENCE = 120.0  # seconds that jobs which SLURM was told to cancel have to save

RUNNING = "running"
RULE = "-" * 22  # around the trace in submitit's message
Overrides = Sequence[str]


class Joblib(JoblibLauncher):
    """`n_jobs` workers, each of which runs one job after the other."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        job = Elsewhere(task_function, _folder(config), multiprocessing.get_start_method())
        super().setup(hydra_context=hydra_context, task_function=job, config=config)

    def launch(
        self, job_overrides: Sequence[Overrides], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        assert self.config is not None
        folder, todo, since = _folder(self.config), list(job_overrides), now().isoformat()
        most = self.joblib["n_jobs"] or cpu_count()
        self.joblib |= {"n_jobs": min(most, len(todo)), "batch_size": 1}
        with _stopping(folder):
            while todo and not asked():
                try:
                    returned = super().launch(todo, initial_job_idx)
                    return [*_silent(len(job_overrides) - len(todo)), *returned]
                except BrokenProcessPool:
                    todo = _left_by_a_broken_pool(folder, todo, since)
                except KeyboardInterrupt:  # the second one: joblib has killed them
                    _lost(folder, todo, since)
                finally:
                    get_reusable_executor().shutdown(wait=True, kill_workers=bool(asked() > 1))
        return _silent(len(job_overrides))


class Local(LocalLauncher):
    """One submitit job after the other, `n_jobs` at once, on this machine."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        shown = os.environ.get(CUDA, "") if self.params["gpus_per_node"] is None else None
        method = multiprocessing.get_start_method()
        job = Elsewhere(task_function, _folder(config), method, shown)
        super().setup(hydra_context=hydra_context, task_function=job, config=config)

    def launch(
        self, job_overrides: Sequence[Overrides], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        assert self.config is not None
        folder, waiting = _folder(self.config), _calls(job_overrides, initial_job_idx)
        since = now().isoformat()
        executor = self._executor()
        running: dict[int, submitit.Job] = {}
        returned = dict(enumerate(_silent(len(waiting)), initial_job_idx))
        with _stopping(folder):
            try:
                while running or (waiting and not asked()):
                    while waiting and len(running) < self.params["n_jobs"] and not asked():
                        call = waiting.pop(0)
                        running[call[2]] = _deaf_to_ctrl_c(executor, self, call)
                    time.sleep(LOOK)
                    for index in [index for index, job in running.items() if job.done()]:
                        job = running.pop(index)
                        overrides = job_overrides[index - initial_job_idx]
                        returned[index] = _told(folder, overrides, job, since)
            except KeyboardInterrupt:  # the second one
                for index, job in running.items():
                    _kill_all_of(int(job.job_id))
                    _lost(folder, [job_overrides[index - initial_job_idx]], since)
        return [returned[index] for index in sorted(returned)]

    def _executor(self) -> submitit.LocalExecutor:
        executor = submitit.LocalExecutor(
            self.params["submitit_folder"], max_num_timeout=self.params["max_num_timeout"]
        )
        executor.update_parameters(
            timeout_min=self.params["timeout_min"],
            signal_delay_s=self.params["signal_delay_s"],
            gpus_per_node=self.params["gpus_per_node"] or 0,
        )
        return executor


class Slurm(SlurmLauncher):
    """An array of SLURM jobs; what is preempted or out of time goes on when SLURM lets it."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        job = Elsewhere(task_function, _folder(config), multiprocessing.get_start_method())
        super().setup(hydra_context=hydra_context, task_function=job, config=config)

    def launch(
        self, job_overrides: Sequence[Overrides], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        assert self.config is not None
        folder, calls = _folder(self.config), _calls(job_overrides, initial_job_idx)
        since = now().isoformat()
        with _stopping(folder):
            try:
                jobs = self._executor().map_array(self, *zip(*calls, strict=True))
            except FailedJobError as error:
                _lost(folder, job_overrides, since, _last_line(str(error)))
                return _silent(len(calls))
            print(f"submitted as SLURM job {jobs[0].job_id.partition('_')[0]}", flush=True)
            try:
                _wait_for_slurm({job.job_id: job for job in jobs})
            except KeyboardInterrupt:  # the second one
                _lost(folder, job_overrides, since)
                return _silent(len(calls))
        pairs = zip(job_overrides, jobs, strict=True)
        return [_told(folder, overrides, job, since) for overrides, job in pairs]

    def _executor(self) -> submitit.SlurmExecutor:
        given = {name: value for name, value in self.params.items() if value is not None}
        folder, most = given.pop("submitit_folder"), given.pop("max_num_timeout")
        memory = {"mem": f"{given.pop('mem_gb')}GB"} if "mem_gb" in given else {}
        renamed = {"job_name": given.pop("name"), "time": given.pop("timeout_min")}
        executor = submitit.SlurmExecutor(folder, max_num_timeout=most)
        executor.update_parameters(**given, **renamed, **memory, nodes=1, ntasks_per_node=1)
        return executor


def install() -> None:
    """Have Hydra take these launchers where a config names the plugins."""
    stand_ins = ((JoblibLauncher, Joblib), (LocalLauncher, Local), (SlurmLauncher, Slurm))
    for plugin, mine in stand_ins:
        name = f"{plugin.__module__}.{plugin.__name__}"
        Plugins.instance().class_name_to_class[name] = mine


# --- in the process of the sweep ---


@contextmanager
def _stopping(folder: Path) -> Iterator[None]:
    """The first notice leaves word for the workers; the second raises KeyboardInterrupt."""
    (folder / STOP).unlink(missing_ok=True)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in NOTICES}

    def notice(number: int, frame: FrameType | None) -> None:
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        if asked() > 1:
            raise KeyboardInterrupt
        atomic.write_text(folder / STOP, "asked to stop\n")

    for each in NOTICES:
        signal.signal(each, notice)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        (folder / STOP).unlink(missing_ok=True)


def _wait_for_slurm(jobs: dict[str, submitit.Job]) -> None:
    """Until each has left a result, or is over without one; once asked to stop, cancel them."""
    queue, cancelled = slurm_queue.Queue(), None
    while jobs:
        if asked() and cancelled is None:
            slurm_queue.cancel(jobs)
            cancelled = time.monotonic()
        if cancelled is not None and time.monotonic() - cancelled > PATIENCE:
            return
        time.sleep(LOOK_FAR)
        over = queue.over(jobs, slurm_queue.LAG if cancelled is None else 0.0)
        for one in [one for one, job in jobs.items() if one in over or _has_result(job)]:
            del jobs[one]


def _folder(config: DictConfig) -> Path:
    """Of the sweep, absolute: a worker may be anywhere."""
    return Path(str(config.hydra.sweep.dir)).expanduser().absolute()


def _calls(job_overrides: Sequence[Overrides], start: int) -> list[tuple[Any, ...]]:
    """What the plugins' `__call__` takes, of each job."""
    state = Singleton.get_state()
    return [
        (list(overrides), "hydra.sweep.dir", index, f"job_{index}", state)
        for index, overrides in enumerate(job_overrides, start)
    ]


def _deaf_to_ctrl_c(
    executor: submitit.LocalExecutor, launcher: Local, call: tuple[Any, ...]
) -> submitit.Job:
    """Start a local job that the terminal's Ctrl-C does not kill: the sweep stops it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a process that is started inherits it
    try:
        return executor.submit(launcher, *call)
    finally:
        signal.signal(signal.SIGINT, before)


def _has_result(job: submitit.Job) -> bool:
    return job.paths.result_pickle.exists()


def _told(folder: Path, overrides: Overrides, job: submitit.Job, since: str) -> JobReturn:
    """What a job returned; one that left no word is named in its row."""
    if not _has_result(job):
        _lost(folder, [overrides], since, f"its worker is gone: {job.paths.stderr}")
    elif (error := job.exception()) is None:
        return job.results()[0]
    else:
        line = f"its worker: {_last_line(str(error).split(RULE)[1])} ({job.paths.stderr})"
        _lost(folder, [overrides], since, line)
    return _silent(1)[0]


def _left_by_a_broken_pool(folder: Path, todo: Sequence[Overrides], since: str) -> list[Overrides]:
    """The jobs that have not begun; joblib kills all workers when it loses one."""
    rows = [read_row(folder, choices(overrides)) for overrides in todo]
    begun = [one for one, row in zip(todo, rows, strict=True) if _begun(row, since)]
    _lost(folder, begun, since, "its worker was killed, or one beside it")
    return [one for one in todo if one not in begun] if begun else []


def _lost(folder: Path, jobs: Sequence[Overrides], since: str, line: str = AT_ONCE) -> None:
    """Write into their rows that these jobs are gone, unless they had ended.

    Args:
        since: when they were launched; a row of before is of an earlier try.
        line: what became of them; once asked to stop, they were stopped.
    """
    told = {"state": "failed", "code": FAILED, "line": line}
    if asked():
        told = {"state": "preempted", "code": PREEMPTED, "line": AT_ONCE}
    for overrides in jobs:
        row = read_row(folder, choices(overrides))
        if row.state == RUNNING or not (asked() or _begun(row, since)):
            write_row(folder, replace(row, **told))


def _begun(row: Row, since: str) -> bool:
    return row.started is not None and row.started >= since


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no word"


def _kill_all_of(pid: int) -> None:
    """A local job: submitit's watcher, its worker, what that started."""
    try:
        watcher = psutil.Process(pid)
        family = [watcher, *watcher.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.kill()


def _silent(number: int) -> list[JobReturn]:
    """For Hydra, which asks every job for a value: ours leave theirs on disk."""
    made = [JobReturn() for _ in range(number)]
    for one in made:
        one.status = JobStatus.COMPLETED
    return made
