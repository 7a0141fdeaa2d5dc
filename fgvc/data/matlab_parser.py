"""MATLAB files -> one line of JSON per file, on standard output; a separate program.

SciPy's parser can crash on a damaged file, so `fgvc.data.matlab` runs it in this process, with
limits on memory and CPU time. It imports nothing from fgvc, to start fast.

Input: a JSON list of paths on standard input. Output: {"variables": {name: column}}, or
{"error": reason, "kind": ...} for a file that cannot be read. A column is either {"fields": {name:
column}} (a struct array) or {"texts": [...], "numbers": [...] or null}; "rows" is the number of
rows if there are too many to return.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
import zlib
from typing import Any

MAX_MEMORY = 2 << 30  # bytes of address space
MAX_UNPACKED = 1 << 28  # bytes of all decompressed elements of a file
MAX_CPU_SECONDS = 10  # for all files; the files of a dataset take half a second
MAX_DEPTH = 2  # of struct arrays
MAX_ROWS = 2_000_000  # of a column; the longest column of a dataset has 16,185
_HEADER, _COMPRESSED = 128, 15  # bytes before the first element; type of a compressed element
_STEP = 1 << 20


def set_limits() -> None:
    """Limit memory and CPU time of this process, as far as the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {"RLIMIT_AS": MAX_MEMORY, "RLIMIT_CPU": MAX_CPU_SECONDS, "RLIMIT_CORE": 0}
    for name, limit in limits.items():
        try:
            hard = resource.getrlimit(getattr(resource, name))[1]
            soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(getattr(resource, name), (soft, hard))
        except (AttributeError, ValueError, OSError):  # macOS refuses some of them
            continue


def check_unpacked(data: bytes) -> None:
    """Count the bytes of the compressed elements; MemoryError: more than MAX_UNPACKED."""
    order = "little" if data[126:128] == b"IM" else "big"
    place, total = _HEADER, 0
    while place + 8 <= len(data):
        kind = int.from_bytes(data[place : place + 4], order)
        size = int.from_bytes(data[place + 4 : place + 8], order)
        packed = data[place + 8 : place + 8 + size] if kind == _COMPRESSED else b""
        stream = zlib.decompressobj()
        with contextlib.suppress(zlib.error):  # SciPy reports the damage
            while packed and not stream.eof:
                total += len(stream.decompress(packed, _STEP))
                packed = stream.unconsumed_tail
                if total > MAX_UNPACKED:
                    raise MemoryError(f"more than {MAX_UNPACKED} bytes unpacked")
        place += 8 + size


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
        variables = {name: value for name, value in values.items() if not name.startswith("__")}
        return {"variables": {name: column(value) for name, value in variables.items()}}
    except NotImplementedError:
        return {"error": "version 7.3", "kind": "version"}
    except MemoryError as error:
        return {"error": " ".join(str(error).split())[:300], "kind": "memory"}
    except Exception as error:  # the parser may raise anything on a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        return {"error": reason[:300], "kind": "damaged"}


def main() -> None:
    """Read the list of paths and print one line per file."""
    import scipy.io  # noqa: F401 - before the memory limit, which counts its libraries too

    set_limits()
    for path in json.load(sys.stdin):
        print(json.dumps(parse(path)), flush=True)


if __name__ == "__main__":
    main()
