"""A head= and its options -> a head to be trained by gradients, or the head of a checkpoint.

C classes, D feature width, N training images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fgvc.config.schema.head import heads
from fgvc.model import head_layers
from fgvc.model.backbone.load_state import first_difference
from fgvc.types import UserError


def build(options: Any, sizes: head_layers.Sizes, generator: torch.Generator) -> nn.Module:
    """The head that the `head` node chooses, with initial values."""
    layer = getattr(head_layers, heads()[options.name].layer)
    return layer.create(options, sizes, generator)


def new_head(options: Any, features: int, classes: int, seed: int) -> nn.Module:
    """A head to be trained by gradients.

    Args:
        options: the `head` node.
        features: width of the features.
        seed: of the initial weights; torch's global generator is not used.

    Raises:
        UserError: a head that gradients do not train.
    """
    if not heads()[options.name].learns:
        trained = ", ".join(name for name, spec in heads().items() if spec.learns)
        raise UserError(f"head={options.name} is not trained by gradients: use head= of {trained}")
    return build(options, {"C": classes, "D": features}, torch.Generator().manual_seed(seed))


def load_head(
    options: Any, tensors: Mapping[str, Tensor], classes: int, features: int
) -> nn.Module:
    """The head of a checkpoint, bit for bit; its tensors are checked before any is allocated.

    Args:
        options: the `head` node of its config.
        tensors: the head's state dict.
        features: width of its input features.

    Raises:
        UserError: tensors that are not those of such a head; one line.
    """
    spec = heads()[options.name]
    sizes = {"C": classes, "D": features}
    if spec.bank is not None:
        bank = tensors.get(spec.bank)
        if bank is None or not bank.ndim:
            shape = "missing" if bank is None else "()"
            raise UserError(f"head={options.name}: {spec.bank} is {shape}, not a row per image")
        sizes["N"] = len(bank)
    with torch.device("meta"):
        head = build(options, sizes, torch.Generator())
    if (difference := first_difference(tensors, head.state_dict())) is not None:
        raise UserError(f"head={options.name}: {difference}")
    if spec.check is not None and (reason := spec.check(tensors, classes)) is not None:
        raise UserError(reason)
    if spec.bank is None:  # a head with a bank has no tensors but those of the checkpoint
        head = build(options, sizes, torch.Generator())
    head.load_state_dict(dict(tensors), assign=True)  # without a copy, because a bank is large
    return head.eval()
