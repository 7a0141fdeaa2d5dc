"""The kind and the suffix of a file -> whether fgvc reads it as an image.

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
from fgvc.untrusted.file_format import HEAD_BYTES, kind_of

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


def is_readable(data: bytes, path: str) -> bool:
    """Whether a file that begins so is decoded; a TIFF with a CONTAINERS suffix is not."""
    kind = kind_of(data)
    return kind in READABLE and not (kind == "TIFF" and _suffix(path) in CONTAINER_OF)


def describe_kind(path: Path) -> str:
    """Kind of a regular file in words: `file_kind`, otherwise its suffix."""
    return file_kind(path) or path.suffix.lower() or "file without suffix"


def file_kind(path: Path) -> str | None:
    """Kind of a file: an image by its bytes, otherwise by a suffix of OTHER or by its bytes."""
    if _LEFTOVER.search(path.name):
        return LEFTOVER
    with untrusted.open_regular(path) as file:
        kind = kind_of(file.read(HEAD_BYTES))
    suffix = path.suffix.lower()
    is_whole = kind in READABLE and kind not in _SHARED and suffix not in CONTAINER_OF
    return kind if is_whole else _OTHER_OF.get(suffix, kind)
