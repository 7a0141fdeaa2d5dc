"""The first bytes of a file -> its format, in words; the header of a safetensors file.

The name of a file does not determine its format: a download may have left a web page or a pointer
of Git LFS in its place. Standard library only, so that every room may import this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fgvc.untrusted.files import open_regular, parse_json

HEAD_BYTES = 512  # that `kind_of` needs
MOST_HEADER = 100_000_000  # bytes of a header, as the safetensors format limits it
HTML, XML, LFS_POINTER = "HTML page", "XML document", "Git LFS pointer"
STARTS: Sequence[tuple[bytes, str]] = (
    (b"PK\x03\x04", "ZIP archive"),
    (b"\x1f\x8b", "gzip archive"),
    (b"BZh", "bzip2 archive"),
    (b"\xfd7zXZ\0", "xz archive"),
    (b"\x28\xb5\x2f\xfd", "Zstandard archive"),
    (b"7z\xbc\xaf", "7z archive"),
    (b"Rar!", "RAR archive"),
    (b"\x93NUMPY", "NumPy array"),
    (b"\x89HDF\r\n\x1a\n", "HDF5 file"),
    (b"GGUF", "GGUF file"),
)


def kind_of(head: bytes) -> str | None:
    """The format of a file by its first HEAD_BYTES; None for an unknown format."""
    kind = next((kind for start, kind in STARTS if head.startswith(start)), None)
    return kind or text_kind(head)


def text_kind(head: bytes) -> str | None:
    """The kind of a text file by its first 64 bytes; None for an unknown kind."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return HTML
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!--")) and b"<svg" in start):
        return "SVG"
    if start.startswith(b"<?xml"):
        return XML
    if start.startswith((b'{"', b'["', b"[{", b"{\n", b"{\r")):
        return "JSON document"
    return LFS_POINTER if start.startswith(b"version https://git-lfs") else None


def placeholder(head: bytes) -> str | None:
    """What often stands in place of a large file, by its first 64 bytes; None for anything else."""
    if not head:
        return "an empty file"
    hints = {
        LFS_POINTER: "a git-lfs pointer, not the file itself: run `git lfs pull`",
        HTML: "an HTML page (a failed download?)",
    }
    return hints.get(text_kind(head) or "")


def with_article(kind: str) -> str:
    """The format with its indefinite article: an HTML page, a gzip archive."""
    spoken_with_n = ("HT", "HD", "XML", "SVG", "xz", "RAR")
    return f"{'an' if kind.startswith(spoken_with_n) else 'a'} {kind}"


def safetensors_header(path: Path) -> tuple[dict[str, Any], int] | None:
    """The JSON header of a safetensors file, and its end in bytes; None for any other file.

    Raises:
        OSError: as `open_regular`.
    """
    with open_regular(path) as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        if start[8:] != b"{" or length > min(MOST_HEADER, path.stat().st_size):
            return None
        try:
            header = parse_json(b"{" + file.read(length - 1))
        except ValueError:
            return None
    return (header, 8 + length) if isinstance(header, dict) else None
