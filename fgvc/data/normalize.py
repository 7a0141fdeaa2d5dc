"""Registry keys -> pixel statistics, and each backbone family's own preprocessing, with sources.

A backbone's config names a key (`backbone.normalization`, `backbone.native`); the numbers stand
here and in fgvc.config.schema.normalization, once. "native" is what the authors' own evaluation
does; other libraries do not always agree.
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
    """Preprocessing of one family at the size its authors give it.

    size: pixels of the square that reaches the backbone. mode: "crop" (short side to `resize`, then
    the centre) or "squash" (both sides to `resize`). interpolation: bicubic or bilinear.
    normalization: key of NORMALIZATIONS.
    """

    source: str
    size: int
    mode: str
    resize: int
    interpolation: str
    antialias: bool
    normalization: str


NATIVE: Mapping[str, Native] = {
    "vit": Native(
        source="timm, augreg ViT: crop_pct 0.9, so short side floor(224 / 0.9)",
        size=224,
        mode="crop",
        resize=248,
        interpolation="bicubic",
        antialias=True,
        normalization="half",
    ),
    "dinov2": Native(
        source="facebookresearch/dinov2, dinov2/data/transforms.py, classification evaluation",
        size=224,
        mode="crop",
        resize=256,
        interpolation="bicubic",
        antialias=True,
        normalization="imagenet",
    ),
    "clip": Native(
        source="openai/CLIP, clip/clip.py",
        size=224,
        mode="crop",
        resize=224,
        interpolation="bicubic",
        antialias=True,
        normalization="clip",
    ),
    "siglip2": Native(
        source="google-research/big_vision, SigLIP 2 evaluation: resize(224), values -1..1",
        size=224,
        mode="squash",
        resize=224,
        interpolation="bilinear",
        antialias=False,
        normalization="half",
    ),
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
