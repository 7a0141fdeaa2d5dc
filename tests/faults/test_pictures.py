"""Pictures, archives and .mat files of other people: refused in one line, within stated bounds."""

from __future__ import annotations

import bz2
import ctypes
import gzip
import io
import json
import lzma
import os
import resource
import struct
import sys
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image
from scipy.io import loadmat, savemat

from fgvc.data import matlab, rescale
from fgvc.data.datasets.table.parquet_file import ParquetTable
from fgvc.data.decode import ImageError, decode, image_size
from fgvc.data.doctor import images
from fgvc.data.download.unpack import UnpackError, unpack
from fgvc.data.image_input import pixels_of
from fgvc.record.run_page.gallery import Album
from fgvc.types import UserError

SIDE = 2000
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
FLI = struct.pack("<IHHHHHHI", 128, 0xAF12, 1, 9, 9, 8, 3, 71) + bytes(112)
WMF = b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<hhhhH", 0, 0, 9, 9, 72) + b"\1\0\t\0" + bytes(40)
STRANGE = {
    "eps": EPS,
    "eps with a preview": b"\xc5\xd0\xd3\xc6"
    + struct.pack("<IIIIIIH", 30, len(EPS), *[0] * 5)
    + EPS,
    "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "fli": FLI,
    "wmf": WMF,
    "mp4": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(64),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "xml and svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
    "script": b"#!/bin/sh\ntouch /tmp/x\n",
    "python": b"import os\nos.system('touch x')\n",
    "psd": b"8BPS\0\1" + bytes(80),
    "ico": b"\0\0\1\0\1\0\t\t\0\0\1\0\x20\0" + bytes(60),
    "photo cd": bytes(2048) + b"PCD_" + bytes(800),
    "tga": b"\0\0\2" + bytes(9) + b"\t\0\t\0\x18\0" + bytes(300),
    "xpm": b"/* XPM */\nstatic char *a[] = {};\n",
    "fits": b"SIMPLE  =                    T" + bytes(2900),
    "iptc": b"\x1c\1\0\0" + bytes(60),
    "dcx": b"\xb1\x68\xde\x3a" + bytes(60),
    "gribs": b"GRIB\0\0\0\1" + bytes(60),
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(60),
    "hdr": cv2.imencode(".hdr", np.ones((9, 9, 3), np.float32))[1].tobytes(),
    "webp in name only": b"RIFF\0\0\0\0WAVEfmt " + bytes(60),
}


def silent(n: int, note: str = "") -> None:
    """A progress without output."""


def encoded(picture: Image.Image, kind: str, **save: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **save)
    return out.getvalue()


# --- row 46: another program is never started ---


@pytest.fixture
def started_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that any of the programs which libraries start would leave behind."""
    folder, marker = tmp_path / "bin", tmp_path / "started"
    folder.mkdir()
    for name in (
        "gs",
        "gswin32c",
        "gswin64c",
        "ffmpeg",
        "ffprobe",
        "djpeg",
        "convert",
        "rsvg-convert",
    ):
        (folder / name).write_text(f"#!/bin/sh\n: > '{marker}'\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow looks for it once
    return marker


def doors(file: Path) -> dict[str, Callable[[], object]]:
    """Every function of fgvc that opens a picture by its path or its bytes."""
    album = Album(lambda path: None)
    return {
        "decode": lambda: decode(file.read_bytes(), file.name),
        "size_of": lambda: image_size(file),
        "pixels_of": lambda: pixels_of(file),
        "rescale": lambda: rescale.rescale(file, file.with_suffix(".png"), 0, 1),
        "overlay": lambda: album.overlay(file),
    }


@pytest.mark.fault(46)
@pytest.mark.parametrize("name", STRANGE)
def test_only_formats_of_the_list_are_opened(
    name: str, tmp_path: Path, started_marker: Path
) -> None:
    file = tmp_path / "bird.jpg"
    file.write_bytes(STRANGE[name])
    for door, read in doors(file).items():
        with pytest.raises((UserError, OSError)) as caught:
            read()
        if door in ("decode", "rescale"):
            assert "\n" not in str(caught.value)
            assert "bird.jpg: " in str(caught.value)
    assert images.read_images(tmp_path, [file.name], 1, silent).bad.keys() == {0}
    assert not (tmp_path / "bird.png").exists()
    assert not started_marker.exists()


@pytest.mark.fault(46)
def test_an_image_that_a_notebook_opened_starts_nothing(
    tmp_path: Path, started_marker: Path
) -> None:
    file = tmp_path / "bird.jpg"
    file.write_bytes(EPS)
    with pytest.raises(UserError, match=r"bird\.jpg"), Image.open(file) as image:
        pixels_of(image)
    assert not started_marker.exists()


@pytest.mark.fault(46, 47)
def test_predict_names_such_files_and_reads_the_others(
    finished, run, tmp_path: Path, started_marker: Path, small_probe, jpeg
) -> None:
    ran = finished(*small_probe)
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(EPS)
    (folder / "b.png").write_bytes(encoded(Image.new("1", (60, 40)), "PNG"))
    (folder / "c.jpg").write_bytes(jpeg(1))
    command = ("task=predict", f"checkpoint={ran.folder}", f'image="{folder}"', "task.format=json")
    answer = run(*command, "dataset.max_pixels=2000", bare=True)
    assert answer.code == 0, answer.err
    eps, bomb, good = json.loads(answer.out)["images"]
    assert "PostScript" in eps["error"]
    assert "2400 pixels, more than the 2000 that dataset.max_pixels" in bomb["error"]
    assert good["predictions"]
    way_out = bomb["error"].split("or set ")[1].split()[0]
    answer = run(*command, way_out, bare=True)
    assert json.loads(answer.out)["images"][1]["predictions"]
    assert not started_marker.exists()


# --- rows 23 and 47: pictures ---


def peak(work: Callable[[], object], warm_up: Callable[[], object] = lambda: None) -> int:
    """Bytes by which a function raises the peak memory of a separate process.

    Args:
        warm_up: called first in that process: a forked process maps the code of a library when it
            runs it, and these pages would count.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            warm_up()
            before = most_memory(reset=True)
            work()
            os.write(write, str(most_memory() - before).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as pipe:
        return int(pipe.read() or -1)


def most_memory(reset: bool = False) -> int:
    """Bytes of the peak of this process; on Linux from now on, otherwise since its start."""
    clear, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not clear.exists():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    if reset:
        if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)  # memory that was freed before would be used again, uncounted
        clear.write_text("5")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def large() -> dict[str, Callable[[Image.Image, np.ndarray], bytes]]:
    """Encoders of a large picture. The array is its RGBA."""

    def deep_png(image: Image.Image, rgba: np.ndarray) -> bytes:
        return cv2.imencode(".png", rgba[..., :3].astype(np.uint16) * 257)[1].tobytes()

    def deep_tiff(image: Image.Image, rgba: np.ndarray) -> bytes:
        out = io.BytesIO()
        deep = rgba[..., :3].astype(np.uint16) * 257
        tifffile.imwrite(out, deep, compression="zlib", predictor=True, rowsperstrip=SIDE)
        return out.getvalue()

    def floats(image: Image.Image, rgba: np.ndarray) -> bytes:
        out = io.BytesIO()
        tifffile.imwrite(out, rgba[..., 0].astype(np.float32) / 255, compression="zlib")
        return out.getvalue()

    def grey(image: Image.Image, rgba: np.ndarray) -> bytes:
        return encoded(
            Image.fromarray(rgba[..., 0].astype(np.uint16) * 257), "PNG", compress_level=1
        )

    def turned(image: Image.Image, rgba: np.ndarray) -> bytes:
        exif = Image.Exif()
        exif[0x0112] = 6
        return encoded(image, "TIFF", exif=exif)

    def saved(kind: str, mode: str, **save: object) -> Callable[..., bytes]:
        return lambda image, rgba: encoded(image.convert(mode), kind, **save)

    fast = {"compress_level": 1}
    return {
        "png rgb": saved("PNG", "RGB", **fast),
        "png rgba": saved("PNG", "RGBA", **fast),
        "png la": saved("PNG", "LA", **fast),
        "png p": saved("PNG", "P", transparency=3, **fast),
        "png 1": saved("PNG", "1", **fast),
        "png 16": grey,
        "png rgb 16": deep_png,
        "tiff rgb 16 in one strip": deep_tiff,
        "tiff float": floats,
        "tiff turned": turned,
        "jpeg progressive cmyk": saved("JPEG", "CMYK", progressive=True, subsampling=0),
        "webp": saved("WEBP", "RGB", lossless=True, method=0),
        "gif": saved("GIF", "P"),
        "bmp": saved("BMP", "RGB"),
    }


@pytest.fixture(scope="module")
def picture() -> tuple[Image.Image, np.ndarray]:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 4), dtype=np.uint8)
    rgba = np.asarray(Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.NEAREST))
    return Image.fromarray(rgba), rgba


@pytest.mark.fault(47)
@pytest.mark.parametrize("name", large())
def test_decoding_takes_about_sixteen_bytes_per_pixel(name: str, picture) -> None:
    image, rgba = picture
    data = large()[name](image, rgba)
    small = large()[name](image.crop((0, 0, 16, 16)), rgba[:16, :16])
    used = peak(lambda: decode(data, "large"), lambda: decode(small, "small"))
    # of 16 megapixels, WebP takes 16.5 (its decoder holds two canvases), and the others 12 at most;
    # tiles and allocator overhead do not grow with the image
    assert 0 < used <= (18 if name == "webp" else 14) * SIDE * SIDE + (20 << 20)


@pytest.mark.fault(23, 47)
def test_the_limit_is_a_key_and_holds_in_every_function_that_opens_an_image(tmp_path: Path) -> None:
    file = tmp_path / "bird.png"
    file.write_bytes(encoded(Image.new("L", (30, 20)), "PNG"))
    line = (
        r"600 pixels, more than the 599 that dataset\.max_pixels allows; .*dataset\.max_pixels=600"
    )
    with pytest.raises(ImageError, match=rf"^bird\.png: a PNG of 30 x 20 = {line}"):
        decode(file.read_bytes(), file.name, 599)
    assert decode(file.read_bytes(), file.name, 600).shape == (3, 20, 30)
    assert "more than the 599" in images.read_images(tmp_path, [file.name], 1, silent, 599).bad[0]
    with pytest.raises(UserError, match=r"600 pixels, more than MAX_PIXELS=599"):
        rescale.rescale(file, tmp_path / "out.png", 0, 1, 599)
    with pytest.raises(ValueError, match="more than the 599"):
        image_size(file, 599)


BOMBS = {
    "png": lambda: encoded(Image.new("1", (13_376, 13_376)), "PNG"),
    "gif": lambda: (
        b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0,\0\0\0\0\1\0\1\0\0\2\1D\0;"
    ),
    "bmp": lambda: (
        b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 60_000, 60_000, 1, 24, 0) + bytes(20)
    ),
    "webp": lambda: (
        b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\0\xff\xff\0" + bytes(4)
    ),
    "ppm": lambda: b"P5 50000 50000 255\n" + bytes(64),
}


@pytest.mark.fault(47)
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_without_being_decompressed(name: str) -> None:
    data = BOMBS[name]()
    assert len(data) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=r"^bomb: ") as caught:
            decode(data, "bomb")
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


@pytest.mark.fault(47)
def test_a_small_tiff_with_a_huge_tile_is_refused() -> None:
    out = io.BytesIO()
    tifffile.imwrite(out, np.zeros((64, 64), np.uint8), tile=(64, 64), compression="zlib")
    data = bytearray(out.getvalue())
    for tag in (322, 323):  # the tile's width and length become 32,768
        place = data.index(struct.pack("<H", tag))
        data[place : place + 12] = struct.pack("<HHII", tag, 4, 1, 32_768)
    with pytest.raises(
        ImageError, match=r"a TIFF of a tile of 32768 x 32768 = \d+ pixels, more than"
    ):
        decode(bytes(data), "bird.tif")


@pytest.mark.fault(47)
def test_scans_of_a_few_bytes_and_skipped_rows_are_bounded() -> None:
    data = encoded(Image.new("L", (64, 64)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(ImageError, match=r"a JPEG of \d+ scans, more than the 500 allowed"):
        decode(data[:-2] + scan * 600 + data[-2:], "bird.jpg")
    header = struct.pack("<IiiHHIIiiII", 40, 300_000, 1, 1, 8, 1, 0, 0, 0, 256, 0)
    rle = b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 40 + 1024) + header + bytes(1024)
    with pytest.raises(ImageError, match=r"a BMP of packed rows of 300000 x 256"):
        decode(rle + b"\0\2\0\xff" * 100, "bird.bmp")


@pytest.mark.fault(47)
def test_scans_of_a_jpeg_that_is_not_progressive_are_bounded() -> None:
    """A sequential JPEG may repeat the scan of a component; each takes a pass over all pixels."""
    data = encoded(Image.new("RGB", (64, 64)), "JPEG", subsampling=0)
    head = data[: data.rindex(b"\xff\xda")]
    scans = [b"\xff\xda\0\x08\1" + bytes([1 + at % 3, 0, 0, 63, 0, 0, 0]) for at in range(600)]
    with pytest.raises(ImageError, match=r"a JPEG of 600 scans, more than the 500 allowed"):
        decode(head + b"".join(scans) + b"\xff\xd9", "bird.jpg")
    film = data + b"\xff\xda" * 600  # a moving photo: data after the end of the image
    assert decode(film, "bird.jpg").equal(decode(data, "bird.jpg"))


@pytest.mark.fault(47)
def test_comments_between_the_samples_of_a_plain_ppm_are_bounded() -> None:
    """Pillow copies the rest of its block at each."""
    start = b"P3\n200 200\n255\n"
    with pytest.raises(ImageError, match=r"a PPM of 1000000 comments, more than the 10000 allowed"):
        decode(start + b"#\n" * 1_000_000, "bird.ppm")
    assert decode(b"P2 #a\n2 1\n255\n0 #b\n 255", "bird.ppm").shape == (3, 1, 2)


def pieces(layout: str, count: int) -> bytes:
    """A TIFF of one row per piece, each of the same 25 bytes; layout: strips, tiles, or big."""
    big = layout == "big"
    wide = (324, 325) if layout == "tiles" else (273, 279)
    fields = {256: (4, 25), 257: (4, count), 258: (3, 8), 259: (3, 1), 262: (3, 1), 277: (3, 1)}
    fields |= {322: (3, 25), 323: (3, 1)} if layout == "tiles" else {278: (4, 1)}
    header = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) if big else b"II*\0\x08\0\0\0"
    entry, inline, size = ("<HHQ", 8, 20) if big else ("<HHI", 4, 12)
    start = len(header) + (8 if big else 2) + size * (len(fields) + 2) + inline
    rows = [(tag, kind, 1, value) for tag, (kind, value) in fields.items()]
    rows += [(wide[0], 3, count, start), (wide[1], 3, count, start + 2 * count)]
    packed = [
        struct.pack(entry, tag, kind, times) + value.to_bytes(inline, "little")
        for tag, kind, times, value in sorted(rows)
    ]
    total = len(rows).to_bytes(8 if big else 2, "little")
    arrays = struct.pack("<H", 8) * count + struct.pack("<H", 25) * count
    return header + total + b"".join(packed) + bytes(inline) + arrays


@pytest.mark.fault(47)
@pytest.mark.parametrize("layout", ["strips", "tiles", "big"])
def test_the_pieces_of_a_tiff_are_bounded(layout: str) -> None:
    """Pillow makes an object for each before the first pixel: 300 bytes for four of the file."""
    assert decode(pieces(layout, 40), "bird.tif").shape == (3, 40, 25)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=r"a TIFF of 300000 strips or tiles, more than"):
            decode(pieces(layout, 300_000), "bird.tif")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def chunk(name: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(name + body).to_bytes(4, "big")
    return len(body).to_bytes(4, "big") + name + body + checksum


@pytest.mark.fault(47)
def test_metadata_is_not_decompressed_or_repeated() -> None:
    """Text and profiles of a PNG of 64 MiB each, and tags that all point at the same bytes."""
    data = encoded(Image.new("L", (8, 8), 9), "PNG")
    packed = zlib.compress(bytes(64 << 20), 9)
    bombs = [chunk(b"iCCP", b"a\0\0" + packed), chunk(b"zTXt", b"Comment\0\0" + packed)]
    bombs += [chunk(b"zTXt", b"Raw profile type exif\0\0" + packed)]
    bombs += [chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed)]
    tags = b"".join(struct.pack("<HHII", tag, 7, 200_000, 0) for tag in range(20_000))
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", 20_000) + tags + bytes(4)
    bombs += [chunk(b"eXIf", block)]
    bombed = data[:33] + b"".join(bombs) + data[33:]
    tracemalloc.start()
    try:
        assert (decode(bombed, "bird.png") == 9).all()
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


# --- rows 20 to 22: what is read is defined ---


@pytest.mark.fault(22)
@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_tiles_change_no_pixel(mode: str, turn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rgba = np.random.default_rng(turn).integers(0, 256, (37, 53, 4), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(rgba[..., 0].astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(rgba[..., 0].astype(np.float32) / 255)
    else:
        image = Image.fromarray(rgba).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(image, "TIFF" if mode in ("CMYK", "F") else "PNG", exif=exif)
    expected = decode(data, "bird")
    monkeypatch.setattr("fgvc.data.tiles.TILE_PIXELS", 64)
    monkeypatch.setattr("fgvc.data.tiles.MAX_TILE_WIDTH", 16)
    assert (decode(data, "bird") == expected).all()


# --- row 47: archives ---


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
}


def header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.fault(47)
@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("gz", tarfile.GNUTYPE_LONGNAME),
        ("bz2", tarfile.XHDTYPE),
        ("xz", tarfile.XGLTYPE),
        ("lzma", tarfile.GNUTYPE_LONGLINK),
    ],
)
def test_the_header_of_a_member_is_bounded(how: str, kind: bytes, tmp_path: Path) -> None:
    size = 32 << 20
    file = tmp_path / "birds.tar"
    file.write_bytes(PACKED[how](header(kind, size) + bytes(size) + bytes(1024)))
    assert file.stat().st_size < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(UnpackError, match=r"birds\.tar: a member has headers of more than"):
            unpack(file, tmp_path / "out", silent)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.fault(47)
def test_an_xz_archive_cannot_ask_for_gigabytes(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    file = tmp_path / "birds.tar"
    for forged in ([], filters):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("a.jpg"))
        archive_bytes = lzma.compress(
            out.getvalue(), filters=[{"id": lzma.FILTER_LZMA2, "preset": 9}]
        )
        file.write_bytes(archive_bytes if not forged else claims_dictionary(archive_bytes))
        if forged:
            with pytest.raises(UnpackError, match=r"birds\.tar: damaged archive \(Memory usage"):
                unpack(file, tmp_path / "other", silent)
        else:
            unpack(file, tmp_path / "out", silent)
            assert (tmp_path / "out/a.jpg").exists()


def claims_dictionary(xz: bytes) -> bytes:
    """An .xz whose first block says that it needs a dictionary of nearly 4 GiB."""
    data = bytearray(xz)
    length = (data[12] + 1) * 4  # of the block's header, after the 12 bytes of the stream's
    place = data.index(b"\x21\x01", 12) + 2  # filter LZMA2, one byte of properties
    data[place] = 40
    data[12 + length - 4 : 12 + length] = zlib.crc32(data[12 : 12 + length - 4]).to_bytes(
        4, "little"
    )
    return bytes(data)


@pytest.mark.fault(47)
def test_empty_members_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["fgvc.data.download.unpack"]
    monkeypatch.setattr(module, "MIN_LIMIT", 100 * tarfile.BLOCKSIZE)
    block = tarfile.TarInfo("a.jpg").tobuf()
    file = tmp_path / "birds.tar"
    file.write_bytes(gzip.compress(block * 1000))
    with pytest.raises(UnpackError, match="bytes unpacked, more than"):
        unpack(file, tmp_path / "out", silent)


@pytest.mark.fault(47)
def test_a_zip_counts_what_comes_out_and_bounds_its_directory(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "birds.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(1 << 20))
    data = bytearray(file.read_bytes())
    place = data.index(b"PK\1\2") + 24
    data[place : place + 4] = struct.pack("<I", 10)  # the directory says ten bytes
    file.write_bytes(bytes(data))
    with pytest.raises(UnpackError, match=r"birds\.zip: damaged archive"):
        unpack(file, tmp_path / "out", silent)
    monkeypatch.setitem(unpack.__globals__, "MAX_ZIP_DIRECTORY", 10)
    with pytest.raises(UnpackError, match=r"birds\.zip: its directory has more than"):
        unpack(file, tmp_path / "other", silent)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.jpg", bytes(100))
    monkeypatch.undo()
    with pytest.raises(UnpackError, match=r"a\.jpg is packed by LZMA; unpack it yourself"):
        unpack(file, tmp_path / "third", silent)


# --- row 47: Parquet tables ---


@pytest.mark.fault(47)
@pytest.mark.parametrize("kind", [pa.string(), pa.binary()])
def test_a_cell_that_occurs_in_every_row_is_counted_each_time(
    kind: pa.DataType, tmp_path: Path
) -> None:
    """A file of 500 bytes: one long cell, and 400 rows that point at it."""
    file = tmp_path / "birds.parquet"
    cells = pa.array([b"x" * 1_000_000]).cast(kind)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), cells)
    pq.write_table(pa.table({"image": column}), file, compression="zstd", store_schema=False)
    assert file.stat().st_size < 1000
    table = ParquetTable(file, [file])
    if kind == pa.string():
        with pytest.raises(UserError, match="image has a cell of 1000000 bytes, more than the"):
            list(table.cells(0))
    else:
        with pytest.raises(UserError, match=r"image unpacks to more than 67108864 bytes"):
            sum(len(picture.data or b"") for picture in table.images(0, 0))


# --- row 48: .mat files ---


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    """The variables of dogs and of cars; plain.mat, beside it, holds them uncompressed."""
    names = np.empty((3, 1), dtype=object)
    names[:, 0] = ["a/b.jpg", "a/c.jpg", "d/e.jpg"]
    rows = np.empty((1, 2), dtype=[("class", object), ("fname", object)])
    rows[0, 0], rows[0, 1] = (np.array([[1]], "u1"), "a.jpg"), (np.array([[2]], "u1"), "b.jpg")
    values = {"file_list": names, "labels": np.array([[1.0], [2], [2]]), "annotations": rows}
    savemat(tmp_path / "plain.mat", values)
    savemat(tmp_path / "train_list.mat", values, do_compression=True)
    return tmp_path / "train_list.mat"


@pytest.mark.fault(48)
def test_a_file_that_crashes_scipy_is_one_line(listing: Path) -> None:
    """One flipped byte: SIGSEGV with SciPy 1.17."""
    file = listing.with_name("plain.mat")
    data = bytearray(file.read_bytes())
    data[617] = 194
    file.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"plain\.mat: no MATLAB file, or a damaged one") as caught:
        matlab.load_all([listing, file])
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("copy or download it again")


@pytest.mark.fault(48)
def test_a_mat_file_is_read_as_scipy_reads_it(listing: Path) -> None:
    read, expected = matlab.load_all([listing])[0], loadmat(listing, squeeze_me=True)
    assert read.texts("file_list") == list(expected["file_list"])
    assert read.integers("labels").tolist() == [1, 2, 2]
    rows = read.struct("annotations")
    assert rows.texts("fname") == ["a.jpg", "b.jpg"]
    assert rows.integers("class").tolist() == [1, 2]
    with pytest.raises(UserError, match="file_list holds a value that is not a number"):
        read.integers("file_list")


CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
ENDINGS = {
    "crash": (CRASH, r"its parser crashed \(SIGSEGV\)"),
    "exit": ("raise SystemExit(3)", r"its parser failed \(exit code 3\)"),
    "hang": ("import time; time.sleep(600)", r"its parser did not end within 1 s"),
    "text": ("print('x' * 100)", "its parser answered"),
    "pickle": (r"""print('{"variables": {"labels": {"py/reduce": 1}}}')""", "no list of texts"),
    "deep": ("print('[' * 5000)", "nested more than"),
}


@pytest.mark.fault(48)
@pytest.mark.parametrize("name", ENDINGS)
def test_any_failure_of_the_parser_is_one_line(
    name: str, listing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program in the role of a SciPy parser that a file has taken over."""
    program, message = ENDINGS[name]
    (tmp_path / "parser.py").write_text(program)
    monkeypatch.setattr(matlab.matlab_parser, "__file__", str(tmp_path / "parser.py"))
    if name == "hang":
        monkeypatch.setattr(matlab, "TIMEOUT", 1.0)
    with pytest.raises(UserError, match=message) as caught:
        matlab.load_all([listing])[0]
    assert str(caught.value).startswith(f"{listing}: ")
    assert "\n" not in str(caught.value)


def compressed(body: bytes) -> bytes:
    """A MATLAB 5 file of one compressed element."""
    text = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    packed = zlib.compress(body, 1)
    return text + struct.pack("<II", 15, len(packed)) + packed


@pytest.mark.fault(47, 48)
def test_a_mat_file_is_bounded_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, sparse = tmp_path / "bomb.mat", tmp_path / "large.mat"
    file.write_bytes(compressed(bytes(300 << 20)))
    with pytest.raises(UserError, match=r"bomb\.mat: .* too much memory \(more than \d+ bytes"):
        matlab.load_all([file])[0]
    with sparse.open("wb") as out:
        out.truncate(matlab.MAX_BYTES + 1)
    with pytest.raises(UserError, match=r"large\.mat: \d+ bytes, more than the \d+ that"):
        matlab.load_all([sparse])[0]


@pytest.mark.fault(48)
def test_damaged_mat_files_end_in_a_line_or_in_values(listing: Path, tmp_path: Path) -> None:
    """A crash ends the process of its file; a new process reads the next files."""
    sources = [listing.read_bytes(), listing.with_name("plain.mat").read_bytes()]
    rng, files = np.random.default_rng(0), []
    for number in range(120):
        damaged = bytearray(sources[number % 4 > 0])
        for place in rng.integers(128, len(damaged), 1 + number % 5):
            damaged[place] = rng.integers(256)
        files.append(tmp_path / f"{number:03}.mat")
        files[-1].write_bytes(bytes(damaged))
    refused, deaths = [], 0
    while files:
        output, ending = matlab._run_parser(files)
        lines = output.split(b"\n")[:-1]
        for file, line in zip(files, lines, strict=False):
            try:
                matlab._read_result(file, line)
            except UserError as error:
                refused.append(str(error))
        deaths += len(lines) < len(files)
        assert len(lines) == len(files) or ending != 0
        files = files[len(lines) + 1 :]
    assert len(refused) > 60
    assert all(line.startswith(str(tmp_path)) and "\n" not in line for line in refused)
