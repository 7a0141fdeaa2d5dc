"""A model without values -> the model with the tensors of a file, or random ones from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fgvc.types import UserError

Model = TypeVar("Model")
# functions that fill a tensor in place, of torch.nn.init and of Tensor
FILLING = frozenset(
    [
        "uniform_",
        "normal_",
        "constant_",
        "zeros_",
        "ones_",
        "trunc_normal_",
        "kaiming_uniform_",
        "kaiming_normal_",
        "xavier_uniform_",
        "xavier_normal_",
        "fill_",
        "zero_",
        "erfinv_",
        "mul_",
        "add_",
        "clamp_",
    ]
)


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
    difference = _shape_difference(state, model_state)
    if difference is not None:
        raise UserError(f"weights {path} do not fit {name}: {difference}{hint}")
    if (fault := _dtype_fault(state, model_state)) is not None:
        raise UserError(
            f"weights {path}: {fault}: quantized or sparse weights are not read; use the original "
            "model"
        )
    # copies, because a tensor of a .safetensors file is a view of the file
    values = {
        key: state[key].to(model_state[key].dtype, copy=True).contiguous() for key in model_state
    }
    if (fault := _nonfinite_fault(values)) is not None:
        raise UserError(
            f"weights {path}: {fault}: the file is damaged or its training diverged; download it "
            "again, or take an earlier checkpoint"
        )
    model.load_state_dict(values, assign=True)
    tensors = chain(model.named_parameters(), model.named_buffers())
    empty = [key for key, tensor in tensors if tensor.is_meta]
    assert not empty, f"{name}: {empty} are neither in the file nor computed"


def init_from_seed(create: Callable[[], Model], seed: int) -> Model:
    """The model with random values from `seed`; torch's global generator is not changed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return create()


class SkipInitialValues(TorchFunctionMode):
    """Context in which a model on the meta device is created in half the time.

    Its tensors have no values, yet each function that fills a tensor would run.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        tensor = args[0] if args else kwargs.get("tensor")
        if getattr(func, "__name__", "") in FILLING and getattr(tensor, "is_meta", False):
            return tensor
        return func(*args, **kwargs)


@torch.no_grad()
def count_macs(
    model: nn.Module, pixels_BCHW: Tensor, formulas: Mapping[Any, Callable[..., int]] | None = None
) -> int:
    """Multiply-accumulates of one forward pass, counted from shapes: two FLOPs each.

    Args:
        formulas: FLOPs of operators that torch does not know, from the shapes of their arguments.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False, custom_mapping=dict(formulas or {})) as counter:
        model(pixels_BCHW)
    return counter.get_total_flops() // 2


def first_difference(
    tensors: Mapping[str, Tensor], model_tensors: Mapping[str, Tensor]
) -> str | None:
    """The first reason why tensors cannot replace those of a model bit for bit; None if they can.

    Compared are names, shapes and types of numbers; NaN and infinity are refused.
    """
    if (difference := _shape_difference(tensors, model_tensors)) is not None:
        return difference
    for key, tensor in tensors.items():
        if tensor.dtype != model_tensors[key].dtype:
            return f"{key} holds {tensor.dtype}, not {model_tensors[key].dtype}"
    return _nonfinite_fault(tensors)


def _dtype_fault(tensors: Mapping[str, Tensor], model_tensors: Mapping[str, Tensor]) -> str | None:
    for key, model_tensor in model_tensors.items():
        tensor, dtype = tensors[key], model_tensor.dtype
        is_plain = tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized
        is_same_kind = tensor.is_floating_point() == model_tensor.is_floating_point()
        if not is_plain or not is_same_kind or tensor.is_complex():
            kind = "no values" if tensor.is_meta else str(tensor.dtype).removeprefix("torch.")
            return f"{key} holds {kind}, not plain {dtype}"
    return None


def _nonfinite_fault(tensors: Mapping[str, Tensor]) -> str | None:
    """NaN or infinity, which would otherwise surface as NaN in a feature or in the loss."""
    # a non-finite value makes the sum non-finite, and a sum is as fast as reading
    suspect = {key: value for key, value in tensors.items() if not value.sum().isfinite()}
    counts = {key: int((~value.isfinite()).sum()) for key, value in suspect.items()}
    faulty = [key for key, count in counts.items() if count]
    if not faulty:
        return None
    key, others = faulty[0], ""
    if len(faulty) > 1:
        others = f", and {len(faulty) - 1} other tensors hold such values"
    size = tensors[key].numel()
    return f"{counts[key]} of the {size} values of {key} are NaN or infinite{others}"


def _shape_difference(
    tensors: Mapping[str, Tensor], model_tensors: Mapping[str, Tensor]
) -> str | None:
    in_file = {key: tuple(value.shape) for key, value in tensors.items()}
    in_model = {key: tuple(value.shape) for key, value in model_tensors.items()}
    missing = [key for key in in_model if key not in in_file]
    reshaped = [key for key in in_model if key in in_file and in_file[key] != in_model[key]]
    unexpected = [key for key in in_file if key not in in_model]
    if not (different := [*reshaped, *missing, *unexpected]):
        return None
    key = different[0]
    return (
        f"{key} is {in_file.get(key, 'absent')} in the file and {in_model.get(key, 'absent')} in "
        f"the model; {len(reshaped)} of another shape, {len(missing)} missing, "
        f"{len(unexpected)} unexpected"
    )
