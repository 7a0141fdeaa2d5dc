"""head= axis: pooled features -> logits, one module per choice.

`fresh` begins a head that gradients will train; `stored` reads that of any checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fgvc.config import schema
from fgvc.model.head.cosine import CosineHead
from fgvc.model.head.knn import KnnHead
from fgvc.model.head.l2_normalize import l2_normalize
from fgvc.model.head.linear import LinearHead
from fgvc.model.head.mlp import MlpHead
from fgvc.model.head.stored_head import check_stored_head
from fgvc.model.head.text import TextHead
from fgvc.model.head.text_linear import TextLinearHead
from fgvc.types import UserError

__all__ = [
    "CosineHead",
    "KnnHead",
    "LinearHead",
    "MlpHead",
    "TextHead",
    "TextLinearHead",
    "l2_normalize",
    "load_head",
    "new_head",
]


def new_head(conf: object, features: int, classes: int, seed: int) -> nn.Module:
    """A head to be trained by gradients.

    A linear one starts from zeros, which sends nothing random into a backbone behind it.

    Args:
        conf: the `head` node. TextLinearHead begins with text features: build it itself.
        features: width of the features.
        seed: of the initial weights; torch's global generator is left alone.

    Raises:
        UserError: a head that gradients do not train.
    """
    generator = torch.Generator().manual_seed(seed)
    match conf:
        case schema.LinearHead():
            return LinearHead(torch.zeros(classes, features), torch.zeros(classes))
        case schema.CosineHead():
            return CosineHead(features, classes, conf.scale, generator)
        case schema.MlpHead():
            return MlpHead(features, conf.hidden, classes, conf.dropout, generator)
    name = getattr(conf, "name", conf)
    raise UserError(f"head={name} is not trained by gradients: use head=linear, cosine or mlp")


def load_head(
    choice: Mapping[str, Any], tensors: Mapping[str, Tensor], classes: int, features: int
) -> nn.Module:
    """The head of a checkpoint, bit for bit.

    Args:
        choice: the `head` node of its config.
        tensors: the head's state dict.
        features: width of the features that it reads.

    Raises:
        UserError: a head that this version does not know, or tensors that are not those of it.
    """
    check_stored_head(choice, tensors, classes, features)
    head = _build_like(choice, tensors, classes)
    head.load_state_dict(dict(tensors))  # as it was stored: a constructor normalises or draws again
    return head.eval()


def _build_like(
    choice: Mapping[str, Any], tensors: Mapping[str, Tensor], classes: int
) -> nn.Module:
    """A head whose tensors have the shapes of these."""
    drawn = torch.Generator()  # its numbers are overwritten
    match choice["name"]:
        case "linear":
            return LinearHead(tensors["weight_CD"], tensors["bias_C"])
        case "text_linear":
            return TextLinearHead(tensors["weight_CD"], tensors["bias_C"])
        case "text":
            return TextHead(tensors["weight_CD"], float(tensors["scale"]))
        case "cosine":
            return CosineHead(tensors["weight_CD"].shape[1], classes, choice["scale"], drawn)
        case "mlp":
            width = tensors["hidden_HD"].shape[1]
            return MlpHead(width, choice["hidden"], classes, choice["dropout"], drawn)
        case "knn":
            bank_ND, label_N = tensors["bank_ND"], tensors["label_N"]
            return KnnHead(bank_ND, label_N, classes, choice["k"], choice["temperature"])
    raise UserError(f"the checkpoint holds head={choice['name']}, which this version lacks")
