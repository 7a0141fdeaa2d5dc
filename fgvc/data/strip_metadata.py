"""Bytes of a PNG or JPEG -> the same image without the metadata that changes no pixel.

Pillow refuses an image with one large or broken text, profile or comment block, while libpng and
libjpeg warn and read the pixels. Pixels, transparency and blocks that may hold the EXIF orientation
are kept.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Literal

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_METADATA = 1 << 20  # bytes of one block that may hold the orientation, decompressed
_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_SEGMENT_TAGS = (273, 324)  # StripOffsets, TileOffsets
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")  # of a JPEG segment with a length, or the end
_KEYWORDS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"xmp\0")


class ChecksumError(ValueError):
    """The checksum of a PNG chunk does not match its bytes."""


def strip_png(data: bytes) -> bytes:
    """A PNG without ancillary chunks; bytes after a truncated chunk are kept.

    Raises:
        ChecksumError: a critical chunk is damaged, as in libpng. Pillow reads wrong pixels from an
            IDAT chunk with a flipped bit.
    """
    parts = [SIGNATURE]
    for name, start, end in _chunks(data):
        if end > len(data):
            parts.append(data[start:])
            break
        is_valid = zlib.crc32(data[start + 4 : end - 4]).to_bytes(4, "big") == data[end - 4 : end]
        if name in _PIXEL_CHUNKS or name[:1].isupper():
            if not is_valid and name != b"IEND":
                raise ChecksumError(f"the checksum of its {name.decode('latin-1')} chunk is wrong")
            parts.append(data[start:end])
        elif is_valid and _may_hold_orientation(name, data[start + 8 : end - 4]):
            parts.append(data[start:end])
        if name == b"IEND":
            break
    return b"".join(parts)


def is_png_complete(data: bytes) -> bool:
    """Whether a PNG contains its last chunk."""
    return any(name == b"IEND" and end <= len(data) for name, _, end in _chunks(data))


def strip_jpeg(data: bytes) -> bytes:
    """A JPEG without comments and application segments except EXIF, JFIF and Adobe's colours."""
    parts, offset = [data[:2]], 2
    while offset + 4 <= len(data) and data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker == 0xFF:  # a fill byte
            offset += 1
            continue
        end = offset + 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
        if marker == 0xDA or end > len(data):  # the scan data: keep the rest
            break
        if not _is_metadata(marker, data[offset + 4 : end]):
            parts.append(data[offset:end])
        offset = end
    return b"".join([*parts, data[offset:]])


def jpeg_bits(data: bytes) -> int | None:
    """Bits per sample of a JPEG by its frame header; None without a header."""
    offset = 2
    while offset + 5 <= len(data) and data[offset] == 0xFF:
        marker = data[offset + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[offset + 4]
        offset += 1 if marker == 0xFF else 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
    return None


def count_jpeg_scans(data: bytes) -> int:
    """Scans of the first image of a JPEG; other images or a video may follow it."""
    scans, offset = 0, 2
    while (marker := _MARKER.search(data, offset)) and marker[0] != b"\xff\xd9":
        scans += marker[0] == b"\xff\xda"
        offset = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return scans


def count_tiff_segments(data: bytes) -> int:
    """Strips or tiles of the first image of a TIFF by its directory; 0 if that is damaged."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"

    def number(start: int, size: int) -> int:
        return int.from_bytes(data[start : start + size], order)

    is_big = number(2, 2) == 43
    offset_bytes, entry_bytes = (8, 20) if is_big else (4, 12)  # bytes of an offset and of an entry
    offset = number(offset_bytes, offset_bytes)
    entries, offset = number(offset, 8 if is_big else 2), offset + (8 if is_big else 2)
    return max(
        (
            number(start + 4, offset_bytes)
            for start in range(offset, min(offset + entries * entry_bytes, len(data)), entry_bytes)
            if number(start, 2) in _SEGMENT_TAGS
        ),
        default=0,
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of every chunk; the last end may exceed the length of the data."""
    start = len(SIGNATURE)
    while start + 8 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        yield data[start + 4 : start + 8], start, end
        start = end


def _may_hold_orientation(name: bytes, body: bytes) -> bool:
    if len(body) > MAX_METADATA:
        return False
    if name == b"eXIf":
        return True
    if name not in (b"tEXt", b"zTXt", b"iTXt") or not body.startswith(_KEYWORDS):
        return False
    rest = body[body.index(b"\0") + 1 :]
    if name == b"zTXt":
        return _is_short(rest[1:])
    if name == b"iTXt" and rest[:1] == b"\1":
        texts = rest[2:].split(b"\0", 2)  # language, translated keyword, text
        return len(texts) == 3 and _is_short(texts[2])
    return name == b"tEXt" or rest[:1] == b"\0"


def _is_short(compressed: bytes) -> bool:
    """Whether a zlib stream is valid and decompresses to at most MAX_METADATA bytes."""
    stream = zlib.decompressobj()
    try:
        stream.decompress(compressed, MAX_METADATA)
    except zlib.error:
        return False
    return not stream.unconsumed_tail


def _is_metadata(marker: int, body: bytes) -> bool:
    if marker == 0xE0:
        return not (body.startswith(b"JFIF\0") and len(body) >= 14)
    if marker == 0xE1:
        return not body.startswith(b"Exif\0\0")
    if marker == 0xEE:
        return not (body.startswith(b"Adobe") and len(body) >= 12)
    return 0xE0 <= marker <= 0xEF or marker == 0xFE
