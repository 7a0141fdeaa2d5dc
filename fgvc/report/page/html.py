"""Groups and damaged folders -> the text of baselines.html.

Nothing in it depends on the time or on where the folders lie, but for the links, which are relative
to the page.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fgvc import metrics
from fgvc.record.console import TEST_MARKS
from fgvc.record.page import FILE
from fgvc.record.page.render import render
from fgvc.record.page.run import Badge, is_warning
from fgvc.report.aggregate_seeds import Line, number_notes, unique_names
from fgvc.report.page.heatmap import Heatmap, class_heatmap
from fgvc.report.page.plot import Plot, plot_accuracy
from fgvc.report.pairwise_tests import ALPHA, PairwiseTest
from fgvc.report.ranking import Entry, Group
from fgvc.report.run_rows import DamagedRun, Run, fit_marks

HOME = "fgvc.report.page"
TESTS = {
    "mcnemar": "McNemar's exact test",
    "sign_flip": "exact sign flips of each image's difference",
    "sign_flip_subsets": "exact sign flips over equal numbers of seeds, their geometric mean",
}
FILTERS = ("dataset", "backbone", "head", "resolution", "part_attention", "task")


@dataclass(frozen=True)
class Row:
    """A line of a table. place: None for a line outside the ranking. links: to each seed's page.
    notes: number and text. comparisons: with the best and with its probe; controls: of part
    attention."""

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
    """A group. rows: ranked lines. outside: lines that are not ranked. against, controls: names of
    the comparisons that any of its rows has."""

    key: str
    partial: bool
    speaks: Line
    rows: tuple[Row, ...]
    outside: tuple[Row, ...]
    against: tuple[str, ...]
    controls: tuple[str, ...]
    plot: Plot | None
    heat: Heatmap | None

    @property
    def notes(self) -> tuple[tuple[int, str], ...]:
        """Number and text of each distinct note of all rows."""
        rows = (*self.rows, *self.outside)
        return tuple(sorted({note for row in rows for note in row.notes}))


def render_baselines(groups: Sequence[Group], damaged: Sequence[DamagedRun], target: Path) -> str:
    """The page.

    Args:
        target: the folder that it will lie in.
    """
    sections = [_section(group, target) for group in groups]
    rows = [row for section in sections for row in (*section.rows, *section.outside)]
    runs = [row.run for row in rows]
    facts = {
        "sections": sections,
        "damaged": damaged,
        "filters": _filters(runs),
        "alpha": ALPHA,
        "tests": TESTS,
        "null": metrics.NULL_HYPOTHESIS,
        "datasets": _once(runs, "dataset"),
        "backbones": _once(
            (run for run in runs if run.weights_kind != "random"),
            "model",
            "backbone_contamination",
        ),
        "lines": len(runs),
        "runs": sum(len(row.line.runs) for row in rows),
        "fit_marks": fit_marks,
    }
    return render("baselines.html", HOME, facts)


def _section(group: Group, target: Path) -> Section:
    number, names = len(group.entries), unique_names(group.lines)
    numbered = number_notes(group.lines)
    rows = tuple(
        _row(place, name, entry, numbered, target)
        for place, (entry, name) in enumerate(zip(group.entries, names[:number], strict=True), 1)
    )
    outside = tuple(
        _row(None, name, Entry(line), numbered, target)
        for line, name in zip(group.outside, names[number:], strict=True)
    )
    lines = [(row.name, row.line) for row in rows]
    return Section(
        group.key,
        group.partial,
        group.fitted,
        rows,
        outside,
        tuple(dict.fromkeys(name for row in rows for name in row.comparisons)),
        tuple(dict.fromkeys(name for row in rows for name in row.controls)),
        plot_accuracy(lines),
        class_heatmap(lines),
    )


def _row(
    place: int | None, name: str, entry: Entry, numbered: Mapping[str, int], target: Path
) -> Row:
    line = entry.line
    return Row(
        place,
        name,
        line,
        tuple((_link(run.path, target), run.seed) for run in line.runs),
        tuple(_badges(entry)),
        tuple((numbered[note], note) for note in line.notes),
        comparisons(entry),
        entry.controls,
    )


def comparisons(entry: Entry) -> dict[str, PairwiseTest]:
    """What an entry was held against but for its controls: the best, and its probe."""
    held = {"versus": entry.versus, "over_probe": entry.over_probe}
    return {name: one for name, one in held.items() if one is not None}


def _link(folder: Path, target: Path) -> str:
    """To a run's own page; to its folder, where it has none."""
    page = folder / FILE
    return quote(os.path.relpath(page if page.is_file() else folder, target))


def _badges(entry: Entry) -> Iterable[Badge]:
    line, run = entry.line, entry.line.first
    if entry.seeds_identical:
        yield Badge("seeds identical", "every seed predicts the same class for every test image")
    if entry.identical_to is not None:
        same = "the same predicted class for every test image as in that line"
        yield Badge(f"identical to #{entry.identical_to}", same)
    yield from _fit_badges(line)
    if run.partial:
        yield Badge("partial", "a partial copy of the dataset", "warn")
    if run.subset is not None:
        yield Badge(f"subset {run.subset}", f"dataset.subset={run.subset}: a smoke test", "warn")
    if run.test_source in TEST_MARKS:
        yield Badge(TEST_MARKS[run.test_source], "the dataset has no test split of its own", "warn")
    if run.weights_kind == "random":
        yield Badge("random weights", "the backbone was not pretrained", "warn")
    elif is_warning(run.dataset_contamination):
        met = f"weights: {run.backbone_contamination} data: {run.dataset_contamination}"
        yield Badge("contamination", met)
    if is_warning(run.dataset_label_noise):
        yield Badge("label noise", run.dataset_label_noise)
    yield Badge("licence", f"data: {run.dataset_license}; weights: {run.backbone_license}")
    if any(one.git_dirty for one in line.runs):
        yield Badge("uncommitted code", "the commit alone is not this code", "warn")
    if run.stack_check == "skipped":
        yield Badge("stack not validated", "runtime.stack_check=false", "warn")
    if line.repeats:
        yield Badge(f"repeated ×{line.repeats}", "the same question and answer, run again")


def _fit_badges(line: Line) -> Iterable[Badge]:
    """Reasons why a line is not ranked beside plain runs."""
    run = line.first
    if run.overlap:
        yield Badge(
            f"fitted or chosen on {run.overlap} of {run.n} test images",
            "these test images, byte for byte, fitted or chose the head or backbone",
            "warn",
        )
    if line.contradicts is not None:
        yield Badge("other predictions", f"than {line.contradicts}, the same checkpoint", "warn")
    if run.forced:
        yield Badge("forced resume", "resumed by force from a state of another config", "warn")
    if run.debug is not None:
        yield Badge(f"debug: {run.debug}", "task.debug: a debugging run", "warn")


def _filters(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """What a reader may choose by, where there is a choice."""
    values = {name: sorted({getattr(run, name) for run in runs}) for name in FILTERS}
    return {name: found for name, found in values.items() if len(found) > 1}


def _once(runs: Iterable[Run], *names: str) -> list[Run]:
    """A run for each combination of values of these fields, which stands for the others."""
    by_value = {tuple(getattr(run, name) for name in names): run for run in runs}
    return [run for _, run in sorted(by_value.items(), key=lambda item: item[0])]
