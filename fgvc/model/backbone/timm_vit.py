"""Vision transformers of timm (vit, dinov2, dinov3): normalised pixels -> tokens after the norm.

B batch, C = 3 channels, H and W pixels (of positions: rows and columns), P prefix tokens (class,
registers), N patch tokens, T = P + N, D token width.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch
from torch import Tensor, nn

from fgvc.config import schema
from fgvc.model.backbone import plain, weights
from fgvc.model.backbone.base import Backbone, Shape, assembled, check_declared, cut
from fgvc.model.backbone.fill import fill
from fgvc.types import WeightsSource


class TimmBackbone(Backbone):
    """Features `cls`, `patch_mean` and both, after the final norm."""

    @staticmethod
    def blocks_of(trunk: Any) -> nn.ModuleList:
        return nn.ModuleList(trunk.blocks)

    def tokens(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        token_BTD = self.trunk.forward_features(pixels_BCHW)
        return token_BTD[:, : self.prefix], token_BTD[:, self.prefix :]


def build(
    conf: schema.Backbone, side: int, source: WeightsSource, seed: int, stride: int | None
) -> Backbone:
    """The backbone with the weights of `source`, its position grid resized to `side` as
    `position_resize` says: timm, bicubic with antialias; zoom, as `zoomed`.

    Random weights follow from `seed`; the process's own random state is not touched.

    Raises:
        UserError: the weights do not fit the model.
    """
    row = schema.chosen_checkpoint(conf)
    shape = cut(row, side, stride)

    def load(trunk: Any) -> None:
        _load(trunk, row, source, conf.position_resize == "zoom")

    return assembled(
        TimmBackbone, conf, source, seed, make=lambda: _trunk(conf, shape), load=load, shape=shape
    )


def _trunk(conf: schema.Backbone, shape: Shape) -> Any:
    from timm.layers.config import set_fused_attn

    set_fused_attn(True)  # an environment variable can have turned it off
    row, trunk = schema.chosen_checkpoint(conf), plain.create(conf, shape.abutting)
    check_declared(
        row,
        prefix=trunk.num_prefix_tokens,
        width=trunk.num_features,
        patch=trunk.patch_embed.patch_size[0],
        head_count=trunk.blocks[0].attn.num_heads,
        block_count=len(trunk.blocks),
    )
    trunk.patch_embed.proj.stride = (shape.stride, shape.stride)
    trunk.patch_embed.img_size = (shape.side, shape.side)
    return trunk


def _load(trunk: Any, row: schema.Checkpoint, source: WeightsSource, zoom: bool) -> None:
    """Fill every tensor of the trunk from the file; the file's classifier is left aside."""
    assert source.path is not None
    _compute_buffers(trunk)
    given = weights.read(source.path)
    if zoom:
        given = {**given, **_zoomed_positions(given, trunk)}
    try:
        state = _resized(given, trunk)
    except (RuntimeError, ValueError):  # a position grid that is not the model's own
        state = given
    held = {key: value for key, value in state.items() if not key.startswith("head.")}
    fill(trunk, held, source.path, row.model)


def _compute_buffers(trunk: nn.Module) -> None:
    """Rotary periods and the like, which no file holds."""
    for part in trunk.modules():
        compute: Any = getattr(part, "init_non_persistent_buffers", None)
        if compute is not None:
            part.to_empty(device="cpu", recurse=False)
            compute()


def _resized(given: dict[str, Tensor], trunk: Any) -> dict[str, Tensor]:
    """The state as timm loads it: other layouts converted, positions resampled to the new grid.

    Kernels of another patch stay as they are, and so do not fit: timm would resample them too.
    """
    convert = importlib.import_module(type(trunk).__module__).checkpoint_filter_fn
    state = convert(dict(given), trunk)
    kernel = given.get("patch_embed.proj.weight")
    if kernel is not None and kernel.shape[-2:] != trunk.patch_embed.proj.weight.shape[-2:]:
        state["patch_embed.proj.weight"] = kernel
    return state


def _zoomed_positions(given: dict[str, Tensor], trunk: Any) -> dict[str, Tensor]:
    """The position table of a file, resized to the trunk's grid; empty if there is no table."""
    position_1TD = given.get("pos_embed")
    if position_1TD is None or position_1TD.ndim != 3:
        return {}
    prefix = position_1TD.shape[1] - math.isqrt(position_1TD.shape[1]) ** 2
    if prefix > trunk.num_prefix_tokens:  # no square grid: not a table of this model
        return {}
    grid = trunk.patch_embed.grid_size[0]
    patch_1ND = zoomed(position_1TD[:, prefix:], grid)
    return {"pos_embed": torch.cat([position_1TD[:, :prefix], patch_1ND], 1)}


def zoomed(position_1ND: Tensor, grid: int) -> Tensor:
    """Resize positions of a square grid: bilinear, corners aligned, without antialiasing.

    Source: loading of pretrained weights in TransFG's code (He et al., AAAI 2022), as in the ViT
    code that it is built on: scipy.ndimage.zoom of order 1.

    Returns:
        position_1MD: M = grid^2; float32, as the file's.
    """
    from scipy.ndimage import zoom

    side = math.isqrt(position_1ND.shape[1])
    if side == grid:
        return position_1ND
    old_HWD = position_1ND.float().reshape(side, side, -1).numpy()
    new_HWD = zoom(old_HWD, (grid / side, grid / side, 1), order=1)
    return torch.from_numpy(new_HWD).reshape(1, grid * grid, -1)
