"""The state that a training resumes: of this run, or of the run that runtime.resume names.

A state belongs to one config and one identity (images, split, label map, weights). A state of
another config is refused, with the keys that differ; runtime.resume_force=true accepts it, which is
recorded in every later state of the training. A state of another identity is always refused.
runtime.resume_force=true also accepts a state whose best weights are lost, recorded likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc.config.schema import Config
from fgvc.pipeline.experiment import Experiment, check_data, differing
from fgvc.pipeline.resume_checks import check_content
from fgvc.pipeline.stop_before_test import run_folder
from fgvc.record import console
from fgvc.record.resume_state import States
from fgvc.record.run_dir import IN_PROGRESS, RESUME, read_json
from fgvc.report.flatten import differences
from fgvc.types import UserError

# keys that name the images, labels or weights: no force resumes across other values of them
DATA_KEYS = ("dataset.", "backbone.")
NO_ORIGIN: dict[str, Any] = {"from": None, "changed": [], "other_code": False}
SHOWN_KEYS = 4  # differing config keys in a message

LoadedState = tuple[int, dict[str, Any]]  # step, state
Differences = Mapping[str, tuple[Any, Any]]  # config key -> the values in the state and here


@dataclass(frozen=True)
class ResumePoint:
    """The state that a training resumes.

    step: optimiser steps behind `state`.

    origin, which every later state keeps: `from`, the run the state was taken from, or None;
    `changed`, the config keys that a forced resume changed; `other_code`, whether another version
    of the code took part; `best_lost`, if any, epoch and step of best weights that a forced resume
    continued without.

    copied_from: the states of another run, which are to be copied; None: own states.
    """

    step: int
    state: dict[str, Any]
    origin: dict[str, Any]
    copied_from: States | None = None

    @property
    def record(self) -> dict[str, object]:
        """The entry `resumed` of metrics.json."""
        origin = {name: value for name, value in self.origin.items() if value is not None}
        forced = bool(origin["changed"] or "best_lost" in origin)
        return {"step": self.step, "forced": forced, "identity": self.state["identity"], **origin}


def check_resume(conf: Config, plain: Mapping[str, Any]) -> None:
    """Refuse to start from step 0 under a run_id whose training was stopped with another config.

    This happens only with a run_id that the user set. The jobs of a sweep share their run_id.

    Raises:
        UserError: names the folder and the keys that differ.
    """
    own_folder = run_folder(conf, plain).parent
    run, runtime = own_folder.parent, conf.runtime
    is_sweep = (Path(runtime.multirun_root).expanduser() / run.name).exists()
    if runtime.resume is not None or own_folder.exists() or is_sweep:
        return
    for folder in sorted(run.glob(f"*/{IN_PROGRESS}/{RESUME}")):
        stopped_config = read_json(folder.parent, "config.canonical.json")
        _check_config(differences(stopped_config, plain), folder.parent, force=False)


def find_resume_point(experiment: Experiment, states: States) -> ResumePoint | None:
    """The state to resume, checked and not yet copied; None: the training starts from step 0.

    Raises:
        UserError: runtime.resume names no state; the state belongs to another config, other data
            or other weights; or an older version of fgvc wrote it without their digests.
    """
    named, force = experiment.conf.runtime.resume, experiment.conf.runtime.resume_force
    otherwise = ", the training starts from step 0" if named is None else ""
    own = states.newest(console.say, otherwise, without_best=force)
    path = None if named is None else Path(named).expanduser().resolve()
    if own is not None:
        if path is not None and "origin" in own[1]:
            _check_origin(path, states, own, force)
        return _check_state(experiment, states.folder.parent, own, states)
    if path is None:
        return None
    if (named_state := _load_named(path, force)) is None:
        raise UserError(
            f"runtime.resume={named}: no resume state there (a run folder in progress, its resume "
            "folder, or a state in it)"
        )
    other_states, loaded = named_state
    return _check_state(experiment, path, loaded, other_states)


def _check_origin(path: Path, states: States, own: LoadedState, force: bool) -> None:
    """Check that the states of this run come from the state that runtime.resume names.

    A command that started from another state may be repeated: it then resumes from the run's own
    states.
    """
    step, state = own
    origin = state["origin"]["from"]
    if path.is_relative_to(states.folder.parent.resolve()):
        named = _load_named(path, force)
        if named is not None and named[1][0] == step:
            return
        reason = "an older state of this run, or none"
    elif state_name(path) == origin:
        return
    else:
        reason = f"not {origin}, where this run began" if origin else "not where this run began"
    raise UserError(
        f"runtime.resume={path}: {reason}; {states.folder.parent} has a state after step {step}. "
        "Leave runtime.resume out to resume from that state, or give another runtime.run_id"
    )


def copy_states(experiment: Experiment, states: States, start: ResumePoint) -> None:
    """Copy the state of another run into this one, with its best weights and its reads of test."""
    if start.copied_from is None:
        return
    experiment.run.adopt_test_reads(start.copied_from.folder.parent)
    if (best := start.copied_from.best()) is not None:
        states.save_best(*best)
    states.save(start.step, {**start.state, "config": experiment.plain, "origin": start.origin})


def state_name(path: Path) -> str:
    """The run and config folders of a state: enough to find it, without a path of this machine."""
    was_state = not path.exists() and path.name.startswith("state-")
    folder = path.parent if path.is_file() or was_state else path
    parts = [part for part in folder.parts if part not in (RESUME, IN_PROGRESS)]
    return "/".join(parts[-2:])


def _check_state(
    experiment: Experiment, path: Path, loaded: LoadedState, states: States
) -> ResumePoint:
    """Check a loaded state against this run. states: the states that it is one of."""
    step, state = loaded
    other_run = None if states.folder.parent == experiment.run.path else states
    if "identity" not in state or "origin" not in state:
        raise UserError(
            f"{path}: a state of an older version, without the digests of its data and weights. "
            "Train under a new runtime.run_id without runtime.resume"
        )
    check_content(state, path)
    current = experiment.identity
    changes = differences(state["config"], experiment.plain)
    check_data(state["identity"], current, path, "; ".join(["", *_both_values(changes)]))
    force = experiment.conf.runtime.resume_force
    changed = _check_config(changes, path, force)
    code = ("git_commit", "code_patch_sha256")
    if other_code := bool(differing(state["identity"], current, code)):
        console.say("note: the state was saved by another version of this code")
    origin = {
        **state["origin"],
        "changed": sorted({*state["origin"]["changed"], *changed}),
        "other_code": other_code or state["origin"]["other_code"],
    }
    if other_run is not None:
        origin["from"] = state_name(path)
    if states.best_lost is not None:
        epoch = state["trainer"]["best"].get("epoch")
        console.say(
            f"note: resuming by force without the best weights so far (epoch {epoch}, step "
            f"{states.best_lost}): validation chooses among the epochs to come"
        )
        origin["best_lost"] = {"epoch": epoch, "step": states.best_lost}
        state = {**state, "trainer": {**state["trainer"], "best": {}}}
    return ResumePoint(step, state, origin, other_run)


def _load_named(path: Path, force: bool) -> tuple[States, LoadedState] | None:
    """The newest whole state at a path: a state file, a resume folder or a run folder."""
    if path.is_file():
        states = States(path.parent, 1)
        return states, states.load(path, without_best=force)
    for folder in (path, path / RESUME, path / IN_PROGRESS / RESUME):
        if not folder.is_dir():
            continue
        states = States(folder, 1)
        if (loaded := states.newest(console.say, without_best=force)) is not None:
            return states, loaded
    return None


def _check_config(changes: Differences, path: Path, force: bool) -> list[str]:
    """The keys that differ, if force allows it."""
    keys = list(changes)
    if not keys:
        return []
    if force:
        console.say(f"note: resuming by force under another {', '.join(keys)}")
        return keys
    values = "; ".join(_both_values(changes))
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    way_out = "give its own command or a new runtime.run_id"
    if not any(key.startswith(DATA_KEYS) for key in keys):
        way_out += "; or resume with runtime.resume=PATH runtime.resume_force=true"
    raise UserError(f"{path} was trained under another config ({values}{more}): {way_out}")


def _both_values(changes: Differences) -> list[str]:
    shown = list(changes.items())[:SHOWN_KEYS]
    return [f"{key}: {there} there, {here} here" for key, (there, here) in shown]
