"""Two runs -> how the table of their output root compares the rows that contain them.

A table adjusts each p and interval for all pairs of a family, so a difference that is significant
for the pair alone may be "not distinguishable" there. The table is derived again from the run
folders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc import metrics, untrusted
from fgvc.report.aggregate_seeds import Line
from fgvc.report.pairwise_tests import PairwiseTest, compare_lines
from fgvc.report.predictions import read_test_predictions
from fgvc.report.ranking import Group, RankingEntry, rank_lines
from fgvc.report.run_rows import Run, scan_runs

LEVELS = 3  # run_id/config_hash/checkpoint_id
FAMILIES = {  # of pairs, by what a row is compared with
    "versus": "all pairs of its group in the table",
    "over_probe": "finetunes of the table, each with its probe",
    "control": "part attention of the table, each with its controls",
    "pair": "all pairs of its group; the table shows other pairs of it",
}


@dataclass(frozen=True)
class TablePair:
    """A comparison of two rows. kind: a key of FAMILIES. lines: the row of each run."""

    group: str
    kind: str
    lines: tuple[Line, Line]
    test: PairwiseTest

    def plain(self) -> dict[str, Any]:
        """The fields of a JSON file."""
        test = self.test
        return {
            "group": self.group,
            "kind": self.kind,
            "family": FAMILIES[self.kind],
            "pairs": test.family,
            "seeds": [[run.seed for run in line.runs] for line in self.lines],
            "test": test.test,
            "value": test.value,
            "low": test.low_holm,
            "high": test.high_holm,
            "level": 1 - test.alpha_holm,
            "p": test.p_holm,
            "verdict": test.verdict,
            "same_right": test.same_right,
        }


def pairs_in_table(run: Run, against: Run) -> tuple[list[TablePair], str | None]:
    """The comparisons of two comparable runs in the table of their output root.

    Returns:
        The comparisons, each as run minus against, and otherwise why there is none.
    """
    if run.path.resolve() == against.path.resolve():
        return [], "run and against are the same run"
    root = _output_root(run)
    if root is None or root != _output_root(against):
        return [], "the runs are not in one output root, so no table contains both"
    runs, _ = scan_runs(untrusted.folders_below(root, LEVELS))
    bases = {run.comparability_base, against.comparability_base}
    groups, _ = rank_lines([other for other in runs if other.comparability_base in bases])
    pairs, reasons = [], []
    for group in groups:
        entry, other = _entry(group, run), _entry(group, against)
        if entry is None or other is None:
            continue
        if (reason := _why_not_compared(entry, other)) is not None:
            reasons.append(reason)
        else:
            pairs += _pairs(group, entry, other)
    if not pairs and not reasons:
        reasons = [f"the table has no row with both: {_missing(groups, run, against)}"]
    return pairs, None if pairs else reasons[0]


def _output_root(run: Run) -> Path | None:
    """The folder that holds run_id/config_hash/checkpoint_id; None for a folder moved elsewhere."""
    path = run.path.resolve()
    return path.parents[2] if path.parents[1].name == run.run_id else None


def _entry(group: Group, run: Run) -> RankingEntry | None:
    """The row of a group that contains the run."""
    rows = (entry for _, entry in group.rows)
    return next((row for row in rows if run.folder in {r.folder for r in row.line.runs}), None)


def _why_not_compared(entry: RankingEntry, other: RankingEntry) -> str | None:
    if entry.line == other.line:
        return "both are seeds of one row, whose numbers are their means"
    for line in (entry.line, other.line):
        if line.why_unranked is not None:
            return f"{line.first.folder} is not ranked: {line.why_unranked}"
    return None


def _missing(groups: list[Group], run: Run, against: Run) -> str:
    shown = {r.folder for group in groups for line in group.lines for r in line.runs}
    missing = [side.folder for side in (run, against) if side.folder not in shown]
    hidden = "an older run of its question, or an evaluation with the same predictions"
    return f"{missing[0]} is {hidden}" if missing else "they are in different groups"


def _pairs(group: Group, entry: RankingEntry, other: RankingEntry) -> Iterator[TablePair]:
    """The comparisons that the table shows, or otherwise this pair among all pairs of the group."""
    lines, shown = (entry.line, other.line), False
    for first, second, turned in ((entry, other, False), (other, entry, True)):
        tests = [*first.comparisons.items()]
        tests += [("control", test) for test in first.controls.values()]
        for kind, test in tests:
            if test.against == second.line.first.folder:
                shown = True
                test = test.reversed(first.line.first.folder) if turned else test
                yield TablePair(group.key, kind, lines, test)
    if not shown:
        yield TablePair(group.key, "pair", lines, _among_all_pairs(group, lines))


def _among_all_pairs(group: Group, lines: tuple[Line, Line]) -> PairwiseTest:
    """The pair beside the comparisons with the best line, adjusted for all pairs of the group.

    Pairs that are never tested count as p = 1 in Holm's adjustment.
    """
    best = group.entries[0].line
    runs = [run for entry in group.entries for run in entry.line.runs]
    predictions = {run.path: read_test_predictions(run) for run in runs}
    pairs = [(entry.line, best) for entry in group.entries[1:]]
    family = metrics.all_pairs(len(group.entries))
    return compare_lines([*pairs, lines], predictions, family)[-1]
