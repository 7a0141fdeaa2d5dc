"""dataset.root -> the folder with the files of a dataset.

Archives and mirrors wrap the same files in folders of different names and depths. A dataset is
therefore recognised by its files, never by the name of its folder.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fgvc.types import UserError

MAX_DEPTH = 3  # folders below the root that are searched


def nearest(root: Path, is_root: Callable[[Path], bool]) -> list[Path]:
    """The folders, at or below the root, for which `is_root` is true, of the least depth."""
    matches = ([folder for folder in level if is_root(folder)] for level in _levels(root))
    return next(filter(None, matches), [])


def find(root: Path, name: str) -> Path | None:
    """The nearest file or folder of this name at or below the root; None if there is none.

    Some mirrors nest a folder in a folder of the same name: the innermost is returned.
    """
    for folder in itertools.chain.from_iterable(_levels(root)):
        if (path := folder / name).exists():
            while (path / name).is_dir() and not (path / name).samefile(path):
                path = path / name
            return path
    return None


def named_root(root: str | None, table: str | None) -> Path:
    """dataset.root, or the folder of dataset.table if no root is set."""
    if root is not None:
        return Path(root).expanduser()
    file = Path(table or "").expanduser()
    return file if file.is_dir() else file.parent


def safe_relative(path: str) -> str | None:
    """Normalise a relative path that stays below its root; None for any other path."""
    # no Path objects, for speed: an index may name 675,000 files
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or not parts:
        return None
    return "/".join(parts)


def require_folder(root: Path) -> Path:
    """Return the root; UserError if there is no such folder."""
    if not root.is_dir():
        raise UserError(f"dataset.root={root}: no such folder; set dataset.root=")
    return root


def _levels(root: Path) -> Iterator[list[Path]]:
    """Yield the root, then the folders in it, and so on, without hidden folders."""
    level = [require_folder(root)]
    yield level
    for _ in range(MAX_DEPTH):
        try:
            below = [sorted(folder.iterdir()) for folder in level]
        except OSError as error:
            raise list_error(error) from None
        level = [
            path
            for paths in below
            for path in paths
            if not path.name.startswith(".") and path.is_dir()
        ]
        yield level


def list_error(error: OSError) -> UserError:
    """Error for a folder that cannot be listed, because it must not count as empty."""
    return UserError(
        f"{error.filename}: this folder cannot be listed ({error.strerror}); allow it to be read, "
        "or move it out of the dataset"
    )


def walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` without following links; UserError for a folder that cannot be listed."""

    def on_error(error: OSError) -> None:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):  # no such folder: nothing to list
            raise list_error(error)

    return os.walk(root, onerror=on_error)
