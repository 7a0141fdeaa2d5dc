"""The jobs that need no process of their own -> run in this process, one after another.

They are the single job of a command, and operations (report, prune, ...) of a multirun.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from omegaconf import DictConfig

from fgvc.config.overrides import JobConfig
from fgvc.exit_codes import FAILED, PREEMPTED
from fgvc.launch import hydra_app
from fgvc.launch.run_job import run_job


def run_single(job: JobConfig, run_id: str, overrides: Sequence[str], command: str) -> int:
    """Run the only job of a command, which is composed already, without Hydra."""
    cfg = job.compose()
    cfg.runtime.run_id = run_id
    own = [item for item in overrides if not item.lstrip("+~").startswith("hydra")]
    return run_job(cfg, own, command).code


def run_operations(
    run_id: str, overrides: Sequence[str], command: str, jobs: Sequence[JobConfig]
) -> int:
    """Run operations one after another; returns the largest of their exit codes."""
    codes: list[int] = []

    def run(cfg: DictConfig, overrides: Sequence[str]) -> None:
        if PREEMPTED not in codes:  # after a signal, the remaining operations do not start
            codes.append(run_job(cfg, overrides, command).code)

    try:
        hydra_app.launch(run, jobs, run_id, overrides)
    except OSError as error:
        print(f"fgvc: {error.filename or ''}: {error.strerror}", file=sys.stderr)
        return FAILED
    return max(codes, default=FAILED)
