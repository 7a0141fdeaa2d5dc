"""A path -> at most one process at a time that holds it.

The lock is the kernel's (flock): it ends with its holder, however that dies, so that nothing stale
is ever left to clean up. The file also says who holds it, for the message to the second one.
It is never deleted: a third process could then lock a new file while a second still waits on the
old one. Local disks and NFS since Linux 2.6.12; not Windows.
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


class LockHeld(UserError):  # noqa: N818 - it says what is, as BlockingIOError does
    """Another process holds the lock; the line names its pid, host and start."""


@contextmanager
def lock(
    path: str | Path, wait: bool = False, on_wait: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold `path` while the block runs.

    Args:
        path: the lock file, made where missing and left in place.
        wait: wait for the holder instead of raising.
        on_wait: called once with the holder's line before the wait begins.

    Raises:
        LockHeld: another process, or another block of this one, holds it and `wait` is false.
        OSError: the file cannot be made.
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
        # a forked child that runs on past the block has closed its copy already
        if descriptor in _descriptors:
            _descriptors.discard(descriptor)
            os.close(descriptor)


def holder(path: str | Path) -> str | None:
    """Who holds `path` at this moment, in a line; None where nobody does. Nothing is written.

    Raises:
        OSError: the file is there and cannot be opened.
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
    """Write the holder of the lock, in one small write because it may be read at any moment.

    Raises:
        OSError: the disk refuses; with the path and the bytes needed.
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
    except (ValueError, KeyError, TypeError):  # caught between its lock and its signature
        who = "a process that has just begun"
    return f"{path} is held by {who}"


def _close_in_child() -> None:
    """A forked worker inherits the descriptor, and would hold the lock on after our death."""
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()


os.register_at_fork(after_in_child=_close_in_child)
