"""Samples of more than 8 bits: scaled by the range that the file states, or refused in one line."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.util import img_as_ubyte

from fgvc.data import rescale
from fgvc.data.decode import ImageError, decode
from tests.narrow import not_none

RAMP = np.linspace(0, 1, 24 * 32).reshape(24, 32)


def tiff(values: np.ndarray, tags: tuple[tuple[int, str, int, object, bool], ...] = (), **save):
    out = io.BytesIO()
    tifffile.imwrite(out, values, extratags=tags, **save)
    return out.getvalue()


def png(values: np.ndarray) -> bytes:
    """Red, green, blue of 16 bits."""
    return cv2.imencode(".png", np.ascontiguousarray(values[..., ::-1]))[1].tobytes()


def grey(data: bytes) -> np.ndarray:
    """grey_HW: the result of `decode`; all three channels are equal."""
    rgb = decode(data, "a.tif").numpy()
    assert (rgb[0] == rgb[1]).all()
    assert (rgb[0] == rgb[2]).all()
    return rgb[0]


def twelve_bit_tiff(values: np.ndarray) -> bytes:
    """An uncompressed TIFF with two samples in three bytes, as cameras and scanners write it."""
    first, second = values.ravel()[::2], values.ravel()[1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
    data = packed.astype(np.uint8).tobytes()
    height, width = values.shape
    entries = [
        *((256, 4, width), (257, 4, height), (258, 3, 12), (259, 3, 1), (262, 3, 1)),
        *((273, 4, 8 + 2 + 12 * 9 + 4), (277, 3, 1), (278, 4, height), (279, 4, len(data))),
    ]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + b"\0\0\0\0" + data


@pytest.mark.parametrize("save", [{}, {"compression": "zlib"}, {"byteorder": ">"}], ids=str)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_sixteen_bits_and_unit_floats_are_as_skimage_scales_them(dtype, save):
    values = (RAMP * (65535 if dtype is np.uint16 else 1)).astype(dtype)
    expected = img_as_ubyte(values)
    assert np.abs(grey(tiff(values, **save)).astype(int) - expected).max() <= 1
    assert grey(tiff(values, **save)).max() == 255


def test_twelve_bits_fill_the_range():
    values = (RAMP * 4095).astype(np.uint16)
    assert np.abs(grey(twelve_bit_tiff(values)) - RAMP * 255).max() <= 0.6


@pytest.mark.parametrize("most", [1, 100, 1023, 4095, 65535])
def test_pnm_is_scaled_by_its_own_maximum_as_in_opencv(most):
    values = np.rint(RAMP * most).astype(">u2" if most > 255 else "u1")
    data = b"P5\n32 24\n%d\n" % most + values.tobytes()
    assert np.abs(grey(data) - values.astype(float) * 255 / most).max() <= 0.6


def test_a_float_map_is_read_by_0_to_1_as_opencv_reads_it():
    values = RAMP.astype("<f4")
    data = b"Pf\n32 24\n-1.0\n" + values[::-1].tobytes()
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(grey(data), np.rint(not_none(expected) * 255))


@pytest.mark.parametrize(("kind", "most"), [("png", 65535), ("jp2", 65535), ("avif", 1023)])
def test_colours_of_more_bits_are_as_in_opencv(kind, most):
    smooth = np.kron(RAMP * 0.9 + 0.05, np.ones((4, 4)))  # a wavelet's overshoot would be clipped
    values = np.stack([smooth, smooth[::-1], smooth * 0.5], -1)
    save = [cv2.IMWRITE_AVIF_DEPTH, 10] if kind == "avif" else []
    data = cv2.imencode(f".{kind}", (values * most).astype(np.uint16), save)[1].tobytes()
    opened = not_none(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    expected = cv2.cvtColor(opened, cv2.COLOR_BGR2RGB)
    actual = decode(data, "a").permute(1, 2, 0).numpy().astype(int)
    assert np.abs(actual - expected).max() <= (
        3 if kind == "avif" else 1
    )  # its own colour conversion
    assert expected.max() > 230


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planes_of_sixteen_bits_are_the_pixels_of_contiguous_ones(order, compression):
    values = (np.stack([RAMP, RAMP[::-1], RAMP * 0.5]) * 65535).astype(np.uint16)
    layout = {"photometric": "rgb", "byteorder": order, "compression": compression}
    planes = decode(tiff(values, planarconfig="separate", **layout), "a.tif")
    contiguous = tiff(values.transpose(1, 2, 0), planarconfig="contig", **layout)
    assert (planes == decode(contiguous, "a.tif")).all()
    assert np.abs(planes.numpy() - (values >> 8)).max() == 0


def test_white_is_zero_is_inverted_as_in_eight_bits():
    sixteen = grey(tiff((RAMP * 65535).astype(np.uint16), photometric="miniswhite"))
    eight = grey(tiff(np.rint(RAMP * 255).astype(np.uint8), photometric="miniswhite"))
    assert np.abs(sixteen.astype(int) - eight).max() <= 1


@pytest.mark.parametrize(
    ("values", "tags"),
    [
        ((RAMP * 4095).astype(np.uint16), ((281, "H", 1, 4095, True),)),
        ((RAMP * 1000).astype(np.int32), ((340, "i", 1, 0, True), (341, "i", 1, 1000, True))),
        ((RAMP * 9 - 4).astype(np.float32), ((340, "f", 1, -4, True), (341, "f", 1, 5, True))),
    ],
    ids=["12 of 16 bits", "int32", "float32"],
)
def test_a_range_that_the_file_states_is_used(values, tags):
    assert np.abs(grey(tiff(values, tags)) - RAMP * 255).max() <= 1


def test_a_stated_range_that_pixels_contradict_is_not_used():
    values = (RAMP * 65535).astype(np.uint16)
    stale = tiff(values, ((281, "H", 1, 255, True),))
    np.testing.assert_array_equal(grey(stale), grey(tiff(values)))


def test_no_number_is_black():
    values = RAMP.astype(np.float32)
    values[0, :4] = np.nan
    assert (grey(tiff(values))[0, :4] == 0).all()
    with pytest.raises(ImageError, match="NaN only"):
        decode(tiff(np.full((4, 4), np.nan, np.float32)), "a.tif")


WIDE = {
    "float 0..255": (RAMP * 255).astype(np.float32),
    "float 0..65535": (RAMP * 65535).astype(np.float32),
    "float with infinity": np.where(RAMP > 0.9, np.inf, RAMP).astype(np.float32),
    "negative float": (RAMP - 0.5).astype(np.float32),
    "int8": (RAMP * 127).astype(np.int8),
    "int16": (RAMP * 32767).astype(np.int16),
    "int32": (RAMP * 255).astype(np.int32),
    "uint32": (RAMP * 65535).astype(np.uint32),
    "12 bits in 16": (RAMP * 4095).astype(np.uint16),
    "8 bits in 16": (RAMP * 255).astype(np.uint16),
}


@pytest.mark.parametrize("name", WIDE)
def test_samples_without_a_range_are_refused_in_one_line(name):
    with pytest.raises(ImageError, match=r"^b\.tif: a TIFF: its .*LOW and HIGH") as caught:
        decode(tiff(WIDE[name]), "b.tif")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["float64", "float16", "3 x float32", "5 bands"])
def test_samples_that_pillow_does_not_read_are_named(name):
    values = {
        "float64": RAMP,
        "float16": RAMP.astype(np.float16),
        "3 x float32": np.stack([RAMP] * 3, -1).astype(np.float32),
        "5 bands": np.stack([RAMP * 255] * 5, -1).astype(np.uint8),
    }[name]
    messages = {
        "float64": "float 64-bit",
        "float16": "float 16-bit",
        "5 bands": "5 x unsigned 8-bit",
    }
    with pytest.raises(ImageError, match=messages.get(name, "3 x float 32-bit")):
        decode(tiff(values, planarconfig="contig", photometric="minisblack"), "b.tif")


def test_colours_of_twelve_bits_in_sixteen_are_refused():
    dark = (np.stack([RAMP] * 3, -1) * 4095).astype(np.uint16)
    for data in (cv2.imencode(".png", dark)[1].tobytes(), tiff(dark, photometric="rgb")):
        with pytest.raises(ImageError, match="16-bit samples reach at most 4095 of 65535"):
            decode(data, "b")


def test_a_black_shape_on_transparent_ground_is_read():
    shape = np.zeros((4, 4, 4), np.uint16)
    shape[1:3, 1:3, 3] = 65535
    data = cv2.imencode(".png", shape)[1].tobytes()
    assert decode(data, "a.png").amin((0, 1)).tolist() == [255, 0, 0, 255]


def test_a_black_image_of_sixteen_bits_is_black():
    assert grey(tiff(np.zeros((4, 4), np.uint16))).max() == 0


COLOURS = np.stack([RAMP, RAMP[::-1], RAMP * 0.5], -1)
REFUSED = {  # a file, its highest value, the image that LOW=0 and HIGH=highest give
    "float": (".tif", tiff(WIDE["float 0..255"]), 255, RAMP),
    "int32": (".tif", tiff(WIDE["int32"]), 255, RAMP),
    "double": (".tif", tiff(RAMP), 1, RAMP),
    "dark colours": (".png", png((COLOURS * 4095).astype(np.uint16)), 4095, COLOURS),
    "float colours": (".tif", tiff(COLOURS.astype(np.float32), photometric="rgb"), 1, COLOURS),
    "half": (".tif", tiff(RAMP.astype(np.float16)), 1, RAMP),
    "uint32": (".tif", tiff((RAMP * (2**32 - 1)).astype(np.uint32)), 2**32 - 1, RAMP),
    "inverted": (
        ".tif",
        tiff((RAMP * 4095).astype(np.uint16), photometric="miniswhite"),
        4095,
        1 - RAMP,
    ),
    "turned": (
        ".tif",
        tiff(RAMP.astype(np.float16), tags=((274, "H", 1, 6, True),)),
        1,
        np.rot90(RAMP, -1),
    ),
    "planes": (
        ".tif",
        tiff(
            (np.stack([*np.moveaxis(COLOURS, -1, 0), np.ones_like(RAMP)]) * 65535).astype(
                np.uint16
            ),
            planarconfig="separate",
            photometric="rgb",
            extrasamples=["unassalpha"],
        ),
        65535,
        COLOURS,
    ),
    "dark colours with alpha": (
        ".png",
        cv2.imencode(
            ".png",
            np.dstack([COLOURS[..., ::-1] * 4095, np.full_like(RAMP, 65535)]).astype(np.uint16),
        )[1].tobytes(),
        4095,
        COLOURS,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_way_out_gives_an_image_that_is_read(tmp_path, name):
    suffix, data, most, expected = REFUSED[name]
    source, target = tmp_path / f"in{suffix}", tmp_path / "out.png"
    source.write_bytes(data)
    with pytest.raises(ImageError) as caught:
        decode(data, str(source))
    _, module, arguments = str(caught.value).partition("python -m fgvc.data.rescale ")
    assert module
    values = {"IN": str(source), "OUT.png": str(target), "LOW": "0", "HIGH": str(most)}
    rescale.main([values[word] for word in arguments.split()])
    pixels = decode(target.read_bytes(), "out.png").permute(1, 2, 0).numpy()
    channels = expected if expected.ndim == 3 else expected[..., None]
    assert pixels.shape[:2] == channels.shape[:2]
    assert np.abs(pixels - channels * 255).max() <= 1.1


def test_signed_bytes_are_rescaled_with_their_sign(tmp_path):
    source, target = tmp_path / "in.tif", tmp_path / "out.png"
    signed = np.rint(RAMP * 255 - 128).astype(np.int8)
    tifffile.imwrite(source, signed, photometric="minisblack")
    rescale.rescale(source, target, -128, 127)
    assert np.array_equal(np.asarray(Image.open(target)), np.rint(RAMP * 255))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["IN", "OUT.png", "5", "5"], "LOW=5 HIGH=5"),
        (["IN", "OUT.png", "0", "1"], "complex samples"),
        (["IN", "OUT.png"], "two numbers are needed; usage: python -m fgvc.data.rescale"),
        (["IN", "OUT.png", "0", "high"], "two numbers are needed; usage"),
        ([], "two numbers are needed; usage"),
        (["missing.tif", "OUT.png", "0", "1"], "No such file"),
    ],
)
def test_values_that_cannot_be_rescaled_are_reported_in_one_line(tmp_path, arguments, message):
    tifffile.imwrite(tmp_path / "IN", RAMP.astype(np.complex64))
    places = [str(tmp_path / text) if text[0].isalpha() else text for text in arguments]
    with pytest.raises(SystemExit) as caught:
        rescale.main(places)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_colour_key_of_sixteen_bits_is_blended_with_white():
    values = np.array([[20, 65535, 30000]], np.uint16)
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG", transparency=20)
    assert grey(out.getvalue()).tolist() == [[255, 255, 117]]
