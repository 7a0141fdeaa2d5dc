"""A folder on disk -> its images, folders and skipped files; a line that counts the latter.

Folders are listed when first needed. Links are followed, except a link to a folder above itself.
FIFOs and devices are never opened. A broken link with the suffix of an image counts as an image:
dataset.on_bad_image handles it.
"""

from __future__ import annotations

import errno
import functools
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fgvc.data.find_root import list_error
from fgvc.data.image_formats import LEFTOVER, READABLE, file_kind, has_image_suffix, is_system_file
from fgvc.data.index import list_first
from fgvc.types import UserError
from fgvc.untrusted.escape import one_line

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
PLURAL = {
    HIDDEN: "hidden files",
    BROKEN: "broken links",
    SPECIAL: "FIFOs, sockets or devices",
    LINK_LOOP: "links back to a folder above them",
    STRAY: "images in no class folder",
    LEFTOVER: "backup or unfinished files",
}
UNREAD_FORMATS = (
    *("HEIC", "camera raw file", "JPEG XL", "Photoshop", "PostScript", "SVG", "PDF", "ICO"),
)
_SUFFIX = re.compile(r"\.[a-z0-9_-]{1,12}")
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


def skipped_note(folders: Iterable[Folder], strays: Iterable[str], root: str) -> tuple[str, ...]:
    """A note on all skipped files, if there are any.

    Args:
        folders: the folders whose direct content counts.
        strays: paths of images in no class folder.
        root: paths in the note are relative to it.
    """
    files = [SkippedFile(path, STRAY) for path in strays]
    tool_folders: list[str] = []
    for folder in folders:
        files += folder.content.skipped
        tool_folders += folder.content.tool_folders
    texts = list(_count_by_kind(files, root))
    if tool_folders:
        names = list_first((_relative(path, root) for path in tool_folders), 3)
        texts.append(f"folders that are not classes ({names})")
    return (f"skipped: {', '.join(texts)}",) if texts else ()


def summarize_skipped(folder: Folder) -> str:
    """Content of a folder without images, as " (it holds ...)"; may be empty."""
    files = [file for part in folder.walk() for file in part.content.skipped]
    return f" (it holds {', '.join(_count_by_kind(files, folder.path))})" if files else ""


def _count_by_kind(files: Sequence[SkippedFile], root: str) -> Iterator[str]:
    """Yield `12 .heic (HEIC, not read; convert them to JPEG)` per kind, most files first."""
    paths_of: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    for file in files:
        suffix = "" if file.kind in PLURAL else os.path.splitext(file.path)[1].lower()  # noqa: PTH122
        safe = suffix if not suffix or _SUFFIX.fullmatch(suffix) else "?"  # to print
        paths_of[safe, file.kind].append(file.path)
    for (suffix, kind), paths in sorted(
        paths_of.items(), key=lambda item: (-len(item[1]), item[0][0], item[0][1] or "")
    ):
        first = f" ({list_first([_relative(path, root) for path in paths], 1)})"
        yield f"{len(paths)} {_describe(suffix, kind, len(paths) == 1, first)}"


def _describe(suffix: str, kind: str | None, single: bool, first: str) -> str:
    them = "it" if single else "them"
    if kind in PLURAL:
        words = kind if single else PLURAL[kind]
        return words + (first if kind in (STRAY, BROKEN, LINK_LOOP) else "")
    if suffix == "?":
        return "other file" if single else "other files"
    name = suffix or "without suffix"
    if kind in UNREAD_FORMATS:
        return f"{name} ({kind}, not read; convert {them} to JPEG)"
    if kind is not None and kind.endswith("archive"):
        return f"{name} ({kind}; unpack {them})"
    about = "" if kind in (None, "text") else f" ({kind})"
    return f"{name}{about}" if suffix else f"{name}{about or first}"


def _relative(path: str, root: str) -> str:
    """A path relative to the root, safe to print."""
    return one_line(os.path.relpath(path, root))
