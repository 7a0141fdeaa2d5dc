"""Where a training may go on: the states of this run, or those that runtime.resume names.

A state belongs to one config. Going on under another would be a run that no config describes, so
it is refused, naming the keys; runtime.resume_force=true does it all the same and is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fgvc.config.compose import config_hash
from fgvc.config.schema import Config
from fgvc.record import console
from fgvc.record.folder import IN_PROGRESS, RESUME, SHORT, read_json
from fgvc.record.resume import States
from fgvc.task.experiment import Experiment
from fgvc.types import UserError


def before(conf: Config, plain: Mapping[str, Any]) -> None:
    """Refuse to start anew under a run_id whose training was stopped with another config.

    Only a run_id that was given can meet one; the jobs of a sweep share theirs by design.

    Raises:
        UserError: names the folder and the keys that differ.
    """
    home = Path(conf.runtime.output_root).expanduser() / str(conf.runtime.run_id)
    mine = config_hash(dict(plain))[:SHORT]
    if conf.runtime.resume is not None or (home / mine).exists() or _is_sweep(conf):
        return
    for folder in sorted(home.glob(f"*/{IN_PROGRESS}/{RESUME}")):
        _refuse(read_json(folder.parent, "config.canonical.json"), plain, folder.parent, False)


def described(
    job: Experiment, plain: dict[str, Any], states: States
) -> tuple[dict[str, Any] | None, dict[str, object]]:
    """The state to go on from, or None; and what the record says of it.

    Raises:
        UserError: runtime.resume names no state, or one of another config.
    """
    own = states.newest(console.say)
    if own is not None:
        return own[1], {"resumed": {"step": own[0], "forced": False, **_code(job, own[1])}}
    path = job.conf.runtime.resume
    if path is None:
        return None, {"resumed": None}
    place = Path(path).expanduser()
    found = _named(place)
    if found is None:
        raise UserError(
            f"runtime.resume={path}: no resume state there (a run folder in progress, its resume "
            "folder, or a state in it)"
        )
    other, (step, state) = found
    forced = _refuse(state["config"], plain, place, job.conf.runtime.resume_force)
    if (best := other.best()) is not None:
        states.save_best(*best)
    states.save(step, state)
    return state, {
        "resumed": {"step": step, "forced": forced, "from": state_name(place), **_code(job, state)}
    }


def _code(job: Experiment, state: Mapping[str, Any]) -> dict[str, object]:
    """Whether the state was made by other code: allowed, as a fix may be why, and recorded."""
    other = state["code"] != [job.run.code.commit, job.run.code.patch_sha256]
    if other:
        console.say("note: the state was saved by another version of this code")
    return {"other_code": other}


def state_name(place: Path) -> str:
    """The run and config folders of a state: enough to find it, and no path of this machine."""
    folder = place.parent if place.is_file() else place
    parts = [part for part in folder.parts if part not in (RESUME, IN_PROGRESS)]
    return "/".join(parts[-2:])


def _named(place: Path) -> tuple[States, tuple[int, dict[str, Any]]] | None:
    if place.is_file():
        states = States(place.parent, 1)
        return states, states.load(place)
    for folder in (place, place / RESUME, place / IN_PROGRESS / RESUME):
        states = States(folder, 1)
        if folder.is_dir() and (found := states.newest(console.say)) is not None:
            return states, found
    return None


def _refuse(theirs: Mapping[str, Any], mine: Mapping[str, Any], place: Path, force: bool) -> bool:
    """Whether the configs differ and that was forced."""
    keys = sorted(set(_differing(theirs, mine)))
    if not keys:
        return False
    if force:
        console.say(f"note: resumed by force under another {', '.join(keys)}")
        return True
    values = "; ".join(
        f"{key}: {_at(theirs, key)} there, {_at(mine, key)} here" for key in keys[:4]
    )
    more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
    raise UserError(
        f"{place} was trained under another config ({values}{more}): give its own command, a new "
        "runtime.run_id, or runtime.resume=PATH with runtime.resume_force=true"
    )


def _differing(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in {*one, *other}:
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from _differing(a, b, f"{prefix}{key}.")
        elif a != b:
            yield f"{prefix}{key}"


def _at(plain: Mapping[str, Any], key: str) -> object:
    value: Any = plain
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _is_sweep(conf: Config) -> bool:
    return (Path(conf.runtime.multirun_root).expanduser() / str(conf.runtime.run_id)).exists()
