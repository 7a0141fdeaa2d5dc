"""Bytes -> a file that is complete or absent, even if the process or the machine dies.

The bytes are written to a temporary file beside the target, synchronised to disk, and renamed to
the target in one step.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fgvc import untrusted
from fgvc.store import disk_errors, hashing, temporary_files
from fgvc.store.disk_errors import NamedFile, NamedWriter


@contextmanager
def open_atomic(path: str | Path, size: int | None = None) -> Iterator[NamedWriter]:
    """A binary file to write that replaces `path` when the block ends without an exception.

    Missing parent folders are created. After any exception, the temporary file is removed and an
    earlier file at `path` is unchanged.

    Args:
        size: bytes that will be written, if known; for the message on a full disk.

    Raises:
        OSError: disk full, read-only, forbidden, or a file in place of a folder; one line with the
            path and the bytes needed.
    """
    path = Path(path)
    temporary = temporary_files.temporary_path(path)
    try:
        with disk_errors.add_path(path, size, replace=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            raw = NamedFile(temporary, "x", path, size)
        with NamedWriter(raw) as file:
            yield file
            file.flush()
            raw.sync()
        with disk_errors.add_path(path, size, replace=True):
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file atomically. Raises OSError as `open_atomic` does."""
    with open_atomic(path, size=len(data)) as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Write text atomically, as UTF-8 with "\\n"."""
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


def write_checked_json(path: str | Path, obj: Mapping[str, Any]) -> None:
    """Write plain data as `write_json`, with a checksum of it under one more key."""
    write_json(path, {**obj, "checksum": hashing.sha256_json(obj)})


def parse_checked_json(data: bytes) -> dict[str, Any]:
    """The data that `write_checked_json` wrote, without the checksum.

    Raises:
        ValueError: not a JSON object, or any byte changed; one line without the path.
    """
    try:
        record = untrusted.parse_json(data)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    plain = {key: value for key, value in record.items() if key != "checksum"}
    if record.get("checksum") != hashing.sha256_json(plain):
        raise ValueError("checksum mismatch, it changed since it was written")
    if data != json_bytes(record):
        raise ValueError("not as it was written")
    return plain


@contextmanager
def new_folder(target: Path, replace: bool = False) -> Iterator[Path]:
    """A folder beside `target` that is renamed to it when the block ends without an exception.

    After any exception, the folder is removed. Missing parents are created.

    Args:
        replace: replace a folder or file at `target`; otherwise only an empty folder is replaced.

    Raises:
        OSError: the folder cannot be written, or `target` exists.
    """
    folder = temporary_files.temporary_path(target)
    previous = temporary_files.temporary_path(target)
    try:
        folder.mkdir(parents=True)
        yield folder
        if replace and os.path.lexists(target):
            target.rename(previous)
        folder.replace(target)
        sync_folder(target.parent)
    finally:
        for path in (folder, previous):
            with suppress(OSError):
                temporary_files.remove(path)


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable: a name is on disk once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
