"""A model name of timm -> the model, if it is a plain vision transformer; otherwise one line.

Plain: square patches of one convolution, blocks of one width, a norm before the tokens are pooled.
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
        UserError: timm has no such model or tag, it is no plain vision transformer, or it lacks the
            class token that `features` reads.
    """
    import timm

    row = schema.chosen_checkpoint(conf)
    architecture.check_chosen(conf)
    key = f"{row_key(conf)}.model={row.model}"
    name = row.model.partition(".")[0]
    if not timm.is_model(name):
        near = similar_names(name, timm.list_models(), cutoff=0.6)
        raise UserError(
            f"{key}: timm has no such model{near and f'; nearest: {near}'}. timm.list_models() "
            "lists all"
        )
    tags = [other.partition(".")[2] for other in timm.list_pretrained(f"{name}.*")]
    if (tag := row.model.partition(".")[2]) and tag not in tags:
        raise UserError(f"{key}: timm has no tag {tag} of {name}, only {', '.join(tags) or 'none'}")
    try:
        trunk = timm.create_model(
            row.model, pretrained=False, num_classes=0, img_size=side, **row.architecture
        )
    except Exception as error:  # each kind of model rejects what it does not know in its own way
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
        raise UserError(f"{key}: cannot be built ({reason}). {_supported_models(name)}") from error
    if (why := _unsupported_reason(trunk)) is not None:
        raise UserError(f"{key}: {why}. {_supported_models(name)}")
    if conf.features in CLASS_TOKEN_FEATURES and getattr(trunk, "cls_token", None) is None:
        raise UserError(
            f"backbone.features={conf.features}: {row.model} has no class token. Set "
            "backbone.features=patch_mean"
        )
    return trunk


def similar_names(name: str, names: Sequence[str], cutoff: float = 0.4) -> str:
    """The three most similar names, separated by commas; empty if none is similar."""
    return ", ".join(difflib.get_close_matches(name, names, n=3, cutoff=cutoff))


def _unsupported_reason(trunk: nn.Module) -> str | None:
    """Why a model of timm is no plain vision transformer; None if it is one."""
    from timm.layers.patch_embed import PatchEmbed
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    kind, patches = type(trunk).__name__, getattr(trunk, "patch_embed", None)
    if not isinstance(trunk, VisionTransformer | Eva):
        return f"a {kind}, no plain vision transformer"
    if not isinstance(patches, PatchEmbed):
        return f"its patches come from a {type(patches).__name__}, not from one convolution"
    if not isinstance(getattr(trunk, "fc_norm", None), nn.Identity | None):
        return "its norm follows the pooling (fc_norm)"
    if not all(hasattr(getattr(block, "attn", None), "num_heads") for block in trunk.blocks):
        return f"its blocks are of another kind ({type(trunk.blocks[0]).__name__})"
    return None


def _supported_models(name: str) -> str:
    """What is read instead, with names of timm like this one."""
    import timm

    other = ["*relpos*", "*gap*", "*rope*", "*_18x2_*"]
    plain = timm.list_models(["vit_*_patch*_224", "deit*_patch*"], exclude_filters=other)
    near = similar_names(name, [other for other in plain if other != name])
    return f"{SUPPORTED}{near and f', such as {near}'}"
