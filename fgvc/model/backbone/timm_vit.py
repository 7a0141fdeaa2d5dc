"""Vision transformers of timm (vit, dinov2, dinov3): normalised pixels -> tokens after the norm.

B batch, C = 3 channels, H and W pixels (of positions: rows and columns), P prefix tokens (class,
registers), N patch tokens, T = P + N, D token width.
"""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fgvc.config import schema
from fgvc.model.backbone import hf_config, hf_keys, plain_vit, weights
from fgvc.model.backbone.base import Backbone, PatchGrid, assemble, check_declared, patch_grid
from fgvc.model.backbone.load_state import load_strict
from fgvc.model.backbone.weights import npz
from fgvc.types import WeightsSource

CLASSIFIER_PREFIXES = ("head.", "head_dist.")  # the second: of a distilled DeiT


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
    shape = patch_grid(row, side, stride)

    eps = hf_config.norm_eps(conf, source)

    def make() -> Any:
        trunk = _build_trunk(conf, shape)
        hf_config.set_norm_eps(trunk, eps)
        return trunk

    def load(trunk: Any) -> tuple[str, ...]:
        return _load(trunk, conf, row, source)

    return assemble(TimmBackbone, conf, source, seed, make, load, shape)


def _build_trunk(conf: schema.Backbone, shape: PatchGrid) -> Any:
    from timm.layers.config import set_fused_attn

    set_fused_attn(True)  # an environment variable can have turned it off
    row, trunk = schema.chosen_checkpoint(conf), plain_vit.create(conf, shape.abutting)
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


def _load(
    trunk: Any, conf: schema.Backbone, row: schema.Checkpoint, source: WeightsSource
) -> tuple[str, ...]:
    """Fill every tensor of the trunk from the file; the file's classifier is left aside.

    Returns:
        notes on the part of the file that was read.
    """
    assert source.path is not None
    _compute_buffers(trunk)
    zoom = conf.position_resize == "zoom"
    chosen = weights.select(
        source.path, trunk.state_dict(), lambda given: _convert(given, trunk, zoom)
    )
    _check_published(chosen.state, conf, row, source.path, trunk)
    load_strict(trunk, chosen.tensors, source.path, row.model, chosen.hint)
    return chosen.notes


def _convert(given: dict[str, Tensor], trunk: Any, zoom: bool) -> dict[str, Tensor]:
    """A file's tensors under the trunk's names, with positions of its grid; no classifier."""
    kind = hf_keys.layout(given)
    if kind is not None and kind.library == "timm":
        has_bias = getattr(trunk.blocks[0].attn, "q_bias", None) is not None
        given = hf_keys.to_timm(given, kind, has_bias)
    google = npz.is_google(given)
    if google:
        given = npz.timm_names(given)
    if zoom:
        given = {**given, **_zoom_positions(given, trunk)}
    try:
        state = (
            _resize_google_positions(given, trunk) if google else _convert_with_timm(given, trunk)
        )
    except (RuntimeError, ValueError):  # a position grid that is not the model's own
        state = given
    state = {**state, **_nonzero_dinov3_biases(given, trunk)}
    return {key: value for key, value in state.items() if not key.startswith(CLASSIFIER_PREFIXES)}


def _nonzero_dinov3_biases(given: dict[str, Tensor], trunk: Any) -> dict[str, Tensor]:
    """Biases of queries and values in the authors' own file that timm would drop though they are
    not zero, under timm's names: a trunk without them refuses the file."""
    if "storage_tokens" not in given or getattr(trunk.blocks[0].attn, "q_bias", None) is not None:
        return {}
    names = [key.removesuffix("qkv.bias") for key in given if key.endswith(".attn.qkv.bias")]
    parts = {name: given[f"{name}qkv.bias"].chunk(3) for name in names}
    return {
        f"{name}{letter}_bias": parts[name][place]
        for name in names
        for letter, place in (("q", 0), ("v", 2))
        if parts[name][place].any()
    }


def _check_published(
    state: dict[str, Tensor], conf: schema.Backbone, row: schema.Checkpoint, path: Path, trunk: Any
) -> None:
    """Refuse a config.json beside the weights that contradicts the trunk."""
    kind = hf_keys.layout(state)
    if kind is None:
        hf_config.check_timm(row, path)
        return
    hf_config.check_library(conf, kind, path)
    attention, activation = trunk.blocks[0].attn, getattr(trunk.blocks[0].mlp, "act", None)
    plain = isinstance(activation, nn.GELU)
    hf_config.check_transformers(
        row,
        kind,
        path,
        None,
        num_attention_heads=attention.num_heads,
        hidden_act=("gelu_tanh" if activation.approximate != "none" else "gelu") if plain else None,
        rope_theta=getattr(getattr(trunk, "rope", None), "temperature", None),
    )


def _compute_buffers(trunk: nn.Module) -> None:
    """Rotary periods and the like, which no file holds."""
    for part in trunk.modules():
        compute: Any = getattr(part, "init_non_persistent_buffers", None)
        if compute is not None:
            part.to_empty(device="cpu", recurse=False)
            compute()


def _convert_with_timm(given: dict[str, Tensor], trunk: Any) -> dict[str, Tensor]:
    """The state as timm loads it: other layouts converted, positions resampled to the new grid.

    Kernels of another patch stay as they are, and so do not fit: timm would resample them too.
    """
    convert = importlib.import_module(type(trunk).__module__).checkpoint_filter_fn
    # DeiT III: the authors' names of LayerScale, which timm's Eva has too
    scaled = hasattr(trunk.blocks[0], "ls1") and any(".gamma_1" in key for key in given)
    state = convert(dict(given), trunk, **({"adapt_layer_scale": True} if scaled else {}))
    kernel = given.get("patch_embed.proj.weight")
    size = trunk.patch_embed.proj.weight.shape[-2:]
    # of old files it is a matrix, which timm reshapes
    if kernel is not None and kernel.ndim == 4 and kernel.shape[-2:] != size:
        state["patch_embed.proj.weight"] = kernel
    return state


def _resize_google_positions(given: dict[str, Tensor], trunk: Any) -> dict[str, Tensor]:
    """Positions of a .npz file resampled to the trunk's grid: bilinear, as timm reads such files,
    whereas it resamples those of its own files bicubically."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    position_1TD = given.get("pos_embed")
    if position_1TD is None or position_1TD.shape == trunk.pos_embed.shape:
        return given
    resized_1TD = resample_abs_pos_embed(
        position_1TD,
        new_size=trunk.patch_embed.grid_size,
        num_prefix_tokens=0 if trunk.no_embed_class else trunk.num_prefix_tokens,
        interpolation="bilinear",
        antialias=False,
    )
    return {**given, "pos_embed": resized_1TD}


def _zoom_positions(given: dict[str, Tensor], trunk: Any) -> dict[str, Tensor]:
    """The position table of a file, resized to the trunk's grid; empty if there is no table."""
    position_1TD = given.get("pos_embed")
    if position_1TD is None or position_1TD.ndim != 3:
        return {}
    prefix = position_1TD.shape[1] - math.isqrt(position_1TD.shape[1]) ** 2
    if prefix > trunk.num_prefix_tokens:  # no square grid: not a table of this model
        return {}
    grid = trunk.patch_embed.grid_size[0]
    patch_1ND = zoom_positions(position_1TD[:, prefix:], grid)
    return {"pos_embed": torch.cat([position_1TD[:, :prefix], patch_1ND], 1)}


def zoom_positions(position_1ND: Tensor, grid: int) -> Tensor:
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
