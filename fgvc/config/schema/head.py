"""head= axis: a feature -> logits."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from fgvc.config.schema.fields import bounded


@dataclass
class LinearHead:
    """head=linear: multinomial logistic regression (probe)."""

    name: str = MISSING


@dataclass
class KnnHead:
    """head=knn: weighted nearest neighbours (probe)."""

    name: str = MISSING
    k: int = bounded(1)
    temperature: float = bounded(1e-6)


@dataclass
class GradientFit:
    """How a probe fits a head without a convex objective to cached features.

    Validation chooses among all pairs of a learning rate and a weight decay, and the epoch.
    """

    epochs: int = bounded(1)
    batch_size: int = bounded(1)
    learning_rates: list[float] = MISSING
    weight_decays: list[float] = MISSING


@dataclass
class CosineHead:
    """head=cosine: scaled cosine between the feature and a weight per class."""

    name: str = MISSING
    scale: float = bounded(1e-6)  # initial value; learned
    fit: GradientFit = field(default_factory=GradientFit)


@dataclass
class MlpHead:
    """head=mlp: one hidden layer."""

    name: str = MISSING
    hidden: int = bounded(1)
    dropout: float = bounded(0.0, 0.99)
    fit: GradientFit = field(default_factory=GradientFit)


@dataclass
class TextHead:
    """head=text: the text features of the class names (zero_shot)."""

    name: str = MISSING


@dataclass
class TextLinearHead:
    """head=text_linear: logistic regression regularized towards the class names' text features."""

    name: str = MISSING
