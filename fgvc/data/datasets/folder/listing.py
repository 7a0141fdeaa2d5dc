"""A folder on disk -> its images, its folders and the skipped files, listed when first needed.

Links are followed, except a link to a folder above itself. FIFOs and devices are never opened. A
broken link with the suffix of an image counts as an image: dataset.on_bad_image handles it.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fgvc.data.find_root import list_error
from fgvc.data.image_formats import READABLE, file_kind, has_image_suffix, is_system_file
from fgvc.types import UserError

# folders that operating systems, file servers and tools create; in lower case
TOOL_FOLDERS = frozenset(
    {
        *("__macosx", "lost+found", "system volume information", "$recycle.bin", "recycler"),
        *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "found.000"),
        *("network trash folder", "temporary items", "__pycache__"),
    }
)
HIDDEN, BROKEN, SPECIAL = "hidden file", "broken link", "FIFO, socket or device"
LINK_LOOP, STRAY = "link back to a folder above it", "image in no class folder"
Inode = tuple[int, int]


@dataclass(frozen=True)
class SkippedFile:
    """A file that is no image. kind: see image_formats.file_kind, or why it was not opened."""

    path: str
    kind: str | None


@dataclass
class FolderContent:
    """Direct content of a folder, sorted by name. tool_folders: paths of skipped folders."""

    images: list[str] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)
    tool_folders: list[str] = field(default_factory=list)


class Folder:
    """A folder of a dataset, listed when its content is first used.

    Args:
        path: as it is opened, and as messages name it.
        above: the folders above it.
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
        """The direct content; UserError: the folder or an entry cannot be read."""
        content, above = FolderContent(), self._above | {self.inode}
        try:
            with os.scandir(self.path) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            raise list_error(error) from None
        for entry in entries:
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE):
                    raise _unreadable(entry.path, error) from None
                is_folder = is_file = False  # a link to itself
            is_tool = entry.name.startswith(".") or entry.name.casefold() in TOOL_FOLDERS
            if is_folder and is_tool:
                content.tool_folders.append(entry.path)
            elif is_folder and _inode(entry.path) in above:
                content.skipped.append(SkippedFile(entry.path, LINK_LOOP))
            elif is_folder:
                content.folders.append(Folder(entry.path, above))
            elif not is_system_file(entry.name):
                kind = _file_kind(entry, is_file)
                if kind in READABLE:
                    content.images.append(entry.path)
                else:
                    content.skipped.append(SkippedFile(entry.path, kind))
        return content

    @property
    def images(self) -> list[str]:
        """Paths of the images directly in the folder."""
        return self.content.images

    @property
    def folders(self) -> list[Folder]:
        """The folders directly in the folder, without tool folders."""
        return self.content.folders

    @functools.cached_property
    def holds_images(self) -> bool:
        """Whether the folder contains an image at any depth."""
        return bool(self.images) or any(folder.holds_images for folder in self.folders)

    @functools.cached_property
    def image_folders(self) -> list[Folder]:
        """The direct subfolders that contain images at any depth."""
        return [folder for folder in self.folders if folder.holds_images]

    def walk(self) -> Iterator[Folder]:
        """Yield this folder, then all folders below it."""
        yield self
        for folder in self.folders:
            yield from folder.walk()

    def count(self) -> int:
        """Number of images at any depth."""
        return sum(len(folder.images) for folder in self.walk())


def _inode(path: str) -> Inode:
    try:
        state = os.stat(path)  # noqa: PTH116 - paths are texts here
    except OSError as error:
        raise _unreadable(path, error) from None
    return state.st_dev, state.st_ino


def _file_kind(entry: os.DirEntry[str], is_file: bool) -> str | None:
    """Kind of an entry that is no folder; a key of READABLE for an image."""
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
