"""head=text: class names as directions in the space that images and text share; nothing is learnt.

B batch, D width of that space, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgvc.model.head.l2_normalize import l2_normalize


class TextHead(nn.Module):
    """logits = scale cos(feature, t_c), in float32.

    weight_CD: a text feature per class, normalised here, kept as float32 buffer. scale: the tower's
    own factor (the inverse of its temperature), kept as float32 buffer. A bias that all classes
    share, as SigLIP's, cancels in the softmax and is left out.
    """

    weight_CD: Tensor
    scale: Tensor

    def __init__(self, weight_CD: Tensor, scale: float) -> None:
        super().__init__()
        assert weight_CD.ndim == 2
        assert scale > 0
        self.register_buffer("weight_CD", l2_normalize(weight_CD.detach()).clone())
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    def forward(self, feature_BD: Tensor) -> Tensor:
        """Any float feature_BD -> float32 logits_BC, within -scale..scale."""
        return self.scale * (l2_normalize(feature_BD) @ self.weight_CD.T)
