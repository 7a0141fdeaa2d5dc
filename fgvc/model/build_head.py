"""A head= and its options -> a head to be trained by gradients, or the head of a checkpoint.

C classes, D feature width.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from fgvc.config.schema.head import HeadSpec, heads
from fgvc.types import UserError


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
    generator = torch.Generator().manual_seed(seed)
    return heads()[options.name].build(options, {"C": classes, "D": features}, generator)


def load_head(
    node: Mapping[str, Any], tensors: Mapping[str, Tensor], classes: int, features: int
) -> nn.Module:
    """The head of a checkpoint, bit for bit; its options and tensors are checked first.

    Args:
        node: the `head` node of its config.
        tensors: the head's state dict.
        classes: number of classes.
        features: width of its input features.

    Raises:
        UserError: a head that this version lacks, or options or tensors that do not fit it; one
            line that begins with the option or the tensor.
    """
    name = node.get("name")
    if not isinstance(name, str) or name not in heads():
        raise UserError(f"the checkpoint holds head={name}, which this version lacks")
    spec = heads()[name]
    options = _checked_options(spec, node)
    sizes = _checked_sizes(name, spec, tensors, classes, features)
    if spec.check is not None and (reason := spec.check(options, tensors, classes)) is not None:
        raise UserError(reason)
    head = spec.build(options, sizes, torch.Generator())
    head.load_state_dict(dict(tensors))  # replaces the values that the constructor made
    return head.eval()


def _checked_options(spec: HeadSpec, node: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(spec.options)
    for item in fields(spec.options):
        value, (low, high) = node.get(item.name), item.metadata.get("bounds", (None, None))
        kind = int if hints[item.name] is int else int | float
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        if low is not None and not (is_number and low <= value <= high):
            text = str(value)[:60]
            raise UserError(f"head.{item.name}={text}: must be from {low:g} to {high:g}")
    return spec.options(**{item.name: node.get(item.name) for item in fields(spec.options)})


def _checked_sizes(
    name: str, spec: HeadSpec, tensors: Mapping[str, Tensor], classes: int, features: int
) -> dict[str, int]:
    """The sizes of the axes, after a check of the names, shapes, types and values of tensors."""
    names = spec.tensors.keys()
    if tensors.keys() != names:
        missing, unexpected = sorted(names - tensors.keys()), sorted(tensors.keys() - names)
        raise UserError(
            f"head={name}: the checkpoint lacks {', '.join(missing) or 'nothing'} and has "
            f"{', '.join(unexpected[:3]) or 'nothing'} in addition"
        )
    sizes = {"C": classes, "D": features}
    for key, letters in spec.tensors.items():
        _check_tensor(key, tensors[key], letters, sizes)
    return sizes


def _check_tensor(key: str, tensor: Tensor, letters: str, sizes: dict[str, int]) -> None:
    """Check shape, dtype and values of a tensor; `sizes` is filled with sizes seen first."""
    expected = [sizes.get(letter, "any") for letter in letters]
    if tensor.ndim != len(letters) or any(
        sizes.setdefault(letter, size) != size or not size
        for letter, size in zip(letters, tensor.shape, strict=True)
    ):
        raise UserError(f"{key} has the shape {list(tensor.shape)}, but its head has {expected}")
    is_integer = key == "label_N"
    if (
        tensor.is_complex()
        or tensor.is_floating_point() == is_integer
        or tensor.dtype is torch.bool
    ):
        raise UserError(f"{key} holds {tensor.dtype}, not {'integers' if is_integer else 'floats'}")
    if not is_integer and not tensor.isfinite().all():
        raise UserError(f"{key} holds NaN or infinity")
