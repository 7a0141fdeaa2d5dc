"""The function that a launcher calls in its worker: a job of a sweep -> its own process.

Stop signals come from the terminal, from submitit and from SLURM, and the same one may arrive
twice. Only the first is passed on to the job, which saves and stops. A sweep that is stopping tells
its workers by a file, because they may be on other machines. A requeued job resumes from its state.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from fgvc.exit_codes import PREEMPTED
from fgvc.launch.job_process import forward_signals
from fgvc.parallel import signals

STOP = "stop"  # a file in the sweep's folder while the sweep is stopping
POLL = 0.25  # seconds between checks for this file
CUDA = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class LauncherJob:
    """The function that a launcher calls in a worker.

    Attributes:
        run_job: runs one config in its own process.
        folder: the sweep's folder.
        start_method: of multiprocessing, as in the sweep.
        devices: CUDA_VISIBLE_DEVICES of the sweep, "" if it is unset there. None leaves the
            worker's own.
    """

    run_job: Callable[[DictConfig], float | None]
    folder: Path
    start_method: str
    devices: str | None = None

    def __call__(self, cfg: DictConfig) -> float | None:
        if (self.folder / STOP).exists():
            return None
        multiprocessing.set_start_method(self.start_method, force=True)  # joblib sets its own
        if self.devices is not None:
            os.environ.pop(CUDA, None)
        if self.devices:
            os.environ[CUDA] = self.devices
        signals.ignore([signal.SIGINT])  # between two jobs, only the sweep responds
        requeue = {number: signal.getsignal(number) for number in signals.CLUSTER_SIGNALS}
        with forward_signals(), _forward_first() as received, _watch(self.folder / STOP):
            value = self.run_job(cfg)
        for number in received:  # submitit's handlers requeue the job, now that it has saved
            handler = requeue.get(signal.Signals(number))
            name = getattr(handler, "__name__", "")
            if callable(handler) and name == "checkpoint_and_try_requeue":
                handler(number, None)
        if signal.SIGTERM in received and "SLURM_JOB_ID" in os.environ:
            sys.exit(PREEMPTED)  # SLURM itself requeues it
        return value


@contextmanager
def _forward_first() -> Iterator[list[int]]:
    """Pass on the first stop signal of any kind; yields the list of those received."""
    received: list[int] = []

    def handle(number: int, forward: Callable[[], None]) -> None:
        received.append(number)
        if len(received) == 1:
            forward()

    with signals.handled(handle):
        yield received


@contextmanager
def _watch(stop: Path) -> Iterator[None]:
    """During the block, the file `stop` acts as a stop signal."""
    done = threading.Event()

    def poll() -> None:
        while not done.wait(POLL):
            if stop.exists():
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
