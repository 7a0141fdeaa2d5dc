"""Lines of one group -> points of a plot of accuracy against cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from fgvc.html.charts import COLOURS, frame
from fgvc.report.aggregate_seeds import Line

SIZE = (720, 320)
SPACING, MAX_WIDTH = 14.0, 98.0  # pixels between points of equal cost, and over all of them
NUMBERED = 30  # maximum number of points that are labelled with their places


def plot_accuracy(lines: Sequence[tuple[str, Line]]) -> dict[str, Any] | None:
    """Top-1 with its interval over multiply-accumulates; None if no line has a recorded cost.

    Args:
        lines: name and line of each row of the table.

    Returns:
        The frame, and a point per line: its place in the table, a title, coordinates and bounds of
        its interval in pixels, colour, and task as its kind. backbones: name and colour. kinds: of
        all points. without: number of lines without a recorded cost.
    """
    with_cost = [(place, *pair) for place, pair in enumerate(lines, 1) if pair[1].first.macs]
    if not with_cost:
        return None
    names = sorted({line.first.backbone for _, _, line in with_cost})
    colours = {name: number % COLOURS for number, name in enumerate(names)}
    bounds = [bound for _, _, line in with_cost for bound in _interval(line)]
    axes = frame(
        ("multiply-accumulates per image, G", [_cost(line) for _, _, line in with_cost], True),
        ("top-1, %", bounds, False),
        SIZE,
    )
    points = []
    for (place, name, line), offset in zip(with_cost, _offsets(with_cost), strict=True):
        cost, (low, high) = _cost(line), _interval(line)
        title = f"{place}. {name}: {100 * line.top1:.1f} % [{low:.1f}, {high:.1f}], {cost:.3g} GMAC"
        point = {
            "place": place,
            "title": title,
            "x": round(axes.x.at(cost) + offset, 1),
            "y": axes.y.at(100 * line.top1),
            "low": axes.y.at(low),
            "high": axes.y.at(high),
            "colour": colours[line.first.backbone],
            "kind": line.first.task,
        }
        points.append(point)
    return {
        "frame": axes,
        "points": points,
        "backbones": list(colours.items()),
        "kinds": sorted({line.first.task for _, _, line in with_cost}),
        "numbered": len(points) <= NUMBERED,
        "without": len(lines) - len(with_cost),
    }


def _offsets(with_cost: Sequence[tuple[int, str, Line]]) -> list[float]:
    """Horizontal offset of each point, so that intervals at equal cost do not overlap."""
    same_cost: dict[float, list[int]] = defaultdict(list)
    for number, (_, _, line) in enumerate(with_cost):
        same_cost[_cost(line)].append(number)
    offsets = [0.0] * len(with_cost)
    for numbers in same_cost.values():
        apart = min(SPACING, MAX_WIDTH / len(numbers))
        for turn, number in enumerate(numbers):
            offsets[number] = (turn - (len(numbers) - 1) / 2) * apart
    return offsets


def _cost(line: Line) -> float:
    assert line.first.macs is not None
    return line.first.macs / 1e9


def _interval(line: Line) -> tuple[float, float]:
    """Mean bounds of top-1 in percent."""
    return 100 * (line.mean("top1_low") or 0.0), 100 * (line.mean("top1_high") or 0.0)
