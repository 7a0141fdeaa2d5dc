"""Files that dataset=folder skips -> one line that counts them by kind."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from fgvc.data.datasets.folder import listing
from fgvc.data.datasets.folder.listing import BROKEN, LINK_LOOP, STRAY, Folder, SkippedFile
from fgvc.data.image_formats import LEFTOVER
from fgvc.data.index import list_first
from fgvc.untrusted.escape import one_line

PLURAL = {
    listing.HIDDEN: "hidden files",
    BROKEN: "broken links",
    listing.SPECIAL: "FIFOs, sockets or devices",
    LINK_LOOP: "links back to a folder above them",
    STRAY: "images in no class folder",
    LEFTOVER: "backup or unfinished files",
}
UNREAD_FORMATS = (
    *("HEIC", "camera raw file", "JPEG XL", "Photoshop", "PostScript", "SVG", "PDF", "ICO"),
)
_SUFFIX = re.compile(r"\.[a-z0-9_-]{1,12}")


def note(folders: Iterable[Folder], strays: Iterable[str], root: str) -> tuple[str, ...]:
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
        texts.append(f"folders that are no classes ({names})")
    return (f"skipped: {', '.join(texts)}",) if texts else ()


def summary(folder: Folder) -> str:
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
    """Description of files of one suffix and kind."""
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
