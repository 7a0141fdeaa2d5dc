"""Temporary files and folders beside their targets, and the removal of those of dead processes.

    .NAME.HOST.PID.HEX.tmp

A killed process can leave temporary files in any folder that it writes. Every command first removes
those of dead processes of this host (`remove_stale`). Whether a process of another host is alive is
unknown: its temporary files are removed after MAX_AGE.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR

MAX_AGE = 7 * 24 * 3600.0  # seconds since the last change; no writer pauses for a week
MAX_NAME_BYTES = 100  # bytes of the target's name that are kept: a name has 255 at most
PID_SPACE = Path("/proc/self/ns/pid")  # Linux: processes see those of their namespace alone
HOST_PID_SPACE = "pid:[4026531836]"  # of a machine; a container has another
PATTERN = re.compile(r"(\.|fgvc-).*\.(?P<pid>\d+)\.[0-9a-f]{8}\.tmp", re.DOTALL)


def temporary_path(target: Path) -> Path:
    """A new path in the folder of `target` with the host and the id of this process."""
    name = os.fsencode(target.name)[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    owner = f"{this_host()}.{os.getpid()}"
    return target.with_name(f".{name}.{owner}.{secrets.token_hex(4)}.tmp")


@contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """A private folder in the system's folder for temporary files, removed when the block ends.

    Raises:
        OSError: the folder cannot be created.
    """
    root = Path(tempfile.gettempdir())
    remove_stale(root)
    # not hidden: libraries skip names that begin with a dot
    folder = root / temporary_path(root / f"fgvc-{purpose}").name.removeprefix(".")
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale(folder: str | Path, depth: int = 0, whole: Collection[str] = ()) -> list[Path]:
    """Remove temporary files in `folder` whose process on this host is dead, and those of any
    process that did not change for a week.

    Only names are read. Links are never followed. Errors in listing and removing are ignored.

    Args:
        depth: levels of non-hidden folders below `folder` to search.
        whole: names of folders to search completely.

    Returns:
        The removed paths.
    """
    removed: list[Path] = []
    pending = [(str(folder), depth)]
    while pending:
        path, levels = pending.pop()
        with suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                if entry.name.endswith(".tmp") and _is_stale(entry):
                    with suppress(OSError):
                        remove(Path(entry.path))
                        removed.append(Path(entry.path))
                    continue
                below = 1_000 if entry.name in whole else levels - 1
                hidden = entry.name.startswith(".")
                if below >= 0 and not hidden and entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, below))
    return removed


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder; a missing path is no error."""
    with suppress(FileNotFoundError):
        if S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_stale(entry: os.DirEntry[str]) -> bool:
    match = PATTERN.fullmatch(entry.name)
    if match is None:
        return False
    owner = f".{this_host()}.{match['pid']}"
    if entry.name[: match.end("pid")].endswith(owner):
        try:
            os.kill(int(match["pid"]), 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:  # a process of another user
            pass
    # another host, or a live process that reuses the id of a dead process
    with suppress(OSError):
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > MAX_AGE
    return False


def this_host() -> str:
    """The name of this host and its container: containers may share a host name and a folder, but
    do not see each other's processes."""
    name = socket.gethostname()
    with suppress(OSError):
        namespace = str(PID_SPACE.readlink())
        if namespace != HOST_PID_SPACE:
            name += "-" + namespace.strip("pid:[]")
    return name
