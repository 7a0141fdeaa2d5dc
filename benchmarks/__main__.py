"""`make bench`: every promise about speed as a ratio, both sides measured in one run.

The simulations that support the statistics run only when they are named.

python -m benchmarks [extraction loading second c_sweep knn parts startup training fiftyone]
                     [index report intervals intervals_unlike family_wise_error]
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
    class_intervals,
    family_wise_error,
    features,
    fiftyone,
    heads,
    index,
    part_attention,
    pictures,
    report,
    startup,
    training,
)
from benchmarks.side_by_side import Row

# Thousands of files to make before there is anything to measure, or minutes of simulation.
BIG = ("index", "report", "intervals", "intervals_unlike", "family_wise_error")


def main(wanted: list[str]) -> None:
    """Measure the rows asked for (all, if none is named) and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        groups = _groups(Path(folder))
        usual = [name for name in groups if name not in BIG]
        unknown = set(wanted) - set(groups)
        if unknown:
            sys.exit(f"benchmarks: no {', '.join(sorted(unknown))}; there are {', '.join(groups)}")
        rows = [row for name in wanted or usual for row in groups[name]()]
    _print(rows)
    if not torch.cuda.is_available():
        print("no CUDA device here: its rows were not measured")


def _groups(places: Path) -> dict[str, Callable[[], list[Row]]]:
    return {
        "extraction": lambda: [features.extraction(places, *row) for row in _extractions()],
        "loading": lambda: features.loading(places),
        "second": lambda: [features.second_run(places)],
        "c_sweep": lambda: [heads.c_sweep(places)],
        "knn": lambda: [heads.knn()],
        "parts": part_attention.rows,
        "startup": startup.rows,
        "training": lambda: [training.step(places, images, "cpu") for images in (8, 16)],
        "fiftyone": lambda: fiftyone.rows(places),
        "index": lambda: index.rows(places),
        "report": lambda: report.rows(places),
        "intervals": class_intervals.rows,
        "intervals_unlike": class_intervals.unlike_rows,
        "family_wise_error": family_wise_error.rows,
    }


def _extractions() -> list[tuple[str, int, float, str]]:
    """backbone, images, target, device."""
    rows = [("vit_base", 64, 0.95, "cpu"), ("vit_tiny", 256, 0.93, "cpu")]
    return rows + ([("vit_base", 512, 0.90, "cuda")] if torch.cuda.is_available() else [])


def _print(rows: list[Row]) -> None:
    table = Table(title=f"on {pictures.described()}, {torch.get_num_threads()} threads")
    for name in ("work", "against", "ratio", "target", "met", "detail"):
        table.add_column(name, overflow="fold")
    for row in rows:
        bound = f"{'≤' if row.most else '≥'} {row.target:g}"
        met = "yes" if row.met else "NO"
        table.add_row(row.work, row.against, f"{row.ratio:.2f}", bound, met, row.detail)
    Console(width=150 if not sys.stdout.isatty() else None).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
