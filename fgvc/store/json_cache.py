"""Plain data -> a JSON cache file with the digest of its content, and back.

Cached data can be computed again. Thus any damage is a cache miss with a note: a flipped bit, a
truncated file, another file, or a folder or pipe in place of the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from stat import S_ISDIR
from typing import Any, TypeVar

from safetensors import SafetensorError

from fgvc import untrusted
from fgvc.store import atomic, hashing, temporary_files
from fgvc.untrusted import MIB

MAX_BYTES = 2048 * MIB  # of a JSON cache file: the states of 10 million images
Notify = Callable[[str], None]
T = TypeVar("T")


def write(path: Path, value: Any) -> None:
    """Write plain data atomically, with its digest; a folder in place of the file is removed.

    Raises:
        OSError: the file cannot be written.
    """
    remove_folder(path)
    atomic.write_json(path, {"sha256": hashing.sha256_json(value), "value": value})


def read(path: Path, notify: Notify, otherwise: str = "rebuilt") -> Any | None:
    """The data that `write` wrote; None if the file is missing or, with a note, damaged.

    Args:
        otherwise: what happens to a damaged file, for the note.
    """

    def load(path: Path) -> Any | None:
        document = json.loads(untrusted.read_bytes(path, MAX_BYTES))
        is_intact = document["sha256"] == hashing.sha256_json(document["value"])
        return document["value"] if is_intact else None

    return read_whole(path, load, notify, otherwise)


def read_whole(
    path: Path, load: Callable[[Path], T | None], notify: Notify, otherwise: str
) -> T | None:
    """The content of a file of a cache; None if the file is missing or, with a note, damaged.

    Args:
        load: reads the file; returns None if the content does not match its digest.
        otherwise: what happens to a damaged file, for the note.
    """
    if not os.path.lexists(path):
        return None
    try:
        if (value := load(path)) is not None:
            return value
        reason = "its content does not match its digest"
    except OSError as error:
        reason = error.strerror or str(error)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        reason = "no file of this cache"
    report(path, reason, notify, otherwise)
    return None


def report(path: Path, reason: str, notify: Notify, otherwise: str = "rebuilt") -> None:
    """Report a damaged file of a cache in one line."""
    notify(f"{path}: damaged in the cache ({reason}): {otherwise}")


def remove_folder(path: Path) -> None:
    """Remove a folder in place of a cache file, because no file can be renamed onto a folder."""
    try:
        is_folder = S_ISDIR(path.lstat().st_mode)
    except OSError:
        return
    if is_folder:
        temporary_files.remove(path)


def clear_folder(folder: Path, notify: Notify) -> None:
    """Remove a file in place of a cache folder, with a note."""
    if os.path.lexists(folder) and not folder.is_dir():
        notify(f"{folder}: damaged in the cache (a file, not a folder): rebuilt")
        temporary_files.remove(folder)
