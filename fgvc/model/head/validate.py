"""The head of a checkpoint -> a check of its options and tensors, before the head is built.

C classes, D feature width, H hidden units, N rows of a bank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fgvc.types import UserError

AXES: Mapping[str, Mapping[str, str]] = {  # head: tensor: its axes
    "linear": {"weight_CD": "CD", "bias_C": "C"},
    "text_linear": {"weight_CD": "CD", "bias_C": "C"},
    "text": {"weight_CD": "CD", "scale": ""},
    "cosine": {"weight_CD": "CD", "log_scale": ""},
    "mlp": {"hidden_HD": "HD", "hidden_H": "H", "weight_CH": "CH", "bias_C": "C"},
    "knn": {"bank_ND": "ND", "label_N": "N"},
}
OPTION_BOUNDS: Mapping[str, Mapping[str, tuple[float, float]]] = {  # head: option: its bounds
    "cosine": {"scale": (1e-6, 1e12)},
    "mlp": {"hidden": (1, 2**20), "dropout": (0, 0.99)},
    "knn": {"k": (1, 2**31), "temperature": (1e-6, 1e12)},
}


def check_stored_head(
    head_config: Mapping[str, Any], tensors: Mapping[str, Tensor], classes: int, features: int
) -> None:
    """Check options, names, shapes, types and values; nothing is allocated.

    Args:
        head_config: the `head` node of the checkpoint's config.
        features: width of the backbone's features.

    Raises:
        UserError: one line that begins with the option or the tensor.
    """
    name = head_config.get("name")
    if not isinstance(name, str) or name not in AXES:
        raise UserError(f"the checkpoint holds head={name}, which this version lacks")
    _check_options(name, head_config)
    axes = AXES[name]
    if tensors.keys() != axes.keys():
        missing, unexpected = (
            sorted(axes.keys() - tensors.keys()),
            sorted(tensors.keys() - axes.keys()),
        )
        raise UserError(
            f"head={name}: the checkpoint lacks {', '.join(missing) or 'nothing'} and has "
            f"{', '.join(unexpected[:3]) or 'nothing'} in addition"
        )
    sizes = {"C": classes, "D": features} | ({"H": head_config["hidden"]} if name == "mlp" else {})
    for key, letters in axes.items():
        _check_tensor(key, tensors[key], letters, sizes)
    if name == "knn":
        _check_bank(head_config["k"], tensors["label_N"], classes)
    if name == "text" and not tensors["scale"] > 0:
        raise UserError(f"head.scale={float(tensors['scale'])}: must be more than 0")


def _check_options(name: str, head_config: Mapping[str, Any]) -> None:
    for option, (low, high) in OPTION_BOUNDS.get(name, {}).items():
        value: Any = head_config.get(option)
        kind = int if option in ("hidden", "k") else int | float
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if not fits or not low <= value <= high:
            raise UserError(f"head.{option}={str(value)[:60]}: must be from {low:g} to {high:g}")


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


def _check_bank(neighbours: int, label_N: Tensor, classes: int) -> None:
    low, high = int(label_N.min()), int(label_N.max())
    if low < 0 or high >= classes:
        raise UserError(f"label_N holds classes {low} to {high}, but there are {classes}")
    if neighbours > len(label_N):
        raise UserError(f"head.k={neighbours}: exceeds the {len(label_N)} images of the bank")
