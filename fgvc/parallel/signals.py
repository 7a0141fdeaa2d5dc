"""Signals to stop -> only the main process of a job responds.

A cluster or a terminal signals every process. A process that has just started and has no handlers
yet would die. Thus every process starts with these signals blocked (fork and exec inherit the
mask) and unblocks them when its handlers are set:

    with blocked(): process.start()           # in the parent process
    signal.signal(...); unblock()             # in the new process; or ignore(), or later

A signal that arrives meanwhile stays pending, in either process, and is delivered then.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

from fgvc.exit_codes import PREEMPTED

CLUSTER_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # stop, resumably
STOP_SIGNALS = (signal.SIGINT, *CLUSTER_SIGNALS)


@contextmanager
def blocked(tracked: bool = False) -> Iterator[None]:
    """Block the signals to stop in this thread, and in processes that the block starts.

    Args:
        tracked: whether multiprocessing starts the processes by spawn or from a server. It then
            starts its resource tracker first, which would unblock SIGINT and SIGTERM. Thus the
            tracker is started here, with the other signals blocked for good.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        if tracked:
            resource_tracker.ensure_running()
            block()
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def block() -> None:
    """Block the signals to stop, in this thread and in all processes that it starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def unblock() -> None:
    """Unblock the signals to stop; pending ones are delivered. Set the handlers first."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def ignore() -> None:
    """Ignore the signals to stop: the parent process responds to them."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    unblock()


def exit_on_signal(code: int = PREEMPTED) -> None:
    """Exit at once on a signal, for a process that has no work to save."""
    _set_handler(lambda number, frame: os._exit(code))


def raise_keyboard_interrupt() -> None:
    """Raise KeyboardInterrupt on every signal to stop, as Ctrl-C does."""
    _set_handler(signal.default_int_handler)


def default() -> None:
    """Let a signal end this process at once, also while it waits outside Python."""
    _set_handler(signal.SIG_DFL)


def _set_handler(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # a shell ignores SIGINT in jobs with `&`
            signal.signal(number, handler)


def second_signal_handler() -> signal.Handlers:
    """The handler of a second signal: it ends the process at once, except under SLURM.

    SLURM signals every process of a job, and so does the parent process; the second signal is
    then the same request, and SLURM itself ends slow processes with SIGKILL.
    """
    return signal.SIG_IGN if "SLURM_JOB_ID" in os.environ else signal.SIG_DFL


@contextmanager
def raise_on_signal(error: Callable[[str], BaseException]) -> Iterator[None]:
    """Raise `error` with the signal's name on SIGTERM, SIGUSR1 or SIGUSR2 during the block.

    A second signal ends the process at once; files on disk are whole at every moment.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        for each in CLUSTER_SIGNALS:
            signal.signal(each, second_signal_handler())
        raise error(signal.Signals(number).name)

    before = {number: signal.signal(number, handler) for number in CLUSTER_SIGNALS}
    try:
        unblock()  # a job of a sweep starts with them blocked
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
