"""A training state and a model -> the tensors of the state that do not fit the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

UPDATE_COUNT = "n_averaged"  # in the state of torch's AveragedModel


def find_mismatches(state: Mapping[str, Any], model: nn.Module, optimiser: Optimizer) -> list[str]:
    """A phrase for each tensor that is missing, unknown, or of another shape or kind of number.

    Args:
        state: from `Trainer.state`.
    """
    model_state, averages = model.state_dict(), state["ema"]
    phrases = list(_model_mismatches(state["model"], model_state))
    if not phrases and averages is not None:  # the model's tensors behind a prefix, and a count
        expected = {f"module.{name}": tensor for name, tensor in model_state.items()}
        saved = {name: averages[name] for name in averages if name != UPDATE_COUNT}
        phrases = [f"of the averages, {phrase}" for phrase in _model_mismatches(saved, expected)]
        if UPDATE_COUNT not in averages or averages[UPDATE_COUNT].ndim:
            phrases.append(f"of the averages, {UPDATE_COUNT} is no number in the state")
    return phrases or list(_optimiser_mismatches(state["optimiser"], model, optimiser))


def _model_mismatches(
    saved: Mapping[str, Tensor], model_state: Mapping[str, Tensor]
) -> Iterator[str]:
    for name, tensor in model_state.items():
        if name not in saved:
            yield f"{name} is missing in the state"
        elif saved[name].shape != tensor.shape:
            yield _shape_mismatch(name, saved[name], tensor)
        elif saved[name].is_floating_point() != tensor.is_floating_point():
            yield f"{name} holds {saved[name].dtype} in the state and {tensor.dtype} here"
    yield from (f"{name} of the state is unknown here" for name in saved if name not in model_state)


def _optimiser_mismatches(
    saved: Mapping[int, Mapping[str, Any]], model: nn.Module, optimiser: Optimizer
) -> Iterator[str]:
    """The state of the optimiser is indexed by the place of a parameter in its groups."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    if saved and max(saved) >= len(parameters):
        yield (
            f"the optimiser's state of {max(saved) + 1} learning tensors does not fit "
            f"the {len(parameters)} here"
        )
        return
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for place, values in saved.items():
        own = parameters[place]
        for key, value in values.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != own.shape:
                yield _shape_mismatch(f"the optimiser's {key} of {names[id(own)]}", value, own)


def _shape_mismatch(name: str, saved: Tensor, own: Tensor) -> str:
    return f"{name} has shape {tuple(saved.shape)} in the state and {tuple(own.shape)} here"
