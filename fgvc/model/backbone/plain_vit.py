"""A model name of timm -> the model, if it is a plain vision transformer; otherwise a UserError.

Plain: square patches from one convolution, blocks of one width, a norm before the pooling.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from torch import nn

from fgvc.config import schema
from fgvc.config.schema import architecture
from fgvc.config.schema.backbone import row_key
from fgvc.types import UserError

CLASS_TOKEN_FEATURES = ("cls", "cls_patch_mean")
SUPPORTED = "fgvc reads plain vision transformers of timm (vit_*, deit_*, dinov2, dinov3)"


def create(conf: schema.Backbone, side: int) -> Any:
    """The model of the chosen row for `side` pixels, with its initial values.

    Raises:
        UserError: timm has no such model or tag, the model is no plain vision transformer, or it
            lacks the class token that `features` reads.
    """
    import timm

    row = schema.chosen_checkpoint(conf)
    architecture.check_chosen(conf)
    key = f"{row_key(conf)}.model={row.model}"
    name = row.model.partition(".")[0]
    if not timm.is_model(name):
        similar = similar_hint(name, timm.list_models(), cutoff=0.6)
        raise UserError(f"{key}: timm has no such model{similar}. timm.list_models() lists all")
    tags = [other.partition(".")[2] for other in timm.list_pretrained(f"{name}.*")]
    if (tag := row.model.partition(".")[2]) and tag not in tags:
        raise UserError(f"{key}: timm has no tag {tag} of {name}, only {', '.join(tags) or 'none'}")
    try:
        trunk = timm.create_model(
            row.model, pretrained=False, num_classes=0, img_size=side, **row.architecture
        )
    except Exception as error:  # each class rejects unknown arguments in its own way
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
        raise UserError(f"{key}: cannot be built ({reason}). {_supported_models(name)}") from error
    if (unsupported := _unsupported_reason(trunk)) is not None:
        raise UserError(f"{key}: {unsupported}. {_supported_models(name)}")
    if conf.features in CLASS_TOKEN_FEATURES and getattr(trunk, "cls_token", None) is None:
        raise UserError(
            f"backbone.features={conf.features}: {row.model} has no class token. Set "
            "backbone.features=patch_mean"
        )
    return trunk


def similar_hint(
    name: str, names: Sequence[str], cutoff: float = 0.4, before: str = "; nearest: "
) -> str:
    """Up to three similar names after the words `before`; empty if no name is similar."""
    similar = difflib.get_close_matches(name, names, n=3, cutoff=cutoff)
    return f"{before}{', '.join(similar)}" if similar else ""


def _unsupported_reason(trunk: nn.Module) -> str | None:
    """Why a model of timm is no plain vision transformer; None for a plain one."""
    from timm.layers.patch_embed import PatchEmbed
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    class_name, patch_embed = type(trunk).__name__, getattr(trunk, "patch_embed", None)
    if not isinstance(trunk, VisionTransformer | Eva):
        return f"a {class_name}, no plain vision transformer"
    if not isinstance(patch_embed, PatchEmbed):
        return f"its patches come from a {type(patch_embed).__name__}, not from one convolution"
    if not isinstance(getattr(trunk, "fc_norm", None), nn.Identity | None):
        return "its norm follows the pooling (fc_norm)"
    if not all(hasattr(getattr(block, "attn", None), "num_heads") for block in trunk.blocks):
        return f"its blocks are of another kind ({type(trunk.blocks[0]).__name__})"
    return None


def _supported_models(name: str) -> str:
    """The supported kinds of models, with similar names."""
    import timm

    excluded = ["*relpos*", "*gap*", "*rope*", "*_18x2_*"]
    plain_models = timm.list_models(["vit_*_patch*_224", "deit*_patch*"], exclude_filters=excluded)
    others = [other for other in plain_models if other != name]
    return f"{SUPPORTED}{similar_hint(name, others, before=', such as ')}"
