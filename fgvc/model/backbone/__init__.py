"""backbone= axis: normalised pixels -> tokens, and class names -> text features; one module a door.

    weights.find(conf) -> where the weights lie
    build(conf, side, source, seed, stride) -> the frozen model
    text_tower(conf, source, seed) -> the text half of a family that has one

Importing this package is cheap: the library behind a backbone is imported when one is built.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fgvc.config import schema
from fgvc.types import UserError, WeightsSource

if TYPE_CHECKING:
    from fgvc.model.backbone.base import Backbone, TextTower, autocast

__all__ = ["Backbone", "TextTower", "autocast", "build", "has_text_tower", "text_tower"]

MODULES = {"timm": "timm_vit", "open_clip": "clip", "transformers": "siglip2"}


def build(
    conf: schema.Backbone, side: int, source: WeightsSource, seed: int, stride: int | None = None
) -> Backbone:
    """The frozen backbone that `conf` chooses, for square images of `side` pixels.

    Args:
        stride: pixels from one patch to the next, none padded; None: the patch, so that they abut.
            Positions are resized to the grid that follows, as `conf.position_resize` says.

    Raises:
        UserError: the weights do not fit the model, the family has no such `features`, or `stride`
            exceeds the patch.
    """
    return _family_module(conf).build(conf, side, source, seed, stride)


def has_text_tower(conf: schema.Backbone) -> bool:
    """Whether the chosen checkpoint can read class names; imports nothing."""
    return schema.chosen_checkpoint(conf).embedding is not None


def text_tower(conf: schema.Backbone, source: WeightsSource, seed: int) -> TextTower:
    """The frozen text tower that belongs to the chosen backbone, from the same weights.

    Raises:
        UserError: the family has none, its tokenizer is missing, or the weights do not fit.
    """
    if not has_text_tower(conf):
        raise UserError(
            f"backbone={conf.name} has no text tower: class names are read by backbone=clip and "
            "backbone=siglip2"
        )
    return _family_module(conf).text_tower(conf, source, seed)


def _family_module(conf: schema.Backbone) -> Any:
    return importlib.import_module(f"{__name__}.{MODULES[conf.library]}")


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is asked for."""
    if name in ("Backbone", "TextTower", "autocast"):
        return getattr(importlib.import_module(f"{__name__}.base"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
