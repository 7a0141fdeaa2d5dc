"""Values -> where they stand in an SVG: axes with round ticks, and nothing that needs a script.

Pixels of the picture count from its upper left corner.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 40  # pixels around the plot, for ticks and labels
ROUND = (1, 2, 2.5, 5, 10)
TICKS = 6  # at most
ROOM = 0.06  # of an axis, beyond its outermost values
ALONE = 0.15  # the same around a single value, of the value; on a log axis, in powers of ten
THIN = 600  # points of a line at most


@dataclass(frozen=True)
class Axis:
    """A stretch of values along a stretch of pixels. start, end: the pixels of low and of high."""

    label: str
    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = (_scaled(one, self.log) for one in (self.low, self.high, value))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Round values of the axis: their pixels and names."""
        found = _log_ticks(self.low, self.high) if self.log else []
        values = found if len(found) > 1 else _linear_ticks(self.low, self.high)
        return [(self.at(value), f"{value:g}") for value in values]


@dataclass(frozen=True)
class Frame:
    """A plot of two axes in a picture of so many pixels."""

    width: int
    height: int
    x: Axis
    y: Axis


@dataclass(frozen=True)
class Curve:
    """A line of a chart. places: its points in pixels."""

    name: str
    places: tuple[tuple[float, float], ...]

    @property
    def points(self) -> str:
        """As SVG writes them."""
        return " ".join(f"{x:g},{y:g}" for x, y in self.places)


@dataclass(frozen=True)
class Chart:
    """Curves in a frame. mark: the x of what was chosen, in pixels, and its name."""

    title: str
    frame: Frame
    curves: tuple[Curve, ...]
    mark: tuple[float, str] | None = None


def frame(
    x: tuple[str, Iterable[float], bool],
    y: tuple[str, Iterable[float], bool],
    size: tuple[int, int],
) -> Frame:
    """A frame that holds all the values.

    Args:
        x, y: label, values (at least one, finite), and whether the axis is logarithmic, which
            values at or below zero overrule.
        size: pixels.
    """
    width, height = size
    return Frame(
        width,
        height,
        _axis(*x, LEFT, width - RIGHT),
        _axis(*y, height - BOTTOM, TOP),
    )


def chart(
    title: str,
    x: tuple[str, bool],
    y: tuple[str, bool],
    curves: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    mark: tuple[float, str] | None = None,
    size: tuple[int, int] = (368, 230),
) -> Chart | None:
    """Named curves of (x, y) in one frame; None where no point is finite.

    Args:
        x, y: label, and whether the axis is logarithmic.
        mark: a value of x and what is said of it.
    """
    finite = [(name, [p for p in points if all(map(math.isfinite, p))]) for name, points in curves]
    drawn = [(name, _thinned(points)) for name, points in finite if points]
    if not drawn:
        return None
    every = [point for _, points in drawn for point in points]
    made = frame(
        (x[0], [one for one, _ in every], x[1]), (y[0], [one for _, one in every], y[1]), size
    )
    lines = tuple(_curve(made, name, points) for name, points in drawn)
    return Chart(title, made, lines, mark and (made.x.at(mark[0]), mark[1]))


def _curve(frame: Frame, name: str, points: Sequence[tuple[float, float]]) -> Curve:
    return Curve(name, tuple((frame.x.at(x), frame.y.at(y)) for x, y in points))


def _axis(label: str, values: Iterable[float], log: bool, start: float, end: float) -> Axis:
    held = list(values)
    log = log and min(held) > 0
    low, high = _scaled(min(held), log), _scaled(max(held), log)
    room = (high - low) * ROOM or (ALONE if log else abs(low) * ALONE or ALONE)
    low, high = low - room, high + room
    return Axis(label, *((10**low, 10**high) if log else (low, high)), start, end, log)


def _scaled(value: float, log: bool) -> float:
    return math.log10(value) if log else value


def _linear_ticks(low: float, high: float) -> list[float]:
    """Multiples of the smallest round step that makes no more than TICKS."""
    power = 10.0 ** math.floor(math.log10((high - low) / TICKS))
    step = next(one * power for one in ROUND if (high - low) / (one * power) <= TICKS)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each power of ten, or powers alone where those would be too many."""
    decades = math.log10(high / low)
    heads, gap = ((1, 2, 5), 1) if 3 * decades <= TICKS + 1 else ((1,), math.ceil(decades / TICKS))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = (head * 10.0**power for power in powers if power % gap == 0 for head in heads)
    return [value for value in values if low <= value <= high]


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Every n-th point and the last: no screen shows more."""
    step = math.ceil(len(points) / THIN)
    kept = list(points[::step])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]
