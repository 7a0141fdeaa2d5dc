"""Time of --help and --cfg job vs. `import hydra`, of a second probe vs. `import torch`, and of a
sweep between its jobs.
"""

from __future__ import annotations

import datetime
import json
import statistics
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from benchmarks import bench_dataset
from benchmarks.side_by_side import Row, best_times

RUN = ("-m", "fgvc.run")


def rows(folder: Path) -> list[Row]:
    """Each command in its own process."""
    model = ["backbone=vit_tiny", "backbone.pretrained=false"]
    probe = [*bench_dataset.overrides(folder), *model, "runtime.stack_check=false"]
    return [
        _row("--help", ["--help"], "import hydra", 8.0),
        _row("--cfg job", ["--cfg", "job"], "import hydra", 8.0),
        _row("second probe, its features cached", probe, "import torch", 2.2, rounds=5),
    ]


def sweep_rows(folder: Path, jobs: int = 6) -> list[Row]:
    """Time from a sealed record to the start of the next job, and images that are forwarded twice.

    The jobs differ in the seed of the split, so that they share all features.
    """
    seeds = ",".join(map(str, range(jobs)))
    arguments = [
        "-m", "dataset=synthetic", "dataset.generator.side=64", "dataset.generator.classes=20",
        f"dataset.split_seed={seeds}", "head=knn", "backbone=vit_tiny",
        "backbone.pretrained=false", "resolution.side=64", "resolution.name=r64",
        "runtime.stack_check=false",
        *(f"runtime.{name}_root={folder / name}" for name in ("data", "cache", "output")),
        f"runtime.multirun_root={folder / 'multirun'}",
    ]  # fmt: skip
    _python(*RUN, *arguments)
    runs = [file.parent for file in (folder / "output").glob("*/*/*/status.json")]
    times = sorted(_start_and_end(run) for run in runs)
    costs = [json.loads((run / "metrics.json").read_bytes())["cost"] for run in runs]
    between = [(later[0] - earlier[1]).total_seconds() for earlier, later in pairwise(times)]
    work = statistics.median((end - start).total_seconds() for start, end in times)
    repeated = sum(sorted(cost["forwarded"] for cost in costs)[:-1])
    title = f"sweep of {len(runs)} jobs"
    return [
        Row(f"{title}: seconds from a record to the next job", "–", statistics.median(between),
            0.5, f"{work:.1f} s per job", upper_bound=True),
        Row(f"{title}: images forwarded after the first job", "–", repeated, 0, "",
            upper_bound=True),
    ]  # fmt: skip


def _start_and_end(run: Path) -> tuple[datetime.datetime, datetime.datetime]:
    status = json.loads((run / "status.json").read_bytes())
    start, end = (datetime.datetime.fromisoformat(status[key]) for key in ("started", "updated"))
    return start, end


def _row(work: str, arguments: list[str], baseline: str, target: float, rounds: int = 2) -> Row:
    seconds, reference = best_times(
        lambda: _python(*RUN, *arguments), lambda: _python("-c", baseline), rounds=rounds
    )
    return Row(
        work,
        baseline,
        seconds / reference,
        target,
        "",
        upper_bound=True,
        ours=f"{seconds:.2f} s",
        limit=f"{reference:.2f} s",
    )


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
