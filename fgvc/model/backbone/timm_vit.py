"""Vision transformers of timm (vit, dinov2, dinov3): normalised pixels -> tokens after the norm.

B batch, C = 3 channels, H and W pixels (of positions: rows and columns of patches), P prefix tokens
(class, registers), N patch tokens, T = P + N, D token width.
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

CLASSIFIER_PREFIXES = ("head.", "head_dist.")  # the second is of a distilled DeiT


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
    """The backbone with the weights of `source`, or random ones from `seed`.

    Positions are resized to `side` by the method `position_resize`: "timm" is bicubic with
    antialiasing, "zoom" is `zoom_positions`.

    Raises:
        UserError: the weights do not fit the model.
    """
    row = schema.chosen_checkpoint(conf)
    shape = patch_grid(row, side, stride)

    eps = hf_config.norm_eps(conf, source)

    def create_trunk() -> Any:
        trunk = _build_trunk(conf, shape)
        hf_config.set_norm_eps(trunk, eps)
        return trunk

    def load(trunk: Any) -> tuple[str, ...]:
        return _load(trunk, conf, row, source)

    return assemble(TimmBackbone, conf, source, seed, create_trunk, load, shape)


def _build_trunk(conf: schema.Backbone, shape: PatchGrid) -> Any:
    from timm.layers.config import set_fused_attn

    set_fused_attn(True)  # an environment variable can have turned it off
    row, trunk = schema.chosen_checkpoint(conf), plain_vit.create(conf, shape.nonoverlapping_side)
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
    """Fill every tensor of the trunk from the file; return notes on the part that was read."""
    assert source.path is not None
    _compute_buffers(trunk)
    zoom = conf.position_resize == "zoom"
    selected = weights.select(
        source.path, trunk.state_dict(), lambda file_state: _convert(file_state, trunk, zoom)
    )
    _check_published(selected.state, conf, row, source.path, trunk)
    load_strict(trunk, selected.tensors, source.path, row.model, selected.hint)
    return selected.notes


def _convert(file_state: dict[str, Tensor], trunk: Any, zoom: bool) -> dict[str, Tensor]:
    """A file's tensors under the trunk's names, with resized positions and without classifier."""
    layout = hf_keys.detect_layout(file_state)
    if layout is not None and layout.library == "timm":
        has_bias = getattr(trunk.blocks[0].attn, "q_bias", None) is not None
        file_state = hf_keys.to_timm(file_state, layout, has_bias)
    google = npz.is_google(file_state)
    if google:
        file_state = npz.timm_names(file_state)
    if zoom:
        file_state = {**file_state, **_zoom_positions(file_state, trunk)}
    try:
        state = (
            _resize_google_positions(file_state, trunk)
            if google
            else _convert_with_timm(file_state, trunk)
        )
    except (RuntimeError, ValueError):  # the position grid of another model
        state = file_state
    state = {**state, **_nonzero_dinov3_biases(file_state, trunk)}
    return {key: value for key, value in state.items() if not key.startswith(CLASSIFIER_PREFIXES)}


def _nonzero_dinov3_biases(file_state: dict[str, Tensor], trunk: Any) -> dict[str, Tensor]:
    """Nonzero biases of queries and values in the authors' file, by timm's names.

    timm would drop them; with them in the state, a trunk without biases refuses the file.
    """
    if (
        "storage_tokens" not in file_state
        or getattr(trunk.blocks[0].attn, "q_bias", None) is not None
    ):
        return {}
    names = [key.removesuffix("qkv.bias") for key in file_state if key.endswith(".attn.qkv.bias")]
    parts = {name: file_state[f"{name}qkv.bias"].chunk(3) for name in names}
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
    layout = hf_keys.detect_layout(state)
    if layout is None:
        hf_config.check_timm(row, path)
        return
    hf_config.check_library(conf, layout, path)
    attention, activation = trunk.blocks[0].attn, getattr(trunk.blocks[0].mlp, "act", None)
    is_gelu = isinstance(activation, nn.GELU)
    hf_config.check_transformers(
        row,
        layout,
        path,
        None,
        num_attention_heads=attention.num_heads,
        hidden_act=("gelu_tanh" if activation.approximate != "none" else "gelu")
        if is_gelu
        else None,
        rope_theta=getattr(getattr(trunk, "rope", None), "temperature", None),
    )


def _compute_buffers(trunk: nn.Module) -> None:
    """Compute rotary periods and similar buffers, which no file holds."""
    for part in trunk.modules():
        compute: Any = getattr(part, "init_non_persistent_buffers", None)
        if compute is not None:
            part.to_empty(device="cpu", recurse=False)
            compute()


def _convert_with_timm(file_state: dict[str, Tensor], trunk: Any) -> dict[str, Tensor]:
    """The state as timm loads it: other layouts converted, positions resized to the new grid.

    timm would also resample the kernel of another patch size. Here it stays as it is, so that
    loading refuses it.
    """
    convert = importlib.import_module(type(trunk).__module__).checkpoint_filter_fn
    # DeiT III: the authors' names of LayerScale, which timm's Eva has too
    has_layer_scale = hasattr(trunk.blocks[0], "ls1") and any(
        ".gamma_1" in key for key in file_state
    )
    state = convert(
        dict(file_state), trunk, **({"adapt_layer_scale": True} if has_layer_scale else {})
    )
    kernel = file_state.get("patch_embed.proj.weight")
    size = trunk.patch_embed.proj.weight.shape[-2:]
    # in old files the kernel is a matrix, which timm reshapes
    if kernel is not None and kernel.ndim == 4 and kernel.shape[-2:] != size:
        state["patch_embed.proj.weight"] = kernel
    return state


def _resize_google_positions(file_state: dict[str, Tensor], trunk: Any) -> dict[str, Tensor]:
    """Resize the positions of a .npz file bilinearly, as timm does for such files.

    timm resizes the positions of its own files bicubically.
    """
    from timm.layers.pos_embed import resample_abs_pos_embed

    position_1TD = file_state.get("pos_embed")
    if position_1TD is None or position_1TD.shape == trunk.pos_embed.shape:
        return file_state
    resized_1TD = resample_abs_pos_embed(
        position_1TD,
        new_size=trunk.patch_embed.grid_size,
        num_prefix_tokens=0 if trunk.no_embed_class else trunk.num_prefix_tokens,
        interpolation="bilinear",
        antialias=False,
    )
    return {**file_state, "pos_embed": resized_1TD}


def _zoom_positions(file_state: dict[str, Tensor], trunk: Any) -> dict[str, Tensor]:
    """The position table of a file, resized to the trunk's grid; empty if it has no table."""
    position_1TD = file_state.get("pos_embed")
    if position_1TD is None or position_1TD.ndim != 3:
        return {}
    prefix = position_1TD.shape[1] - math.isqrt(position_1TD.shape[1]) ** 2
    if prefix > trunk.num_prefix_tokens:  # no square grid: the table of another model
        return {}
    grid = trunk.patch_embed.grid_size[0]
    patch_1ND = zoom_positions(position_1TD[:, prefix:], grid)
    return {"pos_embed": torch.cat([position_1TD[:, :prefix], patch_1ND], 1)}


def zoom_positions(position_1ND: Tensor, grid: int) -> Tensor:
    """Resize positions of a square grid: bilinear, corners aligned, without antialiasing.

    Source: loading of pretrained weights in TransFG's code (He et al., AAAI 2022), as in the ViT
    code that it is built on: scipy.ndimage.zoom of order 1.

    Returns:
        position_1MD: M = grid^2; float32.
    """
    from scipy.ndimage import zoom

    side = math.isqrt(position_1ND.shape[1])
    if side == grid:
        return position_1ND
    old_HWD = position_1ND.float().reshape(side, side, -1).numpy()
    new_HWD = zoom(old_HWD, (grid / side, grid / side, 1), order=1)
    return torch.from_numpy(new_HWD).reshape(1, grid * grid, -1)
