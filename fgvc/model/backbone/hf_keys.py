"""Tensors under the names of Hugging Face transformers -> the names of timm or open_clip.

Pure functions of named tensors. All names may share a prefix (`vit.`, `dinov2.`, `module.`, ...).
transformers stores queries, keys and values apart; they are concatenated into one matrix.
D token width, T tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fgvc.config.weight_files.layouts import Layout
from fgvc.model.backbone.rename import rename

if TYPE_CHECKING:
    from torch import Tensor

    State = Mapping[str, Tensor]

# heads of other tasks, and tensors that no model here has
_UNUSED = re.compile(
    r"(classifier|pooler|decoder|lm_head)\..*|(.*\.)?embeddings\.(mask_token|position_ids)"
)
_ZERO_BIAS = re.compile(r"blocks\.\d+\.attn\.[qkv]_bias")
_BLOCK = r"(?:model\.)?(?:encoder\.)?layer\.(\d+)\."
_TIMM = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.patch_embeddings\.(?:projection\.)?(\w+)", r"patch_embed.proj.\1"),
    (r"layernorm\.(\w+)", r"norm.\1"),
    (
        rf"{_BLOCK}attention\.(?:attention\.)?([qkv])(?:uery|ey|alue|_proj)\.(\w+)",
        r"blocks.\1.attn.qkv.\3#\2",
    ),
    (rf"{_BLOCK}attention\.(?:output\.dense|o_proj)\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (rf"{_BLOCK}layernorm_before\.(\w+)", r"blocks.\1.norm1.\2"),
    (rf"{_BLOCK}layernorm_after\.(\w+)", r"blocks.\1.norm2.\2"),
    (rf"{_BLOCK}(?:intermediate\.dense|mlp\.weights_in)\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (rf"{_BLOCK}(?:output\.dense|mlp\.weights_out)\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    (rf"{_BLOCK}layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (rf"{_BLOCK}(norm[12]|mlp\.fc[12])\.(\w+)", r"blocks.\1.\2.\3"),
)
_DINOV3 = (  # before those of _TIMM
    (rf"{_BLOCK}attention\.([qkv])_proj\.bias", r"blocks.\1.attn.\2_bias"),
    (rf"{_BLOCK}layer_scale([12])\.lambda1", r"blocks.\1.gamma_\2"),
    (rf"{_BLOCK}mlp\.down_proj\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
)
_GATED = (
    (rf"{_BLOCK}mlp\.gate_proj\.(\w+)", r"blocks.\1.mlp.fc1_g.\2"),
    (rf"{_BLOCK}mlp\.up_proj\.(\w+)", r"blocks.\1.mlp.fc1_x.\2"),
)
_NOT_GATED = ((rf"{_BLOCK}mlp\.up_proj\.(\w+)", r"blocks.\1.mlp.fc1.\2"),)

_LAYER = r"(visual\.|)encoder\.layers\.(\d+)\."
_OPEN_CLIP = (
    (r"visual_projection\.weight", "visual.proj"),
    (r"text_projection\.weight", "text_projection"),
    (r"(visual\.)embeddings\.class_embedding", r"\1class_embedding"),
    (r"(visual\.)embeddings\.patch_embedding\.weight", r"\1conv1.weight"),
    (r"(visual\.|)embeddings\.position_embedding\.weight", r"\1positional_embedding"),
    (r"embeddings\.token_embedding\.weight", "token_embedding.weight"),
    (r"(visual\.)pre_layrnorm\.(\w+)", r"\1ln_pre.\2"),
    (r"(visual\.)post_layernorm\.(\w+)", r"\1ln_post.\2"),
    (r"final_layer_norm\.(\w+)", r"ln_final.\1"),
    (
        rf"{_LAYER}self_attn\.([qkv])_proj\.(\w+)",
        r"\1transformer.resblocks.\2.attn.in_proj_\4#\3",
    ),
    (rf"{_LAYER}self_attn\.out_proj\.(\w+)", r"\1transformer.resblocks.\2.attn.out_proj.\3"),
    (rf"{_LAYER}layer_norm([12])\.(\w+)", r"\1transformer.resblocks.\2.ln_\3.\4"),
    (rf"{_LAYER}mlp\.fc1\.(\w+)", r"\1transformer.resblocks.\2.mlp.c_fc.\3"),
    (rf"{_LAYER}mlp\.fc2\.(\w+)", r"\1transformer.resblocks.\2.mlp.c_proj.\3"),
)


def to_timm(state: State, layout: Layout, qkv_bias: bool = True) -> dict[str, Tensor]:
    """A ViT, DINOv2 or DINOv3 under timm's names, without pooler, classifier and mask token.

    With register tokens, timm adds no position to the class token. The position of the class token
    is therefore added to the token itself.

    Args:
        qkv_bias: whether timm's DINOv3 has biases of queries and values; if not, biases that are
            zero are dropped.
    """
    state = _model_tensors(state, layout)
    if layout.backbone == "dinov3":
        is_gated = any(key.endswith("mlp.gate_proj.weight") for key in state)
        rules = (*_DINOV3, *(_GATED if is_gated else _NOT_GATED), *_TIMM)
        renamed = {
            key: value
            for key, value in rename(state, rules).items()
            if qkv_bias or not _ZERO_BIAS.fullmatch(key) or value.any()
        }
        if "reg_token" in renamed and renamed["reg_token"].shape[1] == 0:
            del renamed["reg_token"]
        return renamed
    renamed = rename(state, _TIMM)
    if {"reg_token", "cls_token", "pos_embed"} <= renamed.keys():
        position_1TD = renamed["pos_embed"]
        renamed["cls_token"] = renamed["cls_token"] + position_1TD[:, :1]
        renamed["pos_embed"] = position_1TD[:, 1:]
    return renamed


def to_open_clip(state: State, layout: Layout) -> dict[str, Tensor]:
    """Both towers of a CLIP, or a single one, under open_clip's names."""
    tensors = {}
    for key, value in _model_tensors(state, layout).items():
        tower, dot, rest = key.partition("_model.")
        if key in ("visual_projection.weight", "text_projection.weight"):
            tensors[key] = value.T
        elif dot and tower == "text":
            tensors[rest] = value
        elif dot and tower == "vision":
            tensors[f"visual.{rest}"] = value
        else:
            tensors[f"visual.{key}" if layout.title == "CLIPVisionModel" else key] = value
    return rename(tensors, _OPEN_CLIP)


def _model_tensors(state: State, layout: Layout) -> dict[str, Tensor]:
    """The model's tensors without the prefix, without heads of other tasks and unused tensors."""
    tensors = {key.removeprefix(layout.prefix): value for key, value in state.items()}
    return {key: value for key, value in tensors.items() if not _UNUSED.fullmatch(key)}
