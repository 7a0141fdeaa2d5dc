"""A model without values -> with those of a file, strictly, or with random ones from a seed."""

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
    """Give every parameter its value; `model` may be on the meta device.

    Args:
        hint: what the reader of the file saw, for the message if the state does not fit.

    Raises:
        UserError: the state and the model differ in a key or a shape; names the first, counts all.
            Or a tensor holds integers where the model has fractions, NaN or an infinity.
    """
    own = model.state_dict()
    difference = _shape_difference(_shapes(state), _shapes(own))
    if difference is not None:
        raise UserError(f"weights {path} do not fit {name}: {difference}{hint}")
    _check_dtypes(state, own, path)
    # copied: a tensor of a .safetensors file is a view of the file
    values = {key: state[key].to(own[key].dtype, copy=True).contiguous() for key in own}
    _check_finite(values, path)
    model.load_state_dict(values, assign=True)
    tensors = chain(model.named_parameters(), model.named_buffers())
    empty = [key for key, tensor in tensors if tensor.is_meta]
    assert not empty, f"{name}: {empty} are in no file, and were not computed"


def init_from_seed(make: Callable[[], Model], seed: int) -> Model:
    """What `make` makes with random values from `seed`; the process's random state stays as is."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()


@torch.no_grad()
def count_macs(model: nn.Module, pixels_BCHW: Tensor) -> int:
    """Of one forward, counted on shapes alone: two FLOPs each."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(pixels_BCHW)
    return counter.get_total_flops() // 2


def _shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {key: tuple(value.shape) for key, value in state.items()}


def _check_dtypes(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    for key, wanted in own.items():
        given = state[key]
        plain = given.layout == torch.strided and not given.is_meta and not given.is_quantized
        if not plain or given.is_floating_point() != wanted.is_floating_point():
            kind = "no values" if given.is_meta else str(given.dtype).removeprefix("torch.")
            raise UserError(
                f"weights {path}: {key} holds {kind}, not plain {wanted.dtype}: quantized or "
                "sparse weights are not read; take the model as it was before"
            )


def _check_finite(values: Mapping[str, Tensor], path: Path) -> None:
    """NaN or infinity in weights would otherwise surface as NaN in a feature or in the loss."""
    # a non-finite value makes the sum non-finite, and a sum is as fast as reading
    suspect = {key: value for key, value in values.items() if not value.sum().isfinite()}
    counts = {key: int((~value.isfinite()).sum()) for key, value in suspect.items()}
    bad = {key: count for key, count in counts.items() if count}
    if bad:
        key = next(iter(bad))
        others = f", and {len(bad) - 1} other tensors hold such values" if len(bad) > 1 else ""
        raise UserError(
            f"weights {path}: {bad[key]} of the {values[key].numel()} values of {key} are NaN or "
            f"infinite{others}: the file is damaged or its training diverged; download it again, "
            "or take an earlier checkpoint"
        )


def first_difference(held: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str | None:
    """Why tensors cannot replace those of a model, bit for bit: a name, a shape, a type of number,
    or a value that is NaN or infinite; None where they can."""
    if (difference := _shape_difference(_shapes(held), _shapes(own))) is not None:
        return difference
    for key, tensor in held.items():
        if tensor.is_floating_point() != own[key].is_floating_point() or tensor.is_complex():
            return f"{key} holds {tensor.dtype}, not {own[key].dtype}"
        # a non-finite value makes the sum non-finite, and a sum is as fast as reading
        suspect = tensor.is_floating_point() and not tensor.sum().isfinite()
        if suspect and not tensor.isfinite().all():
            return f"{key} holds NaN or infinity"
    return None


def _shape_difference(held: Shapes, wanted: Shapes) -> str | None:
    reshaped = [key for key in wanted if key in held and held[key] != wanted[key]]
    missing = [key for key in wanted if key not in held]
    unexpected = [key for key in held if key not in wanted]
    if not reshaped + missing + unexpected:
        return None
    key = (reshaped + missing + unexpected)[0]
    return (
        f"{key} is {held.get(key, 'absent')} in the file and {wanted.get(key, 'absent')} in the "
        f"model; {len(reshaped)} of another shape, {len(missing)} missing, "
        f"{len(unexpected)} unexpected"
    )
