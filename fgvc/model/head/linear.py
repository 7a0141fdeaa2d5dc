"""head=linear: one affine map; in a probe, multinomial logistic regression."""

from __future__ import annotations

from typing import Any

from fgvc.config.schema.fields import NoOptions
from fgvc.config.schema.head import HeadSpec, Sizes

TENSORS = {"weight_CD": "CD", "bias_C": "C"}


def _build(options: Any, sizes: Sizes, generator: Any) -> Any:
    from fgvc.model.head_layers import LinearHead

    return LinearHead.zeros(sizes)  # so that no random gradient reaches the backbone


HEAD = HeadSpec(NoOptions, TENSORS, _build, fit="logistic")
