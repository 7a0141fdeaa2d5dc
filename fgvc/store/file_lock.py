"""A path -> a lock that at most one process holds at a time.

The kernel's lock (flock) ends when its process ends for any reason, so that no stale lock remains.
The file also names the holder, for the message to other processes. It is never deleted: otherwise a
third process could lock a new file while a second process waits for the old file.
Local disks and NFS since Linux 2.6.12; not Windows.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from fgvc import untrusted
from fgvc.store.disk_errors import add_path
from fgvc.types import UserError

_descriptors: set[int] = set()


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
        OSError: the file cannot be created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        untrusted.require_regular(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    _descriptors.add(descriptor)
    try:
        _acquire(descriptor, path, wait, on_wait)
        _write_holder(descriptor, path)
        yield
    finally:
        # a forked child has already closed its copy
        if descriptor in _descriptors:
            _descriptors.discard(descriptor)
            os.close(descriptor)


def holder(path: str | Path) -> str | None:
    """A line about the process that holds `path`; None if it is free. Nothing is written.

    Raises:
        OSError: the file exists and cannot be opened.
    """
    path = Path(path)
    try:
        descriptor = os.open(untrusted.require_regular(path), os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _holder_line(descriptor, path)
    finally:
        os.close(descriptor)


def _acquire(
    descriptor: int, path: Path, wait: bool, on_wait: Callable[[str], None] | None
) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        line = _holder_line(descriptor, path)
    if not wait:
        raise LockHeld(f"{line}; wait for it to end, or choose another folder")
    if on_wait is not None:
        on_wait(line)
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def _write_holder(descriptor: int, path: Path) -> None:
    """Write the holder of the lock; in one small write, because others may read it at any time.

    Raises:
        OSError: the file cannot be written; with the path and the bytes needed.
    """
    since = datetime.now(UTC).isoformat(timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    data = json.dumps(holder).encode() + b"\n"
    with add_path(path, len(data)):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, data, 0)


def _holder_line(descriptor: int, path: Path) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        who = f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # locked, but the holder is not written yet
        who = "a process that has just begun"
    return f"{path} is held by {who}"


def _close_in_child() -> None:
    """Close the inherited descriptors: a forked child would otherwise keep the locks after the
    parent ends."""
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()


os.register_at_fork(after_in_child=_close_in_child)
