"""The recording stack -> an outcome a step: two processes at work, watched and cleared away.

TensorBoard and FiftyOne are tried side by side, each in a process that leads a session of its own,
so that whatever it starts can be found again by that session.
"""

from __future__ import annotations

import json
import os
import signal
import site
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Timer
from typing import IO

from fgvc.record.stack_check.step import FAILED, NOT_TRIED, PASSED, SHUTDOWN, SIDES, Outcome
from fgvc.store.temporary_files import scratch

LIMIT = 240.0  # seconds for a whole side; on a machine at rest it takes 15 to 40
GRACE = 20.0  # seconds in which a database and a server end once nobody needs them


def examine(log: Path, limit: float = LIMIT) -> Iterator[Outcome]:
    """Try every step; yields each outcome as soon as it is known.

    Nothing is left when this ends, however it ends: no process, no folder.

    Args:
        log: takes what the libraries say, tracebacks included; overwritten.
        limit: seconds after which a side that has not ended is given up.

    Raises:
        OSError: the log cannot be written.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("wb") as said,
        scratch("check") as folder,
        ExitStack() as ends,
    ):
        sides = [ends.enter_context(Side(name, folder, said, limit)) for name in SIDES]
        for side in sides:
            yield from side.outcomes()
        yield _shutdown(sides)


class Side:
    """One process of the check; leaving the block ends it and all that it started."""

    def __init__(self, name: str, root: Path, log: IO[bytes], limit: float) -> None:
        self.name, self.limit, self.timed_out = name, limit, False
        folder = root / name
        (folder / "home").mkdir(parents=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fgvc.record.stack_check.child", name, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(folder),
            start_new_session=True,
        )
        self._alarm = Timer(limit, self._give_up)

    def __enter__(self) -> Side:
        self._alarm.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._alarm.cancel()
        self._process.kill()
        until = time.monotonic() + GRACE
        # a signal takes a moment to kill, and what is killed may just have started another
        while (left := self.running(0.0)) and time.monotonic() < until:
            for pid in left:
                _kill(pid)
            time.sleep(0.02)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def outcomes(self) -> Iterator[Outcome]:
        """What the process reports, and what follows for the rest if it ends before its time."""
        assert self._process.stdout is not None
        left, start = list(SIDES[self.name]), time.monotonic()
        for line in self._process.stdout:
            outcome = Outcome(**json.loads(line))
            left.remove(outcome.step)
            yield outcome
            start = time.monotonic()
        for place, step in enumerate(left):
            if place:
                yield Outcome(step, NOT_TRIED, 0.0, f"needs {left[0]}")
            else:
                yield Outcome(step, FAILED, time.monotonic() - start, self._why_it_ended())

    def running(self, grace: float) -> list[int]:
        """Processes of this side that still run after at most `grace` seconds."""
        until = time.monotonic() + grace
        while (found := _session(self._process.pid)) and time.monotonic() < until:
            time.sleep(0.1)
        return found

    def _give_up(self) -> None:
        self.timed_out = True
        self._process.kill()

    def _why_it_ended(self) -> str:
        code = self._process.wait()
        if self.timed_out:
            return f"no answer within {self.limit:.0f} s: try again on a machine at rest"
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"its process ended with {how}: the log says why"


def _environment(folder: Path) -> dict[str, str]:
    """FiftyOne's settings, database and home are the check's own; nothing goes to a network."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("FIFTYONE_") and not name.lower().endswith("_proxy")
    }
    return inherited | {
        "HOME": str(folder / "home"),
        "PYTHONUSERBASE": site.getuserbase(),  # it would move with HOME
        "FIFTYONE_DATABASE_DIR": str(folder / "database"),
        "FIFTYONE_DO_NOT_TRACK": "1",
    }


def _shutdown(sides: list[Side]) -> Outcome:
    start = time.monotonic()
    left = [pid for side in sides for pid in side.running(GRACE)]
    seconds = time.monotonic() - start
    if not left:
        return Outcome(SHUTDOWN, PASSED, seconds, "no process left behind")
    many = f"{len(left)} process{'es' if len(left) > 1 else ''}"
    says = f"{many} still running {GRACE:.0f} s after the end, killed: the log may say why"
    return Outcome(SHUTDOWN, FAILED, seconds, says)


def _session(leader: int) -> list[int]:
    """The living processes of a session. Zombies are dead; who reaps them is not ours to say."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
