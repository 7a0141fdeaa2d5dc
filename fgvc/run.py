"""The one entrypoint: arguments -> checked jobs -> one run folder each -> an exit code.

    python -m fgvc.run backbone=dinov2 dataset=cub

Compose, validate, hand over: what a task needs (torch and the rest) is imported only when it runs,
so that --help and --cfg job answer at once.
"""

from __future__ import annotations

import datetime
import re
import secrets
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fgvc.config.compose import (
    CONFIG_NAME,
    conf_dir,
    config_hash,
    is_operation,
    register_schema,
    resolved,
)
from fgvc.config.errors import ConfigError
from fgvc.config.help import page
from fgvc.config.overrides import Job, jobs_of, normalized

DONE, FAILED, WRONG_COMMAND = 0, 1, 2
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments ask for; returns the exit code."""
    if not {"--help", "-h"}.isdisjoint(arguments):
        print(page())
        return DONE
    arguments = [normalized(argument) for argument in arguments]
    flags = get_args_parser().parse_args(arguments)
    try:
        run_id = _run_id(flags.overrides)
        jobs = jobs_of(flags.overrides, flags.multirun)
    except ConfigError as error:
        print(f"fgvc: {error}", file=sys.stderr)
        return WRONG_COMMAND
    if flags.cfg or flags.info:
        return _through_hydra(arguments, [])
    if jobs[0].conf.runtime.dry_run:
        return _show_plan(run_id, jobs)
    codes: list[int] = []
    given = any(item.startswith("runtime.run_id=") for item in flags.overrides)
    _through_hydra([*arguments, *([] if given else [f"runtime.run_id={run_id}"])], codes)
    if flags.multirun and not is_operation(jobs[0].conf):
        _close_sweep(run_id, jobs)
    return max(codes, default=FAILED)


def script() -> None:
    """The `fgvc` command."""
    sys.exit(main(sys.argv[1:]))


def new_run_id() -> str:
    """A sortable UTC time and a short random part."""
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def _run_id(overrides: Sequence[str]) -> str:
    given = [item.partition("=")[2] for item in overrides if item.startswith("runtime.run_id=")]
    if not given:
        return new_run_id()
    if not RUN_ID.fullmatch(given[-1]):
        raise ConfigError(
            f"runtime.run_id={given[-1]}: letters, digits, dot, dash and underscore, at most 100"
        )
    return given[-1]


def _through_hydra(arguments: Sequence[str], codes: list[int]) -> int:
    """Let Hydra launch the jobs (its launchers, its sweep folder); each leaves its exit code."""
    GlobalHydra.instance().clear()
    register_schema()
    command = shlex.join(["python", "-m", "fgvc.run", *arguments])

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=CONFIG_NAME)
    def job(cfg: DictConfig) -> None:
        from fgvc.task import run_job

        codes.append(run_job(cfg, list(HydraConfig.get().overrides.task), command))

    saved, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        job()
    finally:
        sys.argv = saved
    return DONE


def _show_plan(run_id: str, jobs: Sequence[Job]) -> int:
    """What would run, one line a job; nothing is written."""
    print(f"run_id {run_id}: {len(jobs)} job{'s' if len(jobs) > 1 else ''}, nothing started")
    for job in jobs:
        name = "operation" if is_operation(job.conf) else config_hash(resolved(job.cfg))
        print(f"  {name[:16]:<16}  {' '.join(job.overrides)}")
    return DONE


def _close_sweep(run_id: str, jobs: Sequence[Job]) -> None:
    from fgvc.report.table import print_sweep

    print_sweep(Path(jobs[0].conf.runtime.output_root).expanduser() / run_id)


if __name__ == "__main__":
    script()
