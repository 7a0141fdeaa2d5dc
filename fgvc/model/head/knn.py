"""head=knn: the votes of the nearest training images, weighted by similarity.

Source: DINO's k-nearest-neighbour protocol (Caron et al., ICCV 2021, appendix F.1).
N training images, D feature width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import MISSING

from fgvc.config.schema.fields import bounded
from fgvc.config.schema.head import HeadSpec

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from fgvc.model.head_layers import KnnHead


@dataclass
class KnnOptions:
    """The number of neighbours, and the temperature of their votes."""

    name: str = MISSING
    k: int = bounded(1, 2**31)
    temperature: float = bounded(1e-6, 1e12)


def fit(options: KnnOptions, x_ND: Tensor, label_N: Tensor, classes: int) -> KnnHead:
    """The bank holds the training features; nothing is fitted or chosen."""
    from fgvc.model.head_layers import KnnHead

    return KnnHead(x_ND, label_N, classes, options.k, options.temperature)


def build(options: KnnOptions, sizes: Mapping[str, int], generator: Generator) -> KnnHead:
    """A head with an empty bank."""
    import torch

    bank_ND, label_N = torch.zeros(sizes["N"], sizes["D"]), torch.zeros(sizes["N"])
    return fit(options, bank_ND, label_N, sizes["C"])


def check(options: KnnOptions, tensors: Mapping[str, Tensor], classes: int) -> str | None:
    """Labels that are no classes, or too few images, as an error message."""
    low, high = int(tensors["label_N"].min()), int(tensors["label_N"].max())
    if low < 0 or high >= classes:
        return f"label_N holds classes {low} to {high}, but there are {classes}"
    if options.k > len(tensors["label_N"]):
        return f"head.k={options.k}: exceeds the {len(tensors['label_N'])} images of the bank"
    return None


HEAD = HeadSpec(KnnOptions, {"bank_ND": "ND", "label_N": "N"}, build, fit, check=check)
