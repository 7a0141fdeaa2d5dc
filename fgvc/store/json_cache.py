"""Plain data -> a JSON file of a cache that holds the digest of its content, and back.

What a cache holds can be made anew, so damage of any kind is a miss with a note: a flipped bit, a
cut, another file, or a folder or pipe in place of the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from fgvc import untrusted
from fgvc.store import atomic, hashing, temporary_files
from fgvc.untrusted import MIB

MAX_BYTES = 2048 * MIB  # of a file of a cache in JSON: the states of 10 million images
OnNote = Callable[[str], None]


def write(path: Path, value: Any) -> None:
    """Write plain data whole, with the digest of its content; a folder in its place is removed.

    Raises:
        OSError: the disk refuses.
    """
    remove_folder(path)
    sha256 = hashing.sha256_bytes(hashing.canonical_json(value))
    atomic.write_json(path, {"sha256": sha256, "value": value})


def read(path: Path, on_note: OnNote, otherwise: str = "made anew") -> Any | None:
    """The data that `write` wrote; None if the file is missing or, with a note, damaged.

    Args:
        otherwise: what becomes of a damaged file, for the note.
    """
    reason = "its content does not match its digest"
    try:
        held = json.loads(untrusted.read_bytes(path, MAX_BYTES))
        if held["sha256"] == hashing.sha256_bytes(hashing.canonical_json(held["value"])):
            return held["value"]
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, KeyError, TypeError, RecursionError):
        reason = "no file of this cache"
    report(path, reason, on_note, otherwise)
    return None


def report(path: Path, reason: str, on_note: OnNote, otherwise: str = "made anew") -> None:
    """Report a damaged file of a cache in one line."""
    on_note(f"{path}: damaged in the cache ({reason}): {otherwise}")


def remove_folder(path: Path) -> None:
    """Remove a folder in place of a file of a cache: a file cannot be renamed to its name."""
    try:
        is_folder = S_ISDIR(path.lstat().st_mode)
    except OSError:
        return
    if is_folder:
        temporary_files.remove(path)


def clear_folder(folder: Path, on_note: OnNote) -> None:
    """Remove a file, with a note, in place of a folder that a cache makes."""
    if os.path.lexists(folder) and not folder.is_dir():
        on_note(f"{folder}: damaged in the cache (a file, not a folder): made anew")
        temporary_files.remove(folder)
