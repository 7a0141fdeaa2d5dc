"""Groups and damaged folders -> the text of baselines.html.

The text does not depend on the time. Only the links, which are relative to the page, depend on the
location of the folders.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fgvc import metrics
from fgvc.html.render import render
from fgvc.record.badges import Badge, reason_badges
from fgvc.record.run_page import FILE
from fgvc.report.aggregate_seeds import Line, number_notes, unique_names
from fgvc.report.baselines_page.heatmap import Heatmap, class_heatmap
from fgvc.report.baselines_page.plot import Plot, plot_accuracy
from fgvc.report.pairwise_tests import ALPHA, PairwiseTest
from fgvc.report.ranking import Entry, Group
from fgvc.report.run_rows import DamagedRun, Run

TESTS = {
    "mcnemar": "McNemar's exact test",
    "sign_flip": "exact sign flips of each image's difference",
    "sign_flip_subsets": "exact sign flips over equal numbers of seeds, their geometric mean",
}
FILTERS = ("dataset", "backbone", "head", "resolution", "part_attention", "task")


@dataclass(frozen=True)
class Row:
    """A row of a table. place: None for a line outside the ranking. links: page and seed of each
    run. notes: number and text. comparisons: with the best line and with the linear probe;
    controls: with the controls of part attention."""

    place: int | None
    name: str
    line: Line
    links: tuple[tuple[str, int], ...]
    badges: tuple[Badge, ...]
    notes: tuple[tuple[int, str], ...]
    comparisons: dict[str, PairwiseTest]
    controls: Mapping[str, PairwiseTest]

    @property
    def run(self) -> Run:
        return self.line.first


@dataclass(frozen=True)
class Section:
    """A group. rows: ranked lines. unranked: lines that are not ranked. against, controls: names of
    the comparisons that any row has."""

    group: Group
    rows: tuple[Row, ...]
    unranked: tuple[Row, ...]
    against: tuple[str, ...]
    controls: tuple[str, ...]
    plot: Plot | None
    heat: Heatmap | None

    @property
    def notes(self) -> tuple[tuple[int, str], ...]:
        """Number and text of each distinct note of all rows."""
        rows = (*self.rows, *self.unranked)
        return tuple(sorted({note for row in rows for note in row.notes}))


def render_baselines(groups: Sequence[Group], damaged: Sequence[DamagedRun], target: Path) -> str:
    """Render the page.

    Args:
        target: the folder that the page will be written to.
    """
    sections = [_section(group, target) for group in groups]
    rows = [row for section in sections for row in (*section.rows, *section.unranked)]
    runs = [row.run for row in rows]
    facts = {
        "sections": sections,
        "damaged": damaged,
        "filters": _filter_choices(runs),
        "alpha": ALPHA,
        "test_names": TESTS,
        "null": metrics.NULL_HYPOTHESIS,
        "datasets": _distinct(runs, "dataset"),
        "backbones": _distinct(
            (run for run in runs if run.weights_kind != "random"),
            "model",
            "backbone_contamination",
        ),
        "lines": len(runs),
        "runs": sum(len(row.line.runs) for row in rows),
    }
    return render("baselines.html", facts)


def _section(group: Group, target: Path) -> Section:
    number, names = len(group.entries), unique_names(group.lines)
    note_numbers = number_notes(group.lines)
    rows = tuple(
        _row(place, name, entry, note_numbers, target)
        for place, (entry, name) in enumerate(zip(group.entries, names[:number], strict=True), 1)
    )
    unranked = tuple(
        _row(None, name, Entry(line), note_numbers, target)
        for line, name in zip(group.unranked, names[number:], strict=True)
    )
    lines = [(row.name, row.line) for row in rows]
    return Section(
        group,
        rows,
        unranked,
        tuple(dict.fromkeys(name for row in rows for name in row.comparisons)),
        tuple(dict.fromkeys(name for row in rows for name in row.controls)),
        plot_accuracy(lines),
        class_heatmap(lines),
    )


def _row(
    place: int | None, name: str, entry: Entry, note_numbers: Mapping[str, int], target: Path
) -> Row:
    line = entry.line
    return Row(
        place,
        name,
        line,
        tuple((_link(run.path, target), run.seed) for run in line.runs),
        tuple(_badges(entry)),
        tuple((note_numbers[note], note) for note in line.notes),
        comparisons(entry),
        entry.controls,
    )


def comparisons(entry: Entry) -> dict[str, PairwiseTest]:
    """The comparisons of an entry with the best line and with its probe."""
    comparisons_by_name = {"versus": entry.versus, "over_probe": entry.over_probe}
    return {name: test for name, test in comparisons_by_name.items() if test is not None}


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


def _filter_choices(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Values of each filter that has several values."""
    values = {name: sorted({getattr(run, name) for run in runs}) for name in FILTERS}
    return {name: choices for name, choices in values.items() if len(choices) > 1}


def _distinct(runs: Iterable[Run], *names: str) -> list[Run]:
    """One run per combination of values of these fields."""
    by_value = {tuple(getattr(run, name) for name in names): run for run in runs}
    return [run for _, run in sorted(by_value.items(), key=lambda item: item[0])]
