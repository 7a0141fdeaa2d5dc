"""Keys of `backbone.normalization` -> mean and standard deviation per RGB channel, with sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Normalization:
    """(x / 255 - mean) / std per RGB channel."""

    mean: Rgb
    std: Rgb
    source: str


NORMALIZATIONS: Mapping[str, Normalization] = {
    "imagenet": Normalization(
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        source="ImageNet statistics as torchvision publishes them",
    ),
    "half": Normalization(
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        source="scaling to -1..1, as in Google's ViT and SigLIP",
    ),
    "clip": Normalization(
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        source="openai/CLIP, clip/clip.py",
    ),
}
