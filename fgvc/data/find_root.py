"""The root that a user gives -> where in it a dataset really begins.

Archives and mirrors wrap the same files in folders of many names and depths, so a dataset is known
by what it holds, never by what its folder is called.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fgvc.data.index import list_first
from fgvc.types import UserError

MAX_DEPTH = 3  # folders below the root that are searched


def find_folder(root: Path, here: Callable[[Path], bool], what: str) -> Path:
    """The nearest folder at or below the root of which `here` holds.

    Args:
        what: the files that make `here` true, for the message.

    Raises:
        UserError: no such root, no such folder, or several at the same depth.
    """
    found: list[Path] = []
    for level in _levels(root):
        if found := [folder for folder in level if here(folder)]:
            break
    if len(found) > 1:
        raise UserError(
            f"dataset.root={root}: {list_first(found)} each hold {what}; set dataset.root= to one"
        )
    if not found:
        raise UserError(f"dataset.root={root}: holds no {what}; set dataset.root=")
    return found[0]


def exists_below(root: Path, here: Callable[[Path], bool]) -> bool:
    """Whether `here` holds of a folder at or below the root, as `beginning` searches it.

    Raises:
        UserError: no such root.
    """
    return any(here(folder) for level in _levels(root) for folder in level)


def find(root: Path, name: str) -> Path | None:
    """The nearest file or folder of this name at or below the root; None where there is none.

    Of mirrors that nest a folder in one of the same name the innermost is meant.
    """
    for folder in itertools.chain.from_iterable(_levels(root)):
        if (found := folder / name).exists():
            while (found / name).is_dir() and not (found / name).samefile(found):
                found = found / name
            return found
    return None


def named_root(root: str | None, table: str | None) -> Path:
    """The folder that a command gives a dataset by: dataset.root, or that of dataset.table."""
    assert root is not None or table is not None
    return Path(str(table)).expanduser().parent if root is None else Path(root).expanduser()


def relative(root: Path, path: Path) -> str:
    """A path below the root as a manifest writes it."""
    return path.relative_to(root).as_posix()


def safe_relative(path: str) -> str | None:
    """A relative path that stays below its root, in its plain form; None for any other."""
    # no Path object: an index may name 675,000 files
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or not parts:
        return None
    return "/".join(parts)


def require_folder(root: Path) -> Path:
    """The root itself; UserError where there is no such folder."""
    if not root.is_dir():
        raise UserError(f"dataset.root={root}: no such folder; set dataset.root=")
    return root


def _levels(root: Path) -> Iterator[list[Path]]:
    """The root, then the folders one below it, and so on; hidden ones are passed over."""
    level = [require_folder(root)]
    yield level
    for _ in range(MAX_DEPTH):
        level = [below for folder in level for below in _subfolders(folder)]
        yield level


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise list_error(error) from None
    return sorted(folder / name for name in names if (folder / name).is_dir())


def list_error(error: OSError) -> UserError:
    """The error for a folder that cannot be listed: it is not known to be empty."""
    return UserError(
        f"{error.filename}: this folder cannot be listed ({error.strerror}); allow it to be read, "
        "or move it out of the dataset"
    )


def walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk`, which does not follow links; UserError for a folder that cannot be listed."""

    def refuse(error: OSError) -> None:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):  # of no folder, nothing is listed
            raise list_error(error)

    return os.walk(root, onerror=refuse)
