"""For a file that is no image, the error names its kind and a fix; no program is started."""

from __future__ import annotations

import ast
import io
import json
import os
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fgvc
from fgvc.data import image_formats
from fgvc.data.decode import ImageError, decode, image_size
from fgvc.data.doctor import images

EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    b"%%BeginBinary\nshowpage\n%%EOF\n"
)


def archive(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(name, b"x")
    return out.getvalue()


def array() -> bytes:
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    return out.getvalue()


DENIED = b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>'
OTHER = {
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(90), "a HEIC.*heif-convert"),
    "PDF": (b"%PDF-1.7\n" + bytes(90), "a PDF.*pdftoppm"),
    "MP4": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "an MP4 video.*ffmpeg"),
    "QuickTime": (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "a QuickTime video.*ffmpeg"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG.*rsvg-convert"),
    "SVG in XML": (b"<?xml version='1.0'?>\n" + b"<!-- a -->" * 9 + b"<svg/>", "an SVG"),
    "Photoshop": (b"8BPS\0\1", "a Photoshop"),
    "ZIP": (archive("a.jpg"), "a ZIP archive.*unpack"),
    "gzip": (b"\x1f\x8b\x08\0", "a gzip archive.*unpack"),
    "HTML": (b"<!DOCTYPE html><html>404</html>", "an HTML page.*download it again"),
    "error body": (DENIED, "an XML document.*AccessDenied.*download it again"),
    "JSON": (json.dumps({"message": "Not Found"}).encode(), "a JSON document.*Not Found"),
    "text": (b"Access denied\n", "a text file.*Access denied"),
    "text of many words": (("Zugriff verweigert: ä " * 90).encode(), "a text file.*Zugriff"),
    "script": (b"#!/bin/sh\nrm -rf /", "a script"),
    "EPS": (EPS, "a PostScript.*no interpreter is started"),
    "EPS with a preview": (b"\xc5\xd0\xd3\xc6" + bytes(26) + EPS, "a PostScript"),
    "JPEG XL": (b"\xff\x0a" + bytes(30), "a JPEG XL.*djxl"),
    "NumPy": (array(), "a NumPy array.*fromarray"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(30), "an HDF5 file"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer.*git lfs pull"),
    "ICO": (b"\0\0\1\0\1\0", "an ICO.*convert it"),
    "camera": (b"FUJIFILMCCD-RAW 0201", "a camera raw file.*darktable-cli"),
    "nothing": (b"", "an empty file"),
    "zeros": (bytes(100), "no image in a format that can be read"),
}


@pytest.mark.fault(46)
@pytest.mark.parametrize("name", OTHER)
def test_a_pipe_or_folder_with_the_name_of_an_image_is_named(name):
    data, message = OTHER[name]
    with pytest.raises(ImageError, match=rf"^bird\.jpg: {message}") as caught:
        decode(data, "bird.jpg")
    assert "\n" not in str(caught.value)


def tiff(tags: dict[int, object]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "TIFF", tiffinfo=tags)
    return out.getvalue()


def test_a_preview_in_a_raw_file_is_not_read_as_the_image():
    for path, data in (("a.nef", tiff({})), ("a.DNG", tiff({})), ("a.jpg", tiff({50706: b"1234"}))):
        with pytest.raises(ImageError, match="a camera raw file"):
            decode(data, path)
    assert decode(tiff({}), "a.jpg").shape == (3, 8, 8)


def test_samples_of_twelve_bits_in_a_jpeg_and_apples_png_are_named(jpeg):
    data = bytearray(jpeg(1))
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(ImageError, match=r"a JPEG whose samples \(12-bit\) are not read"):
        decode(bytes(data), "a.jpg")
    checksum = zlib.crc32(b"CgBI" + bytes(4)).to_bytes(4, "big")
    with pytest.raises(ImageError, match="Apple's own variant"):
        decode(b"\x89PNG\r\n\x1a\n\0\0\0\4CgBI" + bytes(4) + checksum, "a.png")


SAVED = {"JPEG": {}, "PNG": {}, "GIF": {}, "WEBP": {}, "TIFF": {"compression": "tiff_lzw"}}
SAVED |= {"BMP": {}, "AVIF": {}, "JPEG2000": {}, "PPM": {}}


@pytest.mark.parametrize("kind", SAVED)
def test_a_file_that_is_cut_short_is_called_so(kind):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, kind, **SAVED[kind])
    data = out.getvalue()
    with pytest.raises(ImageError, match=rf"damaged image .* an? {kind} that is cut short"):
        decode(data[: len(data) // 2], "b.jpg")


def test_every_format_is_read_with_any_suffix(tmp_path):
    for kind, suffixes in image_formats.READABLE.items():
        out = io.BytesIO()
        Image.new("RGB", (16, 8), (200, 10, 10)).save(out, kind)
        for name in (*(f"a{suffix}" for suffix in suffixes), "a", "a.dat", "a.JPG"):
            assert decode(out.getvalue(), name).shape == (3, 8, 16)
            (tmp_path / name).write_bytes(out.getvalue())
            assert image_size(tmp_path / name) == (16, 8)


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that a Ghostscript on PATH would create."""
    (tmp_path / "bin").mkdir()
    program, marker = tmp_path / "bin/gs", tmp_path / "mark"
    program.write_text(f"#!/bin/sh\n: > '{marker}'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return marker


def read_all(file: Path) -> None:
    for read in (lambda: decode(file.read_bytes(), file.name), lambda: image_size(file)):
        with pytest.raises(Exception):  # noqa: B017 - whatever it is, nothing is started
            read()
    scan = images.read_images(file.parent, [file.name], 1, lambda n, note="": None)
    assert "PostScript" in scan.bad[0]


@pytest.mark.fault(46)
def test_no_program_is_started_for_an_eps(tmp_path: Path, mark: Path):
    from PIL import EpsImagePlugin

    file = tmp_path / "bird.jpg"
    file.write_bytes(EPS)
    read_all(file)
    assert not mark.exists()
    EpsImagePlugin.gs_binary = None  # Pillow looks for it once
    with pytest.raises(Exception):  # noqa: B017 - the stand-in draws nothing
        Image.open(file).load()
    assert mark.exists()  # had it been opened by whatever reader takes it


def calls_without_formats() -> list[str]:
    calls = []
    for path in sorted(Path(fgvc.__file__).parent.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "Image" in text else ():
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            opens = node.func.attr == "open" and ast.unparse(node.func.value).endswith("Image")
            if opens and "formats" not in {keyword.arg for keyword in node.keywords}:
                calls.append(f"{path}:{node.lineno}")
    return calls


@pytest.mark.fault(46)
def test_every_image_is_opened_by_a_list_of_formats():
    assert calls_without_formats() == []


def test_a_strip_is_refused_and_a_pixel_is_an_image(jpeg: Callable[..., bytes], tmp_path: Path):
    for name, size in (("wide", (1000, 1)), ("tall", (1, 1000)), ("pixel", (1, 1))):
        (tmp_path / name).write_bytes(jpeg(1, size))
    names = ["pixel", "tall", "wide"]
    scan = images.read_images(tmp_path, names, 1, lambda n, note="": None)
    assert scan.bad.keys() == {1, 2}
    assert scan.bad[1].startswith("tall: an image of 1 x 1000 pixels is too thin")
    assert torch.unique(decode((tmp_path / "pixel").read_bytes(), "pixel")).numel() <= 3
