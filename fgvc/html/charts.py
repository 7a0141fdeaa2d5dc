"""Values -> positions in an SVG chart with round ticks; needs no script.

Pixels count from the upper left corner.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 40  # pixels around the plot, for ticks and labels
ROUND = (1, 2, 2.5, 5, 10)
MAX_TICKS = 6
MARGIN = 0.06  # fraction of the axis beyond its outermost values
SINGLE_MARGIN = 0.15  # around a single value, as a fraction of it; on a log axis in powers of ten
MAX_POINTS = 600  # of a curve
COLOURS = 6  # --s0 to --s5 of the style sheet


@dataclass(frozen=True)
class Axis:
    """A range of values on a range of pixels. start, end: the pixels of low and high.

    A linear axis may descend: low > high.
    """

    label: str
    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, value = (_scale(number, self.log) for number in (self.low, self.high, value))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        log_ticks = _log_ticks(self.low, self.high) if self.log else []
        values = log_ticks if len(log_ticks) > 1 else _linear_ticks(*sorted((self.low, self.high)))
        return [(self.at(value), f"{value:g}") for value in values]


@dataclass(frozen=True)
class Frame:
    """Two axes in a chart of width x height pixels."""

    width: int
    height: int
    x: Axis
    y: Axis


@dataclass(frozen=True)
class Curve:
    """A curve of a chart. places: its points in pixels. line: whether a line joins them."""

    name: str
    places: tuple[tuple[float, float], ...]
    line: bool = True

    @property
    def points(self) -> str:
        """The `points` attribute of an SVG polyline."""
        return " ".join(f"{x:g},{y:g}" for x, y in self.places)


@dataclass(frozen=True)
class Chart:
    """Curves in a frame. mark: x in pixels and label of the chosen value."""

    title: str
    frame: Frame
    curves: tuple[Curve, ...]
    mark: tuple[float, str] | None = None


def frame(
    x: tuple[str, Iterable[float], bool],
    y: tuple[str, Iterable[float], bool],
    size: tuple[int, int],
) -> Frame:
    """A frame that contains all values.

    Args:
        x, y: label, values (at least one, finite), and whether the axis is logarithmic; with
            values at or below zero it is linear all the same.
        size: width and height in pixels.
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
    dots: Collection[str] = (),
) -> Chart | None:
    """Named curves of (x, y) in one frame; None if no point is finite.

    Args:
        x, y: label, and whether the axis is logarithmic.
        mark: a value of x and its label.
        dots: names of curves without a line.
    """
    thinned = []
    for name, points in curves:
        finite = [point for point in points if all(map(math.isfinite, point))]
        # every n-th point and the last point; a screen shows no more
        shown = finite[:: math.ceil(len(finite) / MAX_POINTS) or 1]
        if finite:
            thinned.append((name, shown if shown[-1] == finite[-1] else [*shown, finite[-1]]))
    if not thinned:
        return None
    xs, ys = zip(*(point for _, points in thinned for point in points), strict=True)
    axes = frame((x[0], xs, x[1]), (y[0], ys, y[1]), size)
    drawn = tuple(
        Curve(name, tuple((axes.x.at(px), axes.y.at(py)) for px, py in points), name not in dots)
        for name, points in thinned
    )
    return Chart(title, axes, drawn, mark and (axes.x.at(mark[0]), mark[1]))


def _axis(label: str, values: Iterable[float], log: bool, start: float, end: float) -> Axis:
    values = list(values)
    log = log and min(values) > 0
    low, high = _scale(min(values), log), _scale(max(values), log)
    single = SINGLE_MARGIN if log else abs(low) * SINGLE_MARGIN or SINGLE_MARGIN
    margin = (high - low) * MARGIN or single
    low, high = low - margin, high + margin
    return Axis(label, *((10**low, 10**high) if log else (low, high)), start, end, log)


def _scale(value: float, log: bool) -> float:
    return math.log10(value) if log else value


def _linear_ticks(low: float, high: float) -> list[float]:
    """Multiples of the smallest round step with at most MAX_TICKS ticks."""
    power = 10.0 ** math.floor(math.log10((high - low) / MAX_TICKS))
    step = next(head * power for head in ROUND if (high - low) / (head * power) <= MAX_TICKS)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times each power of ten, or only powers of ten if those are too many."""
    decades = math.log10(high / low)
    heads, gap = (1, 2, 5), 1
    if 3 * decades > MAX_TICKS + 1:
        heads, gap = (1,), math.ceil(decades / MAX_TICKS)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = (head * 10.0**power for power in powers if power % gap == 0 for head in heads)
    return [value for value in values if low <= value <= high]
