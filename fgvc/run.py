"""The one entrypoint: arguments -> checked jobs -> one run folder each -> an exit code.

    python -m fgvc.run backbone=dinov2 dataset=cub

Compose, validate, hand over: what a task needs (torch and the rest) is imported only when it runs,
so that --help and --cfg job answer at once.
"""

from __future__ import annotations

import datetime
import io
import os
import re
import secrets
import shlex
import sys
from argparse import Namespace
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
from fgvc.config.overrides import Job, LeftOut, normalized, plan_of
from fgvc.config.sweep import spelt_out

DONE, FAILED, WRONG_COMMAND, PREEMPTED = 0, 1, 2, 75
RUN_ID_KEY = "runtime.run_id="
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments ask for; returns the exit code."""
    if os.environ.get("RANK", "0") != "0":  # torchrun: rank 0 composes, the others follow it
        from fgvc.task.follow import main as follow

        return follow()
    if not {"--help", "-h"}.isdisjoint(arguments):
        print(page())
        return DONE
    arguments = _flags_first([normalized(argument) for argument in arguments])
    flags = get_args_parser().parse_args(arguments)
    try:
        _refuse_other_configs(flags)
        overrides, named = spelt_out(flags.overrides)
        multirun = flags.multirun or named
        jobs, left_out = plan_of(overrides, multirun, named)
        _refuse_torchrun(jobs, multirun)
        given = jobs[0].conf.runtime.run_id
        run_id = _checked(given) if given is not None else new_run_id()
    except ConfigError as error:
        print(f"fgvc: {error}", file=sys.stderr)
        return WRONG_COMMAND
    if flags.cfg or flags.info or flags.hydra_help:
        return _through_hydra(arguments, [])
    if jobs[0].conf.runtime.dry_run:
        return _show_plan(run_id, jobs, left_out)
    codes: list[int] = []
    for one in left_out:
        print(f"left out: {one.why}", flush=True)
    flag = ["--multirun"] if multirun else []
    overrides = [item for item in overrides if not item.startswith(RUN_ID_KEY)]
    arguments = [*flag, *overrides, f'{RUN_ID_KEY}"{run_id}"']
    if not multirun:
        return _alone(jobs[0], run_id, arguments)
    _through_hydra(arguments, codes, [one.overrides for one in left_out])
    if not is_operation(jobs[0].conf):
        _close_sweep(run_id, jobs, codes)
    return max(codes, default=FAILED)


def script() -> None:
    """The `fgvc` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter ends no run
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:
        code = PREEMPTED
    except BrokenPipeError:  # `| head` had enough of a page
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    sys.exit(code)


def new_run_id() -> str:
    """A sortable UTC time and a short random part."""
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def _checked(run_id: str) -> str:
    if not RUN_ID.fullmatch(run_id):
        raise ConfigError(
            f"runtime.run_id={run_id}: letters, digits, dot, dash and underscore, at most 100"
        )
    return run_id


def _flags_first(arguments: Sequence[str]) -> list[str]:
    """Hydra's parser takes `-m` before the overrides only; a person types it anywhere."""
    multirun = [argument for argument in arguments if argument in ("-m", "--multirun")]
    return [*multirun, *(argument for argument in arguments if argument not in multirun)]


def _refuse_other_configs(flags: Namespace) -> None:
    for name in ("config_name", "config_path", "config_dir", "experimental_rerun"):
        if getattr(flags, name, None):
            raise ConfigError(f"--{name.replace('_', '-')}: fgvc has one config, conf/config.yaml")


def _refuse_torchrun(jobs: Sequence[Job], multirun: bool) -> None:
    """Processes that torchrun started would wait for a training that never comes."""
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        return
    if multirun:
        raise ConfigError(f"torchrun with a sweep: use runtime.nproc={size} and no torchrun")
    if (task := jobs[0].conf.task.name) != "train":
        raise ConfigError(f"task={task} runs as one process: start it without torchrun")


def _alone(job: Job, run_id: str, arguments: Sequence[str]) -> int:
    """Run the one job of a command; Hydra composed it already and has nothing to launch."""
    from fgvc.task import run_job

    job.cfg.runtime.run_id = run_id
    return run_job(job.cfg, _of_the_job(arguments), _command(arguments))


def _of_the_job(overrides: Sequence[str]) -> list[str]:
    return [item for item in overrides if not item.lstrip("+~").startswith("hydra")]


def _command(arguments: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "fgvc.run", *arguments])


def _through_hydra(
    arguments: Sequence[str], codes: list[int], left_out: Sequence[tuple[str, ...]] = ()
) -> int:
    """Let Hydra launch the jobs (its launchers, its sweep folder); each leaves its exit code.

    Args:
        left_out: overrides of the jobs that a named sweep leaves out.
    """
    GlobalHydra.instance().clear()
    register_schema()
    command = _command(arguments)
    skipped = {_choices(one) for one in left_out}

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=CONFIG_NAME)
    def job(cfg: DictConfig) -> None:
        overrides = list(HydraConfig.get().overrides.task)
        if _choices(overrides) in skipped:
            return
        if PREEMPTED in codes:  # asked to stop: the jobs that are left wait for the next time
            codes.append(PREEMPTED)
            return
        from fgvc.task import run_job

        codes.append(run_job(cfg, overrides, command))

    saved, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        job()
    finally:
        sys.argv = saved
    return DONE


def _choices(overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides of one job that are choices: not its run_id, and nothing of Hydra's."""
    return tuple(item for item in overrides if not item.startswith((RUN_ID_KEY, "hydra")))


def _show_plan(run_id: str, jobs: Sequence[Job], left_out: Sequence[LeftOut]) -> int:
    """What would run, one line a job; nothing is written."""
    print(f"run_id {run_id}: {len(jobs)} job{'s' if len(jobs) > 1 else ''}, nothing started")
    for job in jobs:
        name = "operation" if is_operation(job.conf) else config_hash(resolved(job.cfg))
        print(f"  {name[:16]:<16}  {' '.join(_choices(job.overrides))}")
    for one in left_out:
        print(f"  left out          {one.why}")
    return DONE


def _close_sweep(run_id: str, jobs: Sequence[Job], codes: Sequence[int]) -> None:
    from fgvc.report.baselines import write_baselines
    from fgvc.report.table import print_sweep

    root = Path(jobs[0].conf.runtime.output_root).expanduser()
    print_sweep(root / run_id)
    if DONE in codes:
        write_baselines(root, root, jobs[0].conf.runtime.retention_days)
        print(f"every run so far: {root / 'baselines.html'}, .csv (task=report prints it)")
    for job, code in zip(jobs, codes, strict=False):
        if code != DONE:
            chosen = [item for item in _choices(job.overrides) if not item.startswith("runtime.")]
            print(f"ended with {code}: {' '.join(chosen)}")


if __name__ == "__main__":
    script()
