"""A resume state -> a check that its entries have the types of a training's state.

A state's digest is part of its file name, so a forger can choose it. Thus the content is checked
before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from fgvc.types import UserError

Check = Callable[[Any], bool]
_MISSING = object()


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
            value = value.get(name, _MISSING) if isinstance(value, Mapping) else _MISSING
        if value is _MISSING or not check(value):
            fault = "is missing" if value is _MISSING else f"is an invalid {type(value).__name__}"
            raise UserError(
                f"{path}: not a resume state of this version: {key} {fault}. Train under a new "
                "runtime.run_id without runtime.resume"
            )


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _is_list_of(*checks: Check) -> Check:
    """A check for a list of tuples with one check per element."""
    return lambda value: (
        isinstance(value, list | tuple)
        and all(
            isinstance(entry, list | tuple)
            and len(entry) == len(checks)
            and all(check(element) for check, element in zip(checks, entry, strict=True))
            for entry in value
        )
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_tensors(value: Any) -> bool:
    return _is_mapping(value) and all(isinstance(tensor, Tensor) for tensor in value.values())


def _is_optimiser(value: Any) -> bool:
    """Whether every trained tensor, by its index, has the same kinds of values."""
    if not isinstance(value, Mapping) or not all(map(_is_count, value)):
        return False
    entries = list(value.values())
    return all(
        isinstance(entry, Mapping) and entry.keys() == entries[0].keys() for entry in entries
    )


def _is_best(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value.keys() <= BEST.keys():
        return False
    return all(BEST[name](entry) for name, entry in value.items())


def _is_origin(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    changed, lost = value.get("changed"), value.get("best_lost")
    return (
        isinstance(value.get("from", 0), str | None)
        and isinstance(changed, list | tuple)
        and all(isinstance(key, str) for key in changed)
        and isinstance(value.get("other_code"), bool)
        and (lost is None or (isinstance(lost, Mapping) and lost.keys() == {"epoch", "step"}))
    )


BEST: Mapping[str, Check] = {
    "select": _is_text,
    "patience": _or_none(_is_count),
    "epoch": _or_none(_is_count),
    "top1": _is_number,
    "loss": _is_number,
    "last": _or_none(_is_count),
}
ENTRIES: Mapping[str, Check] = {
    "trainer.model": _is_tensors,
    "trainer.optimiser": _is_optimiser,
    "trainer.scaler": _is_mapping,
    "trainer.ema": _or_none(_is_tensors),
    "trainer.step": _is_count,
    "trainer.best": _is_best,
    "epochs_judged": _is_count,
    "steps_per_epoch": lambda value: _is_count(value) and value > 0,
    "unreadable": _is_list_of(_is_count, _is_text),
    "history": _is_list_of(_is_text, _is_count, _is_number),
    "config": _is_mapping,
    "identity": _is_mapping,
    "origin": _is_origin,
}
