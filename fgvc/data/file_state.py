"""The file of an image -> its state from one `stat`, or the reason why it cannot be read.

A state has 4 values: size in bytes, modification time and change time (ns), inode. Size and
modification time do not detect swapped files: some archives give every file the same time, and
uncompressed images of one shape have the same size. On Linux and macOS, a program cannot set the
change time, and renaming a file updates it. Renaming a folder does not update it, but then the
paths have other inodes. On Windows, the change time is the creation time. A file system without
inodes reports 0, which is not compared. If inodes are not stable, every start hashes every file.
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
# errors of one file; any other error (no memory, too many open files) concerns the process
FILE_ERRORS = frozenset(
    {
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP),
        *(errno.ENAMETOOLONG, errno.EIO, errno.ENXIO),
    }
)


class UnreadableFileError(Exception):
    """The path is not a readable regular file; the message is a short reason."""


def state(path: str) -> tuple[int, ...]:
    """State of a regular file, otherwise NO_STATE; OSError: an error of the process."""
    try:
        stat = os.stat(path)  # noqa: PTH116 a Path for each of 675,000 files costs seconds
    except OSError as error:
        if error.errno not in FILE_ERRORS:
            raise
        return NO_STATE
    if not S_ISREG(stat.st_mode):
        return NO_STATE  # reading a pipe would block
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino & INODE_BITS


def changed_rows(before_N4: np.ndarray, now_N4: np.ndarray) -> np.ndarray:
    """Rows whose state changed; inodes of 0 are unknown and not compared."""
    differs_N4 = before_N4 != now_N4
    differs_N4[:, INODE] &= (before_N4[:, INODE] != 0) & (now_N4[:, INODE] != 0)
    return np.flatnonzero(differs_N4.any(axis=1))


def read(path: str, limit: int = -1) -> bytes:
    """The bytes of a regular file: all of them, or the first `limit`.

    Raises:
        UnreadableFileError: the file is missing or cannot be read.
        OSError: an error of the process, not of the file.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - as in `state`
        if S_ISDIR(mode):
            raise UnreadableFileError("a folder instead of a file")
        if not S_ISREG(mode):  # opening a pipe would block
            raise UnreadableFileError("a pipe, socket or device instead of a file")
        with untrusted.open_regular(path) as file:
            return file.read(limit)
    except OSError as error:
        if error.errno not in FILE_ERRORS:
            raise
        reason = f"cannot be read ({error.strerror})"
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            reason = "a broken link" if os.path.islink(path) else "missing"  # noqa: PTH114 - as above
        elif error.errno == errno.ELOOP:
            reason = "a link that leads back to itself"
        raise UnreadableFileError(reason) from error


def read_error(path: str) -> str | None:
    """Why a file cannot be read, in a few words; None if it can be read."""
    try:
        read(path, 1)
    except UnreadableFileError as error:
        return str(error)
    return None
