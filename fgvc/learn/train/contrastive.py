"""Features of a global batch -> a loss that attracts images of a class and repels other classes.

Source: TransFG (He et al., AAAI 2022), eq. 10; the mean over all ordered pairs of the global batch.
No backward pass contains a collective call. Each rank gathers the features of all ranks, treats the
features of other ranks as constants, and computes the gradient of the whole loss with respect to
its own features. This gradient is exact.
B images of all ranks, b of this one, D feature width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed
from torch.nn.functional import normalize, pad


def contrastive_loss(feature_BD: Tensor, label_B: Tensor, margin: float) -> Tensor:
    """sum_ij [ y_i = y_j: 1 - cos_ij; else max(cos_ij - margin, 0) ] / B^2; 0 without images."""
    if not len(label_B):
        return feature_BD.sum()  # 0, with a gradient
    feature_BD = feature_BD.to(torch.promote_types(feature_BD.dtype, torch.float32))
    unit_BD = normalize(feature_BD, dim=1)
    cosine_BB = unit_BD @ unit_BD.T
    same_BB = label_B[:, None] == label_B[None]
    return torch.where(same_BB, 1 - cosine_BB, (cosine_BB - margin).clamp(min=0)).mean()


def contrastive_gradient(
    feature_bD: Tensor, label_b: Tensor, margin: float, counts: Sequence[int]
) -> Tensor:
    """gradient_bD of the loss of the global batch with respect to this rank's features.

    Each rank makes the same two collective calls for any number of images, 0 included.

    Args:
        feature_bD: all features of this rank in this step.
        counts: images of each rank.
    """
    features, labels = [feature_bD.detach()], [label_b]
    if len(counts) > 1:
        features = _all_gather_rows(feature_bD.detach(), counts)
        labels = _all_gather_rows(label_b, counts)
    local_bD = features[distributed.get_rank() if len(counts) > 1 else 0].requires_grad_()
    loss = contrastive_loss(torch.cat(features), torch.cat(labels), margin)
    return torch.autograd.grad(loss, local_bD)[0]


def gather_counts(device: torch.device, world: int, *counts: int) -> list[list[int]]:
    """The counts of every rank, in rank order: one list per rank."""
    if world == 1:
        return [list(counts)]
    own_counts = torch.tensor(counts, device=device)
    parts = [torch.empty_like(own_counts) for _ in range(world)]
    distributed.all_gather(parts, own_counts)
    return torch.stack(parts).tolist()


def _all_gather_rows(rows: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """The rows of each rank, in rank order; rows are padded for the collective call."""
    padding = [0, 0] * (rows.ndim - 1) + [0, max(counts) - len(rows)]
    padded = pad(rows, padding).contiguous()
    parts = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(parts, padded)
    return [part[:count] for part, count in zip(parts, counts, strict=True)]
