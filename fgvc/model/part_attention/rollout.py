"""The attention of a query, propagated from a layer to the tokens below it: row @ softmax(q k^T).

Only one row of the product of all attention maps is needed. It is propagated as a vector, which is
exact and takes N x N operations per layer, whereas a product of maps takes N x N x N. Maps are
computed in chunks.

B batch, H heads, M query tokens, N key tokens, D width of a head, G = B * H.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# elements of a chunk of a map: a CPU keeps it in its cache, a GPU needs few large kernels
CHUNK = {"cpu": 2**19, "cuda": 2**26}


@torch.library.custom_op("fgvc::attention_row", mutates_args=())
def attention_row(row_BHM: Tensor, query_BHMD: Tensor, key_BHND: Tensor) -> Tensor:
    """The attention of a mixture of query tokens to each token: row_BHM @ softmax(q k^T / sqrt(D)).

    It is a custom operator, so that torch.compile does not trace it. It has no gradient.

    Args:
        row_BHM: float32 weights of the query tokens.
        query_BHMD, key_BHND: as they enter the attention: after any norm and rotation.

    Returns:
        row_BHN: float32 for any precision of query and key; has the same sum as row_BHM.
    """
    with torch.autocast(row_BHM.device.type, enabled=False), _full_precision():
        query_GMD = query_BHMD.flatten(0, 1).float() * query_BHMD.shape[-1] ** -0.5
        row_GN = _chunked_row(row_BHM.flatten(0, 1), query_GMD, key_BHND.flatten(0, 1).float())
    return row_GN.unflatten(0, row_BHM.shape[:2])


@attention_row.register_fake
def _(row_BHM: Tensor, query_BHMD: Tensor, key_BHND: Tensor) -> Tensor:
    return row_BHM.new_empty(*row_BHM.shape[:2], key_BHND.shape[2])


def _flops(row_BHM: torch.Size, query_BHMD: torch.Size, key_BHND: torch.Size, **_: object) -> int:
    *groups, tokens, width = query_BHMD
    return 2 * groups[0] * groups[1] * tokens * key_BHND[2] * (width + 1)


# for `count_macs`: torch's own registry of formulas is slow to import
FLOPS = {torch.ops.fgvc.attention_row: _flops}


def _chunked_row(row_GM: Tensor, query_GMD: Tensor, key_GND: Tensor) -> Tensor:
    """row_GN, computed chunk by chunk of the attention maps."""
    (tokens_M, _), tokens_N = query_GMD.shape[1:], key_GND.shape[1]
    chunk = CHUNK.get(row_GM.device.type, CHUNK["cuda"])
    groups, rows = max(1, chunk // (tokens_M * tokens_N)), max(1, chunk // tokens_N)
    row_G1N = row_GM.new_zeros(len(row_GM), 1, tokens_N)
    for start in range(0, len(row_GM), groups):
        span = slice(start, start + groups)
        key_GDN = key_GND[span].mT
        for row_Gm, query_GmD in zip(
            row_GM[span].split(rows, 1), query_GMD[span].split(rows, 1), strict=True
        ):
            map_GmN = torch.bmm(query_GmD, key_GDN).softmax(-1)
            row_G1N[span].baddbmm_(row_Gm[:, None], map_GmN)
    return row_G1N[:, 0]


@contextmanager
def _full_precision() -> Iterator[None]:
    """Compute float32 products in float32 for any matmul_precision of the model."""
    previous = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(previous)
