"""A folder on disk -> its pictures, its folders, and what is passed over; listed when needed.

Links are followed, but for a link to a folder above itself. FIFOs and devices are never opened. A
broken link with the suffix of a picture is a picture: dataset.on_bad_image decides about it.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fgvc.data.image_formats import READABLE, file_kind, has_image_suffix, is_system_file
from fgvc.types import UserError

# folders that operating systems, file servers and tools leave; in lower case
TOOL_FOLDERS = frozenset(
    {
        *("__macosx", "lost+found", "system volume information", "$recycle.bin", "recycler"),
        *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "found.000"),
        *("network trash folder", "temporary items", "__pycache__"),
    }
)
HIDDEN, BROKEN, SPECIAL, LINK_LOOP, STRAY = (
    "hidden file",
    "broken link",
    "FIFO, socket or device",
    "link back to a folder above it",
    "picture in no class folder",
)
Inode = tuple[int, int]


@dataclass(frozen=True)
class SkippedFile:
    """A file that is no picture. kind: see formats.file_kind, or why it was not opened."""

    path: str
    kind: str | None


@dataclass
class FolderContent:
    """What lies directly in a folder, in the order of the names. no_classes: paths of folders."""

    pictures: list[str] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)
    no_classes: list[str] = field(default_factory=list)


class Folder:
    """A folder of a dataset, listed at the first question about its content.

    Args:
        path: as it is opened, and as the dataset names it.
        above: the folders that lead to it.
    """

    def __init__(self, path: str, above: frozenset[Inode] = frozenset()) -> None:
        self.path = path
        self.name = os.path.basename(os.path.abspath(path))  # noqa: PTH100, PTH119 - texts, for speed
        self._above = above

    @functools.cached_property
    def inode(self) -> Inode:
        return _inode(self.path)

    @functools.cached_property
    def content(self) -> FolderContent:
        """What lies in it.

        Raises:
            UserError: it, or what lies in it, cannot be read.
        """
        content, above = FolderContent(), self._above | {self.inode}
        for entry in _entries(self.path):
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE):
                    raise _unreadable(entry.path, error) from None
                is_folder = is_file = False  # a link that leads to itself
            if is_folder:
                _add_folder(content, entry, above)
            elif not is_system_file(entry.name):
                kind = _file_kind(entry, is_file)
                if kind in READABLE:
                    content.pictures.append(entry.path)
                else:
                    content.skipped.append(SkippedFile(entry.path, kind))
        return content

    @property
    def pictures(self) -> list[str]:
        """Paths of the pictures directly in it."""
        return self.content.pictures

    @property
    def folders(self) -> list[Folder]:
        """The folders directly in it, without those that are no classes."""
        return self.content.folders

    @functools.cached_property
    def holds_pictures(self) -> bool:
        """Whether a picture lies in it, at any depth."""
        return bool(self.pictures) or any(folder.holds_pictures for folder in self.folders)

    @functools.cached_property
    def holding(self) -> list[Folder]:
        """The folders directly in it that hold pictures, at any depth."""
        return [folder for folder in self.folders if folder.holds_pictures]

    def walk(self) -> Iterator[Folder]:
        """This folder, then all folders below it."""
        yield self
        for folder in self.folders:
            yield from folder.walk()

    def count(self) -> int:
        """Number of pictures in it, at any depth."""
        return sum(len(folder.pictures) for folder in self.walk())


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"{path}: this folder cannot be listed ({error.strerror}); allow it to be read, "
            "or move it out of the dataset"
        ) from None


def _inode(path: str) -> Inode:
    try:
        state = os.stat(path)  # noqa: PTH116 - as all paths here, it is a text
    except OSError as error:
        raise _unreadable(path, error) from None
    return state.st_dev, state.st_ino


def _add_folder(content: FolderContent, entry: os.DirEntry[str], above: frozenset[Inode]) -> None:
    if entry.name.startswith(".") or entry.name.casefold() in TOOL_FOLDERS:
        content.no_classes.append(entry.path)
    elif _inode(entry.path) in above:
        content.skipped.append(SkippedFile(entry.path, LINK_LOOP))
    else:
        content.folders.append(Folder(entry.path, above))


def _file_kind(entry: os.DirEntry[str], is_file: bool) -> str | None:
    """Kind of what is no folder; a key of READABLE for a picture."""
    if entry.name.startswith("."):
        return HIDDEN
    is_broken = not is_file and not os.path.exists(entry.path)  # noqa: PTH110 - a text
    if has_image_suffix(entry.name) and (is_file or is_broken):
        return next(iter(READABLE))
    if not is_file:
        return BROKEN if is_broken else SPECIAL
    try:
        return file_kind(Path(entry.path))
    except FileNotFoundError:  # removed while the folder was read
        return BROKEN
    except OSError as error:
        raise _unreadable(entry.path, error) from None


def _unreadable(path: str, error: OSError) -> UserError:
    return UserError(
        f"{path}: cannot be read ({error.strerror}); allow it to be read, or move it out of the "
        "dataset"
    )
