"""The one entrypoint: arguments -> checked jobs -> one run folder each -> an exit code.

    python -m fgvc.run backbone=dinov2 dataset=cub

Compose, validate, hand over: what a task needs (torch and the rest) is imported only when it runs,
so that --help and --cfg job answer at once.
"""

from __future__ import annotations

import atexit
import datetime
import io
import logging
import os
import re
import secrets
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress

from fgvc.parallel import signals

if __name__ == "__main__":
    signals.exit_on_signal()  # before the imports below, which take a second

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fgvc.config.arguments import check_arguments, shorten_words
from fgvc.config.compose import (
    CONFIG_NAME,
    conf_dir,
    is_operation,
    register_schema,
)
from fgvc.config.constraints import EXTRACTING_TASKS
from fgvc.config.errors import ConfigError
from fgvc.config.experiment_file import expand_experiment
from fgvc.config.flags import move_flags_first, parse_flags
from fgvc.config.help import page
from fgvc.config.list_values import as_list
from fgvc.config.named_sweep import expand_sweep
from fgvc.config.overrides import (
    RUN_ID_KEY,
    Job,
    choices,
    expand_jobs,
    normalized,
    shared_arguments,
)
from fgvc.config.search_space import Search, check_same_search, parse_search
from fgvc.config.sweep_exclusions import Exclusion, summarize
from fgvc.config.sweep_expansion import launch_exactly
from fgvc.config.version import version
from fgvc.untrusted import shell
from fgvc.untrusted.escape import shorten, visible

DONE, FAILED, WRONG_COMMAND, PREEMPTED = 0, 1, 2, 75
COMPLETION, SHELLS = ("install", "uninstall", "query"), ("bash", "fish", "zsh")
LAUNCHER = "hydra/launcher="
FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's variable: raise what a sweeper raises
Run = Callable[[DictConfig, Sequence[str]], float | None]
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments ask for; returns the exit code."""
    if os.environ.get("RANK", "0") != "0":  # torchrun: rank 0 composes, the others follow it
        from fgvc.launch.ddp_worker import main as follow

        return follow()
    if not {"--help", "-h"}.isdisjoint(arguments):
        print(page())
        return DONE
    if not {"--version", "-V"}.isdisjoint(arguments):
        print(f"fgvc {version()}")
        return DONE
    try:
        check_arguments(arguments)
        _refuse_secrets(arguments)
        arguments = [
            as_list(item) for item in expand_experiment([normalized(item) for item in arguments])
        ]
        flags = parse_flags(arguments := move_flags_first(arguments))
        if flags.shell_completion:
            return _complete(flags.overrides)
        _refuse_other_configs(flags)
        overrides, named = expand_sweep(flags.overrides)
        multirun = flags.multirun or named
        search, corners = parse_search(overrides) or (None, [])
        jobs, left_out = (
            expand_jobs(overrides, multirun, named) if search is None else (corners, [])
        )
        _refuse_torchrun(jobs, multirun)
        given = jobs[0].conf.runtime.run_id
        run_id = _checked(given) if given is not None else new_run_id()
        if search is not None:
            check_same_search(search, jobs[0].conf, run_id)
    except (ConfigError, HydraException, OmegaConfBaseException, OSError, RecursionError) as error:
        return _wrong_command(error)
    if flags.cfg or flags.info or flags.hydra_help:
        return _shown(["--hydra-help"] if flags.hydra_help else arguments, flags.package)
    if jobs[0].conf.runtime.dry_run:
        return _show_plan(run_id, jobs, left_out, search)
    for line in summarize(left_out):
        print(f"left out: {visible(line)}", flush=True)
    mine = f'{RUN_ID_KEY}"{run_id}"'
    overrides = [item for item in overrides if not item.startswith(RUN_ID_KEY)]
    command = _command([item for item in arguments if not item.startswith(RUN_ID_KEY)], run_id)
    if search is not None:
        return _search(run_id, [*overrides, mine], command, jobs[0], search)
    if not multirun:
        return _alone(jobs[0], run_id, [*overrides, mine], command)
    with launch_exactly([[*choices(job.overrides), mine] for job in jobs]):
        arguments = ["--multirun", *shared_arguments(overrides, jobs), mine]
        if is_operation(jobs[0].conf):
            return _here(arguments, command)
        return _sweep(run_id, arguments, command, jobs, left_out)


def _shown(arguments: Sequence[str], package: str | None) -> int:
    """What Hydra shows of itself or of the config; it ends with 1 where it is asked wrongly."""
    said, code = io.StringIO(), DONE
    try:
        with redirect_stderr(said):
            _through_hydra(arguments, _nothing)
    except SystemExit as end:
        code = WRONG_COMMAND if end.code else DONE
    line = said.getvalue().strip("\n")
    if code and line.startswith("package "):
        shown = f"--package {shorten(package or '')}: no such key; --cfg job alone shows them all"
        line = f"fgvc: {visible(shown)}"
    if line:
        print(line, file=sys.stderr)
    return code


def _complete(words: Sequence[str]) -> int:
    """Hydra's completion for the `fgvc` command: its script, or the words that may follow."""
    if len(words) != 1 or words[0] not in {f"{do}={sh}" for do in COMPLETION for sh in SHELLS}:
        raise ConfigError(
            f"-sc {' '.join(words)}: one of install, uninstall, with one of {', '.join(SHELLS)}, "
            'as in: eval "$(fgvc -sc install=bash)"'
        )
    sys.argv[0] = "fgvc"  # however it was started: `python -m fgvc.run` is not completed
    _through_hydra(["-sc", *words], _nothing)
    return DONE


def script() -> None:
    """The `fgvc` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter ends no run
    # last of all: Python then takes its handlers away, and the end of torch can take seconds
    atexit.register(signals.ignore)
    if os.environ.get("RANK", "0") == "0":
        signals.raise_keyboard_interrupt()
    else:  # torchrun ends a rank that waits for a refused one
        signals.default()
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:
        code = PREEMPTED
    except BrokenPipeError:  # `| head` had enough of a page
        _drop_output()
        code = DONE
    except OSError as error:
        if error.filename is not None:
            raise
        code = _refused_output(error)
    signals.exit_on_signal(code)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
    except OSError as error:
        code = code or _refused_output(error)
        _drop_output()
    sys.exit(code)


def _refused_output(error: OSError) -> int:
    """Report a write to standard output that failed (a full disk); returns the exit code."""
    with suppress(OSError):  # standard error may be the same file
        print(f"fgvc: standard output: {error.strerror}", file=sys.stderr)
    return FAILED


def _drop_output() -> None:
    """Redirect the buffered output to /dev/null, so that the exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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


def _refuse_secrets(arguments: Sequence[str]) -> None:
    """Refuse secrets: a record keeps its command, and a pull request shows it."""
    from fgvc.record import privacy

    for argument in arguments:
        if (shown := privacy.masked(argument)) != argument:
            raise ConfigError(privacy.refusal(shown))


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
        features = (
            f", with runtime.nproc={size} for its features" if task in EXTRACTING_TASKS else ""
        )
        raise ConfigError(f"task={task} runs as one process: start it without torchrun{features}")


def _alone(job: Job, run_id: str, overrides: Sequence[str], command: str) -> int:
    """Run the one job of a command; it is composed already, and Hydra has nothing to launch."""
    from fgvc.launch.job import run_job

    cfg = job.compose()
    cfg.runtime.run_id = run_id
    own = [item for item in overrides if not item.lstrip("+~").startswith("hydra")]
    return run_job(cfg, own, command).code


def _here(arguments: Sequence[str], command: str) -> int:
    """Run operations one after the other, in this process."""
    from fgvc.launch.job import run_job

    codes: list[int] = []

    def run(cfg: DictConfig, overrides: Sequence[str]) -> None:
        if PREEMPTED not in codes:  # asked to stop: what is left waits for the next time
            codes.append(run_job(cfg, overrides, command).code)

    try:
        with _raising_disk_errors():
            _through_hydra(arguments, run)
    except OSError as error:
        print(f"fgvc: {error.filename or ''}: {error.strerror}", file=sys.stderr)
        return FAILED
    return max(codes, default=FAILED)


def _sweep(
    run_id: str,
    arguments: Sequence[str],
    command: str,
    jobs: Sequence[Job],
    left_out: Sequence[Exclusion],
) -> int:
    """Run experiments, each in a process of its own, to one table."""
    from fgvc.launch import sweep

    def launch(run: Run) -> None:
        with _raising_disk_errors():
            _through_hydra(arguments, run)

    return sweep.run(run_id, command, jobs, left_out, launch)


def _search(
    run_id: str, overrides: Sequence[str], command: str, corner: Job, search: Search
) -> int:
    """Run the trials of a search, each in a process of its own, to their table and a winner."""
    from fgvc.launch import search as trials

    def launch(trial: trials.Trial) -> None:
        def run(cfg: DictConfig, overrides: Sequence[str]) -> float:
            return trial(cfg, overrides, HydraConfig.get().job.num)

        told = f"hydra.sweeper.direction={search.direction}"
        with _raising_disk_errors():
            _through_hydra(["--multirun", *overrides, told], run)

    return trials.run(search, corner.conf, run_id, command, launch)


def _command(arguments: Sequence[str], run_id: str) -> str:
    """What, typed again, is this very run."""
    return shell.fgvc(*arguments, f"{RUN_ID_KEY}{run_id}")


def _nothing(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """What is run where Hydra only shows something."""


def _through_hydra(arguments: Sequence[str], run: Run) -> None:
    """Let Hydra launch the jobs: its launchers, its sweep folder.

    Args:
        run: one job, from its config and its overrides; leaves on disk what it has to tell.
    """
    GlobalHydra.instance().clear()
    register_schema()

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=CONFIG_NAME)
    def job(cfg: DictConfig) -> float | None:
        return run(cfg, list(HydraConfig.get().overrides.task))

    if any(one.startswith(LAUNCHER) for one in arguments):
        from fgvc.launch.launchers import install

        install()
    handlers = list(logging.root.handlers)
    saved, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        job()
    finally:
        sys.argv = saved
        logging.root.handlers[:] = handlers  # Hydra's help adds its own


def _wrong_command(error: Exception) -> int:
    """Print the reason in one line; a message of a library is cut."""
    text = str(error)
    is_own = isinstance(error, ConfigError)
    line = shorten_words(text) if is_own else shorten(" ".join(text.split()), 300)
    print(f"fgvc: {visible(line)}", file=sys.stderr)
    return WRONG_COMMAND


@contextmanager
def _raising_disk_errors() -> Iterator[None]:
    """Raise errors of the disk, which Hydra would print with a traceback; exit 1 on others.

    Raises:
        OSError: as the system reported it.
    """
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    try:
        yield
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


def _show_plan(
    run_id: str, jobs: Sequence[Job], left_out: Sequence[Exclusion], search: Search | None
) -> int:
    """What would run; nothing is written."""
    if search is not None:
        print(f"run_id {run_id}: {search.trials} trials ({search.sampler}), nothing started")
        for key, space in search.space.items():
            print(visible(f"  {key}: {space}"))
        return DONE
    if not all(job.is_experiment for job in jobs):
        print(f"run_id {run_id}: {len(jobs)} job{'s' if len(jobs) > 1 else ''}, nothing started")
        for job in jobs:
            name = "operation" if is_operation(job.conf) else "of a checkpoint"
            print(visible(f"  {name:<16}  {' '.join(choices(job.overrides))}"))
        return DONE
    from fgvc.launch.dry_run import show

    for line in show(run_id, jobs, left_out):
        print(visible(line))
    return DONE


if __name__ == "__main__":
    script()
