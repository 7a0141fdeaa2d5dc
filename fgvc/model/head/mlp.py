"""head=mlp: one hidden layer between the feature and the classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from omegaconf import MISSING

from fgvc.config.schema.fields import bounded
from fgvc.config.schema.head import GradientFit, HeadSpec

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from fgvc.model.head_layers import MlpHead


@dataclass
class MlpOptions:
    """Width of the hidden layer, and the share of its units that training drops."""

    name: str = MISSING
    hidden: int = bounded(1, 2**20)
    dropout: float = bounded(0.0, 0.99)
    fit: GradientFit = field(default_factory=GradientFit)


def build(options: MlpOptions, sizes: Mapping[str, int], generator: Generator) -> MlpHead:
    """A head with random weights."""
    from fgvc.model.head_layers import MlpHead

    return MlpHead(sizes["D"], options.hidden, sizes["C"], options.dropout, generator)


def check(options: MlpOptions, tensors: Mapping[str, Tensor], classes: int) -> str | None:
    """Another number of hidden units than the option states, as an error message."""
    hidden = len(tensors["hidden_HD"])
    return None if options.hidden == hidden else f"head.hidden={options.hidden}: must be {hidden}"


HEAD = HeadSpec(
    MlpOptions,
    {"hidden_HD": "HD", "hidden_H": "H", "weight_CH": "CH", "bias_C": "C"},
    build,
    fit="gradient",
    check=check,
)
