"""head=text: class names as directions in the joint space of images and text; nothing is fitted."""

from __future__ import annotations

from typing import Any

from fgvc.config.schema.fields import NoOptions
from fgvc.config.schema.head import HeadSpec


def _check(tensors: Any, classes: int) -> str | None:
    scale = float(tensors["scale"])
    return None if scale > 0 else f"head.scale={scale}: must be more than 0"


HEAD = HeadSpec(NoOptions, "TextHead", fit=None, reads_text=True, check=_check)
