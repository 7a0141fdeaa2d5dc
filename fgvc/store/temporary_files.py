"""Temporary files and folders beside their targets, and the removal of those of dead processes.

    .NAME.HOST.PID.HEX.tmp

A killed process can leave temporaries in any folder that it writes. Every command first removes
those of dead processes of this host (`remove_stale`). Whether a process of another host is alive is
unknown: its temporaries are removed once they are OLD.
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
    """A new name in the folder of `target` with the host and the id of this process."""
    name = os.fsencode(target.name)[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    owner = f"{this_host()}.{os.getpid()}"
    return target.with_name(f".{name}.{owner}.{secrets.token_hex(4)}.tmp")


@contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """A private folder in the system's folder for temporary files, removed when the block ends.

    Raises:
        OSError: the disk refuses.
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
    """Remove the temporaries in `folder` whose writer, a process of this host, is dead, and those
    of any process that did not change for a week.

    Only names are read. Links are never followed, and a folder or file that cannot be listed or
    removed stays.

    Args:
        depth: levels of folders below `folder` that are searched too, hidden ones excepted.
        whole: names of folders that are searched to their end.

    Returns:
        What was removed.
    """
    removed: list[Path] = []
    waiting = [(str(folder), depth)]
    while waiting:
        place, left = waiting.pop()
        with suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                if entry.name.endswith(".tmp") and _is_stale(entry):
                    with suppress(OSError):
                        remove(Path(entry.path))
                        removed.append(Path(entry.path))
                elif (left or entry.name in whole) and _is_searched(entry):
                    waiting.append((entry.path, _depth(entry.name, left, whole)))
    return removed


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder; a missing path is no error."""
    with suppress(FileNotFoundError):
        if S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_searched(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)


def _depth(name: str, left: int, whole: Collection[str]) -> int:
    return 1_000 if name in whole else left - 1


def _is_stale(entry: os.DirEntry[str]) -> bool:
    found = PATTERN.fullmatch(entry.name)
    if found is None:
        return False
    owner = f".{this_host()}.{found['pid']}"
    if entry.name[: found.end("pid")].endswith(owner) and not _is_alive(int(found["pid"])):
        return True
    # another host, or a live process that reuses the id of a dead process
    with suppress(OSError):
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > MAX_AGE
    return False


def this_host() -> str:
    """This host, and the container where there is one: containers may share a name and a folder,
    but none sees the processes of another."""
    name = socket.gethostname()
    with suppress(OSError):
        space = str(PID_SPACE.readlink())
        if space != HOST_PID_SPACE:
            name += "-" + space.strip("pid:[]")
    return name


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
