"""Files that other people made -> bytes and plain data, within stated bounds.

A path found by walking a folder may be a named pipe, a device or a link to one: opening it waits
for ever, or reading it never ends. JSON may be nested until the parser fails, or hold numbers that
no field can hold. Every reader opens files and parses JSON here. Standard library only, so that
every room may use it.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from pathlib import Path
from typing import IO, Any

MOST_DEPTH = 100  # levels of nesting of a JSON document
LARGEST = 2**63 - 1  # of an integer in JSON: the range of int64
MIB = 1 << 20


class NotRegularError(OSError):
    """A named pipe, device, socket or folder where a file is expected; the path is `filename`."""


class TooLargeError(OSError):
    """More bytes than a file of its kind may have; the path is `filename`."""


def open_regular(path: str | Path) -> IO[bytes]:
    """Open a regular file, or a link to a regular file, for reading; never wait for a writer.

    Raises:
        NotRegularError: anything else, by its kind.
        OSError: missing or not readable.
    """
    path = Path(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            reason = f"{_kind(mode)}, not a regular file"
            raise NotRegularError(errno.EINVAL, reason, str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str | Path, most: int) -> bytes:
    """The bytes of a regular file.

    Args:
        most: bytes that a file of this kind may have; no more are read.

    Raises:
        NotRegularError, OSError: as `open_regular`.
        TooLargeError: more bytes.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
        if len(data) <= most:
            return data
        size = max(os.fstat(file.fileno()).st_size, len(data))
    reason = f"{size} bytes, more than the {most} bytes that it may have"
    raise TooLargeError(errno.EFBIG, reason, str(path))


def parse_json(data: bytes | str) -> Any:
    """A JSON document whose numbers fit int64 or a finite float64, nested at most MOST_DEPTH deep.

    Raises:
        ValueError: not JSON, not UTF-8, NaN, an infinity, a number out of range, or too deep; one
            line without the file, which the caller knows.
    """
    try:
        value = json.loads(
            data, parse_int=_integer, parse_float=_finite, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise ValueError(f"nested more than {MOST_DEPTH} levels deep") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 text (byte {error.start})") from None
    if _depth(value) > MOST_DEPTH:
        raise ValueError(f"nested more than {MOST_DEPTH} levels deep")
    return value


def read_json(path: str | Path, most: int = 64 * MIB) -> Any:
    """The JSON document of a regular file of at most `most` bytes.

    Raises:
        OSError: as `read_bytes`.
        ValueError: as `parse_json`; the line begins with the path.
    """
    data = read_bytes(path, most)
    try:
        return parse_json(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _integer(text: str) -> int:
    # the length first: Python itself refuses to convert more than 4300 digits
    if len(text) > 20 or abs(int(text)) > LARGEST:
        raise ValueError(f"the number {_short(text)} is larger than {LARGEST}")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {_short(text)} is not finite")
    return value


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _short(text: str, most: int = 24) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _depth(value: Any) -> int:
    """Levels of nesting; 0 for a number or a text. Not recursive: the document may be deep."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        item, level = waiting.pop()
        if isinstance(item, dict | list):
            deepest = max(deepest, level)
            children = item.values() if isinstance(item, dict) else item
            waiting += [(child, level + 1) for child in children if isinstance(child, dict | list)]
    return deepest


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for is_kind, name in kinds if is_kind(mode)), "a special file")
