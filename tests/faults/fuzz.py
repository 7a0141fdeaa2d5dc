"""A door (a reader) and its valid files -> its behaviour on damaged files, in a child that may die.

A door reads one file. It must return or raise UserError, ConfigError or OSError with a file name,
in one line. It must stay within a memory limit, end, and leave no temporary file and nothing
outside its folder. Any other behaviour is a finding, stored with the number of its input.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgvc.config.errors import ConfigError
from fgvc.types import UserError
from tests.faults.mutate import mutated
from tests.jobs import HANG

Read = Callable[[Path], object]
MEMORY = 1 << 30  # bytes that a door may allocate
ENOUGH = 3  # number of findings after which a door is skipped


@dataclass(frozen=True)
class Door:
    """A reader under test.

    seeds: valid files; if empty, `read` generates its input from the number in the file.
    read: opens a file. suffix: ending of the file name.
    """

    name: str
    seeds: Sequence[bytes]
    read: Read
    suffix: str

    def input(self, number: int) -> bytes:
        return mutated(self.seeds, number) if self.seeds else str(number).encode()


@dataclass
class Finding:
    number: int  # number of the input; -1 for a file of the corpus
    what: str
    trace: str = ""
    data: bytes = b""


@dataclass
class Count:
    """Number of inputs of a door, refusals and findings."""

    inputs: int = 0
    refused: int = 0
    findings: list[Finding] = field(default_factory=list)


def fuzz(door: Door, scratch: Path, seconds: float, numbers: Iterable[int]) -> Count:
    """Read the damaged files of these numbers for `seconds`, and at least one of them."""
    end, count, waiting = time.monotonic() + seconds, Count(), iter(numbers)
    while len(count.findings) < ENOUGH:
        try:
            number = next(waiting)
        except StopIteration:
            break
        inputs = ((seed, door.input(seed)) for seed in itertools.chain([number], waiting))
        done = _in_child(door, scratch, inputs, end, count)
        waiting = itertools.dropwhile(lambda seed, done=done: seed <= done, waiting)
        if time.monotonic() >= end:
            break
    return count


def replay(door: Door, scratch: Path, inputs: Sequence[bytes]) -> Count:
    """Read these files."""
    count, remaining = Count(), [(-1, data) for data in inputs]
    while remaining:
        before = count.inputs
        _in_child(door, scratch, iter(remaining), None, count)
        remaining = remaining[count.inputs - before :]
    return count


def _in_child(door: Door, scratch: Path, inputs: Any, end: float | None, count: Count) -> int:
    """Read inputs in one child until a finding or until `end`; returns the last number."""
    folder = scratch / "box" / "inside"
    shutil.rmtree(scratch, ignore_errors=True)
    folder.mkdir(parents=True)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(door, folder, inputs, end, writing)
    os.close(writing)
    number, data, finished, ready = -1, b"", False, []
    with os.fdopen(reading, "rb", buffering=0) as stream:
        while not finished:
            ready, _, _ = select.select([stream], [], [], HANG)
            line = stream.readline() if ready else b""
            if not line:  # no line: the child hangs; closed pipe: it died
                break
            message = json.loads(line)
            number = message.get("number", number)
            if "finding" in message:
                what, trace = message["finding"]
                count.findings.append(Finding(number, what, trace, data))
                finished = True
            elif "begun" in message:
                count.inputs += 1
                data = bytes.fromhex(message["begun"])
            else:
                count.refused += message.get("refused", 0)
                finished = message.get("over", False)
        alive = not ready
    if alive:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not finished:
        problem = f"no end within {HANG:.0f} s" if alive else f"the process ended with {code}"
        count.findings.append(Finding(number, problem, "", data))
    return number


def _child(door: Door, folder: Path, inputs: Any, end: float | None, pipe: int) -> None:
    """Read the inputs and report to the pipe; never returns."""
    faulthandler.disable()  # a crash is a finding; its dump must not reach the terminal
    try:
        silence = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(silence, descriptor)
        os.chdir(folder)
        _limit_memory()
        for number, data in inputs:
            _say(pipe, number=number, begun=data.hex())
            problem, trace = _try(door, folder, data)
            if problem not in ("", "refused"):
                _say(pipe, finding=(problem, trace))
                os._exit(0)
            _say(pipe, refused=int(problem == "refused"))
            if end is not None and time.monotonic() >= end:
                break
        _say(pipe, over=True)
    except BaseException:  # in this harness, for example because the door left no memory
        _say(pipe, finding=("the harness failed", traceback.format_exc()))
    finally:
        os._exit(0)


def _limit_memory() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # the pool of a parent does not survive a fork
    if not sys.platform.startswith("linux"):
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _say(pipe: int, **message: object) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(pipe, data) :]


def _try(door: Door, folder: Path, data: bytes) -> tuple[str, str]:
    """("", "refused" or the problem, the traceback of the problem)."""
    file = folder / f"input{door.suffix}"
    file.write_bytes(data)
    refused = ""
    try:
        door.read(file)
    except (UserError, ConfigError) as error:
        refused = "refused"
        if "\n" in str(error).strip("\n"):  # other control characters are escaped when printed
            return f"a message of several lines: {str(error)[:300]!r}", traceback.format_exc()
    except OSError as error:
        refused = "refused"
        if error.filename is None:
            return f"{type(error).__name__} without a file name: {error}", traceback.format_exc()
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}", traceback.format_exc()
    left = _left(folder, file)
    return (f"left behind: {left}" if left else refused), ""


def _left(folder: Path, file: Path) -> list[str]:
    """Remove and return temporary files beside the input, and files outside its folder."""
    inside = [path for path in folder.iterdir() if path != file]
    outside = [path for path in folder.parent.iterdir() if path != folder]
    temporary = sorted(folder.rglob("*.tmp"))
    names = [str(path.relative_to(folder.parent)) for path in (*temporary, *outside)]
    for path in (*inside, *outside):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return names


def summary(door: Door, count: Count, seconds: float) -> str:
    """One line: the door, its number of inputs, refusals and findings, and the rate."""
    rate = count.inputs / seconds if seconds else 0.0
    return (
        f"{door.name:<24}{count.inputs:>8} inputs {count.refused:>8} refused "
        f"{len(count.findings):>3} findings {rate:>7.0f}/s"
    )
