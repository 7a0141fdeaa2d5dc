"""head=cosine: scaled cosine between the feature and a weight vector per class.

Source: the cosine classifier of Gidaris and Komodakis (CVPR 2018, eq. 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from fgvc.config.schema.fields import bounded
from fgvc.config.schema.head import GradientFit, HeadSpec


@dataclass
class CosineOptions:
    name: str = MISSING
    scale: float = bounded(1e-6, 1e12)  # initial value; learned
    fit: GradientFit = field(default_factory=GradientFit)


HEAD = HeadSpec(CosineOptions, "CosineHead", fit="gradient")
