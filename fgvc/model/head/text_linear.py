"""head=text_linear: an affine map of unit features, drawn towards the class names' text features.

As weights scale * t_c and no bias are the classifier of head=text, it is where the fit starts.
B batch, D width, C classes.
"""

from __future__ import annotations

from torch import Tensor

from fgvc.model.head.l2_normalize import l2_normalize
from fgvc.model.head.linear import LinearHead


class TextLinearHead(LinearHead):
    """logits = features / |features| W^T + b, in float32; arguments as LinearHead."""

    def forward(self, feature_BD: Tensor) -> Tensor:
        """Any float feature_BD -> float32 logits_BC."""
        return super().forward(l2_normalize(feature_BD))
