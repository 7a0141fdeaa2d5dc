"""The first bytes and the suffix of a file -> its kind, and whether fgvc reads it as an image.

One list for folders, tables, task=predict, task=doctor and the decoder: a file is an image if its
first bytes are those of a listed format, whatever its suffix. When a whole dataset is listed, files
with a listed suffix count as images without being opened; decoding checks their bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fgvc import untrusted
from fgvc.untrusted.file_format import text_kind

HEAD_BYTES = 64  # first bytes of a file, which determine its kind
# Pillow's name of a format: the suffixes of its files
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
# files that are not read, by suffix: containers begin with the magic bytes of an image, but Pillow
# would only read a preview; texts may begin like PNM
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
_SHARED = ("TIFF", "PPM")  # formats whose magic bytes files of OTHER may share
_LEFTOVER = re.compile(
    r"(~|\.(bak|old|orig|tmp|temp|part|partial|crdownload|download|swp)|\.\w+_original)$", re.I
)
_PNM = re.compile(rb"P[1-6Ff]\s*(?:\s\d|#)")
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes, by version
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# the first bytes of the files of each kind
_STARTS: Mapping[str, bytes | tuple[bytes, ...]] = {
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
    "Python pickle": (b"\x80\x04", b"\x80\x05"),
}


def kind_of(head: bytes) -> str | None:
    """Kind of a file by its first HEAD_BYTES: a key of READABLE, another kind, or None."""
    if head[4:8] == b"ftyp":
        return _iso_kind(head)
    if head[:4] == b"RIFF":
        return {b"WEBP": "WEBP", b"AVI ": "AVI video", b"WAVE": "WAV sound"}.get(head[8:12])
    if _PNM.match(head):
        return "PPM"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    kinds = (kind for kind, starts in _STARTS.items() if head.startswith(starts))
    return next(kinds, None) or text_kind(head)


def _iso_kind(head: bytes) -> str:
    """Kind of an ISO base media file by its brands."""
    brands = {head[start : start + 4] for start in (8, *range(16, len(head), 4))}
    if {b"avif", b"avis"} & brands:
        return "AVIF"
    if b"crx " in brands:
        return "camera raw file"
    if head[8:12] == b"qt  ":
        return "QuickTime video"
    return "HEIC" if set(_HEIF) & brands else "MP4 video"


def with_article(kind: str) -> str:
    """The kind with its indefinite article: an HTML page, an SVG, a PNG."""
    spoken_with_n = ("A", "E", "HT", "HD", "I", "MP", "O", "SVG", "XML", "xz", "RAR")
    return f"{'an' if kind.startswith(spoken_with_n) else 'a'} {kind}"


def is_system_file(name: str) -> bool:
    """Whether a file is one that file managers create; it is ignored silently."""
    return name.startswith("._") or name == ".DS_Store" or name.casefold() in SYSTEM_FILES


def has_image_suffix(name: str) -> bool:
    """Whether a name has the suffix of a format that is read; opens nothing."""
    return _suffix(name) in SUFFIXES


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path for each of 675,000 names


def is_image(path: Path) -> bool:
    """Whether a file is an image by its suffix or, with another suffix, by `file_kind`."""
    return has_image_suffix(path.name) or file_kind(path) in READABLE


def is_readable(head: bytes, path: str) -> bool:
    """Whether a file with these first bytes is decoded; a TIFF with a CONTAINERS suffix is not."""
    kind = kind_of(head)
    return kind in READABLE and not (kind == "TIFF" and _suffix(path) in CONTAINER_OF)


def describe_kind(path: Path) -> str:
    """Kind of a regular file in words: `file_kind`, otherwise its suffix."""
    return file_kind(path) or path.suffix.lower() or "file without suffix"


def file_kind(path: Path) -> str | None:
    """Kind of a file: an image by its bytes, otherwise by a suffix of OTHER or by its bytes.

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
