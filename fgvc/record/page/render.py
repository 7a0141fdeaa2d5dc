"""Facts -> one self-contained HTML file: a Jinja template with its style inside.

Everything that a template prints is escaped, so a class may be called `<b>`. The content security
policy of a page blocks every external resource.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fgvc.record import console

if TYPE_CHECKING:
    from jinja2 import Environment

HOME = "fgvc.record.page"  # the package with the base templates of every page
NONE = "–"  # a number that does not exist
UNITS = ("", "k", "M", "G", "T", "P")


def render(template: str, package: str, facts: Mapping[str, Any]) -> str:
    """Render a template of `package`; the same facts give the same text."""
    return _environment(package).get_template(template).render(facts)


def plain(name: str) -> str:
    """A printable name: bytes of a file name that are not UTF-8 become escapes."""
    return name.encode(errors="backslashreplace").decode()


def named(name: str) -> str:
    """A printable class name, with spaces for underscores."""
    return plain(name).replace("_", " ")


def points(fraction: float) -> str:
    """A difference of two fractions in percentage points, with its sign."""
    return f"{100 * fraction:+.1f}".replace("-", "−")


def p_value(p: float) -> str:
    """A p-value with as many digits as matter."""
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
    """A number with a fixed number of decimals."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours, whichever is easiest to read."""
    if seconds is None:
        return NONE
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@functools.cache
def _environment(package: str) -> Environment:
    import jinja2  # here: only a finished run needs it

    names = dict.fromkeys((package, HOME))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in names]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": console.percent,
        "points": points,
        "p_value": p_value,
        "si": si,
        "decimals": decimals,
        "duration": duration,
        "plain": plain,
        "named": named,
    }
    return environment
