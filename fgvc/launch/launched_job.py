"""A job of a sweep, in a worker that a launcher started: hear the notices, then run it as ever.

Notices come from the terminal, from submitit and from SLURM, often one and the same by two ways:
the first is passed on to the job, which saves and stops. A sweep that was asked to stop says so by
a file, as its workers may be on other machines. What is queued again goes on from its state.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig

from fgvc.exit_codes import PREEMPTED
from fgvc.launch.job_process import noticing
from fgvc.parallel import signals

STOP = "stop"  # a file in the sweep's folder while it stops
LOOK = 0.25  # seconds between looks for it
CUDA = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Elsewhere:
    """What a launcher calls in a worker.

    job: runs one config in a process of its own. folder: of the sweep. start_method: of processes,
    as in the sweep. devices: CUDA_VISIBLE_DEVICES as in the sweep, "" where it has none; None:
    what the worker was started with.
    """

    job: Callable[[DictConfig], float | None]
    folder: Path
    start_method: str
    devices: str | None = None

    def __call__(self, cfg: DictConfig) -> float | None:
        if (self.folder / STOP).exists():
            return None
        multiprocessing.set_start_method(self.start_method, force=True)  # joblib has its own
        if self.devices is not None:
            os.environ.pop(CUDA, None)
        if self.devices:
            os.environ[CUDA] = self.devices
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # between two jobs: the sweep's to answer
        before = {each: signal.getsignal(each) for each in signals.CLUSTER_SIGNALS}
        with noticing(), _once() as seen, _watching(self.folder / STOP):
            value = self.job(cfg)
        _queue_again(seen, before)
        return value


def _queue_again(seen: Sequence[int], before: Mapping[signal.Signals, Any]) -> None:
    """After a notice that submitit listens to, let it queue the job again, now that it has saved;
    after SLURM's own, end without a word, as SLURM queues it again itself."""
    for number in seen:
        handler = before.get(signal.Signals(number))
        if callable(handler) and getattr(handler, "__name__", "") == "checkpoint_and_try_requeue":
            handler(number, None)
    if signal.SIGTERM in seen and "SLURM_JOB_ID" in os.environ:
        sys.exit(PREEMPTED)


@contextmanager
def _once() -> Iterator[list[int]]:
    """Pass on the first notice of any kind; yields those that came."""
    seen: list[int] = []
    listening = signals.STOP_SIGNALS
    before = {each: signal.getsignal(each) for each in listening}
    pass_on = before[signal.SIGTERM]

    def notice(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) == 1 and callable(pass_on):
            pass_on(number, frame)

    for each in listening:
        signal.signal(each, notice)
    try:
        yield seen
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _watching(stop: Path) -> Iterator[None]:
    """While the block runs, the file `stop` is a notice."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK):
            if stop.exists():
                os.kill(os.getpid(), signal.SIGINT)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
