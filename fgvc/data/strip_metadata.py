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
# application segments of a JPEG that are kept: how they start, and their shortest length
_KEPT_SEGMENTS = {0xE0: (b"JFIF\0", 14), 0xE1: (b"Exif\0\0", 0), 0xEE: (b"Adobe", 12)}
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
    parts, rest = [data[:2]], 2
    for marker, start, end in _segments(data):
        if marker == 0xDA or end > len(data):  # the scan data: keep the rest
            break
        first, fewest = _KEPT_SEGMENTS.get(marker, (None, 0))
        body, rest = data[start + 4 : end], end
        is_kept = first is not None and body.startswith(first) and len(body) >= fewest
        if is_kept or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            parts.append(data[start:end])
    return b"".join([*parts, data[rest:]])


def jpeg_bits(data: bytes) -> int | None:
    """Bits per sample of a JPEG by its frame header; None without a header."""
    for marker, start, _ in _segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[start + 4] if start + 4 < len(data) else None
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of the segments of a JPEG before its first scan data."""
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if data[start + 1] == 0xFF:  # a fill byte
            end = start + 1
        else:
            yield data[start + 1], start, end
        start = end


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
    # bytes of an offset, of an entry, and of the number of entries
    offset_bytes, entry_bytes, count_bytes = (8, 20, 8) if is_big else (4, 12, 2)
    offset = number(offset_bytes, offset_bytes)
    entries, offset = number(offset, count_bytes), offset + count_bytes
    starts = range(offset, min(offset + entries * entry_bytes, len(data)), entry_bytes)
    segments = [start for start in starts if number(start, 2) in _SEGMENT_TAGS]
    return max((number(start + 4, offset_bytes) for start in segments), default=0)


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
