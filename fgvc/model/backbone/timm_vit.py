"""Vision transformers of timm (vit, dinov2, dinov3): normalised pixels -> tokens after the norm.

B batch, C = 3 channels, H and W pixels (of positions: rows and columns of patches), P prefix tokens
(class, registers), N patch tokens, T = P + N, D token width.
A plain vision transformer has square patches from one convolution, blocks of one width and a norm
before the pooling.
"""

from __future__ import annotations

import functools
import importlib
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fgvc.config import schema
from fgvc.config.schema import architecture
from fgvc.config.schema.backbone import row_key
from fgvc.config.weight_files.layouts import detect_layout
from fgvc.model.backbone import hf_config, hf_keys, weights
from fgvc.model.backbone.base import (
    Backbone,
    PatchGrid,
    assemble,
    check_declared,
    patch_grid,
    similar_hint,
)
from fgvc.model.backbone.load_state import load_strict
from fgvc.model.backbone.weights import npz
from fgvc.types import UserError, WeightsSource

CLASS_TOKEN_FEATURES = ("cls", "cls_patch_mean")
CLASSIFIER_PREFIXES = ("head.", "head_dist.")  # the second is of a distilled DeiT


class TimmBackbone(Backbone):
    """Features `cls`, `patch_mean` and both, after the final norm."""

    blocks_name = "blocks"

    def tokens(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        token_BTD = self.trunk.forward_features(pixels_BCHW)
        return token_BTD[:, : self.prefix], token_BTD[:, self.prefix :]


def build(
    conf: schema.Backbone, side: int, source: WeightsSource, seed: int, stride: int | None
) -> Backbone:
    """The backbone with the weights of `source`, or random ones from `seed`.

    Positions are resized to `side` by the method `position_resize`: "timm" is bicubic with
    antialiasing, "zoom" is `_zoom_positions`.

    Raises:
        UserError: the weights do not fit the model; timm has no such model or tag, it is no plain
            vision transformer, or it lacks the class token that `features` reads.
    """
    shape = patch_grid(schema.chosen_checkpoint(conf), side, stride)
    create_trunk, load = functools.partial(_create, conf, shape), functools.partial(_load, conf)
    return assemble(TimmBackbone, conf, source, seed, create_trunk, load, shape)


def _create(conf: schema.Backbone, shape: PatchGrid) -> Any:
    from timm.layers.config import set_fused_attn

    set_fused_attn(True)  # an environment variable can have turned it off
    row, trunk = schema.chosen_checkpoint(conf), _plain_vit(conf, shape.nonoverlapping_side)
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


def _load(conf: schema.Backbone, trunk: Any, path: Path) -> weights.SelectedState:
    for part in trunk.modules():  # rotary periods and similar buffers, which no file holds
        compute: Any = getattr(part, "init_non_persistent_buffers", None)
        if compute is not None:
            part.to_empty(device="cpu", recurse=False)
            compute()
    zoom = conf.position_resize == "zoom"
    convert = functools.partial(_convert, trunk=trunk, zoom=zoom)
    selected = weights.select(path, trunk.state_dict(), convert)
    row, block = schema.chosen_checkpoint(conf), trunk.blocks[0]
    rope, activation = getattr(trunk, "rope", None), getattr(block.mlp, "act", None)
    layout = hf_config.check_layout(
        conf,
        selected.state,
        path,
        num_attention_heads=block.attn.num_heads,
        hidden_act=hf_config.gelu_name(activation),
        rope_theta=getattr(rope, "temperature", None),
    )
    if layout is None:
        hf_config.check_timm(row, path)
    load_strict(trunk, selected.tensors, path, row.model, selected.hint)
    return selected


def _convert(file_state: dict[str, Tensor], trunk: Any, zoom: bool) -> dict[str, Tensor]:
    """A file's tensors under the trunk's names, with resized positions and without classifier."""
    layout = detect_layout(file_state)
    has_bias = getattr(trunk.blocks[0].attn, "q_bias", None) is not None  # of queries, apart
    if layout is not None and layout.library == "timm":
        file_state = hf_keys.to_timm(file_state, layout, has_bias)
    if is_google := npz.is_google(file_state):
        file_state = npz.timm_names(file_state)
    if zoom:
        file_state = {**file_state, **_zoom_positions(file_state, trunk)}
    try:
        state = _convert_with_timm(file_state, trunk, is_google)
    except (RuntimeError, ValueError):  # the position grid of another model
        state = file_state
    if "storage_tokens" in file_state and not has_bias:
        state = {**state, **_nonzero_dinov3_biases(file_state)}
    return {key: value for key, value in state.items() if not key.startswith(CLASSIFIER_PREFIXES)}


def _nonzero_dinov3_biases(file_state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Nonzero biases of queries and values in the authors' file, by timm's names.

    timm would drop them; with them in the state, a trunk without biases refuses the file.
    """
    biases: dict[str, Tensor] = {}
    for key, value in file_state.items():
        if key.endswith(".attn.qkv.bias"):
            name, (query, _, values) = key.removesuffix("qkv.bias"), value.chunk(3)
            biases |= {f"{name}q_bias": query, f"{name}v_bias": values}
    return {key: value for key, value in biases.items() if value.any()}


def _convert_with_timm(
    file_state: dict[str, Tensor], trunk: Any, is_google: bool
) -> dict[str, Tensor]:
    """The state as timm loads it: other layouts converted, positions resized to the new grid.

    timm would also resample the kernel of another patch size. Here it stays as it is, so that
    loading refuses it.
    """
    options: dict[str, Any] = {}
    if is_google:  # timm reads .npz by other code, without antialiasing
        options = {"interpolation": "bilinear", "antialias": False}
    elif hasattr(trunk.blocks[0], "ls1") and any(".gamma_1" in key for key in file_state):
        # DeiT III: the authors' names of LayerScale, which timm's Eva has too
        options = {"adapt_layer_scale": True}
    convert = importlib.import_module(type(trunk).__module__).checkpoint_filter_fn
    state = convert(dict(file_state), trunk, **options)
    kernel = file_state.get("patch_embed.proj.weight")
    size = trunk.patch_embed.proj.weight.shape[-2:]
    # in old files the kernel is a matrix, which timm reshapes
    if kernel is not None and kernel.ndim == 4 and kernel.shape[-2:] != size:
        state["patch_embed.proj.weight"] = kernel
    return state


def _zoom_positions(file_state: dict[str, Tensor], trunk: Any) -> dict[str, Tensor]:
    """The position table of a file, resized to the trunk's grid; empty if it has no table.

    Bilinear, corners aligned, without antialiasing. Source: loading of pretrained weights in
    TransFG's code (He et al., AAAI 2022), as in the ViT code that it is built on:
    scipy.ndimage.zoom of order 1.
    """
    from scipy.ndimage import zoom

    position_1TD = file_state.get("pos_embed")
    if position_1TD is None or position_1TD.ndim != 3:
        return {}
    prefix = position_1TD.shape[1] - math.isqrt(position_1TD.shape[1]) ** 2
    if prefix > trunk.num_prefix_tokens:  # no square grid: the table of another model
        return {}
    grid, side = trunk.patch_embed.grid_size[0], math.isqrt(position_1TD.shape[1])
    if side == grid:
        return {"pos_embed": position_1TD}
    old_HWD = position_1TD[:, prefix:].float().reshape(side, side, -1).numpy()
    new_HWD = zoom(old_HWD, (grid / side, grid / side, 1), order=1)
    new_1ND = torch.from_numpy(new_HWD).reshape(1, grid * grid, -1)
    return {"pos_embed": torch.cat([position_1TD[:, :prefix], new_1ND], 1)}


def _plain_vit(conf: schema.Backbone, side: int) -> Any:
    """timm's model of the chosen row for `side` pixels, if it is a plain vision transformer."""
    import timm

    row = schema.chosen_checkpoint(conf)
    architecture.check_chosen(conf)
    key = f"{row_key(conf)}.model={row.model}"
    name = row.model.partition(".")[0]
    if not timm.is_model(name):
        similar = similar_hint(name, timm.list_models(), cutoff=0.6)
        raise UserError(f"{key}: timm has no such model{similar}. timm.list_models() lists all")
    tags = [other.partition(".")[2] for other in timm.list_pretrained(f"{name}.*")]
    if (tag := row.model.partition(".")[2]) and tag not in tags:
        raise UserError(f"{key}: timm has no tag {tag} of {name}, only {', '.join(tags) or 'none'}")
    try:
        trunk = timm.create_model(
            row.model, pretrained=False, num_classes=0, img_size=side, **row.architecture
        )
    except Exception as error:  # each class rejects unknown arguments in its own way
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
        raise UserError(f"{key}: cannot be built ({reason}). {_supported_models(name)}") from error
    if (unsupported := _unsupported_reason(trunk)) is not None:
        raise UserError(f"{key}: {unsupported}. {_supported_models(name)}")
    if conf.features in CLASS_TOKEN_FEATURES and getattr(trunk, "cls_token", None) is None:
        raise UserError(
            f"backbone.features={conf.features}: {row.model} has no class token. Set "
            "backbone.features=patch_mean"
        )
    return trunk


def _unsupported_reason(trunk: nn.Module) -> str | None:
    """Why a model of timm is no plain vision transformer; None for a plain one."""
    from timm.layers.patch_embed import PatchEmbed
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    class_name, patch_embed = type(trunk).__name__, getattr(trunk, "patch_embed", None)
    if not isinstance(trunk, VisionTransformer | Eva):
        return f"a {class_name}, no plain vision transformer"
    if not isinstance(patch_embed, PatchEmbed):
        return f"its patches come from a {type(patch_embed).__name__}, not from one convolution"
    if not isinstance(getattr(trunk, "fc_norm", None), nn.Identity | None):
        return "its norm follows the pooling (fc_norm)"
    if not all(hasattr(getattr(block, "attn", None), "num_heads") for block in trunk.blocks):
        return f"its blocks are of another kind ({type(trunk.blocks[0]).__name__})"
    return None


def _supported_models(name: str) -> str:
    import timm

    excluded = ["*relpos*", "*gap*", "*rope*", "*_18x2_*"]
    plain_models = timm.list_models(["vit_*_patch*_224", "deit*_patch*"], exclude_filters=excluded)
    others = [other for other in plain_models if other != name]
    similar = similar_hint(name, others, before=", such as ")
    return f"fgvc reads plain vision transformers of timm (vit_*, deit_*, dinov2, dinov3){similar}"
