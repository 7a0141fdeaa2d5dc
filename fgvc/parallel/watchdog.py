"""A signal to stop while other ranks do not respond -> the end of the run.

Python runs signal handlers in the main thread between two bytecode instructions, and thus never
while this thread waits in a collective call. The number of a signal is written to a pipe at once
(signals.copied_to), and a thread that reads the pipe ends the process if the wait continues.
States on disk are written whole or not at all, so the last state remains valid.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fgvc.exit_codes import PREEMPTED
from fgvc.parallel import signals
from fgvc.parallel.signals import STOP_SIGNALS, second_signal_handler

FACTOR = 3.0  # longest wait allowed after a signal, in multiples of the longest wait so far
POLL = 0.2  # seconds between two checks after a signal to stop
STATUS_TIMEOUT = 5.0  # seconds for the run's status to reach the disk
CLOSED = b"\0"  # written to the pipe at the end of the watch; no signal has this number


class Watchdog:
    """Ends rank 0 when it waits for ranks that are stopped, hung or unreachable.

    After a signal to stop, a wait is abandoned when it has lasted since the signal for more than
    `grace` seconds and more than FACTOR times the longest wait so far; before the first step only
    `grace` counts. A wait is a collective call, or one unit of images within a step. Thus a slow
    step of a healthy run is not cut short, because earlier steps were as slow, nor is work of this
    process alone (its share of validation, saving a state). A second signal during a wait ends the
    run at once, except under SLURM, which repeats signals.

    on_end: called with the reason before the process ends, to mark the run. processes: callables
    that kill the processes to end with this process. state_saved: whether a resume state of this
    training exists; None: not known yet. is_training: otherwise the ranks extract features.
    """

    def __init__(self, grace: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.grace, self.clock = grace, clock
        self.on_end: Callable[[str], None] | None = None
        self.processes: list[Callable[[], None]] = []
        self.state_saved: bool | None = None
        self.is_training = True
        self._wait_start: float | None = None
        self._longest_wait = 0.0
        self._signals: list[tuple[int, float]] = []  # numbers and times of the signals to stop

    @contextmanager
    def waiting(self, typical: bool = True) -> Iterator[None]:
        """Context of a wait for the other ranks.

        Args:
            typical: whether later waits may take as long as this one.
        """
        self._wait_start = self.clock()
        try:
            yield
        finally:
            if typical:
                self.mark()
            self._wait_start = None

    def mark(self) -> None:
        """Record progress within a wait: a new wait starts now."""
        if self._wait_start is not None:
            now = self.clock()
            self._longest_wait = max(self._longest_wait, now - self._wait_start)
            self._wait_start = now

    def record_signal(self, number: int) -> None:
        """Record a signal to stop; other signals are ignored."""
        if number in STOP_SIGNALS:
            self._signals.append((number, self.clock()))

    def overdue(self) -> str | None:
        """Why the run must end now; None if it may continue."""
        wait_start = self._wait_start
        if wait_start is None or not self._signals:
            return None
        number, received = self._signals[0]
        name = signal.Signals(number).name
        if len(self._signals) > 1 and second_signal_handler() == signal.SIG_DFL:
            return f"{name} came twice"
        waited = self.clock() - max(wait_start, received)
        if waited <= max(self.grace, FACTOR * self._longest_wait):
            return None
        return f"{name}: no answer from the other ranks for {waited:.0f} s"

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch during the block; only in the main thread, which alone receives signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        thread = threading.Thread(target=self._watch, args=(read_end,), daemon=True)
        thread.start()
        try:
            with signals.copied_to(write_end):
                yield
        finally:
            os.write(write_end, CLOSED)
            thread.join()
            os.close(write_end)
            os.close(read_end)

    def _watch(self, read_end: int) -> None:
        while True:
            ready, _, _ = select.select([read_end], [], [], POLL if self._signals else None)
            numbers = os.read(read_end, 64) if ready else b""
            if CLOSED in numbers:
                return
            for number in numbers:
                self.record_signal(number)
            if (reason := self.overdue()) is not None:
                self._end(reason)

    def _end(self, reason: str) -> None:
        """Mark the run, print the reason, kill the other processes and exit.

        The ranks are killed last: their end wakes the main thread, which would report a failure.
        """
        if self.on_end is not None:
            marking = threading.Thread(target=self.on_end, args=(reason,), daemon=True)
            marking.start()
            marking.join(STATUS_TIMEOUT)  # the disk may hang too
        show_cursor = "\x1b[?25h" if os.isatty(2) else ""  # a progress bar may have hidden it
        line = f"{show_cursor}fgvc: {reason}; {describe_resume(self)}\n"
        os.write(2, line.encode())
        for kill in (*(child.kill for child in multiprocessing.active_children()), *self.processes):
            with contextlib.suppress(OSError):
                kill()
        os._exit(PREEMPTED)


def describe_resume(watchdog: Watchdog | None) -> str:
    """What the same command will do after this job ended early.

    Args:
        watchdog: None: on a rank that does not know what is saved.
    """
    if watchdog is not None and not watchdog.is_training:
        return (
            "finished shards are kept, and the same command computes the others; if memory ran "
            "out, set a smaller runtime.nproc"
        )
    state_saved = None if watchdog is None else watchdog.state_saved
    if state_saved is False:
        return "no state was saved yet: the same command starts from the first step"
    unsure = ", if any" if state_saved is None else ""
    return f"the same command with this runtime.run_id resumes from the last state{unsure}"
