"""Overlays: drawings are in the right place, and all other pixels are unchanged."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fgvc.data.preprocess import Preprocess
from fgvc.data.view_transform import view
from fgvc.record.image_overlay import Overlay, png, title

NONE = np.empty((0, 4))
SIZES = [(500, 180), (180, 500), (400, 300), (333, 333)]


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def below_title(data: bytes, image_HWC: np.ndarray) -> np.ndarray:
    """The part of the PNG below the title."""
    drawn_HWC = decode(data)
    height, width = image_HWC.shape[:2]
    return drawn_HWC[-height:, :width]


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 90, (height, width, 3), dtype=np.uint8)


def test_without_anything_to_draw_the_image_stays_as_it_is():
    image_HWC = noise(300, 200)
    data = png(Overlay(image_HWC, "Laysan Albatross 93.1 %", NONE))
    np.testing.assert_array_equal(below_title(data, image_HWC), image_HWC)
    strip_HWC = decode(data)[:-200]
    assert strip_HWC.max() == 255
    assert 0.01 < (strip_HWC < 128).mean() < 0.5  # letters


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("policy", ["shared", "transfg"])
def test_a_planted_bright_patch_is_found_where_it_is(policy, size):
    """The map is the brightness of the network's input, so its peak is the bright patch."""
    width, height = size
    image_HWC = noise(*size)
    x, y, side = width // 2 - 5, height // 2 + 11, 30
    image_HWC[y : y + side, x : x + side] = 255
    preprocess = Preprocess(policy, 224, "half", "vit")
    image_view = view(preprocess, np.array([size]))
    seen_CHW = preprocess(torch.from_numpy(image_HWC).permute(2, 0, 1))
    heat_RR = torch.nn.functional.avg_pool2d(seen_CHW.float().mean(0)[None], 16)[0].numpy()
    patch_K4 = image_view.patches(np.array([[int(heat_RR.argmax())]]), 16)[0]
    seen_box = tuple(image_view.seen[0].tolist())
    drawn_HWC = below_title(png(Overlay(image_HWC, "", patch_K4, seen_box, heat_RR)), image_HWC)
    bare_HWC = below_title(png(Overlay(image_HWC, "", NONE, seen_box, heat_RR)), image_HWC)
    moved_HW = np.abs(bare_HWC.astype(int) - image_HWC).max(2)
    hot_HW = moved_HW > 0.8 * moved_HW.max()
    rows, columns = np.nonzero(hot_HW)
    patch = patch_K4[0]
    assert abs(columns.mean() - (x + side / 2)) < max(patch[2], 8)
    assert abs(rows.mean() - (y + side / 2)) < max(patch[3], 8)
    framed = np.nonzero((drawn_HWC != bare_HWC).any(2))
    for pixels, start, length in zip(framed, patch[[1, 0]], patch[[3, 2]], strict=True):
        assert abs(pixels.min() - start) <= 4
        assert abs(pixels.max() + 1 - start - length) <= 4
    left, top, across, down = seen_box
    outside_HW = np.ones((height, width), bool)
    outside_HW[
        max(0, round(top - 0.51)) : round(top + down + 0.51),
        max(0, round(left - 0.51)) : round(left + across + 0.51),
    ] = False
    assert not moved_HW[outside_HW].any()
    if policy == "shared":
        assert outside_HW.any()


def test_heat_is_bilinear_between_the_centres_of_tokens():
    """Compare with torch's interpolation; the opacity follows from a black and a white image."""
    heat_RR = np.random.default_rng(1).random((7, 7)).astype(np.float32)
    heat_RR[0, 0], heat_RR[6, 6] = 0, 1
    both = []
    for level in (0, 255):
        image_HWC = np.full((140, 70, 3), level, np.uint8)
        data = png(Overlay(image_HWC, "", NONE, (0, 0, 70, 140), heat_RR))
        both.append(below_title(data, image_HWC).astype(float))
    hidden_HW = 1 - (both[1] - both[0]).mean(2) / 255  # the opacity does not depend on the image
    expected_HW = torch.nn.functional.interpolate(
        torch.from_numpy(heat_RR)[None, None], (140, 70), mode="bilinear", align_corners=False
    )[0, 0].numpy()
    np.testing.assert_allclose(hidden_HW / hidden_HW.max(), expected_HW, atol=0.01)
    assert hidden_HW.min() < 0.01


@pytest.mark.parametrize("level", [0, 128, 255])
def test_frames_are_visible_on_any_background(level):
    image_HWC = np.full((300, 400, 3), level, np.uint8)
    patch_K4 = np.array([[100.0, 50, 40, 60]])
    drawn_HWC = below_title(png(Overlay(image_HWC, "", patch_K4)), image_HWC).astype(float)
    line_HW = np.abs(drawn_HWC - level).max(2) > 100
    rows, columns = np.nonzero(line_HW)
    assert abs(rows.min() - 50) <= 4
    assert abs(rows.max() - 110) <= 4
    assert abs(columns.min() - 100) <= 4
    assert abs(columns.max() - 140) <= 4
    assert not line_HW[60:100, 110:130].any()  # the selected patch stays visible


def test_a_patch_selected_by_several_heads_shows_their_number():
    image_HWC = np.zeros((300, 400, 3), np.uint8)
    patch_K4 = np.array([[100.0, 50, 60, 60]])
    selected_once, selected_twice = (
        below_title(png(Overlay(image_HWC, "", patch_K4.repeat(times, 0))), image_HWC)
        for times in (1, 2)
    )
    rows, columns = np.nonzero((selected_once != selected_twice).any(2))
    assert rows.min() >= 50
    assert rows.max() <= 110
    assert columns.min() >= 100
    assert columns.max() <= 160


@pytest.mark.parametrize("size", [(3000, 40), (40, 3000), (30, 20), (2000, 1500)])
def test_any_shape_has_a_title_of_whole_lines_and_its_own_pixels(size):
    image_HWC = noise(*size)
    words = "Große Möwe (Größtmöwe) 50.0 %: wrong, it is Supercalifragilisticexpialidocious " * 2
    data = png(Overlay(image_HWC, words, NONE))
    np.testing.assert_array_equal(below_title(data, image_HWC), image_HWC)
    drawn_HWC = decode(data)
    strip_HWC = drawn_HWC[: -size[1]]
    assert drawn_HWC.shape[1] == max(size[0], 240)
    assert (strip_HWC[:, -2:] == 255).all()  # no letter is cut off at the right
    assert (strip_HWC[-1] == 255).all()
    assert (strip_HWC < 128).any()


def test_boxes_are_scaled_with_the_image():
    overlay = Overlay(noise(1000, 500), "", np.array([[500.0, 250, 100, 100]]), (0, 0, 1000, 500))
    small = overlay.within(360)
    assert small.image_HWC.shape == (180, 360, 3)
    np.testing.assert_allclose(small.patch_K4, [[180, 90, 36, 36]])
    assert small.seen == (0, 0, 360, 180)
    assert overlay.within(1000) is overlay


def test_the_same_overlay_is_the_same_bytes():
    overlay = Overlay(noise(300, 200), "a bird", np.array([[5.0, 6, 7, 8]]))
    assert png(overlay) == png(overlay)


def test_an_overlay_imports_only_the_colormap_of_matplotlib():
    code = (
        "import sys; import numpy as np; from fgvc.record.image_overlay import Overlay, png\n"
        "assert 'matplotlib' not in sys.modules\n"
        "grey_HWC, box = np.zeros((20, 30, 3), np.uint8), (0, 0, 30, 20)\n"
        "png(Overlay(grey_HWC, 'a bird', np.empty((0, 4)), box, np.eye(3)))\n"
        "print(*(name for name in sys.modules if name.startswith('matplotlib.')))"
    )
    call = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = call.stdout.split()
    assert "matplotlib.cm" in imported
    drawing = r"matplotlib\.(pyplot|figure|font_manager|backend_bases|backends\.backend_)"
    assert [name for name in imported if re.match(drawing, name)] == []


def test_titles():
    assert title("Laysan Albatross", 0.8765) == "Laysan Albatross 87.6 %"
    assert title("a", 0.5, "a") == "a 50.0 %: right"
    assert title("a", 0.5, "b") == "a 50.0 %: wrong, it is b"
