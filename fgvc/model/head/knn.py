"""head=knn: the votes of the nearest training images, weighted by similarity.

Source: DINO's k-nearest-neighbour protocol (Caron et al., ICCV 2021, appendix F.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from fgvc.config.schema.fields import bounded
from fgvc.config.schema.head import HeadSpec, Sizes


@dataclass
class KnnOptions:
    """The `head` node of head=knn."""

    name: str = MISSING
    k: int = bounded(1, 2**31)
    temperature: float = bounded(1e-6, 1e12)


def _fit(options: KnnOptions, x_ND: Any, label_N: Any, classes: int) -> Any:
    """The bank holds the training features; nothing is fitted or chosen."""
    from fgvc.model.head_layers import KnnHead

    return KnnHead(x_ND, label_N, classes, options.k, options.temperature)


def _build(options: KnnOptions, sizes: Sizes, generator: Any) -> Any:
    import torch

    bank_ND, label_N = torch.zeros(sizes["N"], sizes["D"]), torch.zeros(sizes["N"])
    return _fit(options, bank_ND, label_N, sizes["C"])


def _check(options: KnnOptions, tensors: Any, classes: int) -> str | None:
    low, high = int(tensors["label_N"].min()), int(tensors["label_N"].max())
    if low < 0 or high >= classes:
        return f"label_N holds classes {low} to {high}, but there are {classes}"
    if options.k > len(tensors["label_N"]):
        return f"head.k={options.k}: exceeds the {len(tensors['label_N'])} images of the bank"
    return None


HEAD = HeadSpec(KnnOptions, {"bank_ND": "ND", "label_N": "N"}, _build, _fit, check=_check)
