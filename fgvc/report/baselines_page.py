"""Groups of ranked lines and damaged folders -> the text of baselines.html, a self-contained page.

The text does not depend on the time. Only the links, which are relative to the page, depend on the
location of the folders. C classes, L lines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fgvc import metrics
from fgvc.html.charts import COLOURS, frame
from fgvc.html.formats import relative_link
from fgvc.html.render import render
from fgvc.record import verify
from fgvc.record.badges import Badge, reason_badges
from fgvc.record.prediction_tables import read_class_rows
from fgvc.record.run_page import FILE
from fgvc.record.verify import DamageError
from fgvc.report.aggregate_seeds import Line, number_notes, unique_names
from fgvc.report.comparable_rates import rate_notes
from fgvc.report.pairwise_tests import ALPHA, TESTS, WORDS
from fgvc.report.ranking import Group, RankingEntry
from fgvc.report.run_rows import DamagedRun, Run

FILTERS = ("dataset", "backbone", "head", "resolution", "part_attention", "task")
SIZE = (720, 320)  # of the plot of accuracy against cost
SPACING, MAX_WIDTH = 14.0, 98.0  # pixels between points of equal cost, and in total
NUMBERED = 30  # maximum number of points that are labelled with their places
PER_CLASS = "per_class.csv"
MAX_LINES, CLASSES = 12, 200  # of the heat map: the best lines and the hardest classes are shown
Recall = dict[int, tuple[str, float]]  # class index -> class name, recall


def render_baselines(groups: Sequence[Group], damaged: Sequence[DamagedRun], target: Path) -> str:
    """Render the page.

    Args:
        target: the folder that the page will be written to.
    """
    sections = [_section(group, target) for group in groups]
    lines = [line for group in groups for line in group.lines]
    runs = [line.first for line in lines]
    values = {name: sorted({getattr(run, name) for run in runs}) for name in FILTERS}
    pretrained = [run for run in runs if run.weights_kind != "random"]
    facts = {
        "sections": sections,
        "damaged": damaged,
        "filters": {name: choices for name, choices in values.items() if len(choices) > 1},
        "alpha": ALPHA,
        "test_names": TESTS,
        "words": WORDS,
        "null": metrics.NULL_HYPOTHESIS,
        "datasets": _distinct(runs, "dataset"),
        "backbones": _distinct(pretrained, "model", "backbone_contamination"),
        "lines": len(runs),
        "runs": sum(len(line.runs) for line in lines),
    }
    return render("baselines.html", facts)


def _section(group: Group, target: Path) -> dict[str, Any]:
    """The facts of a group.

    A row has the place of its line (None: not ranked), page and seed of each run, number and text
    of its notes, why its images per second are not compared, comparisons with the best line and
    with the linear probe, and with the controls of part attention. against, controls: names of the
    comparisons that any row has.
    """
    numbers = number_notes(group.lines)
    rows = []
    named = zip(group.rows, unique_names(group.lines), rate_notes(group.lines), strict=True)
    for (place, entry), name, rate_note in named:
        line = entry.line
        pages = [run.path / FILE for run in line.runs]
        row = {
            "place": place,
            "name": name,
            "line": line,
            "run": line.first,
            "links": [
                (relative_link(page if page.is_file() else page.parent, target), run.seed)
                for page, run in zip(pages, line.runs, strict=True)
            ],
            "badges": list(_badges(entry)),
            "notes": [(numbers[note], note) for note in line.notes],
            "rate_note": rate_note,
            "comparisons": entry.comparisons,
            "controls": entry.controls,
        }
        rows.append(row)
    ranked = [row for row in rows if row["place"] is not None]
    lines = [(row["name"], row["line"]) for row in ranked]
    return {
        "group": group,
        "rows": ranked,
        "unranked": [row for row in rows if row["place"] is None],
        "notes": [(number, note) for note, number in numbers.items()],
        "against": list(dict.fromkeys(name for row in ranked for name in row["comparisons"])),
        "controls": list(dict.fromkeys(name for row in ranked for name in row["controls"])),
        "plot": plot_accuracy(lines),
        "heat": class_heatmap(lines),
    }


def _badges(entry: RankingEntry) -> Iterable[Badge]:
    line, run = entry.line, entry.line.first
    if entry.seeds_identical:
        yield Badge("seeds identical", "every seed predicts the same class for every test image")
    if entry.identical_to is not None:
        same = "the same predicted class for every test image as in that line"
        yield Badge(f"identical to #{entry.identical_to}", same)
    yield from reason_badges(line.reasons)
    yield from {badge.text: badge for member in line.runs for badge in member.badges}.values()
    yield Badge("licence", f"data: {run.dataset_license}; weights: {run.backbone_license}")
    if line.repeats:
        same = "runs with the same config, code, data and weights"
        yield Badge(f"repeated ×{line.repeats}", same)


def _distinct(runs: Iterable[Run], *names: str) -> list[Run]:
    """One run per combination of values of these fields."""
    by_value = {tuple(getattr(run, name) for name in names): run for run in runs}
    return [run for _, run in sorted(by_value.items(), key=lambda item: item[0])]


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


def class_heatmap(lines: Sequence[tuple[str, Line]]) -> dict[str, Any] | None:
    """Accuracy by class and line, averaged over seeds; None for a single line.

    Returns:
        columns: place and name of each line. rows: class name, mean, and accuracy per line, as
        fractions. classes: number of all classes. problems: one message per unreadable line.
    """
    if len(lines) < 2:
        return None
    recalls: dict[tuple[int, str], Recall] = {}
    problems = []
    for place, (name, line) in enumerate(lines[:MAX_LINES], 1):
        try:
            recall = _mean_recall(line)
            if any(other.keys() != recall.keys() for other in recalls.values()):
                raise DamageError(f"{PER_CLASS}: other classes than the other lines of its group")
            recalls[place, name] = recall
        except DamageError as error:
            problems.append(f"{place}. {name}: {error}")
    if not recalls:
        return None
    first = next(iter(recalls.values()))
    names = [name for name, _ in first.values()]
    recall_CL = np.array([[of_line[index][1] for of_line in recalls.values()] for index in first])
    mean_C = recall_CL.mean(axis=1)
    rows = [
        (names[c], float(mean_C[c]), recall_CL[c].tolist())
        for c in np.argsort(mean_C, kind="stable")[:CLASSES]
    ]
    return {"columns": list(recalls), "rows": rows, "classes": len(names), "problems": problems}


def _mean_recall(line: Line) -> Recall:
    """Recall averaged over the seeds, for the classes that have test images."""
    recalls: list[Recall] = []
    for run in line.runs:
        data = verify.read_verified(run.path, PER_CLASS, verify.read_index(run.path))
        try:
            rows = read_class_rows(data)
        except (KeyError, TypeError, ValueError) as error:
            raise DamageError(f"{PER_CLASS}: not readable by this version") from error
        recalls.append({row["index"]: (row["name"], row["recall"]) for row in rows})
    return {
        index: (name, sum(recall[index][1] for recall in recalls) / len(recalls))
        for index, (name, _) in recalls[0].items()
    }
