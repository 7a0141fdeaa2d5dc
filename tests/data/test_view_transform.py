"""Network pixels and original pixels, compared with the effect of the evaluation transform."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fgvc.data.decode import decode
from fgvc.data.normalize import native
from fgvc.data.preprocess import Preprocess, crop_to_box
from fgvc.data.view_transform import grid_side, view
from fgvc.types import UserError

SIZES = [(500, 333), (333, 500), (640, 180), (120, 700), (97, 61), (224, 224), (1031, 769)]
WAYS = [("shared", "vit"), ("transfg", "vit"), ("native", "clip"), ("native", "siglip2")]


def preprocess_of(policy: str = "shared", key: str = "vit", side: int = 224) -> Preprocess:
    return Preprocess(policy, side, native(key).normalization, key)


def ramps(width: int, height: int) -> torch.Tensor:
    """An image whose pixels hold the x and y of their centres and 0: a resize interpolates
    coordinates."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)])


def view_of(preprocess: Preprocess, size: tuple[int, int], box=None):
    return view(preprocess, np.array([size]), None if box is None else np.array([box]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("policy", "key"), WAYS)
def test_every_network_pixel_comes_from_where_the_view_says(policy, key, size):
    preprocess = preprocess_of(policy, key)
    seen_CHW = preprocess.resize_and_crop(ramps(*size)).double().numpy()
    looked = view_of(preprocess, size)
    network = np.stack(np.meshgrid(np.arange(224) + 0.5, np.arange(224) + 0.5), -1)
    original = looked.to_original(network.reshape(1, -1, 2)).reshape(224, 224, 2)
    reach = np.ceil(3 * np.maximum(1, 1 / looked.step_N2.max())).astype(int)
    inner = slice(reach, -reach)  # a resize bends the ramp where the image ends
    for axis in (0, 1):
        # filters with few taps draw a ramp within a tenth of a pixel
        bound = 0.1 * max(1.0, looked.step_N2[0, axis])
        actual = seen_CHW[axis][inner, inner]
        np.testing.assert_allclose(actual, original[inner, inner, axis], atol=bound)
    back = looked.to_network(original.reshape(1, -1, 2)).reshape(224, 224, 2)
    np.testing.assert_allclose(back, network, atol=1e-9)


def test_what_is_seen_by_hand():
    # short side 400 -> 256; the square begins 16 px from the top and 72 from the left
    looked = view_of(preprocess_of(), (600, 400))
    np.testing.assert_allclose(looked.seen, [[80 * 1.5625, 25, 350, 350]], rtol=1e-9)
    squashed = view_of(preprocess_of("transfg"), (600, 400))
    np.testing.assert_allclose(squashed.seen, [[76, 152 / 3, 448, 896 / 3]], rtol=1e-9)
    full_view = view_of(preprocess_of("native", "siglip2"), (600, 400))
    np.testing.assert_allclose(full_view.seen, [[0, 0, 600, 400]])


def test_many_images_at_once_are_each_image_alone():
    sizes, preprocess = np.array(SIZES), preprocess_of()
    boxes = np.array([[5.5, 7, width / 2, height / 3] for width, height in SIZES])
    for box_N4 in (None, boxes):
        together = view(preprocess, sizes, box_N4)
        for row, size in enumerate(SIZES):
            alone = view_of(preprocess, size, None if box_N4 is None else box_N4[row])
            np.testing.assert_array_equal(together.seen[row], alone.seen[0])


PLANTED = [0, 5, 13, 14, 100, 182, 195]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("policy", ["shared", "transfg"])
@pytest.mark.parametrize("boxed", [False, True], ids=["whole", "box_crop"])
@pytest.mark.parametrize("stride", [16, 12])
def test_a_patch_painted_in_its_box_is_the_patch_that_changes(policy, size, boxed, stride):
    """Pixels of the image are painted, so that finding them does not use the mapping."""
    width, height = size
    box = [width * 0.3, height * 0.21, width * 0.5, height * 0.6] if boxed else None
    preprocess, columns = preprocess_of(policy), grid_side(224, 16, stride)
    index_K = np.array([*PLANTED, columns**2 - 1])
    drawn_K4 = view_of(preprocess, size, box).patches(index_K[None], 16, stride)[0]
    for index, (x, y, w, h) in zip(index_K, drawn_K4, strict=True):
        column = np.arange(width) + 0.5
        row = np.arange(height) + 0.5
        mask = ((row >= y) & (row <= y + h))[:, None] & ((column >= x) & (column <= x + w))
        image_CHW = torch.from_numpy(mask * np.uint8(255)).expand(3, -1, -1).contiguous()
        if box is not None:
            image_CHW = crop_to_box(image_CHW, box)
        seen_HW = preprocess(image_CHW)[0].float()
        light = torch.nn.functional.avg_pool2d(seen_HW[None, None], 16, stride).flatten()
        assert int(light.argmax()) == index
        if min(w, h) > 8:  # else the box is a few original pixels, whose edges are coarse
            assert light.max() > 180


def test_a_rotated_photograph_counts_as_it_is_looked_at():
    """EXIF 6: stored in landscape, shown in portrait. Marks have upright coordinates."""
    stored = Image.new("RGB", (320, 200), "black")
    stored.paste("white", (250, 20, 290, 50))  # upright: x 150..180, y 250..290 of 200 x 320
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    stored.save(out, "JPEG", exif=exif, quality=95)
    image_CHW = decode(out.getvalue(), "lying.jpg")
    height, width = image_CHW.shape[1:]
    assert (width, height) == (200, 320)
    preprocess = preprocess_of("native", "siglip2")  # sees all of it
    looked = view_of(preprocess, (width, height))
    seen_HW = preprocess(image_CHW)[0].numpy() > 128
    rows, columns = np.nonzero(seen_HW)
    centre = looked.to_original(np.array([[[columns.mean() + 0.5, rows.mean() + 0.5]]]))[0, 0]
    np.testing.assert_allclose(centre, [165, 270], atol=0.6)


def test_an_image_too_thin_for_the_transform_is_too_thin_here():
    with pytest.raises(UserError, match="too thin"):
        view_of(preprocess_of(), (100_000_000, 1))


def test_the_grid():
    assert [grid_side(224, 16), grid_side(448, 16, 12), grid_side(448, 14)] == [14, 37, 32]
    # 384 px in patches of 14: the last of 27 x 27 patches ends 6 px before the square does
    assert grid_side(384, 14) == 27
    last_4 = view_of(preprocess_of("native", "siglip2", 384), (768, 384)).patches(
        np.array([[27**2 - 1]]), 14
    )
    np.testing.assert_allclose(last_4, [[[2 * 364, 364, 2 * 14, 14]]])
    with pytest.raises(AssertionError):
        view_of(preprocess_of(), (50, 50)).patches(np.array([[196]]), 16)
