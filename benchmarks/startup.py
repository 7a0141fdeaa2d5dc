"""Time of --help and --cfg job vs. `import hydra`, and of a second probe vs. `import torch`."""

from __future__ import annotations

import subprocess
import sys
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


def _row(work: str, arguments: list[str], baseline: str, target: float, rounds: int = 3) -> Row:
    seconds, reference = best_times(
        lambda: _python(*RUN, *arguments), lambda: _python("-c", baseline), rounds=rounds
    )
    detail = f"{seconds:.2f} against {reference:.2f} s"
    return Row(work, baseline, seconds / reference, target, detail, upper_bound=True)


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
