"""Facts -> one HTML file that needs nothing beside it: a Jinja template with its style inside.

Whatever a template prints is escaped, so a class may be called `<b>`; a page's policy lets it load
nothing from anywhere.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fgvc.record import console

if TYPE_CHECKING:
    from jinja2 import Environment

HOME = "fgvc.record.page"  # whose templates every page builds on
NONE = "–"  # a number that does not exist
UNITS = ("", "k", "M", "G", "T", "P")


def render(template: str, package: str, facts: Mapping[str, Any]) -> str:
    """The page that a template of `package` makes of the facts; the same facts, the same text."""
    return _environment(package).get_template(template).render(facts)


def plain(name: str) -> str:
    """A name as a person reads it: bytes of a file name that are no UTF-8 become escapes."""
    return name.encode(errors="backslashreplace").decode()


def named(name: str) -> str:
    """A class or a row as a person reads it."""
    return plain(name).replace("_", " ")


def points(fraction: float) -> str:
    """A difference of two fractions in points, with its sign."""
    return f"{100 * fraction:+.1f}".replace("-", "−")


def p_value(p: float) -> str:
    """As many digits as decide something."""
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0") if p < 0.1 else f"{p:.2f}"


def si(value: float | None, unit: str = "") -> str:
    """Three digits and a prefix: 5524416 -> 5.52 M."""
    if value is None or not math.isfinite(value):
        return NONE
    power = 0
    while abs(value) >= 999.5 and power < len(UNITS) - 1:
        value, power = value / 1000, power + 1
    digits = max(0, 2 - int(math.log10(abs(value)))) if abs(value) >= 1 else 2
    return f"{value:.{digits}f} {UNITS[power]}{unit}".rstrip()


def decimals(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    """Seconds in the unit that a person would say."""
    if seconds is None:
        return NONE
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@functools.cache
def _environment(package: str) -> Environment:
    import jinja2  # here: only a finished run waits for it

    names = dict.fromkeys((package, HOME))
    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in names]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "percent": console.percent,
        "points": points,
        "p_value": p_value,
        "si": si,
        "decimals": decimals,
        "duration": duration,
        "plain": plain,
        "named": named,
    }
    return made
