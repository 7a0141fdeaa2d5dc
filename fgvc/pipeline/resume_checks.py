"""A resume state -> a check that its entries have the types of a training's state.

A state's digest is part of its file name, so a forger can choose it. Thus the content is checked
before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any

from torch import Tensor

from fgvc.types import UserError

Check = Callable[[Any], bool]


def check_content(state: Mapping[str, Any], path: object) -> None:
    """Check that every entry of a state exists and has its type.

    Args:
        path: of the state, with which the message begins.

    Raises:
        UserError: names the first entry that is missing or of another type.
    """
    for key, check in ENTRIES.items():
        value: Any = state
        for name in key.split("."):
            value = value.get(name, ENTRIES) if isinstance(value, Mapping) else ENTRIES
        if value is ENTRIES or not check(value):
            fault = "is missing" if value is ENTRIES else f"is an invalid {type(value).__name__}"
            raise UserError(
                f"{path}: not a resume state of this version: {key} {fault}. Train under a new "
                "runtime.run_id without runtime.resume"
            )


def _is(*types: type) -> Check:
    """A check for exactly these types, because a bool is an instance of int."""
    return lambda value: type(value) in types


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _is_list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list | tuple) and all(map(check, value))


def _is_tuple_of(*checks: Check) -> Check:
    """A check for a list or tuple with one check per element."""
    return lambda value: (
        isinstance(value, list | tuple)
        and len(value) == len(checks)
        and all(check(element) for check, element in zip(checks, value, strict=True))
    )


def _is_mapping_of(key_check: Check, check: Check) -> Check:
    return lambda value: (
        isinstance(value, Mapping)
        and all(map(key_check, value))
        and all(map(check, value.values()))
    )


def _has_entries(required: Mapping[str, Check], optional: Mapping[str, Check]) -> Check:
    """A check for a mapping with all required entries and no others than the optional ones."""
    checks = {**required, **optional}
    return lambda value: (
        isinstance(value, Mapping)
        and required.keys() <= value.keys() <= checks.keys()
        and all(checks[name](entry) for name, entry in value.items())
    )


def _is_optimiser(value: Any) -> bool:
    """Whether every trained tensor, by its index, has the same kinds of values."""
    if not _is_mapping_of(_is_count, lambda entry: isinstance(entry, Mapping))(value):
        return False
    return len({frozenset(entry) for entry in value.values()}) <= 1


TEXT, NUMBER = _is(str), _is(int, float)
TENSORS, PLAIN = _is_mapping_of(TEXT, _is_tensor), _is_mapping_of(TEXT, lambda value: True)
BEST = {
    "select": TEXT,
    "patience": _or_none(_is_count),
    "epoch": _or_none(_is_count),
    "top1": NUMBER,
    "loss": NUMBER,
    "last": _or_none(_is_count),
}
ORIGIN = {"from": _is(str, NoneType), "changed": _is_list_of(TEXT), "other_code": _is(bool)}
LOST = _has_entries({"epoch": _or_none(_is_count), "step": _is_count}, {})
ENTRIES: Mapping[str, Check] = {
    "trainer.model": TENSORS,
    "trainer.optimiser": _is_optimiser,
    "trainer.scaler": PLAIN,
    "trainer.ema": _or_none(TENSORS),
    "trainer.step": _is_count,
    "trainer.best": _has_entries({}, BEST),
    "epochs_judged": _is_count,
    "steps_per_epoch": lambda value: _is_count(value) and value > 0,
    "unreadable": _is_list_of(_is_tuple_of(_is_count, TEXT)),
    "history": _is_list_of(_is_tuple_of(TEXT, _is_count, NUMBER)),
    "config": PLAIN,
    "identity": PLAIN,
    "origin": _has_entries(ORIGIN, {"best_lost": LOST}),
}
