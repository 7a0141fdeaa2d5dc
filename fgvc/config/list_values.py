"""A text or a number where a list is expected -> a list of one: `dataset.prompts="a {}."`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hydra.core.override_parser.types import ChoiceSweep, Override, ValueType
from hydra.errors import HydraException

from fgvc.config.errors import ConfigError
from fgvc.config.override_grammar import count_values, parse_override, value_of
from fgvc.config.schema_keys import list_keys, path_keys
from fgvc.untrusted.shell import quoted, setting, word

MOST_JOBS = 100_000  # of a sweep
UNLISTED = (ValueType.INTERVAL_SWEEP, ValueType.GLOB_CHOICE_SWEEP)


def as_list(override: str) -> str:
    """An override of a list, with the brackets added; any other override is unchanged.

    Under -m, each of several values becomes a list. null, interpolations and values that begin with
    a bracket are unchanged.
    """
    key, sign, value = override.partition("=")
    value = value.strip()
    if not sign or key.lstrip("+") not in list_keys() or not value or value.startswith(("[", "${")):
        return override
    try:
        parsed = parse_override(override)
    except HydraException:  # braces, a colon or an apostrophe: the value is one text
        return f"{key}=[{quoted(value)}]"
    choices = parsed.value()
    if isinstance(choices, ChoiceSweep) and choices.simple_form:
        pairs = [(item, Override._get_value_element_as_str(item)) for item in choices.list]
        lists = [text if isinstance(item, list | None) else f"[{text}]" for item, text in pairs]
        return f"{key}={','.join(lists)}"
    if parsed.is_sweep_override() or choices is None:
        return override
    return f"{key}=[{quoted(value) if isinstance(choices, dict) else value}]"


def or_a_list(override: Override) -> str:
    """What several values without -m can mean: jobs, or a list without its brackets."""
    key, values = override.key_or_group, value_of(str(override.input_line))
    if key in path_keys() - {"image"} and not override.is_range_sweep():
        return f"(one job each); as one path: {setting(key, values)}"
    if key not in list_keys() | {"image"}:  # image may be one name, too
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
            both = f"{other},{value_of(line)}"
            raise ConfigError(f"{line}: {other} is given too; write both as one: {word(both)}")
    if (jobs := math.prod(map(count_values, overrides))) > MOST_JOBS:
        raise ConfigError(f"-m: {jobs} jobs, at most {MOST_JOBS}; give fewer values")
