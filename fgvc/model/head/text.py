"""head=text: class names as directions in the joint space of images and text; nothing is fitted."""

from __future__ import annotations

from typing import Any

from fgvc.config.schema.fields import NoOptions
from fgvc.config.schema.head import HeadSpec, Sizes


def _build(options: Any, sizes: Sizes, generator: Any) -> Any:
    from fgvc.model.head_layers import TextHead

    return TextHead.zeros(sizes)


def _check(options: Any, tensors: Any, classes: int) -> str | None:
    scale = float(tensors["scale"])
    return None if scale > 0 else f"head.scale={scale}: must be more than 0"


TENSORS = {"weight_CD": "CD", "scale": ""}
HEAD = HeadSpec(NoOptions, TENSORS, _build, fit=None, reads_text=True, check=_check)
