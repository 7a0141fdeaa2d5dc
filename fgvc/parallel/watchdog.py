"""A signal to stop while ranks do not answer -> the end of the run.

Python runs signal handlers in the main thread between two bytecode instructions, and thus never
while this thread waits in a collective call. The number of the signal is written to a pipe at once
(signal.set_wakeup_fd), and a thread that reads the pipe ends the process if the wait continues.
States on disk are written whole or not at all, so the last one remains valid.
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
from fgvc.parallel.signals import second_signal_handler

FACTOR = 3.0  # longest wait allowed, in multiples of the longest wait so far
POLL = 0.2  # seconds between two checks, after a signal to stop
WRITING = 5.0  # seconds for the run's status to reach the disk
NUMBERS = signals.STOP_SIGNALS
OVER = b"\0"  # no signal's number


class Watchdog:
    """Ends rank 0 when it waits for ranks that are stopped, hung or unreachable.

    A notice is a signal to stop. After the first notice, a wait is given up when it has lasted
    since the notice for more than `grace` seconds and more than FACTOR times the longest wait so
    far. A wait is a collective call, or one unit of images within a step. A slow step of a healthy
    run is not cut short, because earlier steps were as slow, nor is work of this process alone
    (validation, saving a state). Before the first step, `grace` alone counts. A second notice
    during a wait ends the run at once, except under SLURM, which repeats notices.

    on_end: called with the reason before the process ends, to mark the run. processes: callables
    that kill the processes to end with it. state_saved: whether a resume state of this training
    exists; None: not known yet.
    """

    def __init__(self, grace: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.grace, self.clock = grace, clock
        self.on_end: Callable[[str], None] | None = None
        self.processes: list[Callable[[], None]] = []
        self.state_saved: bool | None = None
        self._since: float | None = None  # begin of the current wait
        self._longest = 0.0
        self._asked: list[tuple[int, float]] = []  # numbers and times of the notices

    @contextmanager
    def waiting(self, typical: bool = True) -> Iterator[None]:
        """Context of a wait for the other ranks.

        Args:
            typical: whether the length of this wait says how long later waits may take.
        """
        self._since = self.clock()
        try:
            yield
        finally:
            if typical:
                self.mark()
            self._since = None

    def mark(self) -> None:
        """Record progress within a wait; its length is measured from here."""
        if self._since is not None:
            now = self.clock()
            self._longest, self._since = max(self._longest, now - self._since), now

    def notice(self, number: int) -> None:
        """Record a signal; only signals to stop count."""
        if number in NUMBERS:
            self._asked.append((number, self.clock()))

    @property
    def notices(self) -> list[int]:
        """The signals to stop so far."""
        return [number for number, _ in self._asked]

    def overdue(self) -> str | None:
        """Why the run must end now; None if it may continue."""
        since = self._since
        if since is None or not self._asked:
            return None
        number, asked = self._asked[0]
        name = signal.Signals(number).name
        if len(self._asked) > 1 and second_signal_handler() == signal.SIG_DFL:
            return f"{name} came twice"
        waited = self.clock() - max(since, asked)
        if waited <= max(self.grace, FACTOR * self._longest):
            return None
        return f"{name}: no answer from the other ranks for {waited:.0f} s"

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch during the block; only in the main thread, which alone receives signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        ours, theirs = os.pipe()
        os.set_blocking(theirs, False)
        before = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        thread = threading.Thread(target=self._watch, args=(ours,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before, warn_on_full_buffer=False)
            os.write(theirs, OVER)
            thread.join()
            os.close(theirs)
            os.close(ours)

    def _watch(self, pipe: int) -> None:
        while True:
            ready, _, _ = select.select([pipe], [], [], POLL if self._asked else None)
            numbers = os.read(pipe, 64) if ready else b""
            if OVER in numbers:
                return
            for number in numbers:
                self.notice(number)
            if (reason := self.overdue()) is not None:
                self._end(reason)

    def _end(self, reason: str) -> None:
        """Mark the run, print the reason, kill its processes and exit without the main thread.

        The ranks are killed last: their end wakes the main thread, which would report a failure.
        """
        if self.on_end is not None:
            marking = threading.Thread(target=self.on_end, args=(reason,), daemon=True)
            marking.start()
            marking.join(WRITING)  # not longer: the disk may hang too
        cursor = "\x1b[?25h" if os.isatty(2) else ""  # a progress bar may have hidden it
        line = f"{cursor}fgvc: {reason}; {continuation(self.state_saved)}\n"
        os.write(2, line.encode())
        for kill in (*(child.kill for child in multiprocessing.active_children()), *self.processes):
            with contextlib.suppress(OSError):
                kill()
        os._exit(PREEMPTED)


def continuation(state_saved: bool | None) -> str:
    """What the same command will do after this training ended early.

    Args:
        state_saved: as in `Watchdog`.
    """
    if state_saved is False:
        return "no state was saved yet: the same command starts from the first step"
    unsure = ", if any" if state_saved is None else ""
    return f"the same command with this runtime.run_id resumes from the last state{unsure}"


# a forked loader process must not write its own signals into the pipe of its parent
os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
