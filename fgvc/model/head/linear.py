"""head=linear: one affine map from features to logits. B batch, D width, C classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearHead(nn.Module):
    """logits = features W^T + b, in float32.

    Args:
        weight_CD, bias_C: any float type; kept as float32 parameters `weight_CD` and `bias_C`.
    """

    def __init__(self, weight_CD: Tensor, bias_C: Tensor) -> None:
        super().__init__()
        assert weight_CD.ndim == 2
        assert bias_C.shape == weight_CD.shape[:1]
        self.weight_CD = nn.Parameter(weight_CD.detach().to(torch.float32).clone())
        self.bias_C = nn.Parameter(bias_C.detach().to(torch.float32).clone())

    def forward(self, feature_BD: Tensor) -> Tensor:
        """Any float feature_BD -> float32 logits_BC."""
        return nn.functional.linear(
            feature_BD.to(self.weight_CD.dtype), self.weight_CD, self.bias_C
        )
