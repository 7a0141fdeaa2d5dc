"""An image from a notebook gives the same pixels as its file."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageOps
from torchvision.transforms.functional import pil_to_tensor, to_tensor

from fgvc.data.decode import decode
from fgvc.data.image_input import pixels_of
from fgvc.data.preprocess import Preprocess
from fgvc.types import UserError

PREPROCESS = Preprocess("shared", 32, "half", "vit")


def random_image(mode: str = "RGB", seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (40, 56, 4), dtype=np.uint8)
    return Image.fromarray(noise, "RGBA").convert(mode)


def data_of(image: Image.Image, kind: str, **save: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **save)
    return out.getvalue()


@pytest.mark.parametrize("turn", [None, 6])
@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(("RGB", kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF")),
        *((mode, "PNG") for mode in ("RGBA", "LA", "L", "P", "1")),
        *((mode, "TIFF") for mode in ("CMYK", "LAB", "YCbCr")),
        ("CMYK", "JPEG"),
        ("L", "JPEG"),
    ],
)
def test_an_opened_file_gives_the_pixels_of_its_bytes(mode, kind, turn):
    exif = Image.Exif()
    if turn is not None:
        exif[0x0112] = turn
    data = data_of(random_image(mode), kind, exif=exif)
    expected = decode(data, "a")
    image = Image.open(io.BytesIO(data))
    assert torch.equal(pixels_of(image), expected)
    assert torch.equal(PREPROCESS(image), PREPROCESS(expected))
    image.load()
    assert torch.equal(pixels_of(image), expected)  # from a copy: its file is closed by now


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_file_is_turned_as_pillow_turns_it(kind, turn):
    """Only once: Pillow itself rotates a TIFF while loading it."""
    exif = Image.Exif()
    exif[0x0112] = turn
    data = data_of(random_image(), kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    expected = torch.from_numpy(np.array(upright)).permute(2, 0, 1)
    assert torch.equal(decode(data, "a"), expected)


def test_drawn_images_and_later_frames_are_used_unchanged():
    data = data_of(random_image(), "PNG")
    image = Image.open(io.BytesIO(data))
    image.putpixel((0, 0), (1, 2, 3))
    assert pixels_of(image)[:, 0, 0].tolist() == [1, 2, 3]
    frames = [random_image("P", seed) for seed in (1, 2)]
    data = data_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    image = Image.open(io.BytesIO(data))
    image.seek(1)
    expected = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(pixels_of(image), expected)
    assert not torch.equal(pixels_of(image), decode(data, "a"))


def test_sixteen_bits_and_colour_keys_go_through_the_same_rules():
    wide_HW = np.random.default_rng(1).integers(0, 65536, (40, 56), dtype=np.uint16)
    data = data_of(Image.fromarray(wide_HW), "PNG")
    expected = decode(data, "a")
    assert torch.equal(pixels_of(Image.open(io.BytesIO(data))), expected)
    assert torch.equal(pixels_of(wide_HW), expected)
    pixel = random_image().getpixel((3, 4))
    assert isinstance(pixel, tuple)
    keyed = data_of(random_image("RGB"), "PNG", transparency=pixel)
    assert torch.equal(pixels_of(Image.open(io.BytesIO(keyed))), decode(keyed, "a"))


def test_an_image_is_turned_once():
    """convert("RGB") keeps the EXIF block, exif_transpose removes it; both are common."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = data_of(random_image(), "PNG", exif=exif)
    expected = decode(data, "a")
    opened = Image.open(io.BytesIO(data))
    assert torch.equal(pixels_of(opened.convert("RGB")), expected)
    assert torch.equal(pixels_of(ImageOps.exif_transpose(opened)), expected)


def test_arrays_tensors_and_paths_are_the_same_image(tmp_path):
    image = random_image()
    file = tmp_path / "a.png"
    image.save(file)
    expected = decode(file.read_bytes(), "a")
    array_HWC = np.array(image)
    for same in (image, array_HWC, torch.from_numpy(array_HWC).permute(2, 0, 1), file, str(file)):
        assert torch.equal(pixels_of(same), expected)
        assert torch.equal(PREPROCESS(same), PREPROCESS(expected))
    assert torch.equal(pixels_of(array_HWC[::-1, ::-1][::-1, ::-1]), expected)
    assert torch.equal(pixels_of(pil_to_tensor(image)), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L"])
def test_other_channels_follow_the_rules_of_files(mode, tmp_path):
    image = random_image(mode)
    file = tmp_path / "a.png"
    image.save(file)
    expected = decode(file.read_bytes(), "a")
    assert torch.equal(pixels_of(np.array(image)), expected)
    assert torch.equal(pixels_of(pil_to_tensor(image)), expected)
    if mode == "L":
        assert torch.equal(pixels_of(np.array(image)[..., None]), expected)


def test_a_batch_of_tensors_passes():
    batch = torch.zeros(2, 3, 40, 56, dtype=torch.uint8)
    assert PREPROCESS(batch).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    "wrong",
    [
        to_tensor(random_image()),  # 0 to 1: nearly black otherwise
        np.zeros((40, 56, 3), np.float32),
        np.zeros((3, 40, 56), np.uint8),
        np.zeros((2, 40, 56, 3), np.uint8),
        torch.zeros(40, 56, 3, dtype=torch.uint8),
        torch.zeros(5, 40, 56, dtype=torch.uint8),
        [[0, 0], [0, 0]],
        None,
    ],
)
def test_what_is_no_image_is_refused_by_its_form(wrong):
    with pytest.raises(UserError, match="^an image of .*give"):
        PREPROCESS(wrong)


def test_a_torn_file_that_pillow_opened_is_named(tmp_path):
    file = tmp_path / "torn.jpg"
    file.write_bytes(data_of(random_image(), "JPEG")[:700])
    with pytest.raises(UserError, match=r"torn\.jpg: "):
        pixels_of(Image.open(file))


def _wide_tiff(**save) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30), **save)
    return out.getvalue()


WIDE_FILES = {
    "big-endian": _wide_tiff(byteorder=">"),
    "WhiteIsZero": _wide_tiff(photometric="miniswhite"),
    "range": _wide_tiff(extratags=((340, "H", 1, 0, True), (341, "H", 1, 65535, True))),
    "PGM": b"P5 20 30 4095\n" + np.linspace(0, 4095, 600).astype(">u2").tobytes(),
}


@pytest.mark.parametrize("name", WIDE_FILES)
def test_a_loaded_file_of_more_than_8_bits_keeps_its_black_and_white(name):
    image = Image.open(io.BytesIO(WIDE_FILES[name]))
    image.load()
    assert torch.equal(pixels_of(image), decode(WIDE_FILES[name], "a"))


def test_a_copy_of_big_endian_samples_has_their_values():
    image = Image.open(io.BytesIO(WIDE_FILES["big-endian"])).copy()
    assert torch.equal(pixels_of(image), decode(WIDE_FILES["big-endian"], "a"))
