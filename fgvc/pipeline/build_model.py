"""A config -> its backbone, with overlapping patches, last block and part attention applied."""

from __future__ import annotations

from fgvc.config.schema import Config
from fgvc.model import backbone as backbones
from fgvc.model import part_attention as parts
from fgvc.model.backbone.base import Backbone
from fgvc.model.part_attention import TokenSelector
from fgvc.types import WeightsSource


def build_model(conf: Config, source: WeightsSource) -> tuple[Backbone, TokenSelector | None]:
    """The backbone, and the token selector of part attention; None where it is off.

    Raises:
        UserError: the weights do not fit, or part attention cannot select that many tokens.
    """
    backbone = backbones.build(
        conf.backbone, conf.resolution.side, source, conf.seed, stride_of(conf)
    )
    if getattr(conf.part_attention, "last_block", None) == "random":
        parts.reset_last_block(backbone, conf.seed)
    return backbone, parts.attach_selector(backbone, conf.part_attention, conf.seed)


def stride_of(conf: Config) -> int | None:
    """Pixels from one patch to the next where patches overlap; otherwise None."""
    return getattr(conf.part_attention, "stride", None)
