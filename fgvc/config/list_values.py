"""A text or a number where a list is expected -> a list of one: `dataset.prompts="a {}."`."""

from __future__ import annotations

import functools
import math
import typing
from collections.abc import Iterator, Sequence

from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep, ValueType
from hydra.errors import HydraException

from fgvc.config.errors import ConfigError
from fgvc.config.override_grammar import parse_override
from fgvc.config.schema.launcher import LAUNCHERS
from fgvc.config.schema_keys import SchemaKey, all_keys, walk_schema
from fgvc.untrusted.shell import literal, quoted, setting, word

PATHS = ("dataset.root", "dataset.table", "backbone.weights", "checkpoint", "run", "against")
MOST_JOBS = 100_000  # of a sweep
UNLISTED = (ValueType.INTERVAL_SWEEP, ValueType.GLOB_CHOICE_SWEEP)


def as_list(override: str) -> str:
    """An override of a list, with the brackets added; any other override is unchanged.

    Under -m, each of several values becomes a list. null, interpolations and values that begin with
    a bracket are unchanged.
    """
    key, sign, value = override.partition("=")
    value = value.strip()
    if not sign or not is_list(key.lstrip("+")) or not value or value.startswith(("[", "${")):
        return override
    try:
        parsed = parse_override(override)
    except HydraException:  # braces, a colon or an apostrophe: the value is one text
        return f"{key}=[{quoted(value)}]"
    if parsed.is_sweep_override():
        return f"{key}={','.join(_swept_lists(parsed))}" if _is_simple(parsed) else override
    if parsed.value() is None:
        return override
    return f"{key}=[{quoted(value) if isinstance(parsed.value(), dict) else value}]"


def is_list(key: str) -> bool:
    """Whether a dotted key holds a list, in any option."""
    return key in _list_keys()


def or_a_list(override: Override) -> str:
    """What several values without -m can mean: jobs, or a list without its brackets."""
    key, _, values = str(override.input_line).partition("=")
    if (key in PATHS or key.endswith("_root")) and not override.is_range_sweep():
        return f"(one job each); as one path: {setting(key, values)}"
    if not is_list(key) and key != "image":  # image may be one name, too
        return "(one job each)"
    items = values.replace("[", "").replace("]", "")
    return f"(one job each); as a list: {word(f'{key}=[{items}]')}"


def check_sweep(overrides: Sequence[Override]) -> None:
    """Refuse under -m a value that is no list of values, and a key that is given twice."""
    lines: dict[str, str] = {}
    for override in overrides:
        key, line = override.key_or_group, override.input_line or ""
        if override.value_type in UNLISTED:
            raise ConfigError(f"{line}: -m takes values, as in {key}=A,B")
        other = lines.setdefault(key, line)
        if other != line and not override.is_delete():
            both = f"{other},{line.partition('=')[2]}"
            raise ConfigError(f"{line}: {other} is given too; write both as one: {word(both)}")
    if (jobs := math.prod(map(_count_values, overrides))) > MOST_JOBS:
        raise ConfigError(f"-m: {jobs} jobs, at most {MOST_JOBS}; give fewer values")


def _count_values(override: Override) -> int:
    value = override.value()
    if isinstance(value, RangeSweep):
        assert value.start is not None
        assert value.stop is not None
        return max(1, math.ceil(abs(value.stop - value.start) / abs(value.step)))
    return len(value.list) if isinstance(value, ChoiceSweep) else 1


def quoted_items(value: str) -> str:
    """A list as Hydra reads it, with each item in quotes."""
    items = value.removeprefix("[").removesuffix("]").split(",")
    return f"[{','.join(literal(item.strip()) for item in items)}]"


def _is_simple(override: Override) -> bool:
    return override.is_choice_sweep() and bool(getattr(override.value(), "simple_form", False))


def _swept_lists(override: Override) -> Iterator[str]:
    for item in getattr(override.value(), "list"):  # noqa: B009 - of a ChoiceSweep
        text = Override._get_value_element_as_str(item)
        yield text if isinstance(item, list) or item is None else f"[{text}]"


@functools.cache
def _list_keys() -> frozenset[str]:
    keys = [*all_keys()]
    for cls in LAUNCHERS.values():
        keys += walk_schema(cls, "hydra.launcher.")
    return frozenset(item.key for item in keys if _holds_list(item))


def _holds_list(item: SchemaKey) -> bool:
    """Whether the type of a key is a list, or a union with a list; a dict of lists is not."""
    if typing.get_origin(item.hint) is dict:
        return False
    types = (item.hint, *typing.get_args(item.hint))
    return any(typing.get_origin(part) is list for part in types)
