"""Input tokens of the last block -> all prefix tokens and K selected patches.

A hook before the last block replaces its input; the library's code is unchanged. The scores need no
gradient: the model runs with fused attention, and the scores are computed from the queries and keys
that hooks captured.

B batch, H heads, T = P + N tokens (P prefix tokens, N patches), K selected patches, M query tokens,
D width of a head, C token width.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fgvc.model.backbone.base import Backbone
from fgvc.model.part_attention import attention_hooks
from fgvc.model.part_attention.rollout import attention_row

Layer = tuple[Tensor, Tensor]  # query_BHTD and key_BHTD


@dataclass(frozen=True)
class Selection:
    """The patches selected in the last forward pass.

    index_BK: int64 patches, numbered row by row of the grid; the same number for each of `heads`,
    head after head, the best first. score: score_BHN (transfg) or score_BN, float32; None for
    methods without scores.
    """

    index_BK: Tensor
    score: Tensor | None
    heads: int = 1

    @property
    def patch_scores(self) -> Tensor | None:
        """score_BN: one score per patch, averaged over heads."""
        if self.score is None or self.score.ndim == 2:
            return self.score
        return self.score.mean(1)


class TokenSelector:
    """Selects the patches of a backbone. last: the last selection, detached, on its device."""

    last: Selection | None = None

    def __init__(self, backbone: Backbone, name: str, tokens: int, seed: int) -> None:
        self.name, self.tokens, self.seed = name, tokens, seed
        self.prefix, self.grid, self.trunk = backbone.prefix, backbone.grid, backbone.trunk
        self.block_heads = attention_hooks.head_count(backbone)
        self.heads = self.block_heads if name == "transfg" else 1
        self._rotate_half = attention_hooks.rotates_half(backbone)
        self._centre_K = central_patches(self.grid)[:tokens]
        self._random_BK: Tensor | None = None
        self._capturing = False
        self._query: dict[int, Tensor] = {}
        self._key: dict[int, Tensor] = {}
        *below, self._last_block = range(len(backbone.blocks))
        self._layers = below if name in ("transfg", "rollout") else []
        if name == "cls_topk" and backbone.prefix:  # a pooling head has its own attention
            self._layers = [self._last_block]
        for layer in self._layers:
            attention_hooks.register_hooks(
                backbone.blocks[layer],
                functools.partial(self._capture, self._query, layer),
                functools.partial(self._capture, self._key, layer),
            )
        backbone.blocks[0].register_forward_pre_hook(self._start_forward)
        backbone.blocks[-1].register_forward_pre_hook(self._select, with_kwargs=True)

    def set_images(self, key_B: np.ndarray) -> None:
        """Set the images of the next forward pass, by manifest key; only `random` needs them."""
        if self.name == "random":
            random_BK = random_patches(self.seed, key_B, self.grid, self.tokens)
            self._random_BK = torch.from_numpy(random_BK)

    def _start_forward(self, block: nn.Module, inputs: object) -> None:
        self._capturing = True
        self._query.clear()
        self._key.clear()

    def _capture(self, tensors: dict[int, Tensor], layer: int, tensor_BHTD: Tensor) -> None:
        if self._capturing:  # not if activation checkpointing reruns a block in the backward pass
            tensors[layer] = tensor_BHTD

    def _select(
        self, block: nn.Module, inputs: tuple[Tensor, ...], options: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        token_BTC, *others = inputs
        rope_ND = options.get("rope")
        if self._capturing:
            if self._last_block in self._layers:  # its own attention, of all tokens, gives scores
                with torch.no_grad():
                    block.forward(*inputs, **options)  # not called: this is a hook of that call
            with torch.no_grad(), torch.autocast(token_BTC.device.type, enabled=False):
                self.last = self._select_patches(token_BTC.detach(), rope_ND)
            self._capturing = False
            self._query.clear()
            self._key.clear()
        assert self.last is not None
        index_BK = self.last.index_BK
        if rope_ND is not None:
            options = {**options, "rope": rope_ND[index_BK][:, None]}
        prefix_BPC, patch_BNC = token_BTC[:, : self.prefix], token_BTC[:, self.prefix :]
        # not take_along_dim, which would fix the batch size of an exported graph
        kept_BKC = patch_BNC.gather(1, index_BK[..., None].expand(-1, -1, patch_BNC.shape[2]))
        return (torch.cat([prefix_BPC, kept_BKC], 1), *others), options

    def _select_patches(self, token_BTC: Tensor, rope_ND: Tensor | None) -> Selection:
        batch, device = token_BTC.shape[0], token_BTC.device
        if self.name == "centre":
            return Selection(self._centre_K.to(device).expand(batch, -1), None)
        if self.name == "random":
            random_BK, self._random_BK = self._random_BK, None
            assert random_BK is not None, "set_images() must precede each forward pass"
            assert len(random_BK) == batch, "set_images() had another batch"
            return Selection(random_BK.to(device), None)
        score = self._scores(token_BTC, rope_ND)[..., self.prefix :]
        best = score.topk(self.tokens // self.heads, -1).indices
        return Selection(best.flatten(1), score, self.heads)

    def _scores(self, token_BTC: Tensor, rope_ND: Tensor | None) -> Tensor:
        """score_BHT for transfg, otherwise score_BT."""
        layers = self._rotated_layers(rope_ND)
        if self.prefix:  # the class token has all the weight in each head
            row_BHM = token_BTC.new_ones(token_BTC.shape[0], self.block_heads, 1).float()
        else:
            row_BHM = attention_hooks.pooling_attention(self.trunk, token_BTC.float())
        if self.name == "rollout":
            return mean_rollout(row_BHM, layers)
        row_BHT = per_head_rollout(row_BHM, layers)
        return row_BHT if self.name == "transfg" else row_BHT.mean(1)

    def _rotated_layers(self, rope_ND: Tensor | None) -> list[Layer]:
        """The queries and keys of this forward pass, the uppermost layer first."""
        captured = sorted(self._query), sorted(self._key)
        assert captured == (self._layers, self._layers), f"{captured} seen, not {self._layers}"
        half = self._rotate_half
        return [
            (
                attention_hooks.apply_rope(self._query[layer], rope_ND, half),
                attention_hooks.apply_rope(self._key[layer], rope_ND, half),
            )
            for layer in reversed(self._layers)
        ]


def per_head_rollout(row_BHM: Tensor, layers: Sequence[Layer]) -> Tensor:
    """score_BHT: the attention of the query through all layers, separately for each head.

    Args:
        row_BHM: weights of the first M tokens; the weights of the others are zero.
        layers: the uppermost first.

    Source: part selection of TransFG (He et al., AAAI 2022), the product's first row alone.
    """
    for query_BHTD, key_BHTD in layers:
        row_BHM = attention_row(row_BHM, query_BHTD[:, :, : row_BHM.shape[2]], key_BHTD)
    return row_BHM


def mean_rollout(row_BHM: Tensor, layers: Sequence[Layer]) -> Tensor:
    """score_BT: heads averaged; in every layer, a token keeps half of its weight.

    Args: as `per_head_rollout`.

    Source: attention rollout (Abnar and Zuidema, ACL 2020).
    """
    heads = row_BHM.shape[1]
    row_BM = row_BHM.mean(1)
    for query_BHTD, key_BHTD in layers:
        tokens_M, tokens_T = row_BM.shape[1], key_BHTD.shape[2]
        head_row_BHM = row_BM[:, None].expand(-1, heads, -1)
        attended_BHT = attention_row(head_row_BHM, query_BHTD[:, :, :tokens_M], key_BHTD)
        row_BM = (functional.pad(row_BM, (0, tokens_T - tokens_M)) + attended_BHT.mean(1)) / 2
    return row_BM


def random_patches(seed: int, key_B: np.ndarray, grid: tuple[int, int], tokens: int) -> np.ndarray:
    """index_BK of part_attention=random: distinct patches of each image, by (seed, image key)."""
    patches = grid[0] * grid[1]
    orders = [np.random.default_rng((seed, key)).permutation(patches) for key in key_B.tolist()]
    return np.array([order_N[:tokens] for order_N in orders], np.int64).reshape(-1, tokens)


def central_patches(grid: tuple[int, int]) -> Tensor:
    """All patches, ordered by distance to the centre, ties row by row."""
    rows, columns = (torch.arange(side) * 2 - (side - 1) for side in grid)  # doubled: integers
    distance_N = (rows[:, None] ** 2 + columns**2).flatten()
    return distance_N.argsort(stable=True)
