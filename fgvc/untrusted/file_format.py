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
TEXT_STARTS: Sequence[tuple[bytes, str]] = (  # in lower case
    (b"<!doctype", HTML),
    (b"<html", HTML),
    (b"<?xml", XML),
    (b"version https://git-lfs", LFS_POINTER),
)


def kind_of(head: bytes) -> str | None:
    """The format of a file by its first HEAD_BYTES; None for a format of neither table."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    kind = next((kind for start, kind in STARTS if head.startswith(start)), None)
    return kind or next((kind for start, kind in TEXT_STARTS if text.startswith(start)), None)


def with_article(kind: str) -> str:
    """The format with its indefinite article: an HTML page, a gzip archive."""
    spoken_with_n = ("HT", "HD", "XML", "xz", "RAR")
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
