"""Signals that ask every process of a job to stop -> only the main process responds.

A cluster or a terminal signals each process. A process without handlers, which has just been
started, would die. Thus every process starts with these signals blocked (it inherits this through
fork and exec) and unblocks them when its handlers are set:

    with held_back(): process.start()       # in the parent process
    signal.signal(...); accept()            # in the new process; or ignore(), or defer to the end

A notice that arrives meanwhile stays pending, in either process, and is delivered then.
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
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def blocked(tracked: bool = False) -> Iterator[None]:
    """Block the notices in this thread, and in the processes that the block starts.

    Args:
        tracked: whether multiprocessing starts them by spawn or from a server. Its resource
            tracker, which it starts first, then lets SIGINT and SIGTERM through: it is started
            here, with the other notices blocked for good.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        if tracked:
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def block() -> None:
    """Block the notices from now on, in this thread and in all processes that it starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def unblock() -> None:
    """Unblock the notices; pending notices are delivered. Call it when the handlers are set."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def ignore() -> None:
    """Leave every notice to the process that started this one."""
    for notice in STOP_SIGNALS:
        signal.signal(notice, signal.SIG_IGN)
    unblock()


def exit_on_signal(code: int = PREEMPTED) -> None:
    """Let a notice end this process, which has nothing begun that is not ended, with this code."""
    _answer(lambda number, frame: os._exit(code))


def raise_keyboard_interrupt() -> None:
    """Let a notice raise KeyboardInterrupt, as Ctrl-C does."""
    _answer(signal.default_int_handler)


def default() -> None:
    """Let a notice end this process at once, even where it waits outside Python."""
    _answer(signal.SIG_DFL)


def _answer(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    for notice in STOP_SIGNALS:
        if signal.getsignal(notice) != signal.SIG_IGN:  # a shell starts a job so with `&`
            signal.signal(notice, handler)


def second_signal_handler() -> signal.Handlers:
    """What a second notice does: it ends the process at once, the first having been too slow.

    But SLURM tells every process of a job, and so does the process that started this one; there
    it means nothing, and the end at once is SLURM's own SIGKILL.
    """
    return signal.SIG_IGN if "SLURM_JOB_ID" in os.environ else signal.SIG_DFL


@contextmanager
def raise_on_signal(error: Callable[[str], BaseException]) -> Iterator[None]:
    """A cluster's notice (SIGTERM, SIGUSR1, SIGUSR2) raises `error` of its name during the block.

    A second notice ends the process at once; what is on disk is whole at every moment anyway.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for each in CLUSTER_SIGNALS:
            signal.signal(each, second_signal_handler())
        raise error(signal.Signals(number).name)

    before = {each: signal.signal(each, stop) for each in CLUSTER_SIGNALS}
    try:
        unblock()  # a job of a sweep starts with them blocked
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
