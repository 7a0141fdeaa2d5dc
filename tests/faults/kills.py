"""Kill jobs at random moments -> the files they leave, and the result of the same command again.

The seed of a kill determines the job, the kind of moment (time or write), the moment as a fraction
of the undisturbed run, and whether the whole process group or only its leader is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fgvc.report.audit import run_audit
from fgvc.report.audit.check import FAIL
from tests.jobs import HANG

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("cache", "data", "output", "multirun", "weights")
ENVIRONMENT = {"GIT_DIR": os.devnull, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}


@dataclass(frozen=True)
class Kill:
    """One kill, as determined by its seed."""

    seed: int
    job: str
    by: str  # "time" or "write"
    share: float  # of the duration or of the number of writes
    group: bool  # kill every process of the job, not only the first

    @staticmethod
    def of(seed: int, jobs: Sequence[str]) -> Kill:
        rng = random.Random(seed)
        by = ("time", "write")[seed // len(jobs) % 2]
        return Kill(seed, jobs[seed % len(jobs)], by, rng.random(), rng.random() < 0.5)


@dataclass
class Outcome:
    """Result of one kill. state: "killed", "ended" (before that moment) or "wrong"."""

    kill: Kill
    state: str
    error: str = ""
    seconds: float = 0.0

    def line(self) -> str:
        plain = {**asdict(self.kill), "state": self.state, "error": self.error}
        return json.dumps({**plain, "seconds": round(self.seconds, 2)}, sort_keys=True)

    @staticmethod
    def parse(line: str) -> Outcome:
        plain = json.loads(line)
        rest = {name: plain.pop(name) for name in ("state", "error", "seconds")}
        return Outcome(Kill(**plain), **rest)


class Log:
    """One JSON line per kill; a second run skips the seeds that are in the log."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.outcomes: list[Outcome] = []
        if file is not None and file.exists():
            # the seed of an incomplete last line is repeated
            lines = file.read_text().splitlines(keepends=True)
            complete_lines = [line for line in lines if line.endswith("\n")]
            self.outcomes = [Outcome.parse(line) for line in complete_lines]
            file.write_text("".join(complete_lines))

    def missing(self, count: int) -> list[int]:
        done = {outcome.kill.seed for outcome in self.outcomes}
        return [seed for seed in range(count) if seed not in done]

    def add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        if self.file is not None:
            with self.file.open("a") as file:
                file.write(outcome.line() + "\n")

    def summary(self) -> list[str]:
        """A table: number of kills per job, by kind of moment and by outcome."""
        head = ("time", "write", "killed", "ended", "wrong")
        lines = [f"{'job':<10}" + "".join(f"{name:>8}" for name in head)]
        jobs = dict.fromkeys(outcome.kill.job for outcome in self.outcomes)
        for job in (*jobs, "all"):
            outcomes = [item for item in self.outcomes if job in (item.kill.job, "all")]
            counts = Counter(name for item in outcomes for name in (item.kill.by, item.state))
            lines.append(f"{job:<10}" + "".join(f"{counts[name]:>8}" for name in head))
        return lines


# --- processes ---


@dataclass
class RunResult:
    """A job that ended: exit code (negative: a signal), seconds, writes and output."""

    code: int
    seconds: float
    writes: int
    output: str


class Zygote:
    """The server of `tests/faults/zygote.py`: one job at a time."""

    def __init__(self, scratch: Path) -> None:
        self.scratch, self.number = scratch, 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self._line(HANG) == "ready"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def run(
        self,
        root: Path,
        overrides: Sequence[str],
        setup: str = "",
        after: float | None = None,
        at: int | None = None,
        group: bool = True,
    ) -> RunResult:
        """Run a job to its end, or kill it after `after` seconds or at its write number `at`."""
        self.number += 1
        log, counter = (self.scratch / f"{name}-{self.number}" for name in ("log", "writes"))
        strike = {"root": str(root), "counter": str(counter), "at": at}
        request = {"overrides": list(overrides), "log": str(log), "setup": setup, "strike": strike}
        start = time.monotonic()
        self._ask({**request, "environment": {}})
        pid = int(self._line(HANG))
        code = self._line(HANG if after is None else after, late_is_fine=after is not None)
        if code is None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(pid, signal.SIGKILL)
            code = self._line(HANG)
        seconds = time.monotonic() - start
        if int(code) < 0 and group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        _wait_for_group(pid)
        output = log.read_text(errors="replace") if log.exists() else ""
        writes = int(counter.read_text() or "0") if counter.exists() else 0
        log.unlink(missing_ok=True)
        counter.unlink(missing_ok=True)
        return RunResult(int(code), seconds, writes, output)

    def _ask(self, request: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")

    def _line(self, seconds: float, late_is_fine: bool = False) -> Any:
        """The next line of the server; None after `seconds` without a line."""
        stream = self.process.stdout
        assert stream is not None
        ready, _, _ = select.select([stream], [], [], seconds)
        if not ready:
            assert late_is_fine, f"no answer within {seconds} s"
            return None
        return stream.readline().decode().strip()


def _wait_for_group(group: int) -> None:
    """Wait until no process of the group runs: a job ends once its sweep has died."""
    end = time.monotonic() + HANG
    while _runs(group):
        assert time.monotonic() < end, f"a process of group {group} still runs"
        time.sleep(0.01)


def _runs(group: int) -> bool:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, number = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(number) == group and state != "Z":
                return True
    return False


# --- a job, and the checks after its kill ---


@dataclass
class Subject:
    """A job to kill: its overrides, the files before its start, and its expected result."""

    name: str
    overrides: Callable[[Path], Sequence[str]]
    result: Callable[[Path], Any]
    template: Path | None = None  # content of the root before the start
    setup: str = ""
    find_torn: Callable[[Path], Iterable[str]] = lambda root: ()  # torn files, one line each
    refusal: str = ""  # message of the same command if the result is already complete
    expected: Any = None
    seconds: float = 0.0
    writes: int = 0
    command: list[str] = field(default_factory=list)

    def begin(self, root: Path) -> None:
        shutil.rmtree(root, ignore_errors=True)
        if self.template is None:
            root.mkdir()
        else:
            shutil.copytree(self.template, root)

    def measure(self, zygote: Zygote, root: Path) -> None:
        """Run the job undisturbed and store its result, duration and number of writes."""
        self.begin(root)
        self.command = [*places(root), *self.overrides(root)]
        ran = zygote.run(root, self.command, self.setup)
        assert ran.code == 0, ran.output
        self.seconds, self.writes, self.expected = ran.seconds, ran.writes, self.result(root)
        assert self.writes > 0

    def survive(self, kill: Kill, zygote: Zygote, root: Path) -> Outcome:
        """Kill the job, check its files, run it again and compare the result."""
        start = time.monotonic()
        self.begin(root)
        after = kill.share * self.seconds if kill.by == "time" else None
        at = int(kill.share * self.writes) if after is None else None
        ran = zygote.run(root, self.command, self.setup, after, at, kill.group)
        wrong = [*torn_records(root), *self.find_torn(root)]
        again = zygote.run(root, self.command, self.setup)
        finished = bool(self.refusal) and self.refusal in again.output
        if again.code != 0 and not finished:
            wrong.append(f"the same command ended with {again.code}: {again.output[-2000:]}")
        else:
            wrong += [f"left over: {path.relative_to(root)}" for path in leftovers(root)]
            wrong += torn_records(root)
            if (result := self.result(root)) != self.expected:
                wrong.append(f"another result: {describe_difference(self.expected, result)}")
        state = "wrong" if wrong else "ended" if ran.code == 0 else "killed"
        return Outcome(kill, state, "; ".join(wrong), time.monotonic() - start)


def places(root: Path) -> list[str]:
    return [f"runtime.{name}_root={root / name}" for name in PLACES]


def records(root: Path) -> list[Path]:
    """Every folder whose status says that it is a complete run."""
    folders = (path.parent for path in (root / "output").glob("*/*/*/status.json"))
    return [folder for folder in folders if folder.name != "in-progress"]


def torn_records(root: Path) -> list[str]:
    """Failed audit checks of the folders that look complete."""
    return [
        f"{folder.name}: {result.id}: {result.evidence}"
        for folder in records(root)
        for result in run_audit(folder)[1]
        if result.state == FAIL
    ]


def leftovers(root: Path) -> list[Path]:
    """Temporary files, unfinished runs and trash: a complete run leaves none of them."""
    return sorted(
        path
        for path in root.rglob("*")
        if path.name.endswith(".tmp")
        or path.name == "in-progress"
        or (path.parent.name == ".trash" and path.name != ".lock")
    )


def describe_difference(expected: Any, actual: Any) -> str:
    if isinstance(expected, dict) and isinstance(actual, dict):
        keys = [key for key in {**expected, **actual} if expected.get(key) != actual.get(key)]
        return f"differs in {keys}"
    return f"{str(actual)[:200]} instead of {str(expected)[:200]}"
