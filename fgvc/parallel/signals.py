"""Signals to stop -> only the main process of a job responds.

This is the only module that sets a signal handler, a signal mask or a wakeup descriptor.

A cluster or a terminal signals every process. A process that has just started and has no handlers
yet would die. Thus every process starts with these signals blocked (fork and exec inherit the
mask) and unblocks them when its handlers are set:

    with blocked(): process.start()           # in the parent process
    with handled(...): ...                    # in the new process; or ignore(), or later

A signal that arrives meanwhile stays pending, in either process, and is delivered then.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import resource_tracker
from types import FrameType

from fgvc.exit_codes import PREEMPTED

CLUSTER_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # stop, resumably
STOP_SIGNALS = (signal.SIGINT, *CLUSTER_SIGNALS)
Setting = Callable[[int, FrameType | None], object] | signal.Handlers
Handler = Callable[[int, Callable[[], None]], object]  # called with the number and `forward`


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


def _set(numbers: Sequence[signal.Signals], setting: Setting) -> None:
    for number in numbers:
        signal.signal(number, setting)


# --- until the end of this process ---


def ignore(numbers: Sequence[signal.Signals] = STOP_SIGNALS) -> None:
    """Ignore the signals to stop: the parent process responds to them."""
    _set(numbers, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def ignore_first_sigterm() -> None:
    """Ignore the signals to stop and the first SIGTERM; the second SIGTERM ends this process.

    The first may have reached every process of the job; the second is from the parent process.
    """
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    ignore([number for number in STOP_SIGNALS if number != signal.SIGTERM])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def exit_on_signal(code: int = PREEMPTED) -> None:
    """Exit at once on a signal, for a process that has no work to save."""
    _set_unless_ignored(lambda number, frame: os._exit(code))


def raise_keyboard_interrupt() -> None:
    """Raise KeyboardInterrupt on every signal to stop, as Ctrl-C does."""
    _set_unless_ignored(signal.default_int_handler)


def default(numbers: Sequence[signal.Signals] = STOP_SIGNALS) -> None:
    """Let a signal end this process at once, also while it waits outside Python."""
    _set_unless_ignored(signal.SIG_DFL, numbers)


def _set_unless_ignored(setting: Setting, numbers: Sequence[signal.Signals] = STOP_SIGNALS) -> None:
    """A shell ignores SIGINT in jobs with `&`."""
    _set([each for each in numbers if signal.getsignal(each) != signal.SIG_IGN], setting)


def exit_within(seconds: float) -> None:
    """Exit this process with 0 after this time, and at once on another Ctrl-C."""
    sys.stdout.flush()
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(0))
    timer = threading.Timer(seconds, os._exit, (0,))
    timer.daemon = True  # the timer does not delay an earlier exit
    timer.start()


# --- during a block ---


@contextmanager
def _restored(numbers: Sequence[signal.Signals], setting: Setting) -> Iterator[None]:
    """This setting during the block, then the previous settings."""
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        _set(numbers, setting)
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def ignored(numbers: Sequence[signal.Signals]) -> AbstractContextManager[None]:
    """Ignore these signals during the block, and in processes that the block starts."""
    return _restored(numbers, signal.SIG_IGN)


@contextmanager
def handled(handler: Handler, numbers: Sequence[signal.Signals] = STOP_SIGNALS) -> Iterator[None]:
    """Call `handler(number, forward)` on these signals during the block.

    `forward()` calls the handler from before the block, if any. Signals that were blocked at the
    start of this process are unblocked for good. Does nothing outside the main thread, which alone
    receives signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}

    def handle(number: int, frame: FrameType | None) -> None:
        previous = before[signal.Signals(number)]
        handler(number, lambda: previous(number, frame) if callable(previous) else None)

    with _restored(numbers, handle):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        yield


def second_signal_handler() -> signal.Handlers:
    """The handler of a second signal: it ends the process at once, except under SLURM.

    SLURM signals every process of a job, and so does the parent process; the second signal is
    then the same request, and SLURM itself ends slow processes with SIGKILL.
    """
    return signal.SIG_IGN if "SLURM_JOB_ID" in os.environ else signal.SIG_DFL


def raise_on_signal(error: Callable[[str], BaseException]) -> AbstractContextManager[None]:
    """Raise `error` with the signal's name on SIGTERM, SIGUSR1 or SIGUSR2 during the block.

    A second signal ends the process at once; files on disk are whole at every moment.
    """

    def handler(number: int, forward: Callable[[], None]) -> None:
        _set(CLUSTER_SIGNALS, second_signal_handler())
        raise error(signal.Signals(number).name)

    return handled(handler, CLUSTER_SIGNALS)


def report_first_signal(report: Callable[[str], None]) -> AbstractContextManager[None]:
    """Call `report` with the name of the first signal to stop; a second signal ends the process."""

    def handler(number: int, forward: Callable[[], None]) -> None:
        _set(CLUSTER_SIGNALS, second_signal_handler())
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        report(signal.Signals(number).name)

    return handled(handler)


@contextmanager
def copied_to(descriptor: int) -> Iterator[None]:
    """Write the number of every signal to this descriptor as it arrives, one byte each.

    Python runs handlers only between two bytecode instructions of the main thread; this is done at
    once, also while that thread waits outside Python.
    """
    before = signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before, warn_on_full_buffer=False)


def pause() -> None:
    """Wait until a signal arrives; its handler runs before this returns, or raises from here.

    Unlike signal.pause(), it also ends on a signal that arrives between the last instruction of
    Python and the system call, or in a thread of a library.
    """
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        with copied_to(writer):
            os.read(reader, 1)
    finally:
        os.close(reader)
        os.close(writer)


# a forked loader process must not write its own signals into the pipe of its parent
os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
