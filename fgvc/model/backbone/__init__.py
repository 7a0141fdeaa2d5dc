"""backbone= axis: normalised pixels -> prefix tokens, patch tokens and one pooled feature an image.

    weights.find(conf) -> where the weights lie
    build(conf, side, source, seed) -> the frozen model

Importing this package is cheap: the library behind a backbone is imported when one is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fgvc.config import schema
from fgvc.types import WeightsSource

if TYPE_CHECKING:
    from fgvc.model.backbone.timm_vit import Backbone

__all__ = ["build"]


def build(conf: schema.Backbone, side: int, source: WeightsSource, seed: int) -> Backbone:
    """The frozen backbone that `conf` chooses, for square images of `side` pixels.

    Raises:
        UserError: the weights do not fit the model.
    """
    assert conf.library == "timm", conf.library
    from fgvc.model.backbone import timm_vit

    return timm_vit.build(conf, side, source, seed)
