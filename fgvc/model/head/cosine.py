"""head=cosine: scaled cosine between the feature and a weight vector per class.

Source: the cosine classifier of Gidaris and Komodakis (CVPR 2018, eq. 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from omegaconf import MISSING

from fgvc.config.schema.fields import bounded
from fgvc.config.schema.head import GradientFit, HeadSpec

if TYPE_CHECKING:
    from torch import Generator

    from fgvc.model.head_layers import CosineHead


@dataclass
class CosineOptions:
    """The scale of the logits is learnt; `scale` is its initial value."""

    name: str = MISSING
    scale: float = bounded(1e-6, 1e12)
    fit: GradientFit = field(default_factory=GradientFit)


def build(options: CosineOptions, sizes: Mapping[str, int], generator: Generator) -> CosineHead:
    """A head with random class weights."""
    from fgvc.model.head_layers import CosineHead

    return CosineHead(sizes["D"], sizes["C"], options.scale, generator)


HEAD = HeadSpec(CosineOptions, {"weight_CD": "CD", "log_scale": ""}, build, fit="gradient")
