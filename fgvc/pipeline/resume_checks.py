"""A resume state with a correct digest -> a check that its entries have the types of a training.

The digest is part of the file's name, so a forger can choose it. Thus the content is checked before
it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from fgvc.types import UserError

Test = Callable[[Any], bool]


def check_content(state: Mapping[str, Any], place: object) -> None:
    """Check the entries of a state, and their types.

    Args:
        place: where the state lies, with which the message begins.

    Raises:
        UserError: names the first entry that is missing or of another type.
    """
    for key, test in ENTRIES.items():
        value: Any = state
        for name in key.split("."):
            value = value.get(name, _MISSING) if isinstance(value, Mapping) else _MISSING
        if value is _MISSING or not test(value):
            what = "is missing" if value is _MISSING else f"is a {type(value).__name__} of no use"
            raise UserError(
                f"{place}: not a resume state of this version: {key} {what}. Train under a new "
                "runtime.run_id without runtime.resume"
            )


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
    )


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
    return all(BEST[name](held) for name, held in value.items())


def _is_history(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(point, list | tuple)
        and len(point) == 3
        and isinstance(point[0], str)
        and _is_count(point[1])
        and _is_number(point[2])
        for point in value
    )


def _is_unreadable(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and _is_count(pair[0])
        and isinstance(pair[1], str)
        for pair in value
    )


def _is_lost(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping) and value.keys() == {"epoch", "step"})


def _is_origin(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    changed = value.get("changed")
    return (
        isinstance(value.get("from", 0), str | None)
        and isinstance(changed, list | tuple)
        and all(isinstance(key, str) for key in changed)
        and isinstance(value.get("other_code"), bool)
        and _is_lost(value.get("best_lost"))
    )


def _or_none(test: Test) -> Test:
    return lambda value: value is None or test(value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


_MISSING = object()
BEST: Mapping[str, Test] = {
    "select": lambda value: isinstance(value, str),
    "patience": _or_none(_is_count),
    "epoch": _or_none(_is_count),
    "top1": _is_number,
    "loss": _is_number,
    "last": _or_none(_is_count),
}
ENTRIES: Mapping[str, Test] = {
    "trainer.model": _is_tensors,
    "trainer.optimiser": _is_optimiser,
    "trainer.scaler": _is_mapping,
    "trainer.ema": _or_none(_is_tensors),
    "trainer.step": _is_count,
    "trainer.best": _is_best,
    "epochs_judged": _is_count,
    "steps_per_epoch": lambda value: _is_count(value) and value > 0,
    "unreadable": _is_unreadable,
    "history": _is_history,
    "config": _is_mapping,
    "identity": _is_mapping,
    "origin": _is_origin,
}
