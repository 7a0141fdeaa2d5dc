"""One job of a sweep -> its own process -> its JobResult, even if the process dies.

On Linux the process is forked from a server that has torch and the tasks loaded; on other systems
it is spawned. It leads its own session, so that Ctrl-C reaches only the sweep. On the first
signal the sweep asks the job to save and stop; on the second it kills the job and its children.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, reduction
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

from omegaconf import DictConfig

from fgvc.exit_codes import FAILED, PREEMPTED
from fgvc.launch.run_job import JobResult, run_job
from fgvc.parallel import signals
from fgvc.record import console
from fgvc.types import Preempted

GRACE = 30.0  # seconds for a process to exit after it sent its result, or after its sweep died
STREAMS = (1, 2)  # standard output and standard error
SOMEWHERE = console.SweepPosition()  # in a sweep; a worker does not know where
KILLED = "stopped at once; saved files are kept"
STOPPING = b"fgvc: stopping when the running job has saved; a second signal stops it at once\n"


def run_in_process(
    cfg: DictConfig,
    overrides: Sequence[str],
    command: str,
    position: console.SweepPosition = SOMEWHERE,
) -> JobResult:
    """Run one job of a sweep in its own process and wait for its end."""
    context = _context()
    receiver, sender = context.Pipe(duplex=False)
    streams = [_Stream(number) for number in STREAMS]
    inherited = (dict(os.environ), multiprocessing.get_start_method())
    job = (cfg, [*overrides], command, position, time.monotonic())
    process = context.Process(target=_main, args=(sender, streams, *inherited, *job))
    with signals.blocked(tracked=True):  # also for the server that forks it, if it starts now
        process.start()
    sender.close()
    with receiver, _forwarding_to(process):
        connection.wait([receiver, process.sentinel])
        try:
            result = receiver.recv() if receiver.poll() else None
        except EOFError:
            result = None
        process.join(GRACE if result else None)
    if result is None or process.is_alive():
        _kill(process)
        process.join()
    return result or _result_of_exit_code(process.exitcode)


def _context() -> ForkServerContext | SpawnContext:
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fgvc.launch.fork_server"])
    return context


# --- signals to stop ---

_stop_signals = 0
_running: BaseProcess | None = None


def stop_signals() -> int:
    """Number of stop signals that this process has received since `forward_signals` began."""
    return _stop_signals


@contextmanager
def forward_signals() -> Iterator[None]:
    """During the block, count stop signals and pass them on to the running job."""
    global _stop_signals
    _stop_signals = 0
    with signals.handled(_handle):
        yield


def _handle(number: int, forward: Callable[[], None]) -> None:
    global _stop_signals
    _stop_signals += 1
    if _stop_signals > 2:  # the sweep waits for something other than the job
        raise Preempted(signal.Signals(number).name)
    if _stop_signals == 1:  # not print: the signal may interrupt another print
        os.write(2, STOPPING)
    if _running is not None:
        _stop(_running)


@contextmanager
def _forwarding_to(process: BaseProcess) -> Iterator[None]:
    """Forward signals to this process, also a signal that came while it was starting."""
    global _running
    _running = process
    if _stop_signals:
        _stop(process)
    try:
        yield
    finally:
        _running = None


def _stop(process: BaseProcess) -> None:
    if _stop_signals > 1:
        _kill(process)
    elif process.pid is not None:
        _send(os.kill, process.pid, signal.SIGTERM)


def _kill(process: BaseProcess) -> None:
    """Kill the job and its session: loader workers and ranks too."""
    assert process.pid is not None
    _send(os.killpg, process.pid, signal.SIGKILL)
    if process.is_alive():  # it does not lead a session yet
        _send(os.kill, process.pid, signal.SIGKILL)


def _send(kill: Callable[[int, int], None], pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        kill(pid, number)


def _result_of_exit_code(code: int | None) -> JobResult:
    """The result of a process that ended without sending one."""
    if _stop_signals or code == PREEMPTED:  # PREEMPTED: its watchdog ended it
        return JobResult(PREEMPTED, "preempted", KILLED)
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        memory = ", as when memory runs out" if -code == signal.SIGKILL else ""
        return JobResult(FAILED, "failed", f"its process was killed by {name}{memory}")
    line = f"its process ended with exit code {code} and without a result"
    return JobResult(FAILED, "failed", line)


# --- in the process of the job ---


class _Stream:
    """A file descriptor of the sweep, which the server that forks the job may not have."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (self.number, reduction.DupFd(self.number))


def _attach(number: int, duplicate: Any) -> None:
    descriptor = duplicate.detach()
    if descriptor != number:  # a spawned process has it under its own number already
        os.dup2(descriptor, number)
        os.close(descriptor)


def _main(
    sender: connection.Connection,
    streams: Sequence[None],  # unpickling attaches them
    environment: dict[str, str],
    start_method: str,
    cfg: DictConfig,
    overrides: Sequence[str],
    command: str,
    position: console.SweepPosition,
    started: float,
) -> None:
    os.setsid()
    console.set_sweep(position)
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(start_method, force=True)  # of the job's own workers
    signals.default(signals.CLUSTER_SIGNALS)  # blocked until the job has its own handlers
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    try:
        result = run_job(cfg, overrides, command, started)
    except SystemExit as error:
        result = JobResult(FAILED, "failed", f"the job called sys.exit({error.code})")
    with suppress(BrokenPipeError):  # the sweep was killed: nobody reads the result
        sender.send(result)
    sys.exit(result.code)


def _end_with_the_sweep() -> None:
    """When the sweep dies, ask the job to save and stop; kill it after GRACE seconds."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(GRACE)
    os.killpg(os.getpid(), signal.SIGKILL)
