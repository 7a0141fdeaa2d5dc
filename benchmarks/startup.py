"""What a person waits for before anything happens: --help and --cfg job, against `import hydra`."""

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
    found = []
    for name, command in commands.items():
        ours, limit = best_times(lambda c=command: _run(c), lambda: _run(hydra))
        found.append(
            Row(
                name,
                "import hydra",
                ours / limit,
                8.0,
                f"{ours:.2f} against {limit:.2f} s",
                most=True,
            )
        )
    return found


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)
