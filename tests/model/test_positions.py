"""backbone.position_resize=zoom: positions resized as by TransFG's authors, for ViTs of timm."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from fgvc.config.compose import composed, typed
from fgvc.model.backbone import build, weights

# family -> prefix tokens in its table of positions, patches along a side of the table
TABLES = {"vit": (1, 14), "dinov2": (1, 37), "registers": (0, 37)}


def as_the_authors_load_them(table_1TD, prefix, grid_new):
    """The resizing of positions in TransFG's modeling.py."""
    head_1PD, grid_ND = table_1TD[:, :prefix], table_1TD[0, prefix:]
    grid_old = int(np.sqrt(len(grid_ND)))
    grid_HWD = grid_ND.reshape(grid_old, grid_old, -1)
    zoom = (grid_new / grid_old, grid_new / grid_old, 1)
    zoomed_HWD = np.asarray(ndimage.zoom(grid_HWD, zoom, order=1))
    return np.concatenate([head_1PD, zoomed_HWD.reshape(1, grid_new**2, -1)], axis=1)


def aligned(table_1TD, prefix, grid_new):
    """The same without scipy: bilinear, corner to corner, no antialias."""
    grid_old = int(np.sqrt(table_1TD.shape[1] - prefix))
    grid_1DHW = table_1TD[:, prefix:].reshape(1, grid_old, grid_old, -1).permute(0, 3, 1, 2)
    size = (grid_new, grid_new)
    new_1DHW = functional.interpolate(grid_1DHW, size, mode="bilinear", align_corners=True)
    return torch.cat([table_1TD[:, :prefix], new_1DHW.flatten(2).transpose(1, 2)], 1)


def position_of(conf, side, stride=None):
    return build(conf, side, weights.find(conf), seed=0, stride=stride).trunk.pos_embed.detach()


@pytest.mark.parametrize("family", TABLES)
@pytest.mark.parametrize(("side", "stride"), [(224, None), (336, None), (448, None), (448, 12)])
def test_positions_are_those_of_the_authors(conf, saved, family, side, stride):
    path = saved(family)
    prefix, _ = TABLES[family]
    confs = conf(family, weights=str(path), position_resize="zoom")
    found_1TD = position_of(confs, side, stride)
    patch = confs.checkpoints["only"].patch
    grid = (side - patch) // (stride or patch) + 1
    table_1TD = torch.load(path)["pos_embed"]
    expected_1TD = as_the_authors_load_them(table_1TD.numpy(), prefix, grid)
    np.testing.assert_array_equal(found_1TD.numpy(), expected_1TD)
    torch.testing.assert_close(found_1TD, aligned(table_1TD, prefix, grid), atol=1e-5, rtol=0)
    assert found_1TD.abs().min(dim=2).values.max() > 0  # no row of zeros at the border


@pytest.mark.parametrize(("family", "side"), [("vit", 224), ("dinov2", 518)])
def test_at_the_size_of_the_table_both_ways_agree(conf, saved, family, side):
    confs = [
        conf(family, weights=str(saved(family)), position_resize=method)
        for method in ("timm", "zoom")
    ]
    first, second = (position_of(conf, side) for conf in confs)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_at_other_sizes_both_ways_differ(conf, saved):
    confs = [
        conf("vit", weights=str(saved("vit")), position_resize=method)
        for method in ("timm", "zoom")
    ]
    first, second = (position_of(conf, 448) for conf in confs)
    assert (first - second).abs().max() > 0.01


@pytest.mark.parametrize(
    ("overrides", "method"),
    [
        (("backbone=vit",), "zoom"),
        (("backbone=dinov2",), "zoom"),
        (("backbone=vit", "backbone.position_resize=timm"), "timm"),  # what is named wins
        (("backbone=clip",), "open_clip"),
        (("backbone=siglip2",), "transformers"),
        (("backbone=dinov3",), "timm"),  # rotary: nothing is resized
    ],
)
def test_the_recipe_takes_it_where_the_family_has_it(overrides, method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = typed(composed(["task=train", "recipe=transfg", *overrides]))
    assert recipe.backbone.position_resize == method
    plain = typed(composed(["task=train", *overrides]))
    assert plain.backbone.position_resize == ("timm" if method == "zoom" else method)
