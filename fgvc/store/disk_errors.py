"""A disk error -> the same error with its path and the bytes needed; a line that names the key.

When bytes are written, flushed, synchronised or closed, the system reports a full disk as
`[Errno 28]` without a path. Errors of files opened here include the path. After a failed write or
another exception in the writer's block, closing is silent, so that the first error is reported.
"""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

HUB, TEMPORARY = "HF_HOME", "TMPDIR"
SCRATCH = "/fgvc-"  # prefix of the folders of temporary_files.scratch
ROOTS = ("cache_root", "output_root", "multirun_root", "data_root")  # keys of `runtime`
# errors of a disk; other errors without a path may have another cause
DISK_ERRORS = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "ESTALE", "ENXIO", "ENODEV")
    if hasattr(errno, name)
)


class NamedFile(io.FileIO):
    """An unbuffered file whose errors name `target`, its final path."""

    def __init__(self, path: Path, mode: str, target: Path, size: int | None = None) -> None:
        """size: bytes that will be written, if known."""
        super().__init__(path, mode)
        self.target, self.size = target, size
        self.written, self.abandoned = 0, False

    def write(self, data: Any) -> int:
        if self.abandoned:
            return memoryview(data).nbytes
        with self._named():
            count = super().write(data)
        self.written += count or 0
        return count

    def sync(self) -> None:
        """Wait until the bytes are on the disk."""
        with self._named():
            os.fsync(self.fileno())

    def close(self) -> None:
        if self.abandoned:
            with suppress(OSError):
                super().close()
            return
        with self._named():
            super().close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.abandoned = True
            raise with_path(error, self.target, size_text(self.size, self.written)) from error


class NamedWriter(io.BufferedWriter):
    """A buffered NamedFile; after an exception in its block it closes silently."""

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind is not None:
            self.abandon()
        super().__exit__(kind, *rest)

    def abandon(self) -> None:
        """Drop unwritten bytes, because another error is reported."""
        raw: NamedFile = self.raw  # type: ignore[assignment]
        raw.abandoned = True


def open_named(path: str | Path, mode: str = "wb") -> NamedWriter:
    """A buffered binary file to write; mode "wb", "xb" or "ab".

    Raises:
        OSError: also from the methods of the file; with the path and the bytes needed.
    """
    return NamedWriter(NamedFile(Path(path), mode.replace("b", ""), Path(path)))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file in place, for a folder that is renamed when it is complete.

    Raises:
        OSError: with the path and the bytes needed.
    """
    with NamedWriter(NamedFile(path, "w", path, len(data))) as file:
        file.write(data)


@contextmanager
def add_path(path: str | Path, count: int | None = None, replace: bool = False) -> Iterator[None]:
    """Add `path` to a disk error that a library raises without a path.

    Args:
        path: the file that the library writes, or the folder of its files.
        count: bytes to write, if known.
        replace: replace the path of any error, for example that of a temporary file.
    """
    try:
        yield
    except OSError as error:
        if replace or (error.filename is None and error.errno in DISK_ERRORS):
            raise with_path(error, Path(path), size_text(count, 0)) from error
        raise


def size_text(size: int | None, written: int) -> str:
    """The bytes that a file needs, for a message."""
    return f"more than {written} bytes needed" if size is None else f"{size} bytes needed"


def with_path(error: OSError, path: Path, bytes_needed: str) -> OSError:
    # mkdir reports "exists" for a file in place of a folder
    code = errno.ENOTDIR if error.errno == errno.EEXIST else error.errno or errno.EIO
    return OSError(code, f"{os.strerror(code)} ({bytes_needed})", str(path))


def disk_error_line(
    error: OSError, runtime: Mapping[str, str], others: Mapping[str, str | None] | None = None
) -> str:
    """The error in one line, with the key that sets the folder of its path.

    Args:
        others: other keys with their paths, such as task.output.
    """
    if error.filename is None:
        if error.errno in DISK_ERRORS:
            return f"{error.strerror}: a stream without a name, such as standard output"
        return str(error)
    line = f"{os.fsdecode(error.filename)}: {error.strerror}"
    paths = {key: path for key, path in (others or {}).items() if path is not None}
    paths |= {f"runtime.{name}": runtime[name] for name in ROOTS}
    paths[HUB] = os.environ.get(HUB, "~/.cache/huggingface")
    file = Path(os.fsdecode(error.filename)).absolute()
    roots: dict[str, Path] = {}
    for key, path in paths.items():
        with suppress(RuntimeError):  # no home folder
            roots[key] = Path(path).expanduser().absolute()
    # the innermost folder that contains the file; otherwise the first folder below it, because
    # creating a parent folder may fail
    containing = [key for key, root in roots.items() if file.is_relative_to(root)]
    below = [key for key, root in roots.items() if root.is_relative_to(file)]
    key = max(containing, key=lambda key: len(roots[key].parts), default=next(iter(below), None))
    if key is None and SCRATCH in line and line.startswith(tempfile.gettempdir()):
        return f"{line}; {TEMPORARY}=PATH is where temporary files are kept"
    if key is None or key in line:
        return line
    if key == HUB:
        return f"{line}; {HUB}=PATH is where weights of the hub are kept"
    alternative = " (or FGVC_CACHE=PATH)" if key == "runtime.cache_root" else ""
    return f"{line}; {key}={paths[key]}: give another with {key}=PATH{alternative}"


def missing_home_line(error: RuntimeError, runtime: Mapping[str, str]) -> str | None:
    """The line for a `~` without a home folder; None for any other error."""
    if "home directory" not in str(error):
        return None
    paths = {f"runtime.{name}": value for name, value in runtime.items() if name.endswith("_root")}
    key = next((key for key, value in paths.items() if str(value).startswith("~")), None)
    if key is None:
        return f"HOME: {error} Set it, or write paths without ~"
    return f"{key}={paths[key]}: no home folder is known here. Set HOME, or give {key}=PATH"
