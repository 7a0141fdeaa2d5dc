"""A resume state -> a check that its entries have the types of a training's state.

A state's digest is part of its file name, so a forger can choose it. Thus the content is checked
before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import UnionType
from typing import Any

from torch import Tensor

from fgvc.types import UserError

Check = Callable[[Any], bool]
_MISSING = object()


def check_content(state: Mapping[str, Any], path: object) -> None:
    """Check that every entry of a state exists and has its type.

    path: of the state, with which the message begins.

    Raises:
        UserError: names the first entry that is missing or of another type.
    """
    for key, shape in ENTRIES.items():
        value: Any = state
        for name in key.split("."):
            value = value.get(name, _MISSING) if isinstance(value, Mapping) else _MISSING
        if value is _MISSING or not _fits(value, shape):
            fault = "is missing" if value is _MISSING else f"is an invalid {type(value).__name__}"
            raise UserError(
                f"{path}: not a resume state of this version: {key} {fault}. Train under a new "
                "runtime.run_id without runtime.resume"
            )


def _fits(value: Any, shape: Any) -> bool:
    """Whether a value has a shape: a type, a check, [shape of each element], (shape per element)
    or {shape of each key: shape of each value}."""
    if isinstance(shape, list):
        return isinstance(value, list | tuple) and all(_fits(each, shape[0]) for each in value)
    if isinstance(shape, tuple):
        same_length = isinstance(value, list | tuple) and len(value) == len(shape)
        return same_length and all(map(_fits, value, shape))
    if isinstance(shape, dict):
        ((key_shape, value_shape),) = shape.items()
        return isinstance(value, Mapping) and all(
            _fits(key, key_shape) and _fits(entry, value_shape) for key, entry in value.items()
        )
    if isinstance(shape, type | UnionType):  # True is an int, but no number of steps
        return isinstance(value, shape) and (shape in (bool, object) or type(value) is not bool)
    return shape(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_count_or_none(value: Any) -> bool:
    return value is None or _is_count(value)


def _has_entries(shapes: Mapping[str, Any], optional: Collection[str]) -> Check:
    """A check for a mapping with these entries and no others."""
    return lambda value: (
        isinstance(value, Mapping)
        and shapes.keys() - optional <= value.keys() <= shapes.keys()
        and all(_fits(entry, shapes[name]) for name, entry in value.items())
    )


BEST = {
    "select": str,
    "patience": _is_count_or_none,
    "epoch": _is_count_or_none,
    "top1": int | float,
    "loss": int | float,
    "last": _is_count_or_none,
}
LOST = {"epoch": _is_count_or_none, "step": _is_count}
ORIGIN = {
    "from": str | None,
    "changed": [str],
    "other_code": bool,
    "best_lost": _has_entries(LOST, ()),
}
ENTRIES: Mapping[str, Any] = {
    "trainer.model": {str: Tensor},
    "trainer.optimiser": lambda value: (  # every trained tensor, by its index, has the same keys
        _fits(value, {_is_count: Mapping}) and len(set(map(frozenset, value.values()))) <= 1
    ),
    "trainer.scaler": {str: object},
    "trainer.ema": lambda value: value is None or _fits(value, {str: Tensor}),
    "trainer.step": _is_count,
    "trainer.best": _has_entries(BEST, BEST),
    "epochs_judged": _is_count,
    "steps_per_epoch": lambda value: _is_count(value) and value > 0,
    "unreadable": [(_is_count, str)],
    "history": [(str, _is_count, int | float)],
    "config": {str: object},
    "identity": {str: object},
    "origin": _has_entries(ORIGIN, ["best_lost"]),
}
