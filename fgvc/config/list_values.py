"""A text or a number where a list is meant -> a list of one: `dataset.prompts="a {}."`."""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep, ValueType
from hydra.errors import HydraException

from fgvc.config import schema
from fgvc.config.compose_cache import parsed
from fgvc.config.errors import ConfigError
from fgvc.config.schema.launcher import LAUNCHERS
from fgvc.untrusted.shell import literal, quoted, setting, word

PATHS = ("dataset.root", "dataset.table", "backbone.weights", "checkpoint", "run", "against")
MOST_JOBS = 100_000  # of a sweep
UNLISTED = (ValueType.INTERVAL_SWEEP, ValueType.GLOB_CHOICE_SWEEP)


def as_list(override: str) -> str:
    """An override of a list with its list around it; any other override as it is.

    Under -m, each of several values becomes a list. null, interpolations and values that begin with
    a bracket stay unchanged.
    """
    key, sign, value = override.partition("=")
    value = value.strip()
    if not sign or not is_list(key.lstrip("+")) or not value or value.startswith(("[", "${")):
        return override
    try:
        read = parsed(override)
    except HydraException:  # braces, a colon or an apostrophe: one text
        return f"{key}=[{quoted(value)}]"
    if read.is_sweep_override():
        return f"{key}={','.join(_sweep(read))}" if _is_simple(read) else override
    if read.value() is None:
        return override
    return f"{key}=[{quoted(value) if isinstance(read.value(), dict) else value}]"


def is_list(key: str) -> bool:
    """Whether a dotted key holds a list, in any option."""
    return key in _lists()


def or_a_list(override: Override) -> str:
    """What several values without -m may mean: jobs, or a list that lacks its brackets."""
    key, _, values = str(override.input_line).partition("=")
    if (key in PATHS or key.endswith("_root")) and not override.is_range_sweep():
        return f"(one job each); as one path: {setting(key, values)}"
    if not is_list(key) and key != "image":  # which may be one name too
        return "(one job each)"
    items = values.replace("[", "").replace("]", "")
    return f"(one job each); as a list: {word(f'{key}=[{items}]')}"


def check_sweep(given: Sequence[Override]) -> None:
    """Refuse under -m what is no list of values, and a key that is given twice."""
    seen: dict[str, str] = {}
    for override in given:
        key, line = override.key_or_group, override.input_line or ""
        if override.value_type in UNLISTED:
            raise ConfigError(f"{line}: -m takes values, as in {key}=A,B")
        other = seen.setdefault(key, line)
        if other != line and not override.is_delete():
            both = f"{other},{line.partition('=')[2]}"
            raise ConfigError(
                f"{line}: {other} is given too; both of them are one word: {word(both)}"
            )
    if (jobs := math.prod(map(_count, given))) > MOST_JOBS:
        raise ConfigError(f"-m: {jobs} jobs, at most {MOST_JOBS}; give fewer values")


def _count(override: Override) -> int:
    """The values that a sweep takes of an override."""
    value = override.value()
    if isinstance(value, RangeSweep):
        assert value.start is not None
        assert value.stop is not None
        return max(1, math.ceil(abs(value.stop - value.start) / abs(value.step)))
    return len(value.list) if isinstance(value, ChoiceSweep) else 1


def quoted_items(value: str) -> str:
    """A list as Hydra reads it, each item in quotes."""
    items = value.removeprefix("[").removesuffix("]").split(",")
    return f"[{','.join(literal(item.strip()) for item in items)}]"


def _is_simple(override: Override) -> bool:
    return override.is_choice_sweep() and bool(getattr(override.value(), "simple_form", False))


def _sweep(override: Override) -> Iterator[str]:
    for item in getattr(override.value(), "list"):  # noqa: B009 - of a ChoiceSweep
        text = Override._get_value_element_as_str(item)
        yield text if isinstance(item, list) or item is None else f"[{text}]"


@functools.cache
def _lists() -> frozenset[str]:
    nodes = [("", schema.Config)]
    nodes += [(f"{node}.", cls) for node, own in schema.VARIANTS.items() for cls in own.values()]
    nodes += [("hydra.launcher.", cls) for cls in LAUNCHERS.values()]
    return frozenset(key for prefix, cls in nodes for key in _keys(cls, prefix))


def _keys(cls: type, prefix: str) -> Iterator[str]:
    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        for part in _parts(hints[item.name]):
            if typing.get_origin(part) is list:
                yield f"{prefix}{item.name}"
            elif dataclasses.is_dataclass(part) and isinstance(part, type):
                yield from _keys(part, f"{prefix}{item.name}.")


def _parts(hint: Any) -> tuple[Any, ...]:
    """A type, or those of a union; the value type of a dict is not one of them."""
    return (hint,) if typing.get_origin(hint) in (list, dict) else (hint, *typing.get_args(hint))
