"""head= axis: pooled features -> logits, one module per choice.

`new_head` makes a head to be trained by gradients; `load_head` restores the head of a checkpoint.
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
from fgvc.model.head.text import TextHead
from fgvc.model.head.text_linear import TextLinearHead
from fgvc.model.head.validate import check_stored_head
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

    A linear head starts from zeros, so that no random gradient reaches the backbone.

    Args:
        conf: the `head` node. A TextLinearHead starts from text features: construct it directly.
        features: width of the features.
        seed: of the initial weights; torch's global generator is not used.

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
    raise UserError(
        f"head={name} is not trained by gradients: use head=linear, cosine, mlp or text_linear"
    )


def load_head(
    head_config: Mapping[str, Any], tensors: Mapping[str, Tensor], classes: int, features: int
) -> nn.Module:
    """The head of a checkpoint, bit for bit.

    Args:
        head_config: the `head` node of its config.
        tensors: the head's state dict.
        classes: number of classes.
        features: width of its input features.

    Raises:
        UserError: a head that this version lacks, or tensors that do not fit the head.
    """
    check_stored_head(head_config, tensors, classes, features)
    head = _build_like(head_config, tensors, classes)
    head.load_state_dict(
        dict(tensors)
    )  # constructors normalise or draw values, which this replaces
    return head.eval()


def _build_like(
    head_config: Mapping[str, Any], tensors: Mapping[str, Tensor], classes: int
) -> nn.Module:
    """A head whose tensors have the shapes of `tensors`."""
    generator = torch.Generator()  # for values that are overwritten
    match head_config["name"]:
        case "linear":
            return LinearHead(tensors["weight_CD"], tensors["bias_C"])
        case "text_linear":
            return TextLinearHead(tensors["weight_CD"], tensors["bias_C"])
        case "text":
            return TextHead(tensors["weight_CD"], float(tensors["scale"]))
        case "cosine":
            return CosineHead(
                tensors["weight_CD"].shape[1], classes, head_config["scale"], generator
            )
        case "mlp":
            width = tensors["hidden_HD"].shape[1]
            return MlpHead(width, head_config["hidden"], classes, head_config["dropout"], generator)
        case "knn":
            bank_ND, label_N = tensors["bank_ND"], tensors["label_N"]
            return KnnHead(bank_ND, label_N, classes, head_config["k"], head_config["temperature"])
    raise UserError(f"the checkpoint holds head={head_config['name']}, which this version lacks")
