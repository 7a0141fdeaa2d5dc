"""Real processes, forked so that twenty of them cost less than one start of Python."""

import os
import signal
import traceback
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture
def forked() -> Iterator[Callable[[Callable[[], object]], int]]:
    """Run a function in a child of its own; returns the pid. Children left over are killed."""
    pids: list[int] = []

    def start(work: Callable[[], object]) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                work()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        pids.append(pid)
        return pid

    yield start
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


@pytest.fixture
def ended() -> Callable[[int], int]:
    """Wait for a child; returns its exit code, negative where a signal ended it."""
    return lambda pid: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
