"""A training state and a model -> the tensors of the state that do not fit the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

UPDATE_COUNT = "n_averaged"  # in the state of torch's AveragedModel


def find_mismatches(state: Mapping[str, Any], model: nn.Module, optimiser: Optimizer) -> list[str]:
    """A phrase for each tensor of another shape, missing tensor or unknown tensor.

    Args:
        state: as `Trainer.state` gives it.
    """
    tensors = list(_model_mismatches(state["model"], model.state_dict()))
    if not tensors and state["ema"] is not None:
        tensors = [f"of the averages, {phrase}" for phrase in _ema_mismatches(state["ema"], model)]
    return tensors or list(_optimiser_mismatches(state["optimiser"], model, optimiser))


def _model_mismatches(saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Iterator[str]:
    for name, tensor in own.items():
        if name not in saved:
            yield f"{name} is missing in the state"
        elif saved[name].shape != tensor.shape:
            yield _shape_mismatch(name, saved[name], tensor)
        elif saved[name].is_floating_point() != tensor.is_floating_point():
            yield f"{name} holds {saved[name].dtype} in the state and {tensor.dtype} here"
    yield from (f"{name} of the state is unknown here" for name in saved if name not in own)


def _ema_mismatches(saved: Mapping[str, Tensor], model: nn.Module) -> Iterator[str]:
    """The averages of a model are its tensors behind a prefix, and how often they were updated."""
    own = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    yield from _model_mismatches({name: saved[name] for name in saved if name != UPDATE_COUNT}, own)
    if UPDATE_COUNT not in saved or saved[UPDATE_COUNT].ndim:
        yield f"{UPDATE_COUNT} is no number in the state"


def _optimiser_mismatches(
    saved: Mapping[int, Mapping[str, Any]], model: nn.Module, optimiser: Optimizer
) -> Iterator[str]:
    """Its state is kept by the place of a parameter among those that learn."""
    learning = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    if saved and max(saved) >= len(learning):
        yield (
            f"the optimiser's state of {max(saved) + 1} learning tensors does not fit "
            f"the {len(learning)} here"
        )
        return
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for place, values in saved.items():
        for key, value in values.items():
            parameter = learning[place]
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                yield _shape_mismatch(
                    f"the optimiser's {key} of {names[id(parameter)]}", value, parameter
                )


def _shape_mismatch(name: str, saved: Tensor, own: Tensor) -> str:
    return f"{name} has shape {tuple(saved.shape)} in the state and {tuple(own.shape)} here"
