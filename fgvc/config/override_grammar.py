"""An override as text -> the same parsed by Hydra's grammar."""

from __future__ import annotations

import functools
import math

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep

from fgvc.config.errors import ConfigError
from fgvc.untrusted.escape import shorten

MOST_VALUES = 10_000  # of a range


@functools.lru_cache(maxsize=4096)
def parse_override(override: str) -> Override:
    """A parsed override, cached.

    Raises:
        HydraException: not an override.
        ConfigError: nested too deep, or an endless range.
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
    value = parsed.value()
    if isinstance(value, RangeSweep):
        _check_range(override, value)
    return parsed


def _check_range(override: str, values: RangeSweep) -> None:
    """Refuse an endless range, and a range with more values than any sweep can run."""
    start, stop, step = values.start, values.stop, values.step
    if (
        start is None
        or stop is None
        or not all(map(math.isfinite, (start, stop, step)))
        or not step
    ):
        raise ConfigError(f"{override}: a range has a start, a stop and a step that is not 0")
    if abs(stop - start) / abs(step) > MOST_VALUES:
        raise ConfigError(f"{override}: more than {MOST_VALUES} values; choose a larger step")
