"""Every complete run under an output root -> baselines.csv, baselines.json and baselines.html.

Derived from the run folders and from nothing else: the same folders give the same bytes, wherever
they lie. One row a line and group; a zero-shot line has one in each group it joins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fgvc import metrics, untrusted
from fgvc.record.retention import SHORTEST
from fgvc.report import page, pairwise_tests, ranking, table_archive
from fgvc.report.controls import CONTROLS
from fgvc.report.pairwise_tests import PairwiseTest
from fgvc.report.ranking import Entry, Group
from fgvc.report.run_rows import DamagedRun, scan_runs
from fgvc.store import atomic
from fgvc.types import UserError
from fgvc.untrusted.escape import csv_text


@dataclass(frozen=True)
class Table:
    """What the run folders say. groups: rows of different ones are never ranked together."""

    groups: tuple[Group, ...]
    damaged: tuple[DamagedRun, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Every field of every row, as plain data."""
        return [row for group in self.groups for row in _rows(group)]


def build_table(folders: Iterable[Path]) -> Table:
    """The table of those among `folders` that are sealed runs; damaged ones are listed beside."""
    runs, damaged = scan_runs(folders)
    groups, lost = ranking.rank_lines(runs)
    everything = sorted([*damaged, *lost], key=lambda one: one.folder)
    return Table(tuple(groups), tuple(everything))


def write_baselines(output_root: Path, target: Path, days: int = SHORTEST) -> Table:
    """Write baselines.csv, .json and .html into `target`, each whole or not at all.

    Args:
        days: how long the table is kept at least; one that it replaces keeps its own time.

    Raises:
        UserError: no run to make a table of.
        OSError: the folder cannot be read or written.
    """
    table = build_table(untrusted.folders_below(output_root, 3))
    if not table.groups:
        raise UserError(f"runtime.output_root={output_root}: {_nothing(table)}")
    formats = {
        "csv": _csv(table.rows()).encode(),
        "json": atomic.json_bytes(_plain(table)),
        "html": page.render_baselines(table.groups, table.damaged, target).encode(),
    }
    table_archive.write_table(target, formats, days)
    return table


def _nothing(table: Table) -> str:
    if not table.damaged:
        return "no complete run lies there; run one first, or name the folder that holds them"
    first, count = table.damaged[0], len(table.damaged)
    if all(record.other_version for record in table.damaged):
        return (
            f"no run there can be read by this version of fgvc: {count} passed over (first: "
            f"{first.folder}, {first.why})"
        )
    return (
        f"all {count} runs there are damaged (first: {first.folder}, {first.why}); "
        "restore or repeat them"
    )


def _rows(group: Group) -> Iterator[dict[str, Any]]:
    """The ranked lines, then the lines outside the ranking, without place and comparisons."""
    for place, entry in enumerate(group.entries, 1):
        yield _row(group, place, entry)
    for line in group.outside:
        yield _row(group, None, Entry(line))


def _row(group: Group, place: int | None, entry: Entry) -> dict[str, Any]:
    versus = entry.versus
    return {
        "group": group.key,
        "place": place,
        "outside": entry.line.outside,
        "best": place is not None and versus is None,
        "tie_with_best": versus.verdict == "tie" if versus else None,
        "identical_to_best": versus.identical if versus else None,
        "same_images_right_as_best": versus.same_right if versus else None,
        "identical_to_place": entry.identical_to,
        "distinct_answers": entry.distinct_answers,
        "test_against_best": versus.test if versus else None,
        "top1_minus_best": versus.difference if versus else None,
        "top1_minus_best_low": versus.low if versus else None,
        "top1_minus_best_high": versus.high if versus else None,
        "p": versus.p if versus else None,
        "p_holm": versus.p_holm if versus else None,
        "p_holm_pairs": versus.family if versus else None,
        **_minus("probe", entry.over_probe),
        **{
            key: value
            for name in CONTROLS
            for key, value in _minus(name, entry.controls.get(name)).items()
        },
        **entry.line.columns(),
    }


def _minus(name: str, held: PairwiseTest | None) -> dict[str, float | None]:
    """Columns of a comparison with something other than the best."""
    return {
        f"top1_minus_{name}": held.difference if held else None,
        f"top1_minus_{name}_low": held.low if held else None,
        f"top1_minus_{name}_high": held.high if held else None,
        f"p_{name}": held.p if held else None,
        f"p_{name}_holm": held.p_holm if held else None,
        f"p_{name}_holm_pairs": held.family if held else None,
        f"identical_to_{name}": held.identical if held else None,
    }


def _plain(table: Table) -> dict[str, Any]:
    """The table as JSON, with what the comparisons rest on."""
    return {
        "alpha": pairwise_tests.ALPHA,
        "tests": {
            "null": metrics.NULL_HYPOTHESIS,
            "adjustment": "Holm over a family of pairs; p_*holm_pairs is its size",
            "family_against_best": "all pairs of the group's lines: the best is selected on test",
            "family_against_probe": "the group's finetunes, each with its probe",
            "family_against_controls": "the group's choices of part attention with each control",
        },
        "bootstrap": {"draws": pairwise_tests.DRAWS, "seed": pairwise_tests.SEED},
        "rows": table.rows(),
        "damaged": [asdict(one) for one in table.damaged],
    }


def _csv(rows: list[dict[str, Any]]) -> str:
    return csv_text([list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)])


def _cell(value: Any) -> Any:
    """Empty for None; what differs between seeds in one cell, in their order."""
    if isinstance(value, list):
        return "; ".join(map(_cell, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
