"""One reader's attention, carried from a layer to the tokens below it: row @ softmax(q k^T).

Only a row of the product of all layers is ever needed, so it is carried down as a vector: exact,
and N x N work a layer where a product of maps takes N x N x N. A map exists a chunk at a time.

B batch, H heads, M tokens that look, N tokens that are looked at, D width of a head, G = B * H.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

# elements of a chunk of a map: on a CPU it stays in the cache, a GPU wants few large kernels
CHUNK = {"cpu": 2**19, "cuda": 2**26}


@torch.library.custom_op("fgvc::attention_row", mutates_args=())
def attention_row(row_BHM: Tensor, query_BHMD: Tensor, key_BHND: Tensor) -> Tensor:
    """How much each token is looked at by a mixture of tokens: row_BHM @ softmax(q k^T / sqrt(D)).

    An operator of its own, so that a compiled model holds it whole. It has no gradient.

    Args:
        row_BHM: float32 weights of the tokens that look.
        query_BHMD, key_BHND: as they enter the attention: after any norm and rotation.

    Returns:
        row_BHN: float32 whatever the precision of query and key; sums to what row_BHM sums to.
    """
    with torch.autocast(row_BHM.device.type, enabled=False), _full_precision():
        query_GMD = query_BHMD.flatten(0, 1).float() * query_BHMD.shape[-1] ** -0.5
        row_GN = _chunked_row(row_BHM.flatten(0, 1), query_GMD, key_BHND.flatten(0, 1).float())
    return row_GN.unflatten(0, row_BHM.shape[:2])


@attention_row.register_fake
def _(row_BHM: Tensor, query_BHMD: Tensor, key_BHND: Tensor) -> Tensor:
    return row_BHM.new_empty(*row_BHM.shape[:2], key_BHND.shape[2])


@register_flop_formula(torch.ops.fgvc.attention_row)
def _flops(row_BHM: torch.Size, query_BHMD: torch.Size, key_BHND: torch.Size, **_: object) -> int:
    *groups, tokens, width = query_BHMD
    return 2 * groups[0] * groups[1] * tokens * key_BHND[2] * (width + 1)


def _chunked_row(row_GM: Tensor, query_GMD: Tensor, key_GND: Tensor) -> Tensor:
    """row_GN, from one chunk of the maps after another."""
    (tokens_M, _), tokens_N = query_GMD.shape[1:], key_GND.shape[1]
    chunk = CHUNK.get(row_GM.device.type, CHUNK["cuda"])
    groups, rows = max(1, chunk // (tokens_M * tokens_N)), max(1, chunk // tokens_N)
    row_G1N = row_GM.new_zeros(len(row_GM), 1, tokens_N)
    for start in range(0, len(row_GM), groups):
        some = slice(start, start + groups)
        looked_GDN = key_GND[some].mT
        for row_Gm, query_GmD in zip(
            row_GM[some].split(rows, 1), query_GMD[some].split(rows, 1), strict=True
        ):
            map_GmN = torch.bmm(query_GmD, looked_GDN).softmax(-1)
            row_G1N[some].baddbmm_(row_Gm[:, None], map_GmN)
    return row_G1N[:, 0]


@contextmanager
def _full_precision() -> Iterator[None]:
    """float32 products in float32, whatever matmul_precision the model itself runs at."""
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(chosen)
