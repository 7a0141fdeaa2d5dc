"""Registry keys -> pixel statistics, and the preprocessing of each backbone family, with sources.

The config of a backbone names a key (`backbone.normalization`, `backbone.native`); the numbers are
defined here and in fgvc.config.schema.normalization. "native" is the evaluation preprocessing of
the authors; other libraries do not always agree with it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from fgvc.config.schema.normalization import NORMALIZATIONS, Normalization
from fgvc.types import UserError

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Native:
    """Preprocessing of one family at its authors' image size.

    size: side of the backbone's input in pixels. mode: "crop" (short side to `resize`, then
    the centre) or "squash" (both sides to `resize`). interpolation: bicubic or bilinear.
    normalization: key of NORMALIZATIONS.
    """

    size: int
    mode: str
    resize: int
    interpolation: str
    antialias: bool
    normalization: str


NATIVE: Mapping[str, Native] = {
    # timm, augreg ViT: crop_pct 0.9, so short side floor(224 / 0.9)
    "vit": Native(224, "crop", 248, "bicubic", True, "half"),
    # facebookresearch/dinov2, dinov2/data/transforms.py, classification evaluation
    "dinov2": Native(224, "crop", 256, "bicubic", True, "imagenet"),
    # openai/CLIP, clip/clip.py
    "clip": Native(224, "crop", 224, "bicubic", True, "clip"),
    # google-research/big_vision, SigLIP 2 evaluation: resize(224), values -1..1
    "siglip2": Native(224, "squash", 224, "bilinear", False, "half"),
}


def normalization(key: str) -> Normalization:
    """Statistics of a `backbone.normalization` key; UserError with the nearest key if unknown."""
    return _lookup(NORMALIZATIONS, key, "backbone.normalization")


def native(key: str) -> Native:
    """Preprocessing of a `backbone.native` key; UserError with the nearest key if unknown."""
    return _lookup(NATIVE, key, "backbone.native")


def _lookup(registry: Mapping[str, Entry], key: str, name: str) -> Entry:
    if key not in registry:
        near = difflib.get_close_matches(key, registry, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"{name}={key}: unknown; {hint}(one of {', '.join(registry)})")
    return registry[key]
