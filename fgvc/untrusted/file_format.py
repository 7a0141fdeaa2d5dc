"""The first bytes of a file -> its kind, in words; the header of a safetensors file.

The name of a file does not determine its kind: a download may have left a web page or a pointer
of Git LFS in its place. Standard library only, so that every room may import this module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fgvc.untrusted.files import open_regular, parse_json

HEAD_BYTES = 512  # that `kind_of` needs
MOST_HEADER = 100_000_000  # bytes of a header, as the safetensors format limits it
HTML, LFS_POINTER = "HTML page", "Git LFS pointer"
# the first bytes of the files of each kind
STARTS: Mapping[str, bytes | tuple[bytes, ...]] = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "GIF": (b"GIF87a", b"GIF89a"),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "JPEG2000": (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
    "PostScript": (b"%!PS", b"\xc5\xd0\xd3\xc6"),
    "PDF": b"%PDF",
    "Photoshop": b"8BPS",
    "ZIP archive": b"PK\x03\x04",
    "gzip archive": b"\x1f\x8b",
    "RAR archive": b"Rar!",
    "7z archive": b"7z\xbc\xaf",
    "JPEG XL": (b"\xff\x0a", b"\0\0\0\x0cJXL "),
    "Matroska video": b"\x1aE\xdf\xa3",
    "ICO": b"\0\0\1\0",
    "script": b"#!",
    "JPEG XR": b"II\xbc",
    "camera raw file": (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"FOVb"),
    "GIMP project": b"gimp xcf",
    "OpenEXR": b"v/1\x01",
    "Radiance HDR": b"#?RADIANCE",
    "DDS texture": b"DDS ",
    "BPG": b"BPG\xfb",
    "ICNS": b"icns",
    "DjVu": b"AT&TFORM",
    "NumPy array": b"\x93NUMPY",
    "HDF5 file": b"\x89HDF\r\n\x1a\n",
    "Parquet table": b"PAR1",
    "SQLite database": b"SQLite format 3",
    "bzip2 archive": b"BZh",
    "xz archive": b"\xfd7zXZ\0",
    "Zstandard archive": b"\x28\xb5\x2f\xfd",
    "Ogg media": b"OggS",
    "MP3 sound": b"ID3",
    "Flash video": b"FLV\x01",
    "MPEG video": (b"\0\0\1\xba", b"\0\0\1\xb3"),
    "program": (b"\x7fELF", b"MZ\x90\0"),
    "Excel workbook (.xls)": b"\xd0\xcf\x11\xe0",
    "Arrow or Feather file": b"ARROW1",
    "GGUF file": b"GGUF",
}
PNM = re.compile(rb"P[1-6Ff]\s*(?:\s\d|#)")
BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes, by version
HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def kind_of(head: bytes) -> str | None:
    """The kind of a file by its first HEAD_BYTES, and Pillow's name of an image; None if unknown.

    Python pickles are no kind: checkpoints of torch may be pickles.
    """
    head = head[:HEAD_BYTES]
    if head[4:8] == b"ftyp":
        end = min(len(head), int.from_bytes(head[:4], "big"))  # of the first box
        brands = {head[start : start + 4] for start in (8, *range(16, end, 4))}
        if {b"avif", b"avis"} & brands:
            return "AVIF"
        if b"crx " in brands:
            return "camera raw file"
        if head[8:12] == b"qt  ":
            return "QuickTime video"
        return "HEIC" if HEIF & brands else "MP4 video"
    if head[:4] == b"RIFF":
        return {b"WEBP": "WEBP", b"AVI ": "AVI video", b"WAVE": "WAV sound"}.get(head[8:12])
    if PNM.match(head):
        return "PPM"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in BMP_HEADERS:
        return "BMP"
    kinds = (kind for kind, starts in STARTS.items() if head.startswith(starts))
    return next(kinds, None) or text_kind(head)


def text_kind(head: bytes) -> str | None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return HTML
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!--")) and b"<svg" in start):
        return "SVG"
    if start.startswith(b"<?xml"):
        return "XML document"
    if start.startswith((b'{"', b'["', b"[{", b"{\n", b"{\r")):
        return "JSON document"
    return LFS_POINTER if start.startswith(b"version https://git-lfs") else None


def placeholder(head: bytes) -> str | None:
    """The usual placeholder of a large file, by its first 64 bytes; None for other content."""
    if not head:
        return "an empty file"
    hints = {
        LFS_POINTER: "a git-lfs pointer, not the file itself: run `git lfs pull`",
        HTML: "an HTML page (a failed download?)",
    }
    return hints.get(text_kind(head) or "")


def with_article(kind: str) -> str:
    """The kind with its indefinite article: an HTML page, a gzip archive, a PNG."""
    spoken_with_n = ("A", "E", "HT", "HD", "I", "MP", "O", "SVG", "XML", "xz", "RAR")
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
