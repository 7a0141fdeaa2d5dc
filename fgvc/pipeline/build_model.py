"""A config -> the backbone it means: overlapping patches, last block and part attention with it."""

from __future__ import annotations

from fgvc.config.schema import Config
from fgvc.model import backbone as backbones
from fgvc.model import part_attention as parts
from fgvc.model.backbone import Backbone
from fgvc.model.part_attention import TokenSelector
from fgvc.types import WeightsSource


def build_model(conf: Config, source: WeightsSource) -> tuple[Backbone, TokenSelector | None]:
    """The backbone, and what its part attention keeps; None where every token counts.

    Raises:
        UserError: the weights do not fit, or so many tokens cannot be kept.
    """
    chosen = conf.part_attention
    backbone = backbones.build(
        conf.backbone, conf.resolution.side, source, conf.seed, stride_of(conf)
    )
    if getattr(chosen, "last_block", None) == "random":
        parts.reset_last_block(backbone, conf.seed)
    return backbone, parts.attach_selector(backbone, chosen, conf.seed)


def stride_of(conf: Config) -> int | None:
    """Pixels between patches where they overlap; None where they do not."""
    return getattr(conf.part_attention, "stride", None)
