"""backbone= axis: normalised pixels -> tokens, and class names -> text features.

    weights.find(conf) -> where the weights are
    build(conf, side, source, seed, stride) -> the frozen model
    text_tower(conf, source, seed) -> the text half of a family that has one

One module per library. Importing this package is cheap: a library is imported when a backbone of it
is built.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fgvc.config import schema
from fgvc.config.schema.library import LIBRARIES
from fgvc.types import UserError, WeightsSource

if TYPE_CHECKING:
    from fgvc.model.backbone.base import Backbone, TextTower


def build(
    conf: schema.Backbone, side: int, source: WeightsSource, seed: int, stride: int | None = None
) -> Backbone:
    """The frozen backbone that `conf` chooses, for square images of `side` pixels.

    Args:
        stride: pixels from one patch to the next, without padding; None: the side of a patch, so
            that patches do not overlap. Positions are resized to the resulting grid by the method
            `conf.position_resize`.

    Raises:
        UserError: the weights do not fit the model, the family has no such `features`, or `stride`
            exceeds the patch.
    """
    return _family_module(conf).build(conf, side, source, seed, stride)


def text_tower(conf: schema.Backbone, source: WeightsSource, seed: int) -> TextTower:
    """The frozen text tower that belongs to the chosen backbone, from the same weights.

    Raises:
        UserError: the family has none, its tokenizer is missing, or the weights do not fit.
    """
    if schema.chosen_checkpoint(conf).embedding is None:
        raise UserError(
            f"backbone={conf.name} has no text tower: class names are read by backbone=clip and "
            "backbone=siglip2"
        )
    return _family_module(conf).text_tower(conf, source, seed)


def _family_module(conf: schema.Backbone) -> Any:
    return importlib.import_module(f"{__name__}.{LIBRARIES[conf.library].module}")
