"""head=cosine: how far a feature points along each class's direction. B batch, D width, C classes.

Source: the cosine classifier of Gidaris and Komodakis (CVPR 2018, eq. 3).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fgvc.model.head.l2_normalize import l2_normalize


class CosineHead(nn.Module):
    """logits = s cos(feature, w_c), in float32: the lengths of features and weights are nothing.

    The scale is learnt as its logarithm, so that it stays positive; directions start at random.
    """

    def __init__(
        self, features: int, classes: int, scale: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        assert features > 0
        assert classes > 0
        assert scale > 0
        weight_CD = torch.randn(classes, features, generator=generator) / math.sqrt(features)
        self.weight_CD = nn.Parameter(weight_CD)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale), dtype=torch.float32))

    def forward(self, feature_BD: Tensor) -> Tensor:
        """Any float feature_BD -> float32 logits_BC, within -s..s."""
        return self.log_scale.exp() * (l2_normalize(feature_BD) @ l2_normalize(self.weight_CD).T)
