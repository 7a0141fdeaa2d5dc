"""fgvc.data.decode: one defined RGB result for any library; one line for damaged files."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, ImageSequence

from fgvc.data import decode as module
from fgvc.data.decode import MAX_PIXELS, ImageError, decode, image_size
from fgvc.types import UserError


def encoded(image: Image.Image, kind: str, **save: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **save)
    return out.getvalue()


def pillow(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert("RGB"))).permute(2, 0, 1)


@pytest.fixture
def without_torchcodec(monkeypatch):
    monkeypatch.setattr(module, "_fast_jpeg", lambda: None)


JPEGS = [
    {"subsampling": 0},
    {"subsampling": 1},
    {"subsampling": 2},
    {"progressive": True},
    {"keep_rgb": True},
    {"mode": "L"},
    {"mode": "CMYK"},
]


def test_torchcodec_is_used_here():
    assert module._fast_jpeg() is not None


@pytest.mark.fault(22)
@pytest.mark.parametrize("save", JPEGS, ids=str)
def test_both_paths_give_pillows_pixels(jpeg, save, monkeypatch):
    data = jpeg(1, (97, 61), **save)
    fast = decode(data, "a.jpg")
    monkeypatch.setattr(module, "_fast_jpeg", lambda: None)
    assert torch.equal(fast, decode(data, "a.jpg"))
    assert torch.equal(fast, pillow(data))
    assert fast.shape == (3, 61, 97)
    assert fast.dtype == torch.uint8


@pytest.mark.fault(22)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_on_both_paths(orientation, monkeypatch):
    corner = np.zeros((16, 32, 3), dtype=np.uint8)
    corner[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(corner), "JPEG", exif=exif, quality=100, subsampling=0)
    upright = decode(data, "a.jpg")
    assert upright.shape == ((3, 16, 32) if orientation < 5 else (3, 32, 16))
    # EXIF: where the stored first row and first column are seen (top or bottom, left or right)
    bottom, right = {
        1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0),
    }[orientation]  # fmt: skip
    assert upright[:, -1 if bottom else 0, -1 if right else 0].min() > 200
    assert upright[:, 0 if bottom else -1, 0 if right else -1].max() < 50
    monkeypatch.setattr(module, "_fast_jpeg", lambda: None)
    assert torch.equal(upright, decode(data, "a.jpg"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_is_applied_once_in_every_format(kind, orientation, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    save = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(pixels), kind, exif=exif, **save)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    actual = decode(data, "a").permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(actual, np.asarray(expected))
    (tmp_path / "a").write_bytes(data)
    assert image_size(tmp_path / "a") == expected.size


def test_orientation_in_xmp_alone_is_applied_on_both_paths(jpeg, monkeypatch):
    tag = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    data = jpeg(1, (48, 36), xmp=tag)
    upright = decode(data, "a.jpg")
    assert upright.shape == (3, 48, 36)
    monkeypatch.setattr(module, "_fast_jpeg", lambda: None)
    assert torch.equal(upright, decode(data, "a.jpg"))


@pytest.mark.parametrize("number", [0, 9, 65535])
def test_an_orientation_that_exif_does_not_know_means_upright(number, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = number
    file = tmp_path / "a.jpg"
    Image.new("RGB", (48, 32)).save(file, exif=exif)
    height, width = decode(file.read_bytes(), "a.jpg").shape[1:]
    assert image_size(file) == (width, height) == (48, 32)


def test_unreadable_exif_means_upright(jpeg):
    data = jpeg(1, exif=b"Exif\0\0" + b"MM\0*\0\0\0\x08" + b"\xff" * 40)
    assert torch.equal(decode(data, "a.jpg"), decode(jpeg(1), "a.jpg"))


@pytest.mark.fault(22)
def test_transparency_is_blended_with_white():
    pixels = np.zeros((2, 3, 4), dtype=np.uint8)
    pixels[:, :, 0] = 200
    pixels[:, 0, 3], pixels[:, 1, 3], pixels[:, 2, 3] = 0, 255, 51  # 51: a fifth
    rgb = decode(encoded(Image.fromarray(pixels), "PNG"), "a.png")
    assert rgb[:, 0].T.tolist() == [[255, 255, 255], [200, 0, 0], [244, 204, 204]]


@pytest.mark.fault(22)
def test_grey_with_alpha_and_palette_with_transparency():
    grey = Image.fromarray(np.array([[[10, 0], [10, 255]]], dtype=np.uint8), "LA")
    assert decode(encoded(grey, "PNG"), "a.png")[0].tolist() == [[255, 10]]
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    palette.putpalette([9, 9, 9, 40, 50, 60])
    rgb = decode(encoded(palette, "PNG", transparency=0), "a.png")
    assert rgb[:, 0].T.tolist() == [[255, 255, 255], [40, 50, 60]]


@pytest.mark.fault(22)
def test_palette_and_one_bit():
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    palette.putpalette([9, 8, 7, 40, 50, 60])
    assert decode(encoded(palette, "PNG"), "a")[:, 0].T.tolist() == [[9, 8, 7], [40, 50, 60]]
    bits = Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1")
    assert decode(encoded(bits, "PNG"), "a")[:, 0].T.tolist() == [[0, 0, 0], [255, 255, 255]]


@pytest.mark.fault(22)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind):
    values = np.array([[0, 128, 129, 257, 30000, 65535]], dtype=np.uint16)
    rgb = decode(encoded(Image.fromarray(values), kind), "a")
    assert rgb[:, 0].tolist() == [[0, 0, 1, 1, 117, 255]] * 3


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_first_image_of_several(kind):
    first, second = (Image.new("RGB", (16, 8), colour) for colour in ("red", "blue"))
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(first, kind, save_all=True, append_images=[second], **lossless)
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(data))))) == 2
    red, green, blue = decode(data, "a").float().mean((1, 2)).tolist()
    assert red > 250
    assert max(green, blue) < 5


@pytest.mark.usefixtures("without_torchcodec")
def test_a_jpeg_decodes_without_torchcodec(jpeg):
    data = jpeg(3)
    assert torch.equal(decode(data, "a.jpg"), pillow(data))


@pytest.mark.fault(20)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (b"\n<!DOCTYPE html><html>404</html>", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "Git LFS pointer"),
        (b"\0" * 100, "no image in a format"),
    ],
)
def test_what_is_no_image_is_diagnosed_in_one_line(data, message):
    with pytest.raises(ImageError, match=message) as caught:
        decode(data, "images/a\nb.jpg")
    assert str(caught.value).startswith("images/a b.jpg: ")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UserError)


@pytest.mark.fault(20)
@pytest.mark.parametrize("keep", [0.3, 0.9])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_truncated(kind, keep, jpeg):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(ImageError, match=r"^b\.x: (damaged image|no image)") as caught:
        decode(data[: int(len(data) * keep)], "b.x")
    assert "\n" not in str(caught.value)


def big(width: int, height: int) -> bytes:
    """A one-bit PNG of this size: small on disk, large in memory."""
    return encoded(Image.new("1", (width, height)), "PNG")


@pytest.mark.fault(23)
def test_bomb_is_refused_by_its_header(monkeypatch):
    data = big(9000, 8000)

    def never(self: Image.Image) -> None:
        raise AssertionError("decoded a bomb")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", never)
    with pytest.raises(
        ImageError, match=rf"^bomb\.png: .*72000000 pixels.*{MAX_PIXELS}.*dataset\.max_pixels="
    ) as caught:
        decode(data, "bomb.png")
    assert "\n" not in str(caught.value)


@pytest.mark.fault(23)
def test_the_bound_holds_where_a_library_lifted_pillows(monkeypatch):
    data = big(20000, 10000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="200000000 pixels"):
        decode(data, "bomb.png")


def test_pillows_warning_on_large_images_does_not_leak(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # it warns from here to twice as many
    data = big(150, 100)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(data))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(data, "large.png").shape == (3, 100, 150)
