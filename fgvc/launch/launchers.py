"""Jobs of a sweep -> workers of a launcher, supervised: a lost job is marked in its row.

The launchers themselves are plugins of Hydra (hydra_plugins.fgvc.launchers). The result of a job is
its row on disk. A launcher only waits for its jobs: it does not wait for a lost job, does not end
with the first failed job, and leaves no job running after Ctrl-C.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import submitit
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import BrokenProcessPool
from submitit.core.utils import FailedJobError

from fgvc.config.overrides import choices
from fgvc.exit_codes import FAILED, PREEMPTED
from fgvc.launch.job_process import KILLED, stop_signals
from fgvc.launch.launcher_job import STOP
from fgvc.parallel import signals
from fgvc.record.run_dir import now
from fgvc.report.sweep_table import Row, read_row, write_row
from fgvc.store import atomic

if TYPE_CHECKING:
    from hydra_plugins.fgvc.launchers import WorkerLauncher

POLL = 0.2  # seconds between checks of local jobs
SLURM_POLL = 2.0  # seconds between checks of SLURM jobs
SLURM_GRACE = 20.0  # seconds between the end of a job and its result on a shared disk
SLURM_ENDS = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"}
SLURM_ENDS |= {"OUT_OF_MEMORY", "TIMEOUT"}
SAVE_TIMEOUT = 120.0  # seconds for cancelled SLURM jobs to save
RULE = "-" * 22  # around the traceback in submitit's message
Overrides = Sequence[str]


def launch_joblib(
    launcher: WorkerLauncher, job_overrides: Sequence[Overrides], start: int
) -> Sequence[JobReturn]:
    """Run the jobs in a pool of workers.

    Args:
        job_overrides: of each job.
        start: number of the first job.
    """
    todo, since = list(job_overrides), now().isoformat()
    workers = min(launcher.params["n_jobs"] or cpu_count(), len(todo))
    with _stop_file(launcher.folder):
        while todo and not stop_signals():
            try:
                pool: Any = Parallel(workers, backend="loky", batch_size=1)  # type: ignore[arg-type]
                results = pool(delayed(launcher)(*call) for call in _calls(todo, start))
                return [*_empty_results(len(job_overrides) - len(todo)), *results]
            except BrokenProcessPool:
                todo = _not_started(launcher.folder, todo, since)
            except KeyboardInterrupt:  # the second signal: joblib has killed the workers
                _mark_lost(launcher.folder, todo, since)
            finally:
                kill = stop_signals() > 1
                get_reusable_executor().shutdown(wait=True, kill_workers=kill)
    return _empty_results(len(job_overrides))


def launch_local(
    launcher: WorkerLauncher, job_overrides: Sequence[Overrides], start: int
) -> Sequence[JobReturn]:
    """Run the jobs as submitit's jobs on this machine; arguments as in `launch_joblib`."""
    params, waiting, since = launcher.params, _calls(job_overrides, start), now().isoformat()
    executor = submitit.LocalExecutor(
        params["submitit_folder"], max_num_timeout=params["max_num_timeout"]
    )
    executor.update_parameters(
        timeout_min=params["timeout_min"],
        signal_delay_s=params["signal_delay_s"],
        gpus_per_node=params["gpus_per_node"] or 0,
    )
    running: dict[int, submitit.Job] = {}
    results = dict(enumerate(_empty_results(len(waiting)), start))
    with _stop_file(launcher.folder):
        try:
            while running or (waiting and not stop_signals()):
                while waiting and len(running) < params["n_jobs"] and not stop_signals():
                    call = waiting.pop(0)
                    # it ignores the Ctrl-C of the terminal: the sweep stops it
                    with signals.ignored([signal.SIGINT]):
                        running[call[1]] = executor.submit(launcher, *call)
                time.sleep(POLL)
                for index in [index for index, job in running.items() if job.done()]:
                    job, overrides = running.pop(index), job_overrides[index - start]
                    results[index] = _result(launcher.folder, overrides, job, since)
        except KeyboardInterrupt:  # the second signal
            for index, job in running.items():
                _kill_tree(int(job.job_id))
                _mark_lost(launcher.folder, [job_overrides[index - start]], since)
    return [results[index] for index in sorted(results)]


def launch_slurm(
    launcher: WorkerLauncher, job_overrides: Sequence[Overrides], start: int
) -> Sequence[JobReturn]:
    """Run the jobs as an array of SLURM jobs; arguments as in `launch_joblib`."""
    calls, since = _calls(job_overrides, start), now().isoformat()
    params = {name: value for name, value in launcher.params.items() if value is not None}
    folder, max_num_timeout = params.pop("submitit_folder"), params.pop("max_num_timeout")
    memory = {"mem": f"{params.pop('mem_gb')}GB"} if "mem_gb" in params else {}
    renamed = {"job_name": params.pop("name"), "time": params.pop("timeout_min")}
    with _stop_file(launcher.folder):
        try:
            executor = submitit.SlurmExecutor(folder, max_num_timeout=max_num_timeout)
            executor.update_parameters(**params, **renamed, **memory, nodes=1, ntasks_per_node=1)
            jobs = executor.map_array(launcher, *zip(*calls, strict=True))
            print(f"submitted as SLURM job {jobs[0].job_id.partition('_')[0]}", flush=True)
            _wait_for_slurm({job.job_id: job for job in jobs})
        except (FailedJobError, KeyboardInterrupt) as error:  # sbatch failed, or the second signal
            _mark_lost(launcher.folder, job_overrides, since, _last_line(str(error)))
            return _empty_results(len(calls))
    pairs = zip(job_overrides, jobs, strict=True)
    return [_result(launcher.folder, overrides, job, since) for overrides, job in pairs]


# --- in the process of the sweep ---


@contextmanager
def _stop_file(folder: Path) -> Iterator[None]:
    """The first signal writes the workers' stop file; the second raises KeyboardInterrupt."""
    (folder / STOP).unlink(missing_ok=True)

    def handle(number: int, forward: Callable[[], None]) -> None:
        forward()
        if stop_signals() > 1:
            raise KeyboardInterrupt
        atomic.write_text(folder / STOP, "asked to stop\n")

    try:
        with signals.handled(handle):
            yield
    finally:
        (folder / STOP).unlink(missing_ok=True)


def _wait_for_slurm(jobs: dict[str, submitit.Job]) -> None:
    """Wait until each job has left a result or ended without one; after a signal, cancel them."""
    queue, cancelled = SlurmQueue(), None
    while jobs:
        if stop_signals() and cancelled is None:
            subprocess.run(["scancel", *jobs], check=False, timeout=60)  # running jobs save and end
            cancelled = time.monotonic()
        if cancelled is not None and time.monotonic() - cancelled > SAVE_TIMEOUT:
            return
        time.sleep(SLURM_POLL)
        finished = queue.finished(jobs, SLURM_GRACE if cancelled is None else 0.0)
        finished |= {job_id for job_id, job in jobs.items() if job.paths.result_pickle.exists()}
        for job_id in finished:
            del jobs[job_id]


class SlurmQueue:
    """The jobs of a sweep as squeue lists them, because small clusters keep no accounting.

    squeue shows a requeued job as PENDING. It lists an ended job for some minutes, then no longer.
    """

    def __init__(self) -> None:
        self.finished_since: dict[str, float] = {}

    def finished(self, ids: Iterable[str], grace: float) -> set[str]:
        """The ids of the jobs that ended at least `grace` seconds ago."""
        command = ["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:  # the controller does not answer
            return set()
        pairs = (line.partition("|") for line in done.stdout.splitlines())
        states = {job_id: state for job_id, _, state in pairs}
        clock = time.monotonic()
        finished = set()
        for job_id in ids:
            if job_id not in states or states[job_id] in SLURM_ENDS:
                if clock - self.finished_since.setdefault(job_id, clock) >= grace:
                    finished.add(job_id)
            else:
                self.finished_since.pop(job_id, None)
        return finished


def _calls(job_overrides: Sequence[Overrides], start: int) -> list[tuple[Any, ...]]:
    state = Singleton.get_state()
    return [(overrides, index, state) for index, overrides in enumerate(job_overrides, start)]


def _result(folder: Path, overrides: Overrides, job: submitit.Job, since: str) -> JobReturn:
    """The value of a job; a job whose worker failed is marked as lost in its row."""
    if not job.paths.result_pickle.exists():
        _mark_lost(folder, [overrides], since, f"its worker died: {job.paths.stderr}")
    elif (error := job.exception()) is None:
        return job.results()[0]
    else:
        line = f"its worker: {_last_line(str(error).split(RULE)[1])} ({job.paths.stderr})"
        _mark_lost(folder, [overrides], since, line)
    return _empty_results(1)[0]


def _not_started(folder: Path, todo: Sequence[Overrides], since: str) -> list[Overrides]:
    """The jobs to run again: joblib kills all workers when it loses one of them."""
    rows = [read_row(folder, choices(overrides)) for overrides in todo]
    started = [
        overrides for overrides, row in zip(todo, rows, strict=True) if _has_started(row, since)
    ]
    _mark_lost(folder, started, since, "its worker was killed, or another one of its pool")
    return [overrides for overrides in todo if overrides not in started] if started else []


def _mark_lost(folder: Path, jobs: Sequence[Overrides], since: str, line: str = KILLED) -> None:
    """Write into the rows of these jobs that their worker died, unless they had ended.

    Args:
        since: time of their launch; an older row is of an earlier attempt.
        line: what happened to them; after a stop signal, they were killed.
    """
    end = {"state": "failed", "code": FAILED, "line": line}
    if stop_signals():
        end = {"state": "preempted", "code": PREEMPTED, "line": KILLED}
    for overrides in jobs:
        row = read_row(folder, choices(overrides))
        if row.state == "running" or not (stop_signals() or _has_started(row, since)):
            write_row(folder, replace(row, **end))


def _has_started(row: Row, since: str) -> bool:
    return row.started is not None and row.started >= since


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def _kill_tree(pid: int) -> None:
    """Kill a local job: submitit's watcher, its worker and their children."""
    try:
        watcher = psutil.Process(pid)
        processes = [watcher, *watcher.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _empty_results(count: int) -> list[JobReturn]:
    """Results for Hydra, which reads a value from every job; our jobs leave theirs on disk."""
    results = [JobReturn() for _ in range(count)]
    for result in results:
        result.status = JobStatus.COMPLETED
    return results
