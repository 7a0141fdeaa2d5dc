"""The kind of a file follows from its first bytes, and an image is an image under any name."""

import io
from pathlib import Path

import pytest
from PIL import Image

from fgvc.data import image_formats
from fgvc.untrusted.file_format import kind_of

SAVED = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "GIF": "GIF",
    "WEBP": "WEBP",
    "TIFF": "TIFF",
    "BMP": "BMP",
    "AVIF": "AVIF",
    "JPEG2000": "JPEG2000",
    "PPM": "PPM",
}
OTHER = {
    b"%PDF-1.7\n": "PDF",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic": "HEIC",
    b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41": "MP4 video",
    b"%!PS-Adobe-3.0 EPSF-3.0": "PostScript",
    b"<!DOCTYPE html><html>": "HTML page",
    b"version https://git-lfs.github.com/spec/v1": "Git LFS pointer",
    b"PK\x03\x04": "ZIP archive",
    b"BM is how this text starts": None,
    b"P5.js notes": None,
    b"": None,
}


@pytest.mark.parametrize("name", SAVED)
def test_an_image_is_known_by_its_first_bytes(name: str, tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 10, 10)).save(data, SAVED[name])
    assert kind_of(data.getvalue()) == name
    (tmp_path / "bird").write_bytes(data.getvalue())
    assert image_formats.is_image(tmp_path / "bird")


@pytest.mark.parametrize("head", OTHER)
def test_another_kind_is_named_and_no_image(head: bytes, tmp_path: Path) -> None:
    assert kind_of(head) == OTHER[head]
    (tmp_path / "bird").write_bytes(head)
    assert not image_formats.is_image(tmp_path / "bird")


def test_every_format_of_the_list_is_one_that_pillow_reads() -> None:
    Image.init()
    assert set(image_formats.READABLE) <= set(Image.OPEN)
    opened = {
        suffix
        for suffix, name in Image.registered_extensions().items()
        if name in image_formats.READABLE
    }
    assert opened <= image_formats.SUFFIXES | {".pfm", ".mpo"}


@pytest.mark.parametrize("name", ["a.NEF", "a.cr2", "a.dng", "a.arw", "a.pef", "a.svs"])
def test_a_raw_file_is_no_image_though_it_begins_as_a_tiff(name: str, tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "TIFF")
    (tmp_path / name).write_bytes(data.getvalue())
    assert not image_formats.is_image(tmp_path / name)
    assert not image_formats.is_readable(data.getvalue(), name)
    assert image_formats.describe_kind(tmp_path / name) in image_formats.CONTAINERS
    (tmp_path / "a.scan").write_bytes(data.getvalue())
    assert image_formats.is_image(tmp_path / "a.scan")


@pytest.mark.parametrize("text", [b"P1 is the first plot", b"P6\nof the list", b"Pf and PF"])
def test_a_text_is_no_pnm(text: bytes) -> None:
    assert kind_of(text) is None
    for head in (
        b"P6\n# from a camera\n4 4\n255\n",
        b"P5 4 4 255\n",
        b"P4#c\n4 4\n",
        b"Pf\n4 4\n-1\n",
    ):
        assert kind_of(head) == "PPM"


def test_kinds_of_other_files_are_words_or_suffixes(tmp_path: Path) -> None:
    named = {"a.txt": b"hello", "b": b"hello", "c.jpg": b"%PDF-1.7", "d.mov": b"\0\0\0\x14ftypqt  "}
    for name, data in named.items():
        (tmp_path / name).write_bytes(data)
    kinds = [image_formats.describe_kind(tmp_path / name) for name in named]
    assert kinds == ["text", "file without suffix", "PDF", "QuickTime video"]
