"""One job of a sweep -> a process of its own -> how it ended, whatever happened to it.

On Linux it is forked from a server that has torch and the tasks loaded, elsewhere it is spawned. It
leads a session of its own, so that Ctrl-C reaches the sweep alone, which decides: the first notice
asks the job to save and stop, the second kills it and all that it started.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, reduction
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from omegaconf import DictConfig

from fgvc.exit_codes import FAILED, PREEMPTED
from fgvc.launch.job import Ended, run_job
from fgvc.parallel import signals
from fgvc.types import Preempted

GRACE = 30.0  # seconds a process has to end once it has said how it ended, or its sweep is gone
NOTICES = signals.STOP_SIGNALS
STREAMS = (1, 2)
AT_ONCE = "stopped at once: what it had saved is kept"
SAYS = b"fgvc: stopping once the job that runs has saved; once more stops it at once\n"


def isolated(cfg: DictConfig, overrides: Sequence[str], command: str) -> Ended:
    """Run one job in a process of its own, to its end or the process's."""
    context = _context()
    ours, theirs = context.Pipe(duplex=False)
    inherited = (dict(os.environ), multiprocessing.get_start_method())
    process = context.Process(
        target=_begin,
        args=(theirs, [_Stream(one) for one in STREAMS], *inherited, cfg, [*overrides], command),
    )
    with signals.blocked(tracked=True):  # the server that forks it is started here too
        process.start()
    theirs.close()
    with ours, _told(process):
        connection.wait([ours, process.sentinel])
        try:
            ended = ours.recv() if ours.poll() else None
        except EOFError:
            ended = None
        process.join(GRACE if ended else None)
    if ended is None or process.is_alive():
        _kill(process)
        process.join()
    return ended or _vanished(process.exitcode)


def _context() -> ForkServerContext | SpawnContext:
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fgvc.launch.fork_server"])
    return context


# --- notices to stop ---

_asked = 0
_running: BaseProcess | None = None


def asked() -> int:
    """How often this process was asked to stop since `noticing` began."""
    return _asked


@contextmanager
def noticing() -> Iterator[None]:
    """While the block runs, the notices are counted and passed on to the job."""
    global _asked
    _asked = 0
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, _notice) for each in NOTICES}
    try:
        signals.unblock()  # whoever started this process may have held them back
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _notice(number: int, frame: FrameType | None) -> None:
    global _asked
    _asked += 1
    if _asked > 2:  # whatever it waits for is not the job
        raise Preempted(signal.Signals(number).name)
    if _asked == 1:  # not print: the notice may have come in the middle of one
        os.write(2, SAYS)
    if _running is not None:
        _tell(_running)


@contextmanager
def _told(process: BaseProcess) -> Iterator[None]:
    """A notice reaches this job, one that came while it was started too."""
    global _running
    _running = process
    if _asked:
        _tell(process)
    try:
        yield
    finally:
        _running = None


def _tell(process: BaseProcess) -> None:
    if _asked > 1:
        _kill(process)
    elif process.pid is not None:
        _signal(os.kill, process.pid, signal.SIGTERM)


def _kill(process: BaseProcess) -> None:
    """The job and its session: loaders and ranks too."""
    assert process.pid is not None
    _signal(os.killpg, process.pid, signal.SIGKILL)
    if process.is_alive():  # before it led a session
        _signal(os.kill, process.pid, signal.SIGKILL)


def _signal(send: Any, pid: int, number: int) -> None:
    try:
        send(pid, number)
    except ProcessLookupError:
        return


def _vanished(code: int | None) -> Ended:
    """How a process ended that could not say it."""
    if _asked or code == PREEMPTED:  # PREEMPTED: ended by its watchdog
        return Ended(PREEMPTED, "preempted", AT_ONCE)
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        memory = ", as when memory runs out" if -code == signal.SIGKILL else ""
        return Ended(FAILED, "failed", f"its process was killed by {name}{memory}")
    return Ended(FAILED, "failed", f"its process ended with exit code {code} and said nothing")


# --- in the process of the job ---


class _Stream:
    """A descriptor of the sweep's, which the server that forks the job may not have."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _attached, (self.number, reduction.DupFd(self.number))


def _attached(number: int, duplicate: Any) -> None:
    descriptor = duplicate.detach()
    if descriptor != number:  # a process that is spawned has it under its own number already
        os.dup2(descriptor, number)
        os.close(descriptor)


def _begin(
    tie: connection.Connection,
    streams: Sequence[None],  # attached by being unpickled
    environment: dict[str, str],
    start_method: str,
    cfg: DictConfig,
    overrides: Sequence[str],
    command: str,
) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(start_method, force=True)  # of the job's own workers
    for each in signals.CLUSTER_SIGNALS:  # blocked until the job has its own handlers
        signal.signal(each, signal.SIG_DFL)
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    try:
        ended = run_job(cfg, overrides, command)
    except SystemExit as error:
        ended = Ended(FAILED, "failed", f"the job called sys.exit({error.code})")
    tie.send(ended)
    sys.exit(ended.code)


def _end_with_the_sweep() -> None:
    """Where the sweep is gone, nobody waits for this job: it saves, stops, and is gone too."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(GRACE)
    os.killpg(os.getpid(), signal.SIGKILL)
