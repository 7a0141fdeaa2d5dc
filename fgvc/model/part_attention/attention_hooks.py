"""Blocks of each library -> the queries and keys of their fused attention, captured by hooks.

No library returns attention maps from fused attention, but a hook can capture q and k.

B batch, H heads, T tokens, D width of a head, C token width, N patch tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgvc.model.backbone.base import Backbone

Capture = Callable[[Tensor], None]


def head_count(backbone: Backbone) -> int:
    return _attention(backbone.blocks[0]).num_heads


def rotates_half(backbone: Backbone) -> bool:
    """Whether rotary positions rotate halves of the head width instead of neighbouring pairs."""
    return getattr(_attention(backbone.blocks[0]), "rotate_half", False)


def split_fused_attention(backbone: Backbone) -> None:
    """Replace attention layers whose q and k are inaccessible; parameters keep their names."""
    for block in backbone.blocks:
        attention = _attention(block)
        if isinstance(attention, nn.MultiheadAttention):
            block.attn = SplitAttention(attention)


def register_hooks(block: nn.Module, capture_query: Capture, capture_key: Capture) -> None:
    """Call `capture_query` with query_BHTD and `capture_key` with key_BHTD in every forward."""
    attention = _attention(block)
    if hasattr(attention, "q_norm"):  # an identity if the block has no such norm
        captures = (attention.q_norm, capture_query), (attention.k_norm, capture_key)
    else:
        captures = (attention.q_proj, capture_query), (attention.k_proj, capture_key)
    for module, capture in captures:
        module.register_forward_hook(_CaptureHook(capture, attention.num_heads))


def _attention(block: Any) -> Any:
    """The attention layer, by its names in timm, open_clip and transformers."""
    return block.self_attn if hasattr(block, "self_attn") else block.attn


class _CaptureHook:
    """A hook that captures the output of a module, split into heads; the output is unchanged."""

    def __init__(self, capture: Capture, heads: int) -> None:
        self.capture, self.heads = capture, heads

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        if output.ndim == 3:
            output = output.unflatten(2, (self.heads, -1)).transpose(1, 2)
        # without gradients, a copy frees q, k and v together; a backward pass needs them anyway
        self.capture(output.detach() if torch.is_grad_enabled() else output.contiguous())


class SplitAttention(nn.Module):
    """nn.MultiheadAttention for self-attention, with the same parameters under the same names.

    The original gives no access to q and k, and its path in evaluation is not fused.
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
        """token_BTC, batch first; further arguments are the same tensor as keys and values."""
        qkv_BTC = functional.linear(token_BTC, self.in_proj_weight, self.in_proj_bias)
        split = qkv_BTC.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
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
    """Queries or keys as they enter the attention: patches rotated by rope_ND, if not None."""
    if rope_ND is None:
        return tensor_BHTD
    from timm.layers.pos_embed_sincos import apply_rot_embed_cat

    prefix = tensor_BHTD.shape[2] - len(rope_ND)
    patch_BHND = apply_rot_embed_cat(tensor_BHTD[:, :, prefix:], rope_ND, half=rotate_half)
    return torch.cat([tensor_BHTD[:, :, :prefix], patch_BHND.type_as(tensor_BHTD)], 2)


def pooling_attention(trunk: Any, token_BNC: Tensor) -> Tensor:
    """row_BHN: attention of each head of SigLIP's pooling if these were the last tokens."""
    patch_BNC = trunk.post_layernorm(token_BNC)
    probe_B1C = trunk.head.probe.expand(patch_BNC.shape[0], -1, -1)
    _, row_BH1N = trunk.head.attention(
        probe_B1C, patch_BNC, patch_BNC, need_weights=True, average_attn_weights=False
    )
    return row_BH1N[:, :, 0]
