"""A model without values -> the model with the tensors of a file, or random ones from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from fgvc.types import UserError

Model = TypeVar("Model")
Shapes = Mapping[str, tuple[int, ...]]


def load_strict(
    model: nn.Module, state: Mapping[str, Tensor], path: Path, name: str, hint: str = ""
) -> None:
    """Fill every parameter and buffer; `model` may be on the meta device.

    Args:
        hint: what to add to the message if the state does not fit.

    Raises:
        UserError: the state and the model differ in a key or a shape (names the first difference,
            counts all), or a tensor holds integers in place of floats, NaN or infinity.
    """
    model_state = model.state_dict()
    difference = _shape_difference(_shapes(state), _shapes(model_state))
    if difference is not None:
        raise UserError(f"weights {path} do not fit {name}: {difference}{hint}")
    _check_dtypes(state, model_state, path)
    # copies, because a tensor of a .safetensors file is a view of the file
    values = {
        key: state[key].to(model_state[key].dtype, copy=True).contiguous() for key in model_state
    }
    _check_finite(values, path)
    model.load_state_dict(values, assign=True)
    tensors = chain(model.named_parameters(), model.named_buffers())
    empty = [key for key, tensor in tensors if tensor.is_meta]
    assert not empty, f"{name}: {empty} are neither in the file nor computed"


def init_from_seed(create: Callable[[], Model], seed: int) -> Model:
    """The model with random values from `seed`; torch's global generator is not changed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return create()


@torch.no_grad()
def count_macs(model: nn.Module, pixels_BCHW: Tensor) -> int:
    """Multiply-accumulates of one forward pass, counted from shapes: two FLOPs each."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(pixels_BCHW)
    return counter.get_total_flops() // 2


def _shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {key: tuple(value.shape) for key, value in state.items()}


def _check_dtypes(
    state: Mapping[str, Tensor], model_state: Mapping[str, Tensor], path: Path
) -> None:
    for key, model_tensor in model_state.items():
        tensor = state[key]
        is_plain = tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized
        if not is_plain or tensor.is_floating_point() != model_tensor.is_floating_point():
            kind = "no values" if tensor.is_meta else str(tensor.dtype).removeprefix("torch.")
            raise UserError(
                f"weights {path}: {key} holds {kind}, not plain {model_tensor.dtype}: quantized or "
                "sparse weights are not read; take the model as it was before"
            )


def _check_finite(values: Mapping[str, Tensor], path: Path) -> None:
    """Refuse NaN or infinity, which would otherwise surface as NaN in a feature or in the loss."""
    # a non-finite value makes the sum non-finite, and a sum is as fast as reading
    suspect = {key: value for key, value in values.items() if not value.sum().isfinite()}
    counts = {key: int((~value.isfinite()).sum()) for key, value in suspect.items()}
    nonfinite_counts = {key: count for key, count in counts.items() if count}
    if nonfinite_counts:
        key = next(iter(nonfinite_counts))
        others = (
            f", and {len(nonfinite_counts) - 1} other tensors hold such values"
            if len(nonfinite_counts) > 1
            else ""
        )
        raise UserError(
            f"weights {path}: {nonfinite_counts[key]} of the {values[key].numel()} values of {key} "
            f"are NaN or infinite{others}: the file is damaged or its training diverged; download "
            "it again, or take an earlier checkpoint"
        )


def first_difference(
    tensors: Mapping[str, Tensor], model_tensors: Mapping[str, Tensor]
) -> str | None:
    """The first reason why tensors cannot replace those of a model bit for bit; None if they can.

    Compared are names, shapes and kinds of numbers; NaN and infinity are refused.
    """
    if (difference := _shape_difference(_shapes(tensors), _shapes(model_tensors))) is not None:
        return difference
    for key, tensor in tensors.items():
        if (
            tensor.is_floating_point() != model_tensors[key].is_floating_point()
            or tensor.is_complex()
        ):
            return f"{key} holds {tensor.dtype}, not {model_tensors[key].dtype}"
        # a non-finite value makes the sum non-finite, and a sum is as fast as reading
        suspect = tensor.is_floating_point() and not tensor.sum().isfinite()
        if suspect and not tensor.isfinite().all():
            return f"{key} holds NaN or infinity"
    return None


def _shape_difference(file_shapes: Shapes, model_shapes: Shapes) -> str | None:
    reshaped = [
        key for key in model_shapes if key in file_shapes and file_shapes[key] != model_shapes[key]
    ]
    missing = [key for key in model_shapes if key not in file_shapes]
    unexpected = [key for key in file_shapes if key not in model_shapes]
    if not reshaped + missing + unexpected:
        return None
    key = (reshaped + missing + unexpected)[0]
    return (
        f"{key} is {file_shapes.get(key, 'absent')} in the file and "
        f"{model_shapes.get(key, 'absent')} in the model; {len(reshaped)} of another shape, "
        f"{len(missing)} missing, {len(unexpected)} unexpected"
    )
