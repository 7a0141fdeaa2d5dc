"""part_attention= axis: keep the tokens that distinguish species.

Tokens -> fewer tokens of the same width, before the last block of any backbone, so that every
method works with any head.
"""

from __future__ import annotations

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fgvc.config import schema
from fgvc.model.backbone.base import Backbone
from fgvc.model.backbone.load_state import count_macs, init_from_seed
from fgvc.model.part_attention import attention_hooks
from fgvc.model.part_attention.rollout import FLOPS
from fgvc.model.part_attention.token_selector import (
    Selection,
    TokenSelector,
    central_patches,
    random_patches,
)
from fgvc.types import UserError

__all__ = [
    "SCORED",
    "Selection",
    "TokenSelector",
    "attach_selector",
    "central_patches",
    "random_patches",
    "reset_last_block",
]

SCORED = ("transfg", "rollout", "cls_topk")  # methods that use attention scores


def attach_selector(
    backbone: Backbone, conf: schema.NoOptions | schema.PartAttention, seed: int
) -> TokenSelector | None:
    """Restrict the last block of `backbone` to its prefix tokens and K selected patches.

    The backbone's Tokens then hold K patches, and its `macs` are updated. It may be called before
    or after torch.compile.

    Args:
        seed: of the patches of part_attention=random.

    Returns:
        the selector, which holds the selection of the last forward pass; None if part attention is
        off.

    Raises:
        UserError: `tokens` is impossible for this backbone, or no query attends to the patches.
    """
    if isinstance(conf, schema.NoOptions):
        return None
    assert backbone.patches == backbone.grid[0] * backbone.grid[1], "attached before"
    heads = attention_hooks.head_count(backbone)
    tokens = heads if conf.tokens is None else conf.tokens
    _check_tokens(conf, tokens, heads, backbone)
    if conf.name in SCORED:
        _check_query(conf, backbone)
    attention_hooks.split_fused_attention(backbone)
    selector = TokenSelector(backbone, conf.name, tokens, seed)
    backbone.patches = tokens
    selector.set_images(np.zeros(1, np.int64))
    with FakeTensorMode(allow_non_fake_inputs=True):
        device = next(backbone.parameters()).device
        pixels_BCHW = torch.empty(1, 3, backbone.side, backbone.side, device=device)
        backbone.macs = count_macs(backbone, pixels_BCHW, FLOPS)
    selector.last = None
    return selector


def reset_last_block(backbone: Backbone, seed: int) -> None:
    """Reset the last block to the library's initial values, drawn from `seed`."""
    initial_blocks = init_from_seed(backbone.create_trunk, seed).get_submodule(backbone.blocks_name)
    backbone.blocks[-1].load_state_dict(initial_blocks[-1].state_dict())


def _check_tokens(conf: schema.PartAttention, tokens: int, heads: int, backbone: Backbone) -> None:
    if not 1 <= tokens <= backbone.patches:
        raise UserError(
            f"part_attention.tokens={tokens}: must be at least 1 and at most {backbone.patches}, "
            f"the patches of {backbone.name} at {backbone.side} px"
        )
    if conf.name == "transfg" and tokens % heads:
        multiples = (tokens // heads * heads, (tokens // heads + 1) * heads)
        near = " or ".join(str(count) for count in multiples if 0 < count <= backbone.patches)
        raise UserError(
            f"part_attention.tokens={tokens}: must be a multiple of the {heads} heads of "
            f"{backbone.name} for part_attention=transfg; nearest: {near}"
        )


def _check_query(conf: schema.PartAttention, backbone: Backbone) -> None:
    """Check that a class token below the last block or a pooling head attends to the patches."""
    if backbone.prefix == 0 and not hasattr(backbone.trunk, "head"):
        raise UserError(
            f"part_attention={conf.name} backbone.features={backbone.features}: the pooling head, "
            f"which attends to the patches of {backbone.name}, is left out; take features=map"
        )
    if backbone.prefix and len(backbone.blocks) < 2:
        raise UserError(
            f"part_attention={conf.name}: {backbone.name} has {len(backbone.blocks)} block, and "
            "at least 2 are needed: patches are scored below the last block"
        )
