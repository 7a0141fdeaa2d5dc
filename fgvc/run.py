"""The entrypoint: arguments -> checked jobs -> one run folder per job -> an exit code.

    python -m fgvc.run backbone=dinov2 dataset=cub

This module composes and checks. `fgvc.launch` and what a task needs (torch and others) are
imported only when a job runs, so that --help and --cfg job answer at once.
"""

from __future__ import annotations

import atexit
import datetime
import gc
import io
import os
import re
import secrets
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from fgvc.parallel import process_start, signals

if __name__ == "__main__":
    signals.exit_on_signal()  # before the imports below, which take a second

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fgvc.config.arguments import check_arguments, shorten_words
from fgvc.config.compose import is_operation
from fgvc.config.errors import ConfigError
from fgvc.config.experiment_file import expand_experiment, name_file
from fgvc.config.flags import move_flags_first, parse_flags
from fgvc.config.help import page
from fgvc.config.option_files import search_path_override
from fgvc.config.overrides import RUN_ID_KEY, JobConfig, expand_jobs
from fgvc.config.run_reference import resolve_runs
from fgvc.config.search_space import Search, check_same_search, parse_search
from fgvc.config.sweep_expansion import Exclusion, expand_sweep, summarize
from fgvc.config.version import version
from fgvc.exit_codes import DONE, FAILED, PREEMPTED, WRONG_COMMAND
from fgvc.untrusted import shell
from fgvc.untrusted.escape import shorten, visible

GC_THRESHOLD = 50_000  # new objects per collection of the youngest generation
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Command:
    """A checked command line.

    Attributes:
        arguments: all of them, flags first, experiment= expanded.
        overrides: without flags, with sweep= expanded.
        jobs: of a search, the corners of its space.
        exclusions: combinations of a named sweep that do not run.
        notes: the runs that a prefix or `last` means.
    """

    arguments: Sequence[str]
    flags: Namespace
    overrides: Sequence[str]
    multirun: bool
    search: Search | None
    jobs: Sequence[JobConfig]
    exclusions: Sequence[Exclusion]
    run_id: str
    notes: Sequence[str]


def main(arguments: Sequence[str], started: float | None = None) -> int:
    """Run a command; returns its exit code.

    started: when it was given, by the monotonic clock, for the wall time of its run; None: now.
    """
    started = time.monotonic() if started is None else started
    if os.environ.get("RANK", "0") != "0":  # torchrun: rank 0 composes and broadcasts
        from fgvc.launch import ddp_worker

        return ddp_worker.main()
    if not {"--version", "-V"}.isdisjoint(arguments):
        print(f"fgvc {version()}")
        return DONE
    without_help = [item for item in arguments if item not in ("--help", "-h")]
    asks_for_help = len(without_help) < len(arguments)
    try:
        text = page(without_help) if asks_for_help else None
        command = None if asks_for_help else _parse(arguments)
    except (ConfigError, HydraException, OmegaConfBaseException, OSError, RecursionError) as error:
        text = str(error)
        is_own = isinstance(error, ConfigError)  # messages of libraries are cut
        line = shorten_words(text) if is_own else shorten(" ".join(text.split()), 300)
        print(f"fgvc: {visible(line)}", file=sys.stderr)
        return WRONG_COMMAND
    if text is not None:
        print(text)
    if command is None:  # help, or shell completion, which is printed already
        return DONE
    flags = command.flags
    if flags.cfg or flags.info or flags.hydra_help:
        from fgvc.launch import hydra_app

        if flags.cfg == "job":
            return hydra_app.print_config(command.jobs[0], flags.package, flags.resolve)
        pages = ["--hydra-help"] if flags.hydra_help else command.arguments
        return hydra_app.print_page(pages, flags.package)
    if command.jobs[0].conf.runtime.dry_run:
        from fgvc.launch import dry_run

        for line in dry_run.describe(
            command.run_id, command.jobs, command.exclusions, command.search
        ):
            dry_run.show(visible(line))
        return DONE
    return _run(command, started)


def _parse(arguments: Sequence[str]) -> Command | None:
    """Check the whole command before anything is written; None for -sc, which it answers itself."""
    from fgvc.record import privacy

    check_arguments(arguments)
    for argument in arguments:  # a record keeps its command, and a pull request shows it
        if (masked := privacy.masked(argument)) != argument:
            raise ConfigError(privacy.refusal(masked))
    arguments = typed = search_path_override(arguments)
    arguments, notes = resolve_runs(move_flags_first(expand_experiment(arguments)))
    flags = parse_flags(arguments)
    if flags.shell_completion:
        from fgvc.launch import hydra_app

        hydra_app.complete(flags.overrides)
        return None
    overrides, is_named_sweep = expand_sweep(flags.overrides)
    multirun = flags.multirun or is_named_sweep
    exclusions: Sequence[Exclusion] = ()
    search, jobs = parse_search(overrides) or (None, [])
    if search is None:
        try:
            will_run = not (flags.cfg or flags.info)
            jobs, exclusions = expand_jobs(overrides, multirun, is_named_sweep, will_run)
        except ConfigError as error:
            raise ConfigError(name_file(str(error), typed)) from error
    _refuse_torchrun(jobs, multirun)
    run_id = jobs[0].conf.runtime.run_id
    if run_id is None:  # a sortable UTC time and a short random part
        now = datetime.datetime.now(datetime.UTC)
        run_id = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    elif not RUN_ID.fullmatch(run_id):
        raise ConfigError(
            f"runtime.run_id={run_id}: letters, digits, dot, dash and underscore, at most 100"
        )
    if search is not None:
        check_same_search(search, jobs[0].conf, run_id)
    return Command(arguments, flags, overrides, multirun, search, jobs, exclusions, run_id, notes)


def _run(command: Command, started: float) -> int:
    """Run the jobs of a command under its run_id; returns the exit code."""
    for line in summarize(command.exclusions):
        print(f"left out: {visible(line)}", flush=True)
    for note in command.notes:  # standard output may hold predictions alone
        print(f"note: {visible(note)}", file=sys.stderr, flush=True)
    run_id, jobs = command.run_id, command.jobs
    arguments = [item for item in command.arguments if not item.startswith(RUN_ID_KEY)]
    overrides = [item for item in command.overrides if not item.startswith(RUN_ID_KEY)]
    text = shell.fgvc(*arguments, f"{RUN_ID_KEY}{run_id}")  # typed again, it resumes this run
    if command.search is not None:
        from fgvc.launch import search

        return search.run(command.search, jobs[0].conf, run_id, overrides, text)
    if not command.multirun or is_operation(jobs[0].conf):
        from fgvc.launch import run_job

        return run_job.run_here(jobs, run_id, text, started)
    from fgvc.launch import sweep

    return sweep.run(run_id, overrides, text, jobs, command.exclusions)


def script() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without some letter fails no run
    # at Python's own rate, collecting garbage takes a tenth of a probe with cached features
    gc.set_threshold(GC_THRESHOLD)
    # runs last: Python then removes its handlers, and the end of torch can take seconds
    atexit.register(signals.ignore)
    if os.environ.get("RANK", "0") == "0":
        signals.raise_keyboard_interrupt()
    else:  # torchrun stops a rank that waits for a rank 0 whose command was refused
        signals.default()
    try:
        code = main(sys.argv[1:], process_start.STARTED)
    except KeyboardInterrupt:
        code = PREEMPTED
    except BrokenPipeError:  # `| head` closed the pipe
        _discard_output()
        code = DONE
    except OSError as error:
        if error.filename is not None:
            raise
        code = _report_output_error(error)
    signals.exit_on_signal(code)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
    except OSError as error:
        code = code or _report_output_error(error)
        _discard_output()
    # the last collection would visit every object of torch, which takes 0.5 s; onnx and triton
    # report frozen objects as leaks
    if {"onnx", "triton"}.isdisjoint(sys.modules):
        gc.freeze()
    sys.exit(code)


def _report_output_error(error: OSError) -> int:
    """Report a write to standard output that failed (a full disk); returns the exit code."""
    with suppress(OSError):  # standard error may be the same file
        print(f"fgvc: standard output: {error.strerror}", file=sys.stderr)
    return FAILED


def _discard_output() -> None:
    """Redirect the buffered output to /dev/null, so that flushing it at exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse_torchrun(jobs: Sequence[JobConfig], multirun: bool) -> None:
    """Refuse torchrun for a sweep or a task of one process: its other ranks would wait for ever."""
    world_size = os.environ.get("WORLD_SIZE", "1")
    if world_size == "1":
        return
    if multirun:
        raise ConfigError(f"torchrun with a sweep: use runtime.nproc={world_size} and no torchrun")
    if is_operation(jobs[0].conf):
        task = jobs[0].conf.task.name
        raise ConfigError(f"task={task} runs as one process: start it without torchrun")


if __name__ == "__main__":
    script()
