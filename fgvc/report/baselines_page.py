"""Groups of ranked lines and damaged folders -> the text of baselines.html, a self-contained page.

The text does not depend on the time. Only the links, which are relative to the page, depend on the
location of the folders. cost_chart, class_heatmap and dataset_matrix draw its charts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fgvc import metrics
from fgvc.html.formats import relative_link
from fgvc.html.render import render
from fgvc.record.badges import Badge, reason_badges
from fgvc.record.run_page import FILE
from fgvc.report.aggregate_seeds import number_notes, unique_names
from fgvc.report.class_heatmap import class_heatmap
from fgvc.report.comparable_rates import rate_notes
from fgvc.report.cost_chart import Encoding, plot_accuracy
from fgvc.report.dataset_matrix import dataset_matrices
from fgvc.report.pairwise_tests import (
    ALPHA,
    ATTENTION_FREE,
    CONTROLS,
    TESTS,
    WORDS,
    in_box_shares,
)
from fgvc.report.ranking import Group, RankingEntry, distinct_titles
from fgvc.report.run_rows import DamagedRun, Run

ALWAYS_SHOWN = ("off", *ATTENTION_FREE)  # a missing control is named, too
FILTERS = ("dataset", "backbone", "head", "resolution", "part_attention", "task")


def render_baselines(groups: Sequence[Group], damaged: Sequence[DamagedRun], target: Path) -> str:
    """Render the page.

    Args:
        target: the folder that the page will be written to.
    """
    lines = [line for group in groups for line in group.lines]
    encoding = Encoding.of(lines)
    titles = distinct_titles(groups)
    sections = [
        {"title": title, **_section(group, target, encoding)}
        for group, title in zip(groups, titles, strict=True)
    ]
    runs = [line.first for line in lines]
    values = {name: sorted({getattr(run, name) for run in runs}) for name in FILTERS}
    pretrained = [run for run in runs if run.weights_kind != "random"]
    facts = {
        "sections": sections,
        "matrices": dataset_matrices(groups),
        "damaged": damaged,
        "filters": {name: choices for name, choices in values.items() if len(choices) > 1},
        "alpha": ALPHA,
        "test_names": TESTS,
        "words": WORDS,
        "null": metrics.NULL_HYPOTHESIS,
        "datasets": _distinct(runs, "dataset"),
        "backbones": _distinct(pretrained, "model", "backbone_contamination"),
        "lines": len(runs),
        "runs": sum(len(line.runs) + line.repeats for line in lines),
    }
    return render("baselines.html", facts)


def _section(group: Group, target: Path, encoding: Encoding) -> dict[str, Any]:
    """The facts of a group.

    rows: as of `_row`, with their names and why their images per second are not compared. Badges
    and notes that all rows share are facts of the group. against: names of the comparisons that any
    row has. parts: the rows with part attention; controls: the names of their controls.
    """
    numbers = number_notes(group.lines)
    named = zip(group.rows, unique_names(group.lines), rate_notes(group.lines), strict=True)
    rows = [
        {"name": name, "rate_note": rate_note, **_row(place, entry, group, target, numbers)}
        for (place, entry), name, rate_note in named
    ]
    ranked = [row for row in rows if row["place"] is not None]
    lines = [(row["name"], row["line"]) for row in ranked]
    parts = [row for row in ranked if row["run"].part_attention != "off"]
    compared = {name for row in parts for name in row["controls"]}
    return {
        "group": group,
        "badges": _hoist(rows, "badges"),
        "shared_notes": [number for number, _ in _hoist(rows, "notes")],
        "rows": ranked,
        "unranked": [row for row in rows if row["place"] is None],
        "notes": [(number, note) for note, number in numbers.items()],
        "against": list(dict.fromkeys(name for row in ranked for name in row["comparisons"])),
        "parts": parts,
        "controls": [name for name in CONTROLS if name in compared or name in ALWAYS_SHOWN],
        "plot": plot_accuracy(lines, encoding),
        "heat": class_heatmap(lines),
    }


def _row(
    place: int | None, entry: RankingEntry, group: Group, target: Path, numbers: Mapping[str, int]
) -> dict[str, Any]:
    """The facts of a row of a group.

    place: None: not ranked. links: page and seed of each run. notes: number and text of each.
    comparisons: with the best line and with the linear probe. controls: comparisons with the
    controls of part attention.
    """
    line = entry.line
    pages = [run.path / FILE for run in line.runs]
    return {
        "place": place,
        "line": line,
        "run": line.first,
        "links": [
            (relative_link(page if page.is_file() else page.parent, target), run.seed)
            for page, run in zip(pages, line.runs, strict=True)
        ],
        "badges": list(_badges(entry)),
        "notes": [(numbers[note], note) for note in line.notes],
        "comparisons": entry.comparisons,
        "controls": entry.controls,
        "in_box": in_box_shares(line, group.lines),
    }


def _hoist(rows: Sequence[dict[str, Any]], field: str) -> list[Any]:
    """Take the items that all rows share out of a list of each row; returns them in order."""
    shared = [item for item in rows[0][field] if all(item in row[field] for row in rows)]
    for row in rows:
        row[field] = [item for item in row[field] if item not in shared]
    return shared


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
        yield Badge(f"{line.repeats} repeated run{'s' * (line.repeats > 1)}", same)


def _distinct(runs: Iterable[Run], *names: str) -> list[Run]:
    """One run per combination of values of these fields."""
    by_value = {tuple(getattr(run, name) for name in names): run for run in runs}
    return [run for _, run in sorted(by_value.items(), key=lambda item: item[0])]
