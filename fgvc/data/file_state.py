"""The file of an image -> its state in one `stat`, or the reason why it cannot be read.

A state has 4 values: bytes, time of modification and time of change (ns), inode. Size and time of
modification alone miss files that were swapped: some archives give every file the same time, and
uncompressed images of one shape are equally long. On the file systems of Linux and macOS, the time
of change cannot be set by a program, and renaming a file updates it. Renaming a folder does not,
but gives its paths other inodes. On Windows the time of change is that of creation. A file system
without inodes reports 0, which is not compared; where inodes are not stable, every start hashes
every file.
N images.
"""

from __future__ import annotations

import errno
import os
from stat import S_ISDIR, S_ISREG

import numpy as np

from fgvc import untrusted

SIZE, INODE = 0, 3  # columns of a state
NO_STATE = (-1, 0, 0, 0)
INODE_BITS = (1 << 63) - 1  # inodes of Windows have 128 bits
# errors of one file; any other (no memory, too many open files) is one of the process
FILE_ERRORS = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EACCES,
        errno.EPERM,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.EIO,
        errno.ENXIO,
    }
)


class UnreadableError(Exception):
    """There is no plain file that can be read; the text says why, in a few words."""


def state(path: str) -> tuple[int, ...]:
    """State of a plain file; NO_STATE where there is none.

    Raises:
        OSError: the process, not the file, is at fault.
    """
    try:
        stat = os.stat(path)  # noqa: PTH116 a Path for each of 675,000 files costs seconds
    except OSError as error:
        if error.errno not in FILE_ERRORS:
            raise
        return NO_STATE
    if not S_ISREG(stat.st_mode):
        return NO_STATE  # reading a pipe would wait for ever
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino & INODE_BITS


def changed_rows(before_N4: np.ndarray, now_N4: np.ndarray) -> np.ndarray:
    """Rows whose state changed; an inode of 0 is unknown."""
    differs_N4 = before_N4 != now_N4
    differs_N4[:, INODE] &= (before_N4[:, INODE] != 0) & (now_N4[:, INODE] != 0)
    return np.flatnonzero(differs_N4.any(axis=1))


def read(path: str, most: int = -1) -> bytes:
    """The bytes of a plain file: all of them, or the first `most`.

    Raises:
        AbsentError: there is none, or it cannot be read.
        OSError: the process, not the file, is at fault.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - as in `state`
        if S_ISDIR(mode):
            raise UnreadableError("a folder instead of a file")
        if not S_ISREG(mode):  # opening a pipe would wait for ever
            raise UnreadableError("a pipe, socket or device instead of a file")
        with untrusted.open_regular(path) as file:
            return file.read(most)
    except OSError as error:
        if error.errno not in FILE_ERRORS:
            raise
        raise UnreadableError(_reason(path, error)) from error


def read_error(path: str) -> str | None:
    """Why a file cannot be read, in a few words; None if it can."""
    try:
        read(path, 1)
    except UnreadableError as error:
        return str(error)
    return None


def _reason(path: str, error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "a broken link" if os.path.islink(path) else "missing"  # noqa: PTH114 - as above
    if error.errno == errno.ELOOP:
        return "a link that leads back to itself"
    return f"cannot be read ({error.strerror})"
