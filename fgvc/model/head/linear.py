"""head=linear: one affine map; in a probe, multinomial logistic regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from fgvc.config.schema.head import HeadSpec, Sizes

TENSORS = {"weight_CD": "CD", "bias_C": "C"}


@dataclass
class LinearOptions:
    """The `head` node of a head without options."""

    name: str = MISSING


def _build(options: Any, sizes: Sizes, generator: Any) -> Any:
    from fgvc.model.head_layers import LinearHead

    return LinearHead.zeros(sizes)  # so that no random gradient reaches the backbone


HEAD = HeadSpec(LinearOptions, TENSORS, _build, fit="logistic")
