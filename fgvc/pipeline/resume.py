"""Where a training may go on: the states of this run, or those that runtime.resume names.

A state belongs to one config and to one identity (images, split, label map, weights). Under another
config it is refused, naming the keys; runtime.resume_force=true goes on all the same, and is
recorded for as long as the training is continued. Another identity is always refused. The same key
resumes a whole state whose best weights are lost; that is recorded likewise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc.config.compose import config_hash
from fgvc.config.schema import Config
from fgvc.pipeline.experiment import Experiment, identity
from fgvc.pipeline.resume_checks import check_content
from fgvc.pipeline.run_identity import check_data, differing
from fgvc.record import console
from fgvc.record.resume_state import States
from fgvc.record.run_dir import IN_PROGRESS, RESUME, SHORT, read_json
from fgvc.types import UserError


@dataclass(frozen=True)
class ResumePoint:
    """The state that a training resumes. step: optimiser steps behind `state`. place: its source.

    origin: `from`, the run it was taken from, or None; `changed`, the config keys that a forced
    resume changed; `other_code`, whether another version of the code took part; `best_lost`, epoch
    and step of best weights that a forced resume went on without. Every later state keeps it,
    `best_lost` only where there is one. copied_from: the states of another run, to be copied;
    None: own states.
    """

    step: int
    state: dict[str, Any]
    place: Path
    origin: dict[str, Any]
    copied_from: States | None = None

    @property
    def record(self) -> dict[str, object]:
        """The entry `resumed` of metrics.json."""
        source = {} if self.origin["from"] is None else {"from": self.origin["from"]}
        lost = {name: self.origin[name] for name in ("best_lost",) if name in self.origin}
        return {
            "step": self.step,
            "forced": bool(self.origin["changed"] or lost),
            "changed": self.origin["changed"],
            "other_code": self.origin["other_code"],
            "identity": self.state["identity"],
            **source,
            **lost,
        }


# keys that say which images, labels or weights there are: no force resumes across those
OTHER_DATA = ("dataset.", "backbone.")
NO_ORIGIN: dict[str, Any] = {"from": None, "changed": [], "other_code": False}


def check_resume(conf: Config, plain: Mapping[str, Any]) -> None:
    """Refuse to start anew under a run_id whose training was stopped with another config.

    Only a run_id that was given can meet one; the jobs of a sweep share theirs by design.

    Raises:
        UserError: names the folder and the keys that differ.
    """
    home = Path(conf.runtime.output_root).expanduser() / str(conf.runtime.run_id)
    own = config_hash(dict(plain))[:SHORT]
    if conf.runtime.resume is not None or (home / own).exists() or _is_sweep(conf):
        return
    for folder in sorted(home.glob(f"*/{IN_PROGRESS}/{RESUME}")):
        stopped = read_json(folder.parent, "config.canonical.json")
        _check_config(stopped, plain, folder.parent, False)


def find_resume_point(
    experiment: Experiment, plain: dict[str, Any], states: States
) -> ResumePoint | None:
    """The state to resume, checked and not yet copied; None: the training starts anew.

    Raises:
        UserError: runtime.resume names no state; a state of another config, of other data or other
            weights, or of a version that did not keep their digests.
    """
    path, force = experiment.conf.runtime.resume, experiment.conf.runtime.resume_force
    anew = ", the training starts anew" if path is None else ""
    own = states.newest(console.say, anew, without_best=force)
    place = None if path is None else Path(path).expanduser().resolve()
    if own is not None:
        if place is not None and "origin" in own[1]:
            _check_named(place, states, own, force)
        return _checked(experiment, plain, states.folder.parent, own, states)
    if place is None:
        return None
    if (named := _named(place, force)) is None:
        raise UserError(
            f"runtime.resume={path}: no resume state there (a run folder in progress, its resume "
            "folder, or a state in it)"
        )
    other, loaded = named
    return _checked(experiment, plain, place, loaded, other)


def _check_named(place: Path, states: States, own: tuple[int, dict[str, Any]], force: bool) -> None:
    """Check that the states of this run come from the one that runtime.resume names.

    The command of a run that was started from another state may be repeated: it then goes on from
    the run's own states.

    Raises:
        UserError: they come from elsewhere, or an older state of this run is named.
    """
    step, state = own
    origin = state["origin"]["from"]
    if place.is_relative_to(states.folder.parent.resolve()):
        named = _named(place, force)
        if named is not None and named[1][0] == step:
            return
        what = "an older state of this run, or none"
    elif state_name(place) == origin:
        return
    else:
        what = f"not {origin}, where this run began" if origin else "not where this run began"
    raise UserError(
        f"runtime.resume={place}: {what}; {states.folder.parent} has a state after step {step}. "
        "Leave runtime.resume out to go on from there, or give another runtime.run_id"
    )


def copy_states(
    experiment: Experiment, plain: dict[str, Any], states: States, start: ResumePoint
) -> None:
    """Copy the state of another run into this one, with its best weights and its reads of test."""
    if start.copied_from is None:
        return
    experiment.run.adopt_test_reads(start.copied_from.folder.parent)
    if (best := start.copied_from.best()) is not None:
        states.save_best(*best)
    states.save(start.step, {**start.state, "config": plain, "origin": start.origin})


def state_name(place: Path) -> str:
    """The run and config folders of a state: enough to find it, and no path of this machine."""
    gone = not place.exists() and place.name.startswith("state-")
    folder = place.parent if place.is_file() or gone else place
    parts = [part for part in folder.parts if part not in (RESUME, IN_PROGRESS)]
    return "/".join(parts[-2:])


def _checked(
    experiment: Experiment,
    plain: Mapping[str, Any],
    place: Path,
    loaded: tuple[int, dict[str, Any]],
    states: States,
) -> ResumePoint:
    """states: that `loaded` is of; those of another run are copied later."""
    step, state = loaded
    other = None if states.folder.parent == experiment.run.path else states
    if "identity" not in state or "origin" not in state:
        raise UserError(
            f"{place}: a state of an older version, without the digests of its data and weights. "
            "Train under a new runtime.run_id without runtime.resume"
        )
    check_content(state, place)
    current, keys = identity(experiment), _differing(state["config"], plain)
    also = "".join(f"; {value}" for value in _both(state["config"], plain, keys))
    check_data(state["identity"], current, place, also)
    changed = _check_config(state["config"], plain, place, experiment.conf.runtime.resume_force)
    code = ("git_commit", "code_patch_sha256")
    if other_code := bool(differing(state["identity"], current, code)):
        console.say("note: the state was saved by another version of this code")
    origin = {
        "from": state["origin"]["from"] if other is None else state_name(place),
        "changed": sorted({*state["origin"]["changed"], *changed}),
        "other_code": other_code or state["origin"]["other_code"],
        **_best_lost(states, state),
    }
    if states.best_lost is not None:
        state = {**state, "trainer": {**state["trainer"], "best": {}}}
    return ResumePoint(step, state, place, origin, other)


def _best_lost(states: States, state: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of the origin for best weights that this or an earlier resume lost."""
    if states.best_lost is None:
        earlier = state["origin"].get("best_lost")
        return {} if earlier is None else {"best_lost": earlier}
    epoch = state["trainer"]["best"].get("epoch")
    console.say(
        f"note: resuming by force without the best weights so far (epoch {epoch}, step "
        f"{states.best_lost}): validation chooses among the epochs to come"
    )
    return {"best_lost": {"epoch": epoch, "step": states.best_lost}}


def _named(place: Path, force: bool) -> tuple[States, tuple[int, dict[str, Any]]] | None:
    if place.is_file():
        states = States(place.parent, 1)
        return states, states.load(place, without_best=force)
    for folder in (place, place / RESUME, place / IN_PROGRESS / RESUME):
        states = States(folder, 1)
        if (
            folder.is_dir()
            and (loaded := states.newest(console.say, without_best=force)) is not None
        ):
            return states, loaded
    return None


def _check_config(
    recorded: Mapping[str, Any], current: Mapping[str, Any], place: Path, force: bool
) -> list[str]:
    """The keys that differ, if force allows it.

    Raises:
        UserError: keys differ and the resume is not forced.
    """
    keys = _differing(recorded, current)
    if not keys:
        return []
    if force:
        console.say(f"note: resuming by force under another {', '.join(keys)}")
        return keys
    more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
    values = "; ".join(_both(recorded, current, keys))
    ways = "give its own command or a new runtime.run_id"
    if not any(key.startswith(OTHER_DATA) for key in keys):
        ways += "; or go on with runtime.resume=PATH runtime.resume_force=true"
    raise UserError(f"{place} was trained under another config ({values}{more}): {ways}")


def _both(recorded: Mapping[str, Any], current: Mapping[str, Any], keys: list[str]) -> list[str]:
    """The first four keys with both values."""
    return [f"{key}: {_at(recorded, key)} there, {_at(current, key)} here" for key in keys[:4]]


def _differing(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    return sorted(set(_keys_that_differ(recorded, current)))


def _keys_that_differ(
    recorded: Mapping[str, Any], current: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    for key in {*recorded, *current}:
        a, b = recorded.get(key), current.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from _keys_that_differ(a, b, f"{prefix}{key}.")
        elif a != b:
            yield f"{prefix}{key}"


def _at(plain: Mapping[str, Any], key: str) -> object:
    value: Any = plain
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _is_sweep(conf: Config) -> bool:
    return (Path(conf.runtime.multirun_root).expanduser() / str(conf.runtime.run_id)).exists()
