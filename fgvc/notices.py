"""Signals that ask every process of a job to stop -> only the main process responds.

A cluster or a terminal signals each process. A process without handlers, which has just been
started, would die. Thus every process starts with these signals blocked (it inherits this through
fork and exec) and unblocks them when its handlers are set:

    with held_back(): process.start()       # in the parent process
    signal.signal(...); accept()            # in the new process; or ignore(), or defer to the end

A notice that arrives meanwhile stays pending, in either process, and is delivered then. Standard
library only, so that every room may use it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

CLUSTER = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # stop, resumably
NOTICES = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def held_back(tracked: bool = False) -> Iterator[None]:
    """Block the notices in this thread, and in the processes that the block starts.

    Args:
        tracked: whether multiprocessing starts them by spawn or from a server. Its resource
            tracker, which it starts first, then lets SIGINT and SIGTERM through: it is started
            here, with the other notices blocked for good.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NOTICES)
    try:
        if tracked:
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, NOTICES)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hold_back() -> None:
    """Block the notices from now on, in this thread and in all processes that it starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, NOTICES)


def accept() -> None:
    """Unblock the notices; pending notices are delivered. Call it when the handlers are set."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NOTICES)


def ignore() -> None:
    """Leave every notice to the process that started this one."""
    for notice in NOTICES:
        signal.signal(notice, signal.SIG_IGN)
    accept()
