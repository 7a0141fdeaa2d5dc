"""MATLAB files -> one line of JSON per file, on standard output; a separate program.

SciPy's parser can crash on a damaged file, so `fgvc.data.matlab` runs it here, in a process that
may die, with bounds of memory and processor time. It imports nothing of fgvc, to start fast.

Input: a JSON list of paths on standard input. Output: {"variables": {name: column}}, or
{"error": reason, "kind": ...} where a file cannot be read. A column is either {"fields": {name:
column}}, of a struct array, or {"texts": [...], "numbers": [...] or null}; "rows" says how many
there are where they are too many to hand over.
"""

from __future__ import annotations

import io
import json
import math
import sys
import zlib
from typing import Any

MAX_MEMORY = 2 << 30  # bytes of address space
MAX_UNPACKED = 1 << 28  # bytes of the compressed elements of a file
MAX_CPU_SECONDS = 10  # of the processor, for all files; those of a dataset take half a second
MAX_DEPTH = 2  # of struct arrays
MAX_ROWS = 2_000_000  # of a column; the largest of a dataset has 16,185
_HEADER, _COMPRESSED = 128, 15  # bytes before the first element; MATLAB's type of an element
_STEP = 1 << 20


def set_limits() -> None:
    """Limit this process; a system without these limits has only those of `fgvc.data.matlab`."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, most in (
        ("RLIMIT_AS", MAX_MEMORY),
        ("RLIMIT_CPU", MAX_CPU_SECONDS),
        ("RLIMIT_CORE", 0),
    ):
        try:
            hard = resource.getrlimit(getattr(resource, name))[1]
            soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(getattr(resource, name), (soft, hard))
        except (AttributeError, ValueError, OSError):  # macOS refuses some of them
            continue


def check_unpacked(data: bytes) -> None:
    """Count the bytes of the compressed elements as they come out.

    Raises:
        MemoryError: more than UNPACKED.
    """
    order = "little" if data[126:128] == b"IM" else "big"
    place, total = _HEADER, 0
    while place + 8 <= len(data):
        kind = int.from_bytes(data[place : place + 4], order)
        size = int.from_bytes(data[place + 4 : place + 8], order)
        if kind == _COMPRESSED:
            total = _count_unpacked(data[place + 8 : place + 8 + size], total)
        place += 8 + size


def _count_unpacked(packed: bytes, total: int) -> int:
    stream = zlib.decompressobj()
    try:
        while packed and not stream.eof:
            total += len(stream.decompress(packed, _STEP))
            packed = stream.unconsumed_tail
            if total > MAX_UNPACKED:
                raise MemoryError(f"more than {MAX_UNPACKED} bytes unpacked")
    except zlib.error:
        pass  # SciPy reports the damage
    return total


def column(values: Any, depth: int = MAX_DEPTH) -> dict[str, Any]:
    """A variable or field as plain data."""
    import numpy as np

    rows = np.atleast_1d(values).ravel()
    if rows.dtype.names and depth:
        return {"fields": {name: column(rows[name], depth - 1) for name in rows.dtype.names}}
    if len(rows) > MAX_ROWS:
        return {"texts": [], "numbers": None, "rows": len(rows)}
    try:
        number_N = np.array(rows.tolist(), dtype=np.float64).reshape(len(rows))
    except (TypeError, ValueError, OverflowError):
        numbers = None
    else:  # JSON has no infinity
        numbers = [value if math.isfinite(value) else None for value in number_N.tolist()]
    return {"texts": [str(value) for value in rows], "numbers": numbers}


def parse(path: str) -> dict[str, Any]:
    """Parse one file into the object of its line."""
    from scipy.io import loadmat

    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a string from standard input
            data = file.read()
        check_unpacked(data)
        values = loadmat(io.BytesIO(data), squeeze_me=True)
        kept = {name: value for name, value in values.items() if not name.startswith("__")}
        return {"variables": {name: column(value) for name, value in kept.items()}}
    except NotImplementedError:
        return {"error": "version 7.3", "kind": "version"}
    except MemoryError as error:
        return {"error": " ".join(str(error).split())[:300], "kind": "memory"}
    except Exception as error:  # a damaged file raises whatever its parser happens to raise
        reason = " ".join(str(error).split()) or type(error).__name__
        return {"error": reason[:300], "kind": "damaged"}


def main() -> None:
    """Read the list of paths and print a line for each."""
    import scipy.io  # noqa: F401 - before the bound of memory, which counts its libraries too

    set_limits()
    for path in json.load(sys.stdin):
        print(json.dumps(parse(path)), flush=True)


if __name__ == "__main__":
    main()
