"""The image formats that fgvc reads, and what kind of file lies under a name.

One list for folders, tables, task=predict, task=doctor and the decoder: a file is an image if its
first bytes are those of a format on the list, whatever its suffix. Where a whole dataset is listed,
a file with a suffix of the list counts as an image unopened; decoding checks its bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fgvc import untrusted

HEAD_BYTES = 64  # bytes of a file that tell its kind
# Pillow's name of the format: the suffixes of its files
READABLE: Mapping[str, Sequence[str]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpx", ".jpf", ".jpc", ".j2c"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
}
SUFFIXES = frozenset(suffix for suffixes in READABLE.values() for suffix in suffixes)
# what is not read, by suffix: a container begins with an image's magic bytes, and what Pillow
# would read of it is a preview; a text may begin like PNM
CONTAINERS: Mapping[str, Sequence[str]] = {
    "camera raw file": (
        *(".3fr", ".ari", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr"),
        *(".iiq", ".k25", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf"),
        *(".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
    ),
    "microscope file": (".bif", ".lsm", ".ndpi", ".qptiff", ".scn", ".stk", ".svs"),
}
OTHER: Mapping[str, Sequence[str]] = {
    **CONTAINERS,
    "HEIC": (".heic", ".heif", ".hif"),
    "JPEG XL": (".jxl",),
    "Photoshop": (".psd", ".psb"),
    "PostScript": (".ai", ".eps", ".ps"),
    "SVG": (".svg", ".svgz"),
    "text": (
        *(".txt", ".csv", ".tsv", ".md", ".rst", ".json", ".jsonl", ".xml", ".yaml", ".yml"),
        *(".html", ".htm", ".py", ".ipynb", ".log", ".ini", ".cfg", ".toml", ".xmp", ".aae"),
    ),
}
CONTAINER_OF = {suffix: kind for kind, suffixes in CONTAINERS.items() for suffix in suffixes}
LEFTOVER = "backup or unfinished file"
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})  # of file managers

_OTHER_OF = {suffix: kind for kind, suffixes in OTHER.items() for suffix in suffixes}
_SHARED = ("TIFF", "PPM")  # formats that a file of OTHER may begin like
_LEFTOVER = re.compile(
    r"(~|\.(bak|old|orig|tmp|temp|part|partial|crdownload|download|swp)|\.\w+_original)$", re.I
)
_PNM = re.compile(rb"P[1-6Ff]\s*(?:\s\d|#)")
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes, by version
_RAW_BRANDS = (b"crx ",)
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_STARTS: Sequence[tuple[bytes, str]] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "PDF"),
    (b"8BPS", "Photoshop"),
    (b"PK\x03\x04", "ZIP archive"),
    (b"\x1f\x8b", "gzip archive"),
    (b"Rar!", "RAR archive"),
    (b"7z\xbc\xaf", "7z archive"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\x1aE\xdf\xa3", "Matroska video"),
    (b"\0\0\1\0", "ICO"),
    (b"#!", "script"),
    (b"II\xbc", "JPEG XR"),
    (b"IIRO", "camera raw file"),
    (b"IIRS", "camera raw file"),
    (b"MMOR", "camera raw file"),
    (b"IIU\0", "camera raw file"),
    (b"FUJIFILMCCD-RAW", "camera raw file"),
    (b"FOVb", "camera raw file"),
    (b"gimp xcf", "GIMP project"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"DDS ", "DDS texture"),
    (b"BPG\xfb", "BPG"),
    (b"icns", "ICNS"),
    (b"AT&TFORM", "DjVu"),
    (b"\x93NUMPY", "NumPy array"),
    (b"\x89HDF\r\n\x1a\n", "HDF5 file"),
    (b"PAR1", "Parquet table"),
    (b"SQLite format 3", "SQLite database"),
    (b"BZh", "bzip2 archive"),
    (b"\xfd7zXZ\0", "xz archive"),
    (b"\x28\xb5\x2f\xfd", "Zstandard archive"),
    (b"OggS", "Ogg media"),
    (b"ID3", "MP3 sound"),
    (b"FLV\x01", "Flash video"),
    (b"\0\0\1\xba", "MPEG video"),
    (b"\0\0\1\xb3", "MPEG video"),
    (b"\x7fELF", "program"),
    (b"MZ\x90\0", "program"),
)


def kind_of(head: bytes) -> str | None:
    """Kind of a file by its first HEAD bytes: a key of READABLE, another kind's name, or None."""
    if head[4:8] == b"ftyp":
        return _iso_kind(head)
    if head[:4] == b"RIFF":
        return {b"WEBP": "WEBP", b"AVI ": "AVI video", b"WAVE": "WAV sound"}.get(head[8:12])
    if _PNM.match(head):
        return "PPM"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return next((kind for start, kind in _STARTS if head.startswith(start)), _text_kind(head))


def _iso_kind(head: bytes) -> str:
    """Kind of an ISO base media file by its brands."""
    brands = {head[start : start + 4] for start in (8, *range(16, len(head), 4))}
    if {b"avif", b"avis"} & brands:
        return "AVIF"
    if set(_RAW_BRANDS) & brands:
        return "camera raw file"
    if head[8:12] == b"qt  ":
        return "QuickTime video"
    return "HEIC" if set(_HEIF) & brands else "MP4 video"


def _text_kind(head: bytes) -> str | None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "HTML page"
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!--")) and b"<svg" in start):
        return "SVG"
    if start.startswith(b"<?xml"):
        return "XML document"
    if start.startswith((b'{"', b'["', b"[{", b"{\n", b"{\r")):
        return "JSON document"
    return "Git LFS pointer" if start.startswith(b"version https://git-lfs") else None


def with_article(kind: str) -> str:
    """The kind with its indefinite article: an HTML page, an SVG, a PNG."""
    spoken_with_n = ("A", "E", "HT", "HD", "I", "MP", "O", "SVG", "XML", "xz", "RAR")
    return f"{'an' if kind.startswith(spoken_with_n) else 'a'} {kind}"


def is_system_file(name: str) -> bool:
    """Whether a file is one that file managers leave everywhere; nobody misses it."""
    return name.startswith("._") or name == ".DS_Store" or name.casefold() in SYSTEM_FILES


def has_image_suffix(name: str) -> bool:
    """Whether a name ends in a suffix of the list; opens nothing."""
    return _suffix(name) in SUFFIXES


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path for each of 675,000 names


def is_image(path: Path) -> bool:
    """Whether a file is an image by its suffix or, with any other suffix, by its first bytes.

    A suffix of CONTAINERS is never an image's.

    Raises:
        OSError: the file cannot be read.
    """
    return has_image_suffix(path.name) or file_kind(path) in READABLE


def is_readable(head: bytes, path: str) -> bool:
    """Whether a file with these first bytes is decoded; a camera's raw file is not, by suffix."""
    kind = kind_of(head)
    return kind in READABLE and not (kind == "TIFF" and _suffix(path) in CONTAINER_OF)


def describe_kind(path: Path) -> str:
    """Kind of a regular file in words: as `file_kind`, otherwise its suffix.

    Raises:
        OSError: the file cannot be read.
    """
    return file_kind(path) or path.suffix.lower() or "file without suffix"


def file_kind(path: Path) -> str | None:
    """Kind of a file: by a suffix of OTHER unless its bytes are an image's, or by its bytes.

    Raises:
        OSError: the file cannot be read.
    """
    if _LEFTOVER.search(path.name):
        return LEFTOVER
    with untrusted.open_regular(path) as file:
        kind = kind_of(file.read(HEAD_BYTES))
    suffix = path.suffix.lower()
    is_whole = kind in READABLE and kind not in _SHARED and suffix not in CONTAINER_OF
    return kind if is_whole else _OTHER_OF.get(suffix, kind)
