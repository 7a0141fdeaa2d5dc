"""Trials of a search: what each left on disk -> its worth; all of them -> table, winner, exit code.

multirun/{run_id}/trials/00003.json is what is known of trial 3. It is read from the trial's run
folder, never from memory: the trial may have run in another process or on another machine, or have
been there already. So the same command with the same run_id proposes the same trials, finds the
numbers of those that are done, and goes on with the next.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from fgvc.config.compose import config_hash, resolved
from fgvc.config.errors import ConfigError
from fgvc.config.experiment_file import axes_and_values, experiment_text
from fgvc.config.schema import Config
from fgvc.config.search_space import TRIALS, Search, SearchStopped
from fgvc.exit_codes import FAILED, PREEMPTED
from fgvc.launch.job_process import asked, isolated, noticing
from fgvc.launch.sweep import hash_of, settle
from fgvc.pipeline import stop_before_test
from fgvc.record import console
from fgvc.record.run_dir import IN_PROGRESS, RESUME, SHORT, complete_runs, read_json
from fgvc.report import search_table as report
from fgvc.report.search_table import DONE, STOPPED
from fgvc.store import atomic
from fgvc.store.disk_advice import ROOTS, disk_error_line
from fgvc.store.disk_errors import add_path
from fgvc.store.file_lock import lock
from fgvc.types import Preempted, UserError
from fgvc.untrusted import shell
from fgvc.untrusted.escape import visible

HYDRAS_OWN = "optimization_results.yaml"  # what the sweeper says at its end; search.json says more
NOT_OF_A_RUN = ("runtime.run_id", "runtime.resume", "runtime.stop_before_test", "runtime.dry_run")


Trial = Callable[[DictConfig, Sequence[str], int], float]


def run(
    search: Search, conf: Config, run_id: str, command: str, launch: Callable[[Trial], object]
) -> int:
    """Run a search to its table and its winner; returns its exit code.

    Args:
        launch: has every trial run by the function it is given, which says what it is worth.
    """
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)  # the table tells of the trials, in our words
    conf.runtime.run_id = run_id

    def trial(cfg: DictConfig, overrides: Sequence[str], number: int) -> float:
        if asked():
            raise SearchStopped
        ended = isolated(cfg, overrides, command)
        settle(cfg, hash_of(cfg), ended)
        return objective(search, cfg, overrides, number, ended.code)

    try:
        with lock(_folder(conf.runtime) / ".lock"), noticing():
            stopped = contextlib.suppress(SearchStopped, Preempted, KeyboardInterrupt)
            with stopped, add_path(_folder(conf.runtime)):
                launch(trial)
            return close(search, conf, bool(asked()))
    except UserError as error:
        print(f"fgvc: {visible(str(error))}", file=sys.stderr, flush=True)
        return FAILED
    except OSError as error:
        line = disk_error_line(error, {name: getattr(conf.runtime, name) for name in ROOTS})
        print(f"fgvc: {visible(line)}", file=sys.stderr, flush=True)
        return FAILED


def objective(
    search: Search, cfg: DictConfig, overrides: Sequence[str], number: int, code: int
) -> float:
    """What the sweeper is told of a trial that ended with `code`; its row is written.

    A trial without a number is the worst of all, so that the search leaves its neighbourhood.

    Raises:
        Stopped: the trial was asked to stop.
    """
    chosen = _choices(cfg, overrides)
    row = {
        "search": search.digest,
        "number": number,
        "values": {key: chosen["values"][key] for key in search.space},
        "choices": chosen,
        **_found(cfg, code),
    }
    atomic.write_json(_folder(cfg.runtime) / TRIALS / f"{number:05d}.json", row)
    console.say(f"trial {number + 1} of {search.trials}: {report.describe_trial(row)}")
    if row["state"] == DONE:
        return row[search.select]
    if row["state"] == STOPPED:
        raise SearchStopped
    return -math.inf if search.select == "top1" else math.inf


def close(search: Search, conf: Config, stopped: bool) -> int:
    """The table of all trials, search.json, and the winner as an overlay; returns the exit code.

    A trial that failed is told of and does no harm: 1 only if there is no winner at all.
    """
    folder, run_id = _folder(conf.runtime), conf.runtime.run_id
    (folder / HYDRAS_OWN).unlink(missing_ok=True)
    rows = [row for row in _rows(folder) if row["search"] == search.digest]
    rows = [row for row in rows if row["number"] < search.trials]
    best = report.best_trial(rows, search.select)
    told = {
        "run_id": run_id,
        "space": search.space,
        "select": search.select,
        "sampler": search.sampler,
        "asked": search.trials,
        "best": best and best["number"],
        "trials": rows,
    }
    atomic.write_json(folder / "search.json", told)
    report.print_trials(rows, list(search.space), search.select, best)
    if stopped:
        command = f"the same command with runtime.run_id={run_id} goes on"
        console.say(f"stopped with {len(rows)} of {search.trials} trials: {command}")
    if best is not None:
        _write_winner(conf, folder, told, best)
        _thin(conf, rows, best)
    console.say(f"search: {folder / 'search.json'}")
    return PREEMPTED if stopped else int(best is None)


def _folder(runtime: Any) -> Path:
    return Path(runtime.multirun_root).expanduser() / str(runtime.run_id)


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [read_json(path.parent, path.name) for path in sorted((folder / TRIALS).glob("*.json"))]


def _found(cfg: DictConfig, code: int) -> dict[str, Any]:
    """State, numbers and time of a trial, as its run folder has them."""
    try:
        run_hash = config_hash(resolved(cfg))
    except ConfigError as error:  # values that are legal alone, but not together
        return {"config_hash": "", "state": "failed", "error": str(error)}
    row: dict[str, Any] = {"config_hash": run_hash, "error": None}
    root, run_id = Path(cfg.runtime.output_root).expanduser(), str(cfg.runtime.run_id)
    folder = root / run_id / run_hash[:SHORT] / IN_PROGRESS
    numbers = stop_before_test.read(folder)
    if numbers is None and (whole := complete_runs(root, run_id, run_hash)):
        numbers = read_json(whole[0], "metrics.json")  # the winner, run to its end since
    if code == 0 and numbers is not None:
        val = numbers["val"]
        row |= {"state": DONE, "top1": val["top1"], "loss": val["loss"], "n": val["n"]}
        row |= {"test_reads": numbers["test_reads"], "epoch": numbers["selection"]["best_epoch"]}
        return row | {"seconds": numbers.get("seconds", numbers.get("cost", {}).get("seconds"))}
    if not (folder / "status.json").is_file():
        return row | {"state": "failed", "error": f"ended with {code}, without a run folder"}
    status = read_json(folder, "status.json")
    state = STOPPED if code == PREEMPTED else status["state"]
    if state in ("running", stop_before_test.STATE):  # killed before it could say why
        state = "failed"
    return row | {"state": state, "error": status["error"] or f"ended with {code}"}


def _choices(cfg: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """What was chosen for a trial, but for what makes it one."""
    axes, values = axes_and_values(cfg, overrides)
    del axes["sweep"]
    kept = {key: value for key, value in values.items() if key not in NOT_OF_A_RUN}
    return {"axes": {"task": "train", **axes}, "values": kept}


def _write_winner(
    conf: Config, folder: Path, told: Mapping[str, Any], best: Mapping[str, Any]
) -> None:
    path = folder / "best.yaml"
    command = shell.fgvc(shell.override("experiment", path))
    says = [
        f"The best of {len(told['trials'])} trials of search {told['run_id']}: "
        f"{report.describe_trial(best)} (trial {best['number'] + 1}, config {best['config_hash'][:SHORT]}).",
        f"  {command}",
    ]
    atomic.write_text(
        path, experiment_text(best["choices"]["axes"], best["choices"]["values"], says)
    )
    console.say(f"winner: {command}")
    console.say(
        f"it then reads test, once; with runtime.run_id={conf.runtime.run_id} it goes on from its "
        "trial, without training again"
    )


def _thin(conf: Config, rows: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> None:
    """A loser's numbers stay; its resume states, by far the most of it, have no use any more."""
    home = Path(conf.runtime.output_root).expanduser() / str(conf.runtime.run_id)
    for row in rows:
        states = home / row["config_hash"][:SHORT] / IN_PROGRESS / RESUME
        lost = row["state"] == DONE and row["config_hash"] != best["config_hash"]
        if lost and states.is_dir():
            shutil.rmtree(states)
