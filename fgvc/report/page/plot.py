"""Lines of one group -> where each stands when accuracy is held against cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from fgvc.record.page.chart import Frame, frame
from fgvc.report.aggregate_seeds import Line

SIZE = (720, 320)
COLOURS = 6  # of the style
APART, WIDEST = 14.0, 98.0  # pixels between points of equal cost, and of all of them together
NUMBERED = 30  # points that still have room for their places


@dataclass(frozen=True)
class Point:
    """A line of the table, in pixels. low, high: its interval. kind: its task."""

    place: int
    title: str
    x: float
    y: float
    low: float
    high: float
    colour: int
    kind: str


@dataclass(frozen=True)
class Plot:
    """Points in a frame. backbones: names and their colours; kinds: of the points. without: lines
    whose cost is not recorded."""

    frame: Frame
    points: tuple[Point, ...]
    backbones: tuple[tuple[str, int], ...]
    kinds: tuple[str, ...]
    numbered: bool
    without: int


def plot_accuracy(lines: Sequence[tuple[str, Line]]) -> Plot | None:
    """Top-1 with its interval over multiply-accumulates; None where no cost is recorded."""
    known = [(place, *pair) for place, pair in enumerate(lines, 1) if pair[1].first.macs]
    if not known:
        return None
    names = sorted({line.first.backbone for _, _, line in known})
    colours = {name: number % COLOURS for number, name in enumerate(names)}
    bounds = [bound for _, _, line in known for bound in _interval(line)]
    held = frame(
        ("multiply-accumulates an image, G", [_cost(line) for _, _, line in known], True),
        ("top-1, %", bounds, False),
        SIZE,
    )
    points = tuple(
        _point(held, place, name, line, aside, colours[line.first.backbone])
        for (place, name, line), aside in zip(known, _asides(known), strict=True)
    )
    kinds = tuple(sorted({point.kind for point in points}))
    few = len(points) <= NUMBERED
    return Plot(held, points, tuple(colours.items()), kinds, few, len(lines) - len(known))


def _point(held: Frame, place: int, name: str, line: Line, aside: float, colour: int) -> Point:
    low, high = _interval(line)
    title = (
        f"{place}. {name}: {100 * line.top1:.1f} % [{low:.1f}, {high:.1f}], {_cost(line):.3g} GMAC"
    )
    x = round(held.x.at(_cost(line)) + aside, 1)
    y, low, high = (held.y.at(value) for value in (100 * line.top1, low, high))
    return Point(place, title, x, y, low, high, colour, line.first.task)


def _asides(known: Sequence[tuple[int, str, Line]]) -> list[float]:
    """How far each point stands aside, so that intervals of equal cost do not hide each other."""
    alike: dict[float, list[int]] = defaultdict(list)
    for number, (_, _, line) in enumerate(known):
        alike[_cost(line)].append(number)
    aside = [0.0] * len(known)
    for numbers in alike.values():
        apart = min(APART, WIDEST / len(numbers))
        for turn, number in enumerate(numbers):
            aside[number] = (turn - (len(numbers) - 1) / 2) * apart
    return aside


def _cost(line: Line) -> float:
    assert line.first.macs is not None
    return line.first.macs / 1e9


def _interval(line: Line) -> tuple[float, float]:
    """In percent."""
    return 100 * (line.mean("top1_low") or 0.0), 100 * (line.mean("top1_high") or 0.0)
