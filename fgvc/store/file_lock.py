"""A path -> a lock that at most one process holds at a time.

The kernel's lock (flock, by the filelock library) ends when its process ends for any reason, so
that no stale lock remains; forked children do not keep it. The file also names the holder, for the
message to other processes. It is never deleted: otherwise a third process could lock a new file
while a second process waits for the old file. Local disks and NFS since Linux 2.6.12; not Windows.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from fgvc import untrusted
from fgvc.store.disk_errors import add_path
from fgvc.types import UserError


class LockHeld(UserError):  # noqa: N818 - describes a state, like BlockingIOError
    """Another process holds the lock; the message names its pid, host and start."""


@contextmanager
def lock(
    path: str | Path, wait: bool = False, on_wait: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold `path` while the block runs.

    Args:
        path: the lock file, created if missing and left in place.
        wait: wait for the holder instead of raising.
        on_wait: called once with a line about the holder before waiting.

    Raises:
        LockHeld: another process or block holds the lock, and `wait` is false.
        OSError: the file cannot be created or written; with the path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        untrusted.require_regular(path)
    file_lock = FileLock(path, preserve_lock_file=True)
    try:
        held = file_lock.acquire(blocking=False)
    except Timeout:
        line = _holder_line(path)
        if not wait:
            raise LockHeld(f"{line}; wait for it to end, or choose another folder") from None
        if on_wait is not None:
            on_wait(line)
        held = file_lock.acquire()
    since = datetime.now(UTC).isoformat(timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    data = json.dumps(holder).encode() + b"\n"
    with held:
        with add_path(path, len(data)):
            path.write_bytes(data)  # in one small write: others may read it at any time
        yield


def holder(path: str | Path) -> str | None:
    """A line about the process that holds `path`; None if it is free. Nothing is written.

    Raises:
        OSError: the file exists and cannot be opened.
    """
    try:
        with FileLock(untrusted.require_regular(path), blocking=False, preserve_lock_file=True):
            return None
    except FileNotFoundError:
        return None
    except Timeout:
        return _holder_line(Path(path))


def _holder_line(path: Path) -> str:
    try:
        record = untrusted.read_json(path)
        who = f"pid {record['pid']} on {record['host']} since {record['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # locked, but the holder is not written yet
        who = "a process that has just begun"
    return f"{path} is held by {who}"
