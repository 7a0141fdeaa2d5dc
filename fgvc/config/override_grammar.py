"""An override as text -> its key, its value, and the same parsed by Hydra's grammar."""

from __future__ import annotations

import functools
import math
import re
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString, RangeSweep
from hydra.errors import HydraException

from fgvc.config.errors import ConfigError
from fgvc.untrusted import shell
from fgvc.untrusted.escape import shorten

MOST_VALUES = 10_000  # of a range
_RESOLVER = re.compile(r"\$\{(oc\.\w+|hydra):")  # resolvers of OmegaConf and Hydra


def key_of(override: str) -> str:
    """The key of an override, without Hydra's `+` and `~`."""
    return override.lstrip("+~").partition("=")[0]


def value_of(override: str) -> str:
    return override.partition("=")[2]


@functools.lru_cache(maxsize=4096)
def parse_override(override: str) -> Override:
    """A parsed override, cached.

    Raises:
        HydraException: not an override.
        ConfigError: nested too deep, or a range that is endless, empty or too long for any sweep.
    """
    try:
        parsed = OverridesParser.create().parse_override(override)
    except RecursionError:
        raise ConfigError(
            f"{shorten(override)}: brackets nested too deep; write the value flat"
        ) from None
    except (ValueError, OverflowError) as error:  # int() of 5,000 digits, range() of step 0
        reason = str(error).partition(" for integer string")[0]  # cut off advice for programmers
        raise ConfigError(f"{override[:80]}: {reason}") from None
    value: Any = parsed.value()
    if parsed.is_range_sweep():
        ends = (value.start, value.stop)
        if None in ends or not all(map(math.isfinite, (*ends, value.step))) or not value.step:
            raise ConfigError(f"{override}: a range has a start, a stop and a step that is not 0")
        if abs(value.stop - value.start) / abs(value.step) > MOST_VALUES:
            raise ConfigError(f"{override}: more than {MOST_VALUES} values; choose a larger step")
        if next(iter(value.range()), None) is None:
            raise ConfigError(
                f"{override}: a range without values; give it a stop beyond its start"
            )
    return parsed


def count_values(override: Override) -> int:
    """The number of jobs that an override expands to under -m."""
    value = override.value()
    if isinstance(value, RangeSweep):
        return sum(1 for _ in value.range())
    return len(value.list) if isinstance(value, ChoiceSweep) else 1


# --- an override as the shell word that a message suggests ---


def written(override: str) -> str:
    """An override, maybe typed for another program, as one shell word.

    A value is Hydra's syntax if Hydra can parse it (a number, a list, a quoted text). Otherwise it
    is plain text, and quoted for Hydra if Hydra would read another text.
    """
    key, sign, value = override.partition("=")
    home = value.removeprefix("~/")  # fgvc expands ~, and some shells do
    if home != value and shell.word(home) == home and _is_read(f"{key}={home}", home):
        return override
    if not sign or _is_read(override, value):
        return shell.word(override)
    return shell.word(f"{key}={literal_or_interpolation(value)}")


def literal_or_interpolation(text: str) -> str:
    """A text in quotes; `${` begins an interpolation only before a resolver."""
    resolvers = len(_RESOLVER.findall(text))
    only_resolvers = resolvers > 0 and resolvers == text.count("${")
    return shell.quoted(text) if only_resolvers else shell.literal(text)


def _is_read(override: str, value: str) -> bool:
    """Whether Hydra reads the value unchanged."""
    try:
        parsed = parse_override(override)
    except HydraException:
        return False
    text = parsed.value()
    if parsed.is_sweep_override():
        return isinstance(text, ChoiceSweep) and text.simple_form
    if isinstance(parsed._value, QuotedString) or not isinstance(text, str):
        return True
    return text == value and value.count("${") <= len(_RESOLVER.findall(value))
