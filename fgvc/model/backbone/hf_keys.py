"""Tensors under the names of Hugging Face transformers -> the names of timm or open_clip.

Pure functions of named tensors. The layout is recognised by its keys, not by file names. All keys
may share a prefix (`vit.`, `dinov2.`, `module.`, ...). transformers stores queries, keys and values
apart; they are concatenated into one matrix in this order. A key that is in no table keeps its
name, so that strict loading refuses it by this name.
D token width, T tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """A layout of transformers.

    family: vit | dinov2 | dinov3 | clip | siglip. title: for messages. library: the one that fgvc
    builds the model with. prefix: before every key of the model.
    """

    family: str
    title: str
    library: str
    prefix: str = ""


# a key that only this layout has -> the layout; first match wins
_MARKERS: tuple[tuple[str, Layout], ...] = (
    ("encoder.layer.0.layer_scale1.lambda1", Layout("dinov2", "Dinov2Model", "timm")),
    ("encoder.layer.0.layernorm_before.weight", Layout("vit", "ViTModel", "timm")),
    ("layer.0.attention.q_proj.weight", Layout("dinov3", "DINOv3ViTModel", "timm")),
    ("vision_model.pre_layrnorm.weight", Layout("clip", "CLIPModel", "open_clip")),
    ("pre_layrnorm.weight", Layout("clip", "CLIPVisionModel", "open_clip")),
    ("text_model.final_layer_norm.bias", Layout("clip", "CLIPTextModel", "open_clip")),
)
_SIGLIP_MARKER = "vision_model.head.probe"
_OTHER_HEADS = re.compile(r"(classifier|pooler|decoder|lm_head)\.")  # heads of other tasks
_UNUSED = {"embeddings.mask_token", "embeddings.position_ids"}

_OUTSIDE = {  # vit, dinov2: tensors outside the blocks
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.register_tokens": "reg_token",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "embeddings.patch_embeddings.weight": "patch_embed.proj.weight",  # dinov3
    "embeddings.patch_embeddings.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_BLOCK = re.compile(r"(?:model\.)?(?:encoder\.)?layer\.(\d+)\.(.+)")
_IN_BLOCK = {
    "attention.output.dense": "attn.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.weights_in": "mlp.fc1",
    "mlp.weights_out": "mlp.fc2",
    "norm1": "norm1",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_IN_DINOV3_BLOCK = {
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "gamma_1",
    "layer_scale2.lambda1": "gamma_2",
    "norm1": "norm1",
    "norm2": "norm2",
    "mlp.up_proj": "mlp.fc1",
    "mlp.down_proj": "mlp.fc2",
}
_GATED = {"mlp.gate_proj": "mlp.fc1_g", "mlp.up_proj": "mlp.fc1_x"}
_QKV = re.compile(
    r"attention\.(?:attention\.)?(query|key|value|q_proj|k_proj|v_proj)\.(weight|bias)"
)

_CLIP_VISION = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
}
_CLIP_TEXT = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
}
_CLIP_BLOCK = re.compile(r"encoder\.layers\.(\d+)\.(.+)")
_IN_CLIP_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_CLIP_QKV = re.compile(r"self_attn\.([qkv])_proj\.(weight|bias)")


def detect_layout(state: State) -> Layout | None:
    """The layout of transformers that the keys show; None for the keys of other libraries."""
    if any(key.endswith(_SIGLIP_MARKER) for key in state):
        return Layout("siglip", "SiglipModel", "transformers")
    for marker, layout in _MARKERS:
        for key in state:
            if key == marker or key.endswith(f".{marker}"):
                prefix = key[: -len(marker)].removesuffix("model.")
                return replace(layout, prefix=prefix)
    return None


def to_timm(state: State, layout: Layout, qkv_bias: bool = True) -> dict[str, Tensor]:
    """A ViT, DINOv2 or DINOv3 under timm's names, without pooler, classifier and mask token.

    With register tokens, timm adds no position to the class token. The position of the class token
    is therefore added to the token itself.

    Args:
        qkv_bias: whether timm's DINOv3 has biases of queries and values; if not, biases that are
            zero are dropped.
    """
    renamed: dict[str, Tensor] = {}
    qkv_parts: dict[str, dict[str, Tensor]] = {}
    gated = any(key.endswith("mlp.gate_proj.weight") for key in state)
    for key, value in _model_tensors(state, layout.prefix):
        block_match = _BLOCK.fullmatch(key)
        if block_match is None:
            renamed[_OUTSIDE.get(key, key)] = value
            continue
        block, rest = f"blocks.{block_match[1]}", block_match[2]
        if (qkv_match := _QKV.fullmatch(rest)) is not None:
            qkv_parts.setdefault(f"{block}.attn.qkv.{qkv_match[2]}", {})[qkv_match[1][0]] = value
            continue
        table = _IN_BLOCK if layout.family != "dinov3" else _IN_DINOV3_BLOCK
        table = {**table, **_GATED} if gated and layout.family == "dinov3" else table
        renamed[f"{block}.{_rename(rest, table)}"] = value
    if layout.family == "dinov3":
        _join_dinov3_qkv(qkv_parts, renamed, qkv_bias)
        if (registers := renamed.get("reg_token")) is not None and registers.shape[1] == 0:
            del renamed["reg_token"]
    else:
        _join_qkv(qkv_parts, renamed)
        _move_class_position(renamed)
    return renamed


def to_open_clip(state: State, layout: Layout) -> dict[str, Tensor]:
    """Both towers of a CLIP, or a single one, under open_clip's names."""
    renamed: dict[str, Tensor] = {}
    qkv_parts: dict[str, dict[str, Tensor]] = {}
    for key, value in _model_tensors(state, layout.prefix):
        if key in ("visual_projection.weight", "text_projection.weight"):
            renamed["visual.proj" if key[0] == "v" else "text_projection"] = value.T
            continue
        tower, table = "visual.", _CLIP_VISION
        if key.startswith("text_model."):
            tower, table = "", _CLIP_TEXT
        elif not key.startswith("vision_model.") and layout.title != "CLIPVisionModel":
            renamed[key] = value  # logit_scale and others outside the towers
            continue
        key = key.removeprefix("vision_model.").removeprefix("text_model.")
        if key in _UNUSED:
            continue
        block_match = _CLIP_BLOCK.fullmatch(key)
        if block_match is None:
            renamed[tower + _rename(key, table)] = value
            continue
        block = f"{tower}transformer.resblocks.{block_match[1]}"
        if (qkv_match := _CLIP_QKV.fullmatch(block_match[2])) is not None:
            qkv_parts.setdefault(f"{block}.attn.in_proj_{qkv_match[2]}", {})[qkv_match[1]] = value
        else:
            renamed[f"{block}.{_rename(block_match[2], _IN_CLIP_BLOCK)}"] = value
    _join_qkv(qkv_parts, renamed)
    return renamed


def _model_tensors(state: State, prefix: str) -> list[tuple[str, Tensor]]:
    """The model's tensors without the prefix, without heads of other tasks and unused tensors."""
    return [
        (key, value)
        for key, value in ((key.removeprefix(prefix), value) for key, value in state.items())
        if key not in _UNUSED and not _OTHER_HEADS.match(key)
    ]


def _rename(key: str, table: Mapping[str, str]) -> str:
    """Rename by a table of whole keys and of modules, whose parameters keep their last name."""
    module, _, parameter = key.rpartition(".")
    if key in table:
        return table[key]
    return f"{table[module]}.{parameter}" if module in table else key


def _join_qkv(qkv_parts: Mapping[str, Mapping[str, Tensor]], renamed: dict[str, Tensor]) -> None:
    """Stack queries, keys and values of each layer; if one of the three is missing, keep them."""
    import torch

    for key, parts in qkv_parts.items():
        if parts.keys() == set("qkv"):
            renamed[key] = torch.cat([parts[letter] for letter in "qkv"])
        else:
            renamed |= {f"{key}.{letter}": value for letter, value in parts.items()}


def _join_dinov3_qkv(
    qkv_parts: Mapping[str, Mapping[str, Tensor]], renamed: dict[str, Tensor], qkv_bias: bool
) -> None:
    weight_parts = {key: parts for key, parts in qkv_parts.items() if key.endswith("weight")}
    _join_qkv(weight_parts, renamed)
    for key, parts in qkv_parts.items():
        if key in weight_parts:
            continue
        for letter, value in parts.items():
            if qkv_bias or value.any():
                renamed[f"{key.removesuffix('qkv.bias')}{letter}_bias"] = value


def _move_class_position(renamed: dict[str, Tensor]) -> None:
    if "reg_token" in renamed and {"cls_token", "pos_embed"} <= renamed.keys():
        position_1TD = renamed["pos_embed"]
        renamed["cls_token"] = renamed["cls_token"] + position_1TD[:, :1]
        renamed["pos_embed"] = position_1TD[:, 1:]
