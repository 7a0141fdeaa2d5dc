"""`make bench`: every promise about speed, measured against a limit in the same process.

The default groups take at most 15 minutes on two cores, at reduced sizes that the rows state. Full
sizes and simulations of the statistics only run if they are named.

python -m benchmarks [GROUP ...]
"""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import (
    bench_dataset,
    class_intervals,
    family_wise_error,
    features,
    fiftyone,
    gpu,
    heads,
    index,
    logistic_size,
    pages,
    part_attention,
    precision,
    report,
    result_file,
    startup,
    training,
)
from benchmarks.result_file import GroupResult
from benchmarks.side_by_side import Row


@dataclass(frozen=True)
class Group:
    """Rows that are measured together.

    measure: called with an empty folder. named: whether the group only runs if it is named.
    """

    measure: Callable[[Path], Row | Iterable[Row]]
    named: bool = False


GROUPS: Mapping[str, Group] = {
    "extraction": Group(features.extractions),
    "precision": Group(precision.rows),
    "loading": Group(features.loading),
    "second": Group(features.second_run),
    "c_sweep": Group(heads.c_sweep),
    "c_search": Group(heads.c_search),
    "knn": Group(lambda folder: heads.knn()),
    "parts": Group(lambda folder: part_attention.rows()),
    "startup": Group(startup.rows),
    "sweep": Group(startup.sweep_rows),
    "training": Group(training.steps),
    "fiftyone": Group(fiftyone.rows),
    "index": Group(index.rows),
    "index_full": Group(index.full_rows, named=True),
    "logistic_size": Group(logistic_size.rows, named=True),
    "gpu": Group(lambda folder: gpu.rows(), named=True),
    "report": Group(report.rows, named=True),
    "pages": Group(pages.rows, named=True),
    "intervals": Group(lambda folder: class_intervals.rows(), named=True),
    "intervals_unlike": Group(lambda folder: class_intervals.unlike_rows(), named=True),
    "family_wise_error": Group(lambda folder: family_wise_error.rows(), named=True),
}


def main(names: Sequence[str]) -> int:
    """Measure the named groups (by default, all short ones), print and store the table.

    Returns:
        1 if a group failed. A row that misses its target is no failure.
    """
    if unknown := set(names) - set(GROUPS):
        sys.exit(f"benchmarks: no {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    chosen = names or [name for name, group in GROUPS.items() if not group.named]
    results = {name: measure(GROUPS[name], name) for name in chosen}
    _print(results)
    if not torch.cuda.is_available():
        print("no CUDA device here: its rows were not measured")
    print(f"results: {result_file.write(results, bench_dataset.describe())}")
    return int(any(result.error is not None for result in results.values()))


def measure(group: Group, name: str) -> GroupResult:
    """Measure one group. An error ends the group; the rows before it are kept."""
    result, start = GroupResult(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            rows = group.measure(Path(folder))
            for row in (rows,) if isinstance(rows, Row) else rows:
                result.rows.append(row)
        except Exception as error:  # the other groups are still measured
            traceback.print_exc()
            result.error = f"{type(error).__name__}: {error}"
    result.seconds = time.perf_counter() - start
    print(f"{name}: {result.seconds:.0f} s", flush=True)
    return result


def _print(results: Mapping[str, GroupResult]) -> None:
    table = Table(title=f"on {bench_dataset.describe()}, {torch.get_num_threads()} threads")
    for name in ("work", "against", "ours", "limit", "other", "ratio", "target", "met", "detail"):
        table.add_column(name, overflow="fold")
    for group, result in results.items():
        for row in result.rows:
            bound = f"{'≤' if row.upper_bound else '≥'} {row.target:g}"
            cells = (row.work, row.baseline, row.ours, row.limit, row.other, f"{row.value:.2f}")
            table.add_row(*cells, bound, "yes" if row.met else "NO", row.detail)
        if result.error is not None:
            table.add_row(group, *[""] * 6, "FAILED", result.error)
    Console(width=180 if not sys.stdout.isatty() else None).print(table)
    rows = [row for result in results.values() for row in result.rows]
    failed = [name for name, result in results.items() if result.error is not None]
    seconds = sum(result.seconds for result in results.values())
    met = sum(row.met for row in rows)
    print(f"{met} of {len(rows)} rows met their targets; {seconds / 60:.1f} minutes")
    if failed:
        print(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
