"""Lines of a group -> a plot of top-1 against cost, which names backbone, head and part attention.

Colour stands for the backbone, shape for the head, fill for part attention; a ring marks a
finetune. The assignments are the same in every chart of a page.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fgvc.html.charts import COLOURS, frame
from fgvc.report.aggregate_seeds import Line

SIZE = (720, 320)
SPACING, MAX_WIDTH = 16.0, 98.0  # pixels between points of equal cost, and in total
NUMBERED = 30  # maximum number of points that are labelled with their places
SHAPES = (  # SVG paths around a point: circle, square, triangle, diamond, triangle, plus, hexagon
    "m-4.2,0a4.2,4.2 0 1,0 8.4,0a4.2,4.2 0 1,0 -8.4,0z",
    "m-3.8,-3.8h7.6v7.6h-7.6z",
    "m0,-5l4.8,8.4h-9.6z",
    "m0,-5.4l5.4,5.4l-5.4,5.4l-5.4,-5.4z",
    "m0,5l4.8,-8.4h-9.6z",
    "m-1.8,-5h3.6v3.2h3.2v3.6h-3.2v3.2h-3.6v-3.2h-3.2v-3.6h3.2z",
    "m0,-5l4.4,2.5v5l-4.4,2.5l-4.4,-2.5v-5z",
)
FILLS = {"off": "full", "random": "dotted", "centre": "dot", "rollout": "bar", "cls_topk": "cross"}
OTHER_FILL = "hollow"
Named = tuple[str, Line]  # the name of a row of the table, and its line


@dataclass(frozen=True)
class Encoding:
    """What each value looks like: index of the colour by backbone, SVG path by head."""

    colours: dict[str, int]
    shapes: dict[str, str]

    @classmethod
    def of(cls, lines: Iterable[Line]) -> Encoding:
        runs = [line.first for line in lines]
        backbones, heads = (
            sorted({run.backbone for run in runs}),
            sorted({run.head for run in runs}),
        )
        return cls(
            {name: number % COLOURS for number, name in enumerate(backbones)},
            {name: SHAPES[number % len(SHAPES)] for number, name in enumerate(heads)},
        )

    def mark(self, line: Line) -> dict[str, Any]:
        run = line.first
        return {
            "colour": self.colours[run.backbone],
            "shape": self.shapes[run.head],
            "fill": FILLS.get(run.part_attention, OTHER_FILL),
            "finetuned": run.task == "train",
        }

    def legend(self, lines: Sequence[Line]) -> dict[str, Any]:
        """Name and look of each value that the lines have; a single value needs no entry."""
        runs = [line.first for line in lines]
        backbones, heads, parts = (
            sorted({getattr(run, field) for run in runs})
            for field in ("backbone", "head", "part_attention")
        )
        return {
            "backbones": [(name, self.colours[name]) for name in backbones],
            "heads": [(name, self.shapes[name]) for name in heads],
            "parts": [(name, FILLS.get(name, OTHER_FILL)) for name in parts if parts != ["off"]],
            "finetuned": any(run.task == "train" for run in runs),
        }


def plot_accuracy(lines: Sequence[Named], encoding: Encoding) -> dict[str, Any] | None:
    """Top-1 with its interval over multiply-accumulates; None if no line has a recorded cost.

    Args:
        lines: name and line of each row of the table.

    Returns:
        The frame, and a point per line: its place in the table, a title, coordinates and bounds of
        its interval in pixels, and its look. legend: as from Encoding. without: number of lines
        without a recorded cost.
    """
    with_cost = [(place, *pair) for place, pair in enumerate(lines, 1) if pair[1].first.macs]
    if not with_cost:
        return None
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
            **encoding.mark(line),
        }
        points.append(point)
    return {
        "frame": axes,
        "points": points,
        "legend": encoding.legend([line for _, _, line in with_cost]),
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
