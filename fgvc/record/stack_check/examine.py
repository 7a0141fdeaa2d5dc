"""The recording stack -> one outcome per step, from two supervised processes.

TensorBoard and FiftyOne are checked in parallel. Each process leads its own session, by which all
processes that it starts are found and killed.
"""

from __future__ import annotations

import json
import os
import signal
import site
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Timer
from typing import IO

from fgvc.record.stack_check import FAILED, NOT_TRIED, PASSED, SHUTDOWN, SIDES, Outcome
from fgvc.store.temporary_files import scratch

LIMIT = 240.0  # seconds for a side; on an idle machine it takes 15 to 40
GRACE = 20.0  # seconds in which an unused database and server exit by themselves
KILLED = 20.0  # seconds in which killed processes end; they take longer on a busy machine


def examine(log: Path, limit: float = LIMIT) -> Generator[Outcome, None, None]:
    """Try every step; yields each outcome as soon as it is known.

    However this ends, it leaves no process and no folder behind.

    Args:
        log: receives the output of the libraries and tracebacks; overwritten.
        limit: seconds after which an unfinished side is killed.

    Raises:
        OSError: the log cannot be written.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as log_file, scratch("check") as folder, ExitStack() as stack:
        sides = [stack.enter_context(CheckProcess(name, folder, log_file, limit)) for name in SIDES]
        for side in sides:
            yield from side.outcomes()
        start = time.monotonic()
        pids = [pid for side in sides for pid in side.running(GRACE)]
        result, text = PASSED, "no process left behind"
        if pids:
            count = f"{len(pids)} process{'es' if len(pids) > 1 else ''}"
            text = f"{count} still running {GRACE:.0f} s after the end, killed: the log may say why"
            result = FAILED
        yield Outcome(SHUTDOWN, result, time.monotonic() - start, text)


class CheckProcess:
    """One process of the check; leaving the block kills it and every process that it started."""

    def __init__(self, name: str, root: Path, log: IO[bytes], limit: float) -> None:
        self.name, self.limit, self.timed_out = name, limit, False
        folder = root / name
        (folder / "home").mkdir(parents=True)
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("FIFTYONE_") and not name.lower().endswith("_proxy")
        }
        own = {
            "HOME": str(folder / "home"),
            "PYTHONUSERBASE": site.getuserbase(),  # it would move with HOME
            "FIFTYONE_DATABASE_DIR": str(folder / "database"),
            "FIFTYONE_DO_NOT_TRACK": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fgvc.record.stack_check.child", name, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=inherited | own,
            start_new_session=True,
        )
        self._alarm = Timer(limit, self._give_up)
        self._alarm.start()

    def __enter__(self) -> CheckProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._alarm.cancel()
        with self._process:  # closes its output, and waits for its end
            self._process.kill()
            deadline = time.monotonic() + KILLED
            # killing takes a moment, and a killed process may just have started another
            while (pids := self.running(0.0)) and time.monotonic() < deadline:
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.02)

    def outcomes(self) -> Iterator[Outcome]:
        """The outcomes that the process reports; the other steps fail if it ends too early."""
        assert self._process.stdout is not None
        missing, start = list(SIDES[self.name]), time.monotonic()
        for line in self._process.stdout:
            outcome = Outcome(**json.loads(line))
            missing.remove(outcome.step)
            yield outcome
            start = time.monotonic()
        if missing:
            seconds, code = time.monotonic() - start, self._process.wait()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            text = f"its process ended with {how}: the log says why"
            if self.timed_out:
                text = f"no answer within {self.limit:.0f} s: try again on a machine at rest"
            yield Outcome(missing[0], FAILED, seconds, text)
        for step in missing[1:]:
            yield Outcome(step, NOT_TRIED, 0.0, f"needs {missing[0]}")

    def running(self, grace: float) -> list[int]:
        """Processes of this side that still run after up to `grace` seconds; no zombies."""
        import psutil

        def runs(process: psutil.Process) -> bool:
            with suppress(psutil.Error, OSError):
                in_session = os.getsid(process.pid) == self._process.pid
                return in_session and process.status() != psutil.STATUS_ZOMBIE
            return False

        deadline = time.monotonic() + grace
        while pids := [process.pid for process in psutil.process_iter() if runs(process)]:
            if time.monotonic() >= deadline:
                break
            time.sleep(0.1)
        return pids

    def _give_up(self) -> None:
        self.timed_out = True
        self._process.kill()
