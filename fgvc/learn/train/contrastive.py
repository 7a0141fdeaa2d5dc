"""Features of a batch -> the loss that pulls a class together and pushes look-alikes apart.

Source: TransFG (He et al., AAAI 2022), eq. 10; the mean over all ordered pairs of the batch.
B images of all ranks, b of this one, D feature width.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather
from torch.nn.functional import normalize, pad


def contrastive(feature_BD: Tensor, label_B: Tensor, margin: float) -> Tensor:
    """sum_ij [ y_i = y_j: 1 - cos_ij; else max(cos_ij - margin, 0) ] / B^2; 0 for no image."""
    if not len(label_B):
        return feature_BD.sum()  # 0, with a gradient
    unit_BD = normalize(feature_BD.float(), dim=1)
    cosine_BB = unit_BD @ unit_BD.T
    same_BB = label_B[:, None] == label_B[None]
    return torch.where(same_BB, 1 - cosine_BB, (cosine_BB - margin).clamp(min=0)).mean()


def of_all_ranks(feature_bD: Tensor, label_b: Tensor, world: int) -> tuple[Tensor, Tensor]:
    """The features and labels of every rank, in rank order; gradients flow back to each.

    Ranks may have unequal numbers of images, so they are padded on the way.
    """
    if world == 1:
        return feature_bD, label_b
    counts = [torch.zeros(1, dtype=torch.int64, device=label_b.device) for _ in range(world)]
    distributed.all_gather(counts, torch.tensor([len(label_b)], device=label_b.device))
    most = max(int(count) for count in counts)
    short = most - len(label_b)
    features = all_gather(pad(feature_bD, (0, 0, 0, short)).contiguous())
    labels = [torch.zeros(most, dtype=label_b.dtype, device=label_b.device) for _ in range(world)]
    distributed.all_gather(labels, pad(label_b, (0, short)).contiguous())
    whole = [(part, int(count)) for part, count in zip(features, counts, strict=True)]
    said = [part[: int(count)] for part, count in zip(labels, counts, strict=True)]
    return torch.cat([part[:count] for part, count in whole]), torch.cat(said)
