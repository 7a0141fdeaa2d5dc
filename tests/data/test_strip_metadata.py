"""Large or damaged metadata changes no pixel, as in libpng and libjpeg; damage is reported."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

from fgvc.data.decode import ImageError, decode

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def encoded(kind: str, **save: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, kind, **save)
    return out.getvalue()


PNG, JPEG = encoded("PNG"), encoded("JPEG")
LARGE = b"x" * (3 << 20)


def chunk(name: bytes, body: bytes, checksum: int | None = None) -> bytes:
    if checksum is None:
        checksum = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)


def packed(body: bytes) -> bytes:
    return zlib.compress(body)


CHUNKS = {
    "large zTXt": [chunk(b"zTXt", b"k\0\0" + packed(LARGE))],
    "large iTXt": [chunk(b"iTXt", b"k\0\1\0\0\0" + packed(LARGE))],
    "large XMP": [chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed(LARGE))],
    "large EXIF text": [chunk(b"zTXt", b"Raw profile type exif\0\0" + packed(LARGE))],
    "many texts": [chunk(b"zTXt", b"%d\0\0" % n + packed(LARGE[: 1 << 20])) for n in range(65)],
    "large profile": [chunk(b"iCCP", b"n\0\0" + packed(LARGE))],
    "profile with another method": [chunk(b"iCCP", b"n\0\7abc")],
    "empty profile": [chunk(b"iCCP", b"")],
    "text with a wrong checksum": [chunk(b"tEXt", b"k\0v", 7)],
    "short gamma": [chunk(b"gAMA", b"\0")],
    "short chromaticities": [chunk(b"cHRM", b"\0")],
    "short resolution": [chunk(b"pHYs", b"\0")],
    "empty sRGB": [chunk(b"sRGB", b"")],
    "short animation": [chunk(b"acTL", b"\0\0\0")],
    "large EXIF": [chunk(b"eXIf", b"MM\0*\0\0\0\x08" + b"\0" * (2 << 20))],
    "broken EXIF": [chunk(b"eXIf", b"\xff" * 10)],
    "unknown": [chunk(b"prVt", os.urandom(100))],
}


@pytest.mark.parametrize("name", CHUNKS)
def test_png_chunks_that_hold_no_pixel_change_none(name):
    data = PNG[:33] + b"".join(CHUNKS[name]) + PNG[33:]
    actual = decode(data, "a.png")
    assert torch.equal(actual, torch.from_numpy(PIXELS).permute(2, 0, 1))
    expected = decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    assert torch.equal(actual, expected)


@pytest.mark.fault(47)
def test_a_large_text_costs_no_memory():
    data = PNG[:33] + chunk(b"zTXt", b"k\0\0" + packed(bytes(64 << 20))) + PNG[33:]
    tracemalloc.start()
    decode(data, "a.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize("where", ["eXIf", "XMP", "packed XMP"])
def test_the_orientation_is_still_read(where):
    tag = b'<rdf:Description tiff:Orientation="6"/>'
    exif = Image.Exif()
    exif[0x0112] = 6
    block = {
        "eXIf": chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")),
        "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + tag),
        "packed XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed(tag)),
    }[where]
    assert decode(PNG[:33] + block + PNG[33:], "a.png").shape == (3, 32, 24)


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


SEGMENTS = {
    "much of it": [segment(0xE5, b"z" * 65000)] * 40,
    "comments": [segment(0xFE, b"z" * 65000)] * 40,
    "short EXIF": [segment(0xE1, b"Exif\0\0MM\0*")],
    "short JFIF": [segment(0xE0, b"JFIF")],
    "short Adobe": [segment(0xEE, b"Adobe")],
    "short Photoshop": [segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed")],
    "short MPF": [segment(0xE2, b"MPF\0")],
    "broken profile": [segment(0xE2, b"ICC_PROFILE\0\1\2" + os.urandom(300))],
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_jpeg_segments_that_hold_no_pixel_change_none(name):
    data = JPEG[:2] + b"".join(SEGMENTS[name]) + JPEG[2:]
    assert torch.equal(decode(data, "a.jpg"), decode(JPEG, "a.jpg"))
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None


def test_a_jpeg_with_a_broken_segment_keeps_its_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded("JPEG", exif=exif)
    broken = data[:2] + SEGMENTS["short Photoshop"][0] + data[2:]
    assert torch.equal(decode(broken, "a.jpg"), decode(data, "a.jpg"))


def flipped(place: int) -> bytes:
    data = bytearray(PNG)
    data[place] ^= 1
    return bytes(data)


IDAT = PNG.index(b"IDAT")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (flipped(30), "IHDR"),
        (flipped(len(PNG) - 13), "IDAT"),
        (flipped(IDAT + (len(PNG) - IDAT) // 2), "IDAT"),
        (PNG[:33] + chunk(b"tRNS", b"\0" * 6, 7) + PNG[33:], "tRNS"),
    ],
    ids=["header", "checksum", "pixels", "transparency"],
)
def test_a_wrong_checksum_is_named_with_its_chunk(data, name):
    """libpng also refuses critical chunks; Pillow reads wrong pixels after a flipped IDAT bit."""
    with pytest.raises(
        ImageError, match=rf"^b\.jpg: .*a PNG, and the checksum of its {name} chunk"
    ):
        decode(data, "b.jpg")


def test_data_after_the_end_are_ignored():
    for data in (PNG + b"junk" * 30, PNG[:-12], PNG[:-4] + b"abcd"):
        assert torch.equal(decode(data, "a.png"), decode(PNG, "a.png"))
