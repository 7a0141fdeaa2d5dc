"""Blocks of each library -> the queries and keys of their fused attention, kept as they pass.

No library hands out attention maps under fused attention; each lets a hook see q and k.

B batch, H heads, T tokens, D width of a head, C token width, N patch tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgvc.model.backbone import Backbone

Capture = Callable[[Tensor], None]


def head_count(backbone: Backbone) -> int:
    """Heads of a block's attention."""
    return _attention(backbone.blocks[0]).num_heads


def rotates_half(backbone: Backbone) -> bool:
    """Which of the two layouts of rotary positions a backbone with such positions has."""
    return getattr(_attention(backbone.blocks[0]), "rotate_half", False)


def split_fused_attention(backbone: Backbone) -> None:
    """Let the attention of every block be watched; parameters keep their names."""
    for block in backbone.blocks:
        attention = _attention(block)
        if isinstance(attention, nn.MultiheadAttention):
            block.attn = SplitAttention(attention)


def register_hooks(block: nn.Module, keep_query: Capture, keep_key: Capture) -> None:
    """Call `keep_query` with query_BHTD and `keep_key` with key_BHTD in every forward."""
    attention = _attention(block)
    if hasattr(attention, "q_norm"):  # called with or without a norm to apply
        places = (attention.q_norm, keep_query), (attention.k_norm, keep_key)
    else:
        places = (attention.q_proj, keep_query), (attention.k_proj, keep_key)
    for place, keep in places:
        place.register_forward_hook(_CaptureHook(keep, attention.num_heads))


def _attention(block: Any) -> Any:
    """By the names that timm, open_clip and transformers give it."""
    return block.self_attn if hasattr(block, "self_attn") else block.attn


class _CaptureHook:
    """A hook that gives away what a module returns, by heads; the output stays as it is."""

    def __init__(self, keep: Capture, heads: int) -> None:
        self.keep, self.heads = keep, heads

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        if output.ndim == 3:
            output = output.unflatten(2, (self.heads, -1)).transpose(1, 2)
        # copied, they let go of the values they came with, which a backward pass needs anyhow
        self.keep(output.detach() if torch.is_grad_enabled() else output.contiguous())


class SplitAttention(nn.Module):
    """nn.MultiheadAttention over one sequence, with its very parameters, under their names.

    The original shows neither q nor k, and in evaluation takes a path that is not fused.
    """

    def __init__(self, original: nn.MultiheadAttention) -> None:
        super().__init__()
        self.in_proj_weight, self.in_proj_bias = original.in_proj_weight, original.in_proj_bias
        self.out_proj = original.out_proj
        self.num_heads, self.dropout = original.num_heads, original.dropout
        self.q_norm, self.k_norm = nn.Identity(), nn.Identity()

    def forward(
        self, token_BTC: Tensor, *_: Tensor, attn_mask: Tensor | None = None, **__: object
    ) -> tuple[Tensor, None]:
        """token_BTC, batch first; the keys and values that come with it are the same tensor."""
        joint_BTC = functional.linear(token_BTC, self.in_proj_weight, self.in_proj_bias)
        split = joint_BTC.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query_BHTD, key_BHTD, value_BHTD = split.unbind(0)
        mixed_BHTD = functional.scaled_dot_product_attention(
            self.q_norm(query_BHTD),
            self.k_norm(key_BHTD),
            value_BHTD,
            attn_mask=attn_mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(mixed_BHTD.transpose(1, 2).flatten(2)), None


def apply_rope(tensor_BHTD: Tensor, rope_ND: Tensor | None, rotate_half: bool) -> Tensor:
    """Queries or keys as they enter the attention: patches turned by their position, if at all."""
    if rope_ND is None:
        return tensor_BHTD
    from timm.layers.pos_embed_sincos import apply_rot_embed_cat

    prefix = tensor_BHTD.shape[2] - len(rope_ND)
    patch_BHND = apply_rot_embed_cat(tensor_BHTD[:, :, prefix:], rope_ND, half=rotate_half)
    return torch.cat([tensor_BHTD[:, :, :prefix], patch_BHND.type_as(tensor_BHTD)], 2)


def pooling_attention(trunk: Any, token_BNC: Tensor) -> Tensor:
    """row_BHN: what each head of SigLIP's pooling would look at if these were the last tokens."""
    patch_BNC = trunk.post_layernorm(token_BNC)
    probe_B1C = trunk.head.probe.expand(patch_BNC.shape[0], -1, -1)
    _, row_BH1N = trunk.head.attention(
        probe_B1C, patch_BNC, patch_BNC, need_weights=True, average_attn_weights=False
    )
    return row_BH1N[:, :, 0]
