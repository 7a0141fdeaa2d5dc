"""head=text: class names as directions in the joint space of images and text; nothing is fitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fgvc.config.schema.head import HeadSpec
from fgvc.model.head.linear import LinearOptions

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from fgvc.model.head_layers import TextHead


def build(options: LinearOptions, sizes: Mapping[str, int], generator: Generator) -> TextHead:
    """A head of zeros, for the text features."""
    import torch

    from fgvc.model.head_layers import TextHead

    return TextHead(torch.zeros(sizes["C"], sizes["D"]), 1.0)


def check(options: LinearOptions, tensors: Mapping[str, Tensor], classes: int) -> str | None:
    """A scale that is not positive, as an error message."""
    scale = float(tensors["scale"])
    return None if scale > 0 else f"head.scale={scale}: must be more than 0"


HEAD = HeadSpec(
    LinearOptions, {"weight_CD": "CD", "scale": ""}, build, fit=None, reads_text=True, check=check
)
