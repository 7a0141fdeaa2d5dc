"""Bytes of a PNG or JPEG -> the same image without the metadata that changes no pixel.

Pillow refuses a whole image for one large or broken text, profile or comment block. libpng and
libjpeg warn and read the pixels. What stays: the pixels, transparency, and the blocks that may
hold the EXIF orientation.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Literal

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_METADATA = 1 << 20  # bytes of one block that may hold the orientation, decompressed
_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_SEGMENT_TAGS = (273, 324)  # tags: where each strip and each tile lies
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")  # of a JPEG, with a length; or its end
_KEYWORDS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"xmp\0")


class ChecksumError(ValueError):
    """A chunk of a PNG whose checksum is not that of its bytes."""


def strip_png(data: bytes) -> bytes:
    """A PNG without ancillary chunks; what follows a chunk that is cut short stays as it is.

    Raises:
        ChecksumError: a damaged chunk that pixels depend on, as in libpng. Pillow itself reads
            wrong pixels from an IDAT chunk with a flipped bit.
    """
    kept = [SIGNATURE]
    for name, start, end in _chunks(data):
        if end > len(data):
            kept.append(data[start:])
            break
        sound = zlib.crc32(data[start + 4 : end - 4]).to_bytes(4, "big") == data[end - 4 : end]
        if name in _PIXEL_CHUNKS or name[:1].isupper():
            if not sound and name != b"IEND":
                raise ChecksumError(f"the checksum of its {name.decode('latin-1')} chunk is wrong")
            kept.append(data[start:end])
        elif sound and _may_hold_orientation(name, data[start + 8 : end - 4]):
            kept.append(data[start:end])
        if name == b"IEND":
            break
    return b"".join(kept)


def is_png_complete(data: bytes) -> bool:
    """Whether the last chunk of a PNG is there."""
    return any(name == b"IEND" and end <= len(data) for name, _, end in _chunks(data))


def strip_jpeg(data: bytes) -> bytes:
    """A JPEG without application blocks and comments, but for EXIF, JFIF and Adobe's colours."""
    kept, place = [data[:2]], 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xDA or end > len(data):  # the scan: all that is left
            break
        if not _is_metadata(marker, data[place + 4 : end]):
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])


def jpeg_bits(data: bytes) -> int | None:
    """Bits of a sample of a JPEG by its frame header; None without one."""
    place = 2
    while place + 5 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[place + 4]
        place += 1 if marker == 0xFF else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def count_jpeg_scans(data: bytes) -> int:
    """Scans of a JPEG's first image; a film or a second image may follow its end."""
    scans, place = 0, 2
    while (marker := _MARKER.search(data, place)) and marker[0] != b"\xff\xd9":
        scans += marker[0] == b"\xff\xda"
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return scans


def count_tiff_segments(data: bytes) -> int:
    """Strips or tiles of the first image of a TIFF, by its directory; 0 where that is damaged."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"

    def number(start: int, size: int) -> int:
        return int.from_bytes(data[start : start + size], order)

    is_big = number(2, 2) == 43
    wide, entry = (8, 20) if is_big else (4, 12)  # bytes of an offset and of an entry
    place = number(wide, wide)
    entries, place = number(place, 8 if is_big else 2), place + (8 if is_big else 2)
    return max(
        (
            number(start + 4, wide)
            for start in range(place, min(place + entries * entry, len(data)), entry)
            if number(start, 2) in _SEGMENT_TAGS
        ),
        default=0,
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of every chunk; the end of the last may lie behind the file's."""
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
    """Whether a zlib stream is sound and no longer than MOST_METADATA once decompressed."""
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
