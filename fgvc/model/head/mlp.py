"""head=mlp: one hidden layer between the feature and the classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from fgvc.config.schema.fields import bounded
from fgvc.config.schema.head import GradientFit, HeadSpec, Sizes


@dataclass
class MlpOptions:
    """The `head` node of head=mlp."""

    name: str = MISSING
    hidden: int = bounded(1, 2**20)
    dropout: float = bounded(0.0, 0.99)
    fit: GradientFit = field(default_factory=GradientFit)


def _build(options: MlpOptions, sizes: Sizes, generator: Any) -> Any:
    from fgvc.model.head_layers import MlpHead

    return MlpHead(sizes["D"], options.hidden, sizes["C"], options.dropout, generator)


def _check(options: MlpOptions, tensors: Any, classes: int) -> str | None:
    hidden = len(tensors["hidden_HD"])
    return None if options.hidden == hidden else f"head.hidden={options.hidden}: must be {hidden}"


TENSORS = {"hidden_HD": "HD", "hidden_H": "H", "weight_CH": "CH", "bias_C": "C"}
HEAD = HeadSpec(MlpOptions, TENSORS, _build, fit="gradient", check=_check)
