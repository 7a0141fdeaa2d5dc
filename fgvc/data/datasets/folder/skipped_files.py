"""Files that a folder dataset passes over -> one line that counts them by kind."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from fgvc.data.datasets.folder.listing import (
    BROKEN,
    HIDDEN,
    LINK_LOOP,
    SPECIAL,
    STRAY,
    Folder,
    SkippedFile,
)
from fgvc.data.image_formats import LEFTOVER
from fgvc.data.index import list_first

PLURAL = {
    HIDDEN: "hidden files",
    BROKEN: "broken links",
    SPECIAL: "FIFOs, sockets or devices",
    LINK_LOOP: "links back to a folder above them",
    STRAY: "pictures in no class folder",
    LEFTOVER: "backup or unfinished files",
}
UNREAD_FORMATS = (
    "HEIC",
    "camera raw file",
    "JPEG XL",
    "Photoshop",
    "PostScript",
    "SVG",
    "PDF",
    "ICO",
)
_SUFFIX = re.compile(r"\.[a-z0-9_-]{1,12}")


def note(folders: Iterable[Folder], strays: Iterable[str], root: str) -> tuple[str, ...]:
    """The note on all that is passed over, or nothing.

    Args:
        folders: those whose direct content counts.
        strays: paths of pictures that lie in no class folder.
        root: paths in the note are relative to it.
    """
    files = [SkippedFile(path, STRAY) for path in strays]
    no_classes: list[str] = []
    for folder in folders:
        files += folder.content.skipped
        no_classes += folder.content.no_classes
    texts = list(_count_by_kind(files, root))
    if no_classes:
        names = list_first((_relative(path, root) for path in no_classes), 3)
        texts.append(f"folders that are no classes ({names})")
    return (f"passed over: {', '.join(texts)}",) if texts else ()


def summary(folder: Folder) -> str:
    """What lies in a folder that holds no pictures, as " (it holds ...)"; may be empty."""
    files = [file for part in folder.walk() for file in part.content.skipped]
    return f" (it holds {', '.join(_count_by_kind(files, folder.path))})" if files else ""


def _count_by_kind(files: Sequence[SkippedFile], root: str) -> Iterator[str]:
    """`12 .heic (HEIC, not read; convert them to JPEG)`, kind by kind, most files first."""
    paths_of: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    for file in files:
        paths_of[_suffix(file), file.kind].append(file.path)
    for (suffix, kind), paths in sorted(
        paths_of.items(), key=lambda item: (-len(item[1]), item[0][0], item[0][1] or "")
    ):
        first = f" ({list_first([_relative(path, root) for path in paths], 1)})"
        yield f"{len(paths)} {_describe(suffix, kind, len(paths) == 1, first)}"


def _suffix(file: SkippedFile) -> str:
    """The suffix in lower case, if it may be printed; "?" for any other; "" without one."""
    if file.kind in PLURAL:
        return ""
    suffix = os.path.splitext(file.path)[1].lower()  # noqa: PTH122 - paths are texts here
    return suffix if not suffix or _SUFFIX.fullmatch(suffix) else "?"


def _describe(suffix: str, kind: str | None, single: bool, first: str) -> str:
    """Words for files of one suffix and kind."""
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
    return printable(os.path.relpath(path, root))


def printable(name: str) -> str:
    """A name, or its escaped form if it holds control characters or is not UTF-8."""
    return name if name.isprintable() else ascii(name)
