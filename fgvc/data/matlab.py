"""MATLAB files -> plain columns: cells become lists of text, numbers int64 of any original width.

Class numbers are often saved as uint8, which overflows silently. The files are parsed in a child
process (`matlab_parser`), because SciPy's parser can crash on a damaged file. The child returns
plain data, which is validated here. N rows.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fgvc.data import matlab_parser
from fgvc.types import UserError
from fgvc.untrusted import MIB, open_regular, parse_json

MAX_BYTES = 256 * MIB  # of a file; the largest file of a dataset has 0.4 MiB
MAX_OUTPUT = 512 * MIB  # of the parser
TIMEOUT = 60.0  # seconds for all files, on a busy machine
MAX_EXACT_INTEGER = 2**53  # float64 holds all integers up to here exactly
COPY_AGAIN = "copy or download it again"
# a signal to all processes of a job may kill the parser, which is then started again
_JOB_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


@dataclass(frozen=True)
class Column:
    """A variable or a field.

    texts: one per row. numbers: one per row, None where not finite; None for a column of text.
    rows: the number of rows if they are too many to read. fields: the fields of a struct array.
    """

    texts: Sequence[str] = ()
    numbers: Sequence[float | None] | None = None
    rows: int = 0
    fields: dict[str, Column] = field(default_factory=dict)


class MatFile:
    """The variables of one file, or the fields of one struct array in it."""

    def __init__(self, file: Path, values: dict[str, Column]) -> None:
        self.file = file
        self.values = values

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def texts(self, name: str) -> list[str]:
        return [text.rstrip() for text in self._column(name).texts]

    def integers(self, name: str) -> np.ndarray:
        """A column of integers as int64; UserError for other values."""
        numbers = self._column(name).numbers
        if numbers is None:
            raise UserError(f"{self.file}: {name} holds a value that is not a number; {COPY_AGAIN}")
        value_N = np.array(numbers, dtype=np.float64)  # None becomes NaN
        if not np.array_equal(value_N, np.round(value_N)):
            raise UserError(f"{self.file}: {name} holds numbers that are not whole; {COPY_AGAIN}")
        if len(value_N) and np.abs(value_N).max() > MAX_EXACT_INTEGER:
            raise UserError(
                f"{self.file}: {name} holds numbers above {MAX_EXACT_INTEGER}; {COPY_AGAIN}"
            )
        return value_N.astype(np.int64)

    def struct(self, name: str) -> MatFile:
        """The fields of a struct array as columns."""
        return MatFile(self.file, self._column(name).fields)

    def boxes(self, fields: Sequence[str]) -> np.ndarray | None:
        """N x 4: corners x1, y1, x2, y2 -> float32 x, y, width, height; None without the fields."""
        if not all(field in self for field in fields):
            return None
        x1_N, y1_N, x2_N, y2_N = (self.integers(field).astype(np.float32) for field in fields)
        return np.stack([x1_N, y1_N, x2_N - x1_N, y2_N - y1_N], axis=1)

    def _column(self, name: str) -> Column:
        if name not in self.values:
            raise UserError(
                f"{self.file}: holds no {name}, only {', '.join(self.values) or 'nothing'}"
            )
        column = self.values[name]
        if column.rows:
            raise UserError(
                f"{self.file}: {name} holds {column.rows} values, more than the "
                f"{matlab_parser.MAX_ROWS} that are read; get the original file"
            )
        return column


def load_all(files: Sequence[Path]) -> list[MatFile]:
    """Read files of MATLAB 4 to 7.2 in one child process, which is slow to start.

    Raises:
        UserError: a file is missing, damaged, too large, or of version 7.3.
    """
    for file in files:  # refused without being parsed
        try:
            with open_regular(file) as opened:
                size = os.fstat(opened.fileno()).st_size
        except FileNotFoundError:
            raise UserError(f"{file}: no such file; is dataset.root= right?") from None
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror})") from None
        if size > MAX_BYTES:
            raise UserError(
                f"{file}: {size} bytes, more than the {MAX_BYTES} that a .mat file of this dataset "
                f"may have; {COPY_AGAIN}"
            )
    output, exit_code = _run_parser(files)
    if exit_code in [-number for number in signal.Signals if number.name in _JOB_SIGNALS]:
        output, exit_code = _run_parser(files)
    *lines, _ = output.split(b"\n")  # the last is cut off or empty
    results = [_read_result(file, line) for file, line in zip(files, lines, strict=False)]
    if len(results) == len(files):
        return results
    ending = f"failed (exit code {exit_code})"
    if exit_code is None:
        ending = f"did not end within {TIMEOUT:g} s"
    elif exit_code < 0:
        names = {number.value: number.name for number in signal.Signals}
        ending = f"crashed ({names.get(-exit_code, f'signal {-exit_code}')})"
    raise UserError(
        f"{files[len(results)]}: no MATLAB file, or a damaged one: its parser {ending}; "
        f"{COPY_AGAIN}"
    )


def _run_parser(files: Sequence[Path]) -> tuple[bytes, int | None]:
    """Output of the parser, and its exit code; None after a timeout."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    process = subprocess.Popen(
        [sys.executable, "-P", matlab_parser.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **threads},  # each thread reserves address space
    )
    assert process.stdin is not None
    assert process.stdout is not None
    timed_out = threading.Event()
    timer = threading.Timer(TIMEOUT, lambda: (timed_out.set(), process.kill()))
    timer.start()
    try:
        with suppress(BrokenPipeError):  # it died at once: its exit code gives the reason
            process.stdin.write(json.dumps([str(file.absolute()) for file in files]).encode())
            process.stdin.close()
        output = process.stdout.read(MAX_OUTPUT)
    finally:
        process.kill()
        timer.cancel()
        process.stdout.close()
    code = process.wait()
    return output, None if timed_out.is_set() else code


def _read_result(file: Path, line: bytes) -> MatFile:
    """Validate the parser's result for a file: a hostile file may control the parser."""
    try:
        result = parse_json(line)
        if not isinstance(result, dict):
            raise ValueError("no object")
        if "error" not in result:
            columns = _columns(result.get("variables"), matlab_parser.MAX_DEPTH + 1)
            return MatFile(file, columns)
        reason, kind = result["error"], result.get("kind")
    except ValueError as error:
        reason, kind = f"its parser answered: {error}", "damaged"
    if kind == "version":
        raise UserError(f"{file}: saved again as MATLAB 7.3; get the original file")
    if kind == "memory":
        raise UserError(
            f"{file}: no MATLAB file of a dataset: it takes too much memory "
            f"({reason or 'none is left'}, and {matlab_parser.MAX_MEMORY} bytes are allowed); "
            f"{COPY_AGAIN}"
        )
    raise UserError(f"{file}: no MATLAB file, or a damaged one ({reason}); {COPY_AGAIN}")


def _columns(plain: object, depth: int) -> dict[str, Column]:
    if not isinstance(plain, dict):
        raise ValueError("no object of columns")
    return {name: _column(value, depth) for name, value in plain.items()}


def _column(plain: object, depth: int) -> Column:
    """Raises ValueError for anything that `matlab_parser.column` does not return."""
    if not isinstance(plain, dict) or depth < 0:
        raise ValueError("no column")
    if "fields" in plain:
        return Column(fields=_columns(plain["fields"], depth - 1))
    texts, numbers, rows = plain.get("texts"), plain.get("numbers"), plain.get("rows", 0)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("no list of texts")
    if type(rows) is not int or rows < 0:
        raise ValueError("no number of rows")
    if numbers is not None:
        if not isinstance(numbers, list) or len(numbers) != len(texts):
            raise ValueError("texts and numbers of different lengths")
        if not all(value is None or isinstance(value, float) for value in numbers):
            raise ValueError("no list of numbers")
    return Column(texts, numbers, rows)
