"""head=mlp: one hidden layer. B batch, D width, H hidden units, C classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class MlpHead(nn.Module):
    """logits = dropout(gelu(standardised feature W^T + b)) V^T + c, in float32.

    Every feature is first brought to mean 0 and variance 1 over its D numbers, so that one learning
    rate serves backbones whose features differ a hundredfold in scale, and nothing but the weights
    has to be stored. Dropout (of hidden units, while training) draws from torch's global generator
    in a fit on cached features; task=train replaces it by draws per image.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        classes: int,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        assert min(features, hidden, classes) > 0
        assert 0 <= dropout < 1
        self.hidden_HD = nn.Parameter(_initial_weight(hidden, features, generator))
        self.hidden_H = nn.Parameter(torch.zeros(hidden))
        self.weight_CH = nn.Parameter(_initial_weight(classes, hidden, generator))
        self.bias_C = nn.Parameter(torch.zeros(classes))
        self.dropout = nn.Dropout(dropout)

    def forward(self, feature_BD: Tensor) -> Tensor:
        """Any float feature_BD -> float32 logits_BC."""
        feature_BD = functional.layer_norm(
            feature_BD.to(self.hidden_HD.dtype), feature_BD.shape[1:]
        )
        hidden_BH = functional.gelu(functional.linear(feature_BD, self.hidden_HD, self.hidden_H))
        hidden_BH = self.dropout(hidden_BH)
        return functional.linear(hidden_BH, self.weight_CH, self.bias_C)


def _initial_weight(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Normal, of a variance that keeps that of the input."""
    return torch.randn(rows, columns, generator=generator) / math.sqrt(columns)
