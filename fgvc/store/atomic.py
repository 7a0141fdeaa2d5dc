"""Bytes -> a file that is whole or absent, whenever the process or the machine dies.

The bytes go to a temporary file beside the target, reach the disk, and take the target's name in
one step.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fgvc.store import disk_errors, temporary_files
from fgvc.store.disk_errors import NamedFile


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
    unfinished = temporary_files.temporary_path(path)
    bytes_needed = disk_errors.size_text(size, 0)
    try:
        with _name_target(path, bytes_needed):
            path.parent.mkdir(parents=True, exist_ok=True)
            raw = NamedFile(unfinished, "x", path, size)
        with _buffered(raw, mode) as file, disk_errors.close_quietly(raw):
            yield file
            file.flush()
            raw.sync()
        with _name_target(path, bytes_needed):
            unfinished.replace(path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


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


@contextmanager
def new_folder(target: Path, replace: bool = False) -> Iterator[Path]:
    """A folder beside `target` that takes its name when the block ends without an exception.

    After any exception the folder is gone. Missing parents are made.

    Args:
        replace: whether a folder or file that stands at `target` goes; otherwise only an empty
            folder may stand there.

    Raises:
        OSError: the disk refuses, or something stands at `target`.
    """
    folder = temporary_files.temporary_path(target)
    aside = temporary_files.temporary_path(target)
    try:
        folder.mkdir(parents=True)
        yield folder
        if replace and os.path.lexists(target):
            target.rename(aside)
        folder.replace(target)
        sync_folder(target.parent)
    finally:
        for each in (folder, aside):
            with suppress(OSError):
                temporary_files.remove(each)


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` last: a name is on disk only once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _buffered(raw: NamedFile, mode: str) -> IO[Any]:
    binary = io.BufferedWriter(raw)
    return binary if "b" in mode else io.TextIOWrapper(binary, encoding="utf-8", newline="\n")


@contextmanager
def _name_target(path: Path, bytes_needed: str) -> Iterator[None]:
    """Name the target in an error on a folder, a temporary file or a rename."""
    try:
        yield
    except OSError as error:
        raise disk_errors.with_path(error, path, bytes_needed) from error
