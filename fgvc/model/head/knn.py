"""head=knn: the votes of the nearest training images, weighted by similarity.

Source: DINO's k-nearest-neighbour protocol (Caron et al., ICCV 2021, appendix F.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from fgvc.config.schema.fields import bounded
from fgvc.config.schema.head import HeadSpec


@dataclass
class KnnOptions:
    name: str = MISSING
    k: int = bounded(1, 2**31)
    temperature: float = bounded(1e-6, 1e12)


def _fit(options: KnnOptions, x_ND: Any, label_N: Any, classes: int) -> Any:
    """The bank holds the training features; nothing is fitted or chosen."""
    from fgvc.model.head_layers import KnnHead

    return KnnHead(x_ND, label_N, classes, options.k, options.temperature, overwrite=True)


def _check(tensors: Any, classes: int) -> str | None:
    low, high = int(tensors["label_N"].min()), int(tensors["label_N"].max())
    if low >= 0 and high < classes:
        return None
    return f"label_N holds classes {low} to {high}, but there are {classes}"


HEAD = HeadSpec(KnnOptions, "KnnHead", _fit, bank="bank_ND", check=_check)
