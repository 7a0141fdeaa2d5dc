"""Tensors under the names of Hugging Face transformers -> the names of timm or open_clip.

Pure functions of named tensors. The layout is recognized by its keys, not by file names; `PREFIX`
may stand before all of them (`vit.`, `dinov2.`, `module.`, ...). Queries, keys and values, which
transformers stores apart, are joined into one matrix in that order. A key that is in no table
stays as it is, so that strict loading refuses it by its name.
D token width, T tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """One of transformers' layouts. family: vit | dinov2 | dinov3 | clip | siglip. title: as shown
    in messages. library: what fgvc reads it with. prefix: before every key of the model."""

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


def layout(state: State) -> Layout | None:
    """The layout of transformers that the keys show; None for any other library's."""
    if any(key.endswith(_SIGLIP_MARKER) for key in state):
        return Layout("siglip", "SiglipModel", "transformers")
    for marker, known in _MARKERS:
        for key in state:
            if key == marker or key.endswith(f".{marker}"):
                prefix = key[: -len(marker)].removesuffix("model.")
                return Layout(known.family, known.title, known.library, prefix)
    return None


def to_timm(state: State, kind: Layout, qkv_bias: bool = True) -> dict[str, Tensor]:
    """A ViT, DINOv2 or DINOv3 under timm's names.

    Pooler, classifier and mask token are left aside. With register tokens, timm adds no position
    to the class token, so the class token's position is added to the token itself.

    Args:
        qkv_bias: whether a DINOv3 of timm has biases of queries and values; without, biases that
            are zero are left aside.
    """
    renamed: dict[str, Tensor] = {}
    joined: dict[str, dict[str, Tensor]] = {}
    gated = any(key.endswith("mlp.gate_proj.weight") for key in state)
    for key, value in _model_tensors(state, kind.prefix):
        inside = _BLOCK.fullmatch(key)
        if inside is None:
            renamed[_OUTSIDE.get(key, key)] = value
            continue
        block, rest = f"blocks.{inside[1]}", inside[2]
        if (part := _QKV.fullmatch(rest)) is not None:
            joined.setdefault(f"{block}.attn.qkv.{part[2]}", {})[part[1][0]] = value
            continue
        table = _IN_BLOCK if kind.family != "dinov3" else _IN_DINOV3_BLOCK
        table = {**table, **_GATED} if gated and kind.family == "dinov3" else table
        renamed[f"{block}.{_rename(rest, table)}"] = value
    if kind.family == "dinov3":
        _join_dinov3_qkv(joined, renamed, qkv_bias)
        if (registers := renamed.get("reg_token")) is not None and registers.shape[1] == 0:
            del renamed["reg_token"]
    else:
        _join_qkv(joined, renamed)
        _move_class_position(renamed)
    return renamed


def to_open_clip(state: State, kind: Layout) -> dict[str, Tensor]:
    """Both towers of a CLIP, or the one that is there, under open_clip's names."""
    renamed: dict[str, Tensor] = {}
    joined: dict[str, dict[str, Tensor]] = {}
    for key, value in _model_tensors(state, kind.prefix):
        if key in ("visual_projection.weight", "text_projection.weight"):
            renamed["visual.proj" if key[0] == "v" else "text_projection"] = value.T
            continue
        tower, table = "visual.", _CLIP_VISION
        if key.startswith("text_model."):
            tower, table = "", _CLIP_TEXT
        elif not key.startswith("vision_model.") and kind.title != "CLIPVisionModel":
            renamed[key] = value  # logit_scale, and what is in no tower
            continue
        key = key.removeprefix("vision_model.").removeprefix("text_model.")
        if key in _UNUSED:
            continue
        inside = _CLIP_BLOCK.fullmatch(key)
        if inside is None:
            renamed[tower + _rename(key, table)] = value
            continue
        block = f"{tower}transformer.resblocks.{inside[1]}"
        if (part := _CLIP_QKV.fullmatch(inside[2])) is not None:
            joined.setdefault(f"{block}.attn.in_proj_{part[2]}", {})[part[1]] = value
        else:
            renamed[f"{block}.{_rename(inside[2], _IN_CLIP_BLOCK)}"] = value
    _join_qkv(joined, renamed)
    return renamed


def _model_tensors(state: State, prefix: str) -> list[tuple[str, Tensor]]:
    """The model's tensors without their prefix; heads of other tasks and unused ones left out."""
    return [
        (key, value)
        for key, value in ((key.removeprefix(prefix), value) for key, value in state.items())
        if key not in _UNUSED and not _OTHER_HEADS.match(key)
    ]


def _rename(key: str, table: Mapping[str, str]) -> str:
    """`table` holds whole keys and modules, whose parameters keep their last name."""
    module, _, parameter = key.rpartition(".")
    if key in table:
        return table[key]
    return f"{table[module]}.{parameter}" if module in table else key


def _join_qkv(joined: Mapping[str, Mapping[str, Tensor]], renamed: dict[str, Tensor]) -> None:
    """Queries, keys and values of one layer below each other; an incomplete three stay apart."""
    import torch

    for key, parts in joined.items():
        if parts.keys() == set("qkv"):
            renamed[key] = torch.cat([parts[letter] for letter in "qkv"])
        else:
            renamed |= {f"{key}.{letter}": value for letter, value in parts.items()}


def _join_dinov3_qkv(
    joined: Mapping[str, Mapping[str, Tensor]], renamed: dict[str, Tensor], qkv_bias: bool
) -> None:
    weights = {key: parts for key, parts in joined.items() if key.endswith("weight")}
    _join_qkv(weights, renamed)
    for key, parts in joined.items():
        if key in weights:
            continue
        for letter, value in parts.items():
            if qkv_bias or value.any():
                renamed[f"{key.removesuffix('qkv.bias')}{letter}_bias"] = value


def _move_class_position(renamed: dict[str, Tensor]) -> None:
    if "reg_token" in renamed and {"cls_token", "pos_embed"} <= renamed.keys():
        position_1TD = renamed["pos_embed"]
        renamed["cls_token"] = renamed["cls_token"] + position_1TD[:, :1]
        renamed["pos_embed"] = position_1TD[:, 1:]
