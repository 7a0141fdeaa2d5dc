"""head= axis: pooled features -> logits, one module per choice; `stored` reads any checkpoint's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fgvc.model.head.knn import KnnHead
from fgvc.model.head.linear import LinearHead
from fgvc.types import UserError

__all__ = ["KnnHead", "LinearHead", "stored"]


def stored(choice: Mapping[str, Any], tensors: Mapping[str, Tensor], classes: int) -> nn.Module:
    """The head of a checkpoint, bit for bit.

    Args:
        choice: the `head` node of its config.
        tensors: the head's state dict.

    Raises:
        UserError: a head that this version does not know.
    """
    if choice["name"] == "linear":
        head: nn.Module = LinearHead(tensors["weight_CD"], tensors["bias_C"])
    elif choice["name"] == "knn":
        bank_ND, label_N = tensors["bank_ND"], tensors["label_N"]
        head = KnnHead(bank_ND, label_N, classes, choice["k"], choice["temperature"])
    else:
        raise UserError(f"the checkpoint holds head={choice['name']}, which this version lacks")
    head.load_state_dict(dict(tensors))  # as it was stored: building a bank normalises it again
    return head.eval()
