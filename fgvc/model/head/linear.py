"""head=linear: one affine map; in a probe, multinomial logistic regression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import MISSING

from fgvc.config.schema.head import HeadSpec

if TYPE_CHECKING:
    from torch import Generator

    from fgvc.model.head_layers import LinearHead

TENSORS = {"weight_CD": "CD", "bias_C": "C"}


@dataclass
class LinearOptions:
    """A linear head has no options."""

    name: str = MISSING


def build(options: LinearOptions, sizes: Mapping[str, int], generator: Generator) -> LinearHead:
    """A head of zeros, so that no random gradient reaches the backbone."""
    import torch

    from fgvc.model.head_layers import LinearHead

    return LinearHead(torch.zeros(sizes["C"], sizes["D"]), torch.zeros(sizes["C"]))


HEAD = HeadSpec(LinearOptions, TENSORS, build, fit="logistic")
