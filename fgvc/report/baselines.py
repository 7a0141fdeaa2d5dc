"""Every complete run under an output root -> baselines.csv, baselines.json and baselines.html.

The tables are derived from the run folders alone: the same folders give the same bytes under any
output root. There is one row per line and group; a zero-shot line has one in each group it joins.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fgvc import metrics, untrusted
from fgvc.record.retention import SHORTEST
from fgvc.report import pairwise_tests, ranking, table_archive
from fgvc.report.baselines_page import render_baselines
from fgvc.report.pairwise_tests import CONTROLS, PairwiseTest
from fgvc.report.ranking import Group, RankingEntry
from fgvc.report.run_rows import DamagedRun, scan_runs
from fgvc.store import atomic
from fgvc.types import UserError
from fgvc.untrusted.escape import csv_text

FIRST = ("name", "top1", "top1_low", "top1_high")  # columns that a person looks for


@dataclass(frozen=True)
class BaselinesTable:
    """All ranked groups and the folders that were left out."""

    groups: tuple[Group, ...]
    damaged: tuple[DamagedRun, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Every field of every row, as plain data."""
        return [_row(group, *row) for group in self.groups for row in group.rows]


def build_table(folders: Iterable[Path]) -> BaselinesTable:
    """Rank the complete runs among `folders`; damaged runs are listed separately."""
    runs, damaged = scan_runs(folders)
    groups, unreadable = ranking.rank_lines(runs)
    left_out = sorted([*damaged, *unreadable], key=lambda run: run.folder)
    return BaselinesTable(tuple(groups), tuple(left_out))


def write_baselines(output_root: Path, target: Path, days: int = SHORTEST) -> BaselinesTable:
    """Write baselines.csv, .json and .html into `target`, each atomically.

    Args:
        days: minimum retention of this table; a replaced table keeps its own retention.

    Raises:
        UserError: there is no readable run.
        OSError: the folder cannot be read or written.
    """
    table = build_table(untrusted.folders_below(output_root, 3))
    if not table.groups:
        raise UserError(f"runtime.output_root={output_root}: {_reason_for_no_table(table)}")
    rows = table.rows()
    cells = ([_cell(value) for value in row.values()] for row in rows)
    formats = {
        "csv": csv_text([list(rows[0]), *cells]).encode(),
        "json": atomic.json_bytes(_table_json(table)),
        "html": render_baselines(table.groups, table.damaged, target).encode(),
    }
    table_archive.write_table(target, formats, days)
    return table


def _reason_for_no_table(table: BaselinesTable) -> str:
    if not table.damaged:
        return "no complete run; run one first, or set it to the folder that holds the runs"
    first, count = table.damaged[0], len(table.damaged)
    if all(record.other_version for record in table.damaged):
        return (
            f"this version of fgvc reads none of its runs: {count} skipped (first: "
            f"{first.folder}, {first.why})"
        )
    return (
        f"all {count} runs are damaged (first: {first.folder}, {first.why}); "
        "restore or repeat these runs"
    )


def _row(group: Group, place: int | None, entry: RankingEntry) -> dict[str, Any]:
    versus, controls = entry.versus, {}
    for name in CONTROLS:
        controls |= _comparison_columns(name, entry.controls.get(name))
    row = {
        "group": group.key,
        "place": place,
        "outside": entry.line.why_unranked,
        "best": place is not None and versus is None,
        "tie_with_best": versus and versus.verdict == "tie",
        "identical_to_best": versus and versus.identical,
        "same_images_right_as_best": versus and versus.same_right,
        "identical_to_place": entry.identical_to,
        "distinct_answers": entry.distinct_answers,
        "test_against_best": versus and versus.test,
        "top1_minus_best": versus and versus.value,
        "top1_minus_best_low": versus and versus.low,
        "top1_minus_best_high": versus and versus.high,
        "p": versus and versus.p,
        "p_holm": versus and versus.p_holm,
        "top1_minus_best_low_holm": versus and versus.low_holm,
        "top1_minus_best_high_holm": versus and versus.high_holm,
        "p_holm_pairs": versus and versus.family,
        **_comparison_columns("probe", entry.over_probe),
        **controls,
        **entry.line.columns(),
    }
    return {name: row[name] for name in FIRST} | row


def _comparison_columns(name: str, comparison: PairwiseTest | None) -> dict[str, float | None]:
    fields = {
        f"top1_minus_{name}": "value",
        f"top1_minus_{name}_low": "low",
        f"top1_minus_{name}_high": "high",
        f"p_{name}": "p",
        f"p_{name}_holm": "p_holm",
        f"top1_minus_{name}_low_holm": "low_holm",
        f"top1_minus_{name}_high_holm": "high_holm",
        f"p_{name}_holm_pairs": "family",
        f"identical_to_{name}": "identical",
    }
    return {column: comparison and getattr(comparison, field) for column, field in fields.items()}


def _table_json(table: BaselinesTable) -> dict[str, Any]:
    return {
        "alpha": pairwise_tests.ALPHA,
        "tests": {
            "null": metrics.NULL_HYPOTHESIS,
            "adjustment": "Holm over a family of pairs; p_*holm_pairs is its size",
            "tie": "tie_with_best: not distinguishable from the best, p_holm > alpha",
            "family_against_best": "all pairs of the group's lines: the best is selected on test",
            "family_against_probe": "the group's finetunes, each with its probe",
            "family_against_controls": "the group's choices of part attention with each control",
        },
        "intervals": "bootstrap over images; *_holm: at Holm's level, otherwise of the pair alone",
        "rows": table.rows(),
        "damaged": [asdict(run) for run in table.damaged],
    }


def _cell(value: Any) -> Any:
    """A value as CSV text: empty for None, joined by semicolons for one value per seed."""
    if isinstance(value, list):
        return "; ".join(map(_cell, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
