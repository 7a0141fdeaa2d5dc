"""Bytes -> a file that is whole or absent, whenever the process or the machine dies.

The bytes go to a temporary file beside the target, reach the disk, and take the target's name in
one step. A temporary left by a dead process carries its host and pid, so that it can be swept up.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_DISK_TROUBLE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EEXIST,
    errno.ENOTDIR,
}


@contextmanager
def open_atomic(path: str | Path, mode: str = "wb", size: int | None = None) -> Iterator[IO[Any]]:
    """A file to write that takes the place of `path` when the block ends without an exception.

    Missing parent folders are made. After any exception the temporary is gone and an earlier file
    at `path` is as it was. Text is UTF-8 with "\\n".

    Args:
        path: the file to write.
        mode: "wb" or "w".
        size: bytes that will be written, if known; for the message when they do not fit.

    Raises:
        OSError: disk full, read-only, forbidden, or a file where a folder should be; one line with
            the path and the bytes needed.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}{_owner()}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _create(temporary, binary="b" in mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if _about_ours(error, path, temporary):
            raise _explained(error, path, temporary, size) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a whole file, or leave what was there. Raises OSError as `open_atomic` does."""
    with open_atomic(path, size=len(data)) as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8 with "\\n", whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, obj: object) -> None:
    """Write plain data as JSON for people to read, sorted and ended by a newline.

    Raises:
        ValueError: NaN or an infinity.
        OSError: as `open_atomic`.
    """
    write_bytes(path, json_bytes(obj))


def json_bytes(obj: object) -> bytes:
    """The bytes that `write_json` writes: equal data, equal bytes."""
    text = json.dumps(obj, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return text.encode() + b"\n"


def remove_stale(folder: str | Path) -> list[Path]:
    """Remove the temporaries in `folder` whose writer, a process of this host, is dead.

    Returns:
        The files that were removed; those of other hosts and of living processes stay.
    """
    removed = []
    for path in Path(folder).glob(".*.tmp"):
        stem, _, pid = path.name.removesuffix(".tmp").rpartition(".")[0].rpartition(".")
        if stem.endswith(f".{_host()}") and pid.isdigit() and not _alive(int(pid)):
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` last: a name is on disk only once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create(path: Path, binary: bool) -> IO[Any]:
    # "x" rather than tempfile: the umask decides who may read, as for any other output
    if binary:
        return path.open("xb")
    return path.open("x", encoding="utf-8", newline="\n")


def _host() -> str:
    return socket.gethostname()


def _owner() -> str:
    return f".{_host()}.{os.getpid()}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _about_ours(error: OSError, path: Path, temporary: Path) -> bool:
    """Whether the disk refused this write, rather than something else read inside the block."""
    ours = {None, str(path), str(temporary), *map(str, path.parents)}
    named = None if error.filename is None else str(error.filename)
    return error.errno in _DISK_TROUBLE and named in ours


def _explained(error: OSError, path: Path, temporary: Path, size: int | None) -> OSError:
    """The same kind of error, naming the target and the bytes it needs."""
    needed = f"{size} bytes needed"
    if size is None:
        written = temporary.stat().st_size if os.path.lexists(temporary) else 0
        needed = f"more than {written} bytes needed"
    # mkdir says "exists" of a file that stands where a folder should
    code = errno.ENOTDIR if error.errno == errno.EEXIST else error.errno or errno.EIO
    return OSError(code, f"{os.strerror(code)} ({needed})", str(path))
