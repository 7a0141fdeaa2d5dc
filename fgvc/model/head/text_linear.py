"""head=text_linear: an affine map of unit features, regularised towards the text features of names.

The fit starts from weights scale * t_c and no bias, which is the classifier of head=text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fgvc.config.schema.head import HeadSpec
from fgvc.model.head.linear import TENSORS, LinearOptions

if TYPE_CHECKING:
    from torch import Generator

    from fgvc.model.head_layers import TextLinearHead


def build(options: LinearOptions, sizes: Mapping[str, int], generator: Generator) -> TextLinearHead:
    """A head of zeros, for the weights of a fit or of the text features."""
    import torch

    from fgvc.model.head_layers import TextLinearHead

    return TextLinearHead(torch.zeros(sizes["C"], sizes["D"]), torch.zeros(sizes["C"]))


HEAD = HeadSpec(LinearOptions, TENSORS, build, fit="logistic", reads_text=True)
