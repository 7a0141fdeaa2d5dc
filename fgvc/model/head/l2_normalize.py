"""Features -> features of unit length, the one way for every head that compares directions."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def l2_normalize(feature_BD: Tensor) -> Tensor:
    """Rows of unit length in float32; a row of zeros stays. B batch, D width."""
    return nn.functional.normalize(feature_BD.to(torch.float32), dim=1, eps=1e-12)
