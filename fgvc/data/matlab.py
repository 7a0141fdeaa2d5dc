"""MATLAB files -> plain columns: cells become lists of text, numbers int64 of any original width.

Class numbers are often saved as uint8, which wraps around silently. The files are parsed in a
child process (`mat_parser`), because SciPy's parser can crash on a damaged file; what
that process hands back is plain data, checked here. N rows.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fgvc.data import matlab_parser
from fgvc.types import UserError
from fgvc.untrusted import MIB, open_regular, parse_json

MAX_BYTES = 256 * MIB  # of a file; the largest of a dataset has 0.4 MiB
MAX_OUTPUT = 512 * MIB  # of what the parser prints
TIMEOUT = 60.0  # for all files, on a busy machine
MAX_EXACT_INTEGER = 2**53  # the largest whole number that a float64 holds exactly
COPY_AGAIN = "copy or download it again"
# a signal to every process of a job may kill the parser, which is then started once more
_SIGNAL_EXITS = tuple(
    -getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)


@dataclass(frozen=True)
class Column:
    """A variable or a field.

    texts: of its rows. numbers: of its rows, None where one is not finite; None if they are no
    numbers. rows: how many, where they are too many to be read. fields: of a struct array.
    """

    texts: tuple[str, ...] = ()
    numbers: tuple[float | None, ...] | None = None
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
        """A cell or field of text."""
        return [text.rstrip() for text in self._column(name).texts]

    def integers(self, name: str) -> np.ndarray:
        """Whole numbers as int64; UserError for any other."""
        numbers = self._column(name).numbers
        if numbers is None:
            raise UserError(f"{self.file}: {name} holds something that is no number; {COPY_AGAIN}")
        value_N = np.array(numbers, dtype=np.float64)  # None becomes NaN
        if not np.array_equal(value_N, np.round(value_N)):
            raise UserError(f"{self.file}: {name} holds numbers that are not whole; {COPY_AGAIN}")
        if len(value_N) and np.abs(value_N).max() > MAX_EXACT_INTEGER:
            raise UserError(
                f"{self.file}: {name} holds numbers above {MAX_EXACT_INTEGER}; {COPY_AGAIN}"
            )
        return value_N.astype(np.int64)

    def struct(self, name: str) -> MatFile:
        """The fields of a struct array, each a column."""
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


def load(file: Path) -> MatFile:
    """Read a file of MATLAB 4 to 7.2, the versions in which the datasets are published.

    Raises:
        UserError: missing, damaged, too large, or of version 7.3.
    """
    return load_all([file])[0]


def load_all(files: Sequence[Path]) -> list[MatFile]:
    """Read several files in one child process, because its start is slow; errors as `load`."""
    for file in files:
        _check_file(file)
    output, ending = _run_parser(files)
    if ending in _SIGNAL_EXITS:
        output, ending = _run_parser(files)
    *lines, _ = output.split(b"\n")  # the last is cut short, or empty
    read = [_read_result(file, line) for file, line in zip(files, lines, strict=False)]
    if len(read) < len(files):
        raise UserError(
            f"{files[len(read)]}: no MATLAB file, or a damaged one: {_exit_message(ending)}"
        )
    return read


def _check_file(file: Path) -> None:
    """Refuse a file that is missing, unreadable or too large, without parsing it."""
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


def _run_parser(files: Sequence[Path]) -> tuple[bytes, int | None]:
    """The output of the parser and its exit code; None if it ran out of time."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    process = subprocess.Popen(
        [sys.executable, "-P", matlab_parser.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **threads},  # each thread would take address space
    )
    assert process.stdin is not None
    assert process.stdout is not None
    late = threading.Event()
    timer = threading.Timer(TIMEOUT, lambda: (late.set(), process.kill()))
    timer.start()
    try:
        try:
            process.stdin.write(json.dumps([os.path.abspath(file) for file in files]).encode())  # noqa: PTH100
            process.stdin.close()
        except BrokenPipeError:
            pass  # it died at once: its exit code gives the reason
        output = process.stdout.read(MAX_OUTPUT)
    finally:
        process.kill()
        timer.cancel()
        process.stdout.close()
    code = process.wait()
    return output, None if late.is_set() else code


def _read_result(file: Path, line: bytes) -> MatFile:
    """The parser's answer for a file, checked: a hostile file may control the parser."""
    try:
        answer = parse_json(line)
        if not isinstance(answer, dict):
            raise ValueError("no object")
        if "error" in answer:
            raise UserError(f"{file}: {_error_message(str(answer['error']), answer.get('kind'))}")
        variables = answer.get("variables")
        return MatFile(file, _columns(variables, matlab_parser.MAX_DEPTH + 1))
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{file}: no MATLAB file, or a damaged one (its parser answered: {error}); {COPY_AGAIN}"
        ) from None


def _error_message(reason: str, kind: object) -> str:
    if kind == "version":
        return "saved again as MATLAB 7.3; get the original file"
    if kind == "memory":
        return (
            f"no MATLAB file of a dataset: it takes too much memory ({reason or 'none is left'}, "
            f"and {matlab_parser.MAX_MEMORY} bytes are allowed); {COPY_AGAIN}"
        )
    return f"no MATLAB file, or a damaged one ({reason}); {COPY_AGAIN}"


def _exit_message(ending: int | None) -> str:
    if ending is None:
        return f"its parser did not end within {TIMEOUT:g} s; {COPY_AGAIN}"
    if ending < 0:
        try:
            name = signal.Signals(-ending).name
        except ValueError:
            name = f"signal {-ending}"
        return f"its parser crashed ({name}); {COPY_AGAIN}"
    return f"its parser failed (exit code {ending}); {COPY_AGAIN}"


def _columns(plain: object, depth: int) -> dict[str, Column]:
    if not isinstance(plain, dict):
        raise ValueError("no object of columns")
    return {str(name): _column(value, depth) for name, value in plain.items()}


def _column(plain: object, depth: int) -> Column:
    """Raises ValueError for anything that `mat_parser.column` does not make."""
    if not isinstance(plain, dict) or depth < 0:
        raise ValueError("no column")
    if "fields" in plain:
        return Column(fields=_columns(plain["fields"], depth - 1))
    texts, numbers, rows = plain.get("texts"), plain.get("numbers"), plain.get("rows", 0)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("no list of texts")
    if type(rows) is not int or rows < 0:
        raise ValueError("no number of rows")
    if numbers is None:
        return Column(tuple(texts), rows=rows)
    if not isinstance(numbers, list) or len(numbers) != len(texts):
        raise ValueError("texts and numbers of different lengths")
    if not all(value is None or isinstance(value, float) for value in numbers):
        raise ValueError("no list of numbers")
    return Column(tuple(texts), tuple(numbers), rows)
