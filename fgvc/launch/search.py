"""The trials of a search -> a record per trial, their table, the winner and an exit code.

multirun/{run_id}/trials/00003.json is the record of trial 3. It is read from the trial's run
folder, never from memory: the trial may have run in another process, on another machine or in an
earlier search. Thus the same command with the same run_id proposes the same trials, finds the
numbers of the finished trials and continues with the next.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from fgvc.config.compose import composed, config_hash, resolved
from fgvc.config.errors import ConfigError
from fgvc.config.experiment_file import axes_and_values, experiment_text
from fgvc.config.override_grammar import key_of
from fgvc.config.overrides import of_run
from fgvc.config.schema import Config
from fgvc.config.search_space import TRIALS, Search
from fgvc.exit_codes import FAILED, PREEMPTED
from fgvc.launch.job_process import stop_signals
from fgvc.launch.proposals import run_trials
from fgvc.launch.sweep import (
    command_of_job,
    job_hash,
    run_in_folder,
    run_recorded,
    search_path,
)
from fgvc.pipeline import stop_before_test
from fgvc.record import console
from fgvc.record.run_dir import IN_PROGRESS, RESUME, SHORT, complete_runs, now, read_json
from fgvc.report import search_table as report
from fgvc.report.search_table import DONE, STOPPED
from fgvc.report.sweep_page import Running
from fgvc.store import atomic
from fgvc.types import Preempted
from fgvc.untrusted import shell

NOT_OF_A_RUN = ("runtime.run_id", "runtime.resume", "runtime.stop_before_test", "runtime.dry_run")


def run(search: Search, conf: Config, run_id: str, overrides: Sequence[str], command: str) -> int:
    """Run a search to its table and its winner; returns its exit code.

    Args:
        conf: of one corner of the space; its runtime node is that of all trials.
        overrides: of the command, without its run_id.
    """
    conf.runtime.run_id = run_id
    own_path = search_path(overrides)
    fixed = [item for item in of_run(overrides, run_id) if key_of(item) not in search.space]

    def run_trial(number: int, values: Mapping[str, Any]) -> float:
        if stop_signals():
            raise Preempted("the search was asked to stop")
        trial = [*(f"{key}={value}" for key, value in values.items()), *fixed]
        cfg = composed([*trial, *own_path])
        text = command_of_job([*own_path, *trial], run_id, command)
        result = run_recorded(cfg, trial, text, job_hash(cfg))
        try:
            return objective(search, cfg, trial, number, result.code)
        finally:
            write_live_page(search, conf)

    def start() -> None:
        write_live_page(search, conf)
        console.say(f"search of {search.trials} trials: {_folder(conf.runtime) / report.PAGE}")
        run_trials(search, run_trial)

    return run_in_folder(
        _folder(conf.runtime),
        conf.runtime,
        start,
        lambda: finish(search, conf, bool(stop_signals())),
    )


def objective(
    search: Search, cfg: DictConfig, overrides: Sequence[str], number: int, code: int
) -> float:
    """Write the record of a trial that ended with `code`; returns its value for the sampler.

    A failed trial gets the worst value, so that the search leaves its neighbourhood.

    Raises:
        Preempted: the trial was stopped by a signal.
    """
    axes, values = axes_and_values(cfg, overrides)
    del axes["sweep"]
    values = {key: value for key, value in values.items() if key not in NOT_OF_A_RUN}
    row = {
        "search": search.digest,
        "number": number,
        "values": {key: values[key] for key in search.space},
        "choices": {"axes": {"task": "train", **axes}, "values": values},
        **_read_result(cfg, code),
    }
    atomic.write_json(_folder(cfg.runtime) / TRIALS / f"{number:05d}.json", row)
    console.say(f"trial {number + 1} of {search.trials}: {report.describe_trial(row)}")
    if row["state"] == DONE:
        return row[search.select]
    if row["state"] == STOPPED:
        raise Preempted(f"trial {number + 1} was stopped")
    return -math.inf if search.select == "top1" else math.inf


def finish(search: Search, conf: Config, stopped: bool) -> int:
    """Write search.json, search.html and the winner as an experiment, and print all trials.

    Returns:
        The exit code: PREEMPTED after a signal, FAILED only if no trial has a value.
    """
    folder, run_id = _folder(conf.runtime), conf.runtime.run_id
    record, best = _read_trials(search, conf)
    rows = record["trials"]
    report.write_search(folder, record, best)
    report.print_trials(rows, list(search.space), search.select, best)
    if stopped:
        command = f"the same command with runtime.run_id={run_id} resumes the search"
        console.say(f"stopped with {len(rows)} of {search.trials} trials: {command}")
    if best is not None:
        _write_winner(conf, folder, record, best)
        home = Path(conf.runtime.output_root).expanduser() / str(run_id)
        for row in rows:  # delete the resume states of the others; their numbers stay
            states = home / row["config_hash"][:SHORT] / IN_PROGRESS / RESUME
            is_best = row["config_hash"] == best["config_hash"]
            if row["state"] == DONE and not is_best and states.is_dir():
                shutil.rmtree(states)
    console.say(f"search: {folder / report.PAGE}")
    return PREEMPTED if stopped else FAILED if best is None else 0


def write_live_page(search: Search, conf: Config) -> None:
    """Write search.html of a running search."""
    record, best = _read_trials(search, conf)
    left = f"{len(record['trials'])} of {search.trials} trials have ended"
    report.write_page(_folder(conf.runtime), record, best, Running(now(), left))


def _read_trials(search: Search, conf: Config) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The content of search.json, and its best trial."""
    files = sorted((_folder(conf.runtime) / TRIALS).glob("*.json"))
    rows = [read_json(file.parent, file.name) for file in files]
    rows = [row for row in rows if row["search"] == search.digest and row["number"] < search.trials]
    best: Any = report.best_trial(rows, search.select)
    record = {
        "run_id": conf.runtime.run_id,
        "space": search.space,
        "select": search.select,
        "sampler": search.sampler,
        "asked": search.trials,
        "best": best and best["number"],
        "trials": rows,
    }
    return record, best


def _folder(runtime: Any) -> Path:
    return Path(runtime.multirun_root).expanduser() / str(runtime.run_id)


def _read_result(cfg: DictConfig, code: int) -> dict[str, Any]:
    """State, numbers and seconds of a trial, from its run folder."""
    try:
        run_hash = config_hash(resolved(cfg))
    except ConfigError as error:  # values that are legal alone, but not together
        return {"config_hash": "", "state": "failed", "error": str(error)}
    row: dict[str, Any] = {"config_hash": run_hash, "error": None}
    root, run_id = Path(cfg.runtime.output_root).expanduser(), str(cfg.runtime.run_id)
    folder = root / run_id / run_hash[:SHORT] / IN_PROGRESS
    numbers = stop_before_test.read_validation(folder)
    if numbers is None and (runs := complete_runs(root, run_id, run_hash)):
        numbers = read_json(runs[0], "metrics.json")  # the winner, evaluated on test since
    if code == 0 and numbers is not None:
        val = numbers["val"]
        row |= {"state": DONE, "top1": val["top1"], "loss": val["loss"], "n": val["n"]}
        row |= {"test_reads": numbers["test_reads"], "epoch": numbers["selection"]["best_epoch"]}
        return row | {"seconds": numbers.get("seconds", numbers.get("cost", {}).get("seconds"))}
    if not (folder / "status.json").is_file():
        state = STOPPED if code == PREEMPTED else "failed"
        return row | {"state": state, "error": f"ended with {code}, without a run folder"}
    status = read_json(folder, "status.json")
    state = STOPPED if code == PREEMPTED else status["state"]
    if state in ("running", stop_before_test.STATE):  # killed before it could write its state
        state = "failed"
    return row | {"state": state, "error": status["error"] or f"ended with {code}"}


def _write_winner(
    conf: Config, folder: Path, record: Mapping[str, Any], best: Mapping[str, Any]
) -> None:
    """Write the best trial as an experiment, and print the command that runs it."""
    command = shell.fgvc(shell.override("experiment", folder / report.WINNER))
    trial = f"trial {best['number'] + 1}, config {best['config_hash'][:SHORT]}"
    comment = [
        f"The best of {len(record['trials'])} trials of search {record['run_id']}: "
        f"{report.describe_trial(best)} ({trial}).",
        f"  {command}",
    ]
    choices = best["choices"]
    atomic.write_text(
        folder / report.WINNER, experiment_text(choices["axes"], choices["values"], comment)
    )
    console.say(f"winner: {command}")
    console.say(
        f"it reads test once; with runtime.run_id={conf.runtime.run_id} it resumes from its trial, "
        "without training again"
    )
