"""Numbers and names -> text, the same on pages, in Markdown and on the terminal."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

NONE = "–"  # a number that does not exist
UNITS = ("", "k", "M", "G", "T", "P")
TOP5_FROM = 11  # classes; with at most 10, every other guess of five classes is right


def percent(fraction: object) -> str:
    """A fraction in 0..1 as a percentage with one decimal; a dash for None."""
    return f"{100 * fraction:.1f}" if isinstance(fraction, int | float) else "–"


def number(value: object) -> str:
    """A number with four decimals; a dash for None."""
    return f"{value:.4f}" if isinstance(value, int | float) else "–"


def interval(numbers: Mapping[str, object], key: str = "top1") -> str:
    """A number with its 95 % interval, in percent."""
    bounds = numbers[f"{key}_ci95"]
    assert isinstance(bounds, Sequence)
    low, high = bounds
    return f"{percent(numbers[key])} [{percent(low)}, {percent(high)}]"


def relative_link(path: Path, folder: Path) -> str:
    """The link to a path from a page in a folder."""
    return quote(os.path.relpath(path, folder))


def plain(name: str) -> str:
    """A printable name: bytes of a file name that are not UTF-8 become escapes."""
    return name.encode(errors="backslashreplace").decode()


def named(name: str) -> str:
    """A printable name, with spaces for underscores; for class names, see `class_names`."""
    return plain(name).replace("_", " ")


def points(fraction: float) -> str:
    """A difference of two fractions in percentage points, with its sign."""
    return f"{100 * fraction:+.1f}".replace("-", "−")


def p_value(p: float) -> str:
    """A p-value with its significant digits."""
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0") if p < 0.1 else f"{p:.2f}"


def level(fraction: float) -> str:
    """The level of an interval, with one digit that is not 9: 95 %, 98.3 %, 99.996 %."""
    tail = 100 * (1 - fraction)
    digits = 0 if tail >= 1 and abs(tail - round(tail)) < 1e-9 else 1
    while tail < 10**-digits and digits < 8:
        digits += 1
    return f"{100 - tail:.{digits}f} %"


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
    return NONE if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours, whichever is easiest to read."""
    if seconds is None:
        return NONE
    if seconds < 120:
        return f"{seconds:.1f} s"
    return rounded_time(seconds)


def rounded_time(seconds: float) -> str:
    """A time that passes or is estimated: whole seconds or minutes, or hours with one decimal."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
