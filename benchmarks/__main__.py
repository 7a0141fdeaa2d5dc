"""`make bench`: every promise about speed, measured against a baseline in the same process.

Simulations of the statistics only run if they are named.

python -m benchmarks [extraction loading second c_sweep knn parts startup training fiftyone]
                     [logistic_size index report intervals intervals_unlike family_wise_error]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
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
    heads,
    index,
    logistic_size,
    pages,
    part_attention,
    report,
    startup,
    training,
)
from benchmarks.side_by_side import Row

# these first write thousands of files, or simulate for minutes
ONLY_IF_NAMED = (
    "logistic_size",
    "index",
    "report",
    "intervals",
    "intervals_unlike",
    "family_wise_error",
)


def main(names: list[str]) -> None:
    """Measure the named groups (by default, all short ones) and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        groups = _groups(Path(folder))
        defaults = [name for name in groups if name not in ONLY_IF_NAMED]
        unknown = set(names) - set(groups)
        if unknown:
            sys.exit(f"benchmarks: no {', '.join(sorted(unknown))}; there are {', '.join(groups)}")
        rows = [row for name in names or defaults for row in groups[name]()]
    _print(rows)
    if not torch.cuda.is_available():
        print("no CUDA device here: its rows were not measured")


def _groups(folder_root: Path) -> dict[str, Callable[[], list[Row]]]:
    return {
        "extraction": lambda: [features.extraction(folder_root, *row) for row in _extractions()],
        "loading": lambda: features.loading(folder_root),
        "second": lambda: [features.second_run(folder_root)],
        "c_sweep": lambda: [heads.c_sweep(folder_root)],
        "logistic_size": lambda: logistic_size.rows(folder_root),
        "c_search": lambda: [heads.c_search(folder_root)],
        "knn": lambda: [heads.knn()],
        "parts": part_attention.rows,
        "startup": lambda: startup.rows(folder_root),
        "training": lambda: [training.step(folder_root, images, "cpu") for images in (8, 16)],
        "fiftyone": lambda: fiftyone.rows(folder_root),
        "index": lambda: index.rows(folder_root),
        "report": lambda: report.rows(folder_root),
        "pages": lambda: pages.rows(folder_root),
        "intervals": class_intervals.rows,
        "intervals_unlike": class_intervals.unlike_rows,
        "family_wise_error": family_wise_error.rows,
    }


def _extractions() -> list[tuple[str, int, float, str]]:
    """backbone, images, target, device."""
    rows = [("vit_base", 64, 0.95, "cpu"), ("vit_tiny", 256, 0.93, "cpu")]
    return rows + ([("vit_base", 512, 0.90, "cuda")] if torch.cuda.is_available() else [])


def _print(rows: list[Row]) -> None:
    table = Table(title=f"on {bench_dataset.describe()}, {torch.get_num_threads()} threads")
    for name in ("work", "against", "ratio", "target", "met", "detail"):
        table.add_column(name, overflow="fold")
    for row in rows:
        bound = f"{'≤' if row.upper_bound else '≥'} {row.target:g}"
        met = "yes" if row.met else "NO"
        table.add_row(row.work, row.baseline, f"{row.value:.2f}", bound, met, row.detail)
    Console(width=150 if not sys.stdout.isatty() else None).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
