"""head=mlp: one hidden layer between the feature and the classes."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from fgvc.config.schema.fields import bounded
from fgvc.config.schema.head import GradientFit, HeadSpec


@dataclass
class MlpOptions:
    name: str = MISSING
    hidden: int = bounded(1, 2**20)
    dropout: float = bounded(0.0, 0.99)
    fit: GradientFit = field(default_factory=GradientFit)


HEAD = HeadSpec(MlpOptions, "MlpHead", fit="gradient")
