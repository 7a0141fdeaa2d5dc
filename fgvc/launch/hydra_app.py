"""Arguments -> Hydra -> the config of each job, passed to a function of ours.

Also prints the composed config, Hydra's own help and the shell completion.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import TaskFunction
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fgvc.config import checkpoint_rows
from fgvc.config.compose import CONFIG_NAME, conf_dir, register_schema
from fgvc.config.constraints import missing_inputs
from fgvc.config.errors import ConfigError
from fgvc.config.option_files import own_folders, search_path_override
from fgvc.config.override_grammar import key_of
from fgvc.config.overrides import JobConfig, of_run
from fgvc.exit_codes import DONE, FAILED, WRONG_COMMAND
from fgvc.untrusted import shell
from fgvc.untrusted.escape import shorten, visible
from fgvc.untrusted.shell import escaped

ACTIONS, SHELLS = ("install", "uninstall", "query"), ("bash", "fish", "zsh")
SWEEPER = "hydra/sweeper="
FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's variable: raise the errors of a sweeper
RunJob = Callable[[DictConfig, Sequence[str]], None]


@dataclass(frozen=True)
class Jobs:
    """The task function of Hydra, which `hydra_plugins.fgvc.sweeper` calls for each of `jobs`.

    Attributes:
        run_job: runs one job, given its config and its overrides. It leaves its results on disk.
        jobs: the overrides of each job.
    """

    run_job: RunJob
    jobs: Sequence[Sequence[str]] = ()

    def __call__(self, cfg: DictConfig) -> None:
        self.run_job(cfg, list(HydraConfig.get().overrides.task))


def launch(
    run_job: RunJob, jobs: Sequence[JobConfig], run_id: str, overrides: Sequence[str]
) -> None:
    """Let Hydra launch the jobs of a sweep. Errors other than the disk's exit with 1.

    Args:
        overrides: the command's, without its run_id.

    Raises:
        OSError: the disk refuses a write; Hydra alone would print a traceback.
    """
    task = Jobs(run_job, [of_run(job.overrides, run_id) for job in jobs])
    keys = [{key_of(item) for item in job.overrides} for job in jobs]
    shared = [o for o in overrides if all(key_of(o) in own for own in keys)]
    shared = [o for o in shared if not o.startswith(SWEEPER)]
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    try:
        _start_hydra(["--multirun", *shared, *of_run([], run_id), f"{SWEEPER}exact"], task)
    except OSError:
        raise
    except Exception:
        traceback.print_exc()
        sys.exit(FAILED)
    finally:
        if before is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = before


def print_config(job: JobConfig, package: str | None, resolve: bool) -> int:
    """Print the config of a job, or one node or value of it; returns the exit code.

    Of the table of checkpoints, only the chosen row is shown. A required input that the command
    does not give is shown as ???.

    Args:
        package: dotted key of the node; None or `_global_` for the whole config.
        resolve: replace interpolations by their values.
    """
    cfg = job.compose()
    node: Any = cfg
    cfg.backbone.checkpoints = escaped(checkpoint_rows.chosen_rows(job.conf.backbone))
    for key in missing_inputs(job.conf):
        OmegaConf.update(cfg, key, MISSING)
    if package is not None and package != "_global_":
        node = None
        with suppress(OmegaConfBaseException):
            node = OmegaConf.select(cfg, package)
        if node is None and package in missing_inputs(job.conf):
            node = MISSING
        if node is None:
            print(_unknown_package(package), file=sys.stderr)
            return WRONG_COMMAND
    if not OmegaConf.is_config(node):
        print(node)
        return DONE
    if node is not cfg:
        print(f"# @package {package}")
    if resolve:
        OmegaConf.resolve(node)
    print(OmegaConf.to_yaml(node), end="")
    return DONE


def print_page(arguments: Sequence[str], package: str | None) -> int:
    """Print Hydra's own config, or a help page of Hydra's; returns the exit code.

    Hydra exits with 1 on a wrong request; this returns WRONG_COMMAND.
    """
    errors, code = io.StringIO(), DONE
    try:
        with redirect_stderr(errors):
            _start_hydra(arguments)
    except SystemExit as end:
        code = WRONG_COMMAND if end.code else DONE
    line = errors.getvalue().strip("\n")
    if code and line.startswith("package "):
        line = _unknown_package(package or "")
    if line:
        print(line, file=sys.stderr)
    return code


def _unknown_package(package: str) -> str:
    message = f"--package {shorten(package)}: no such key; --cfg job alone shows them all"
    return f"fgvc: {visible(message)}"


def complete(words: Sequence[str]) -> None:
    """Print Hydra's completion of the `fgvc` command: its script, or the words that may follow.

    Raises:
        ConfigError: no ACTION=SHELL.
    """
    if list(words) not in [[f"{action}={shell}"] for action in ACTIONS for shell in SHELLS]:
        raise ConfigError(
            f"-sc {' '.join(words)}: one of install, uninstall, with one of {', '.join(SHELLS)}, "
            'as in: eval "$(fgvc -sc install=bash)"'
        )
    flags: list[str] = []
    with suppress(ValueError):  # an open quote, or a folder that is not typed completely
        line = shell.split(os.environ.get("COMP_LINE", ""))
        folders = own_folders(search_path_override(line))
        flags = ["--config-dir", str(folders[0])] if folders else []  # Hydra takes one
    sys.argv[0] = "fgvc"  # `python -m fgvc.run` itself is not completed
    _start_hydra([*flags, "-sc", *words])


def _start_hydra(arguments: Sequence[str], task: TaskFunction = lambda cfg: None) -> None:
    GlobalHydra.instance().clear()
    register_schema()
    start = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=CONFIG_NAME)
    handlers = list(logging.root.handlers)
    argv, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        start(task)()
    finally:
        sys.argv = argv
        logging.root.handlers[:] = handlers  # Hydra's help adds its own
