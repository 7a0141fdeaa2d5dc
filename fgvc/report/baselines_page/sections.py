"""Groups and damaged folders -> the text of baselines.html.

The text does not depend on the time. Only the links, which are relative to the page, depend on the
location of the folders.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fgvc import metrics
from fgvc.html.render import render
from fgvc.record.badges import Badge, reason_badges
from fgvc.record.run_page import FILE
from fgvc.report.aggregate_seeds import number_notes, unique_names
from fgvc.report.baselines_page.heatmap import class_heatmap
from fgvc.report.baselines_page.plot import plot_accuracy
from fgvc.report.pairwise_tests import ALPHA
from fgvc.report.ranking import Entry, Group
from fgvc.report.run_rows import DamagedRun, Run

TESTS = {
    "mcnemar": "McNemar's exact test",
    "sign_flip": "exact sign flips of each image's difference",
    "sign_flip_subsets": "exact sign flips over equal numbers of seeds, their geometric mean",
}
FILTERS = ("dataset", "backbone", "head", "resolution", "part_attention", "task")


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
    of its notes, comparisons with the best line and with the linear probe, and with the controls of
    part attention. against, controls: names of the comparisons that any row has.
    """
    numbers = number_notes(group.lines)
    rows = []
    for (place, entry), name in zip(group.rows, unique_names(group.lines), strict=True):
        line = entry.line
        row = {
            "place": place,
            "name": name,
            "line": line,
            "run": line.first,
            "links": [(_link(run.path, target), run.seed) for run in line.runs],
            "badges": list(_badges(entry)),
            "notes": [(numbers[note], note) for note in line.notes],
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


def _link(folder: Path, target: Path) -> str:
    """Relative link to the page of a run, or to its folder if it has no page."""
    page = folder / FILE
    return quote(os.path.relpath(page if page.is_file() else folder, target))


def _badges(entry: Entry) -> Iterable[Badge]:
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
        yield Badge(
            f"repeated ×{line.repeats}", "runs with the same config, code, data and weights"
        )


def _distinct(runs: Iterable[Run], *names: str) -> list[Run]:
    """One run per combination of values of these fields."""
    by_value = {tuple(getattr(run, name) for name in names): run for run in runs}
    return [run for _, run in sorted(by_value.items(), key=lambda item: item[0])]
