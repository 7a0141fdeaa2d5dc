"""Start-up time of --help and --cfg job, vs. `import hydra`."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.side_by_side import Row, best_times


def rows() -> list[Row]:
    """Each command in a process of its own."""
    hydra = [sys.executable, "-c", "import hydra"]
    commands = {
        name: [sys.executable, "-m", "fgvc.run", *name.split()] for name in ("--help", "--cfg job")
    }
    rows_found = []
    for name, command in commands.items():
        seconds, reference = best_times(lambda c=command: _run(c), lambda: _run(hydra))
        rows_found.append(
            Row(
                name,
                "import hydra",
                seconds / reference,
                8.0,
                f"{seconds:.2f} against {reference:.2f} s",
                upper_bound=True,
            )
        )
    return rows_found


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)
