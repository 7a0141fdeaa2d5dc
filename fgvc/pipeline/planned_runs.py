"""Overrides of task=plan -> the commands of its plan, and the hashes of the runs they start.

A command of a plan runs on any machine: a path is a shell variable, named after its config key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fgvc.config.compose import composed, config_hash, resolved, typed
from fgvc.config.errors import ConfigError
from fgvc.config.override_grammar import key_of
from fgvc.config.overrides import AXES
from fgvc.config.schema import Config
from fgvc.config.schema_keys import place_keys
from fgvc.pipeline.job import Job
from fgvc.untrusted import shell

OMITTED = ("task.output", "runtime.run_id")  # overrides that a plan does not repeat


def planned_runs(job: Job) -> tuple[Config, dict[str, Any]]:
    """The config of the experiment that `task.plans` names, and the commands of its plan.

    experiment, and baseline, the linear probe that it is compared with: command, option file per
    axis and config_hash. The other commands are for a shell, with variables for paths. plan: writes
    the plan. doctor: examines the dataset. evaluation, audit: of the future run folder. folder: its
    path; capitals stand for the unknown parts. places: shell variable -> its config key.

    Raises:
        ConfigError: the experiment or its baseline is invalid.
    """
    repeated = [item for item in job.overrides if key_of(item) not in OMITTED]
    kept = [item for item in repeated if key_of(item).split(".")[0] != "task"]
    overrides = [f"task={job.conf.task.plans}", *kept, *job.conf.task.overrides]
    conf, experiment = _run(overrides)
    # the linear probe of the same backbone, fitted on the images that the experiment trains on
    dropped = ("task", "head", "recipe", "final_fit")
    axes = [item for item in overrides if key_of(item) not in dropped]
    axes = [item for item in axes if not item.startswith(("task.", "head."))]
    fitted = [f"final_fit={conf.final_fit}"] if conf.final_fit != "trainval" else []
    _, baseline = _run(["task=probe", "head=linear", *axes, *fitted])
    keys = [key_of(item) for item in overrides]
    roots = [_word(item) for item in overrides if _is_root(key_of(item))]
    dataset = [_word(item) for item in overrides if key_of(item).split(".")[0] == "dataset"]
    beyond = f"/RUN_ID/{experiment['config_hash'][:16]}/CHECKPOINT_ID"
    if "runtime.output_root" in keys:
        folder = f'"$OUTPUT_ROOT"{beyond}'
        checkpoint, run = (
            shell.variable(key, "OUTPUT_ROOT", beyond) for key in ("checkpoint", "run")
        )
    else:
        folder = f"outputs{beyond}"
        checkpoint, run = (shell.setting(key, folder) for key in ("checkpoint", "run"))
    return conf, {
        "experiment": experiment,
        "baseline": baseline,
        "plan": _command(*map(_word, repeated)),
        "doctor": _command("task=doctor", *dataset, *roots),
        "evaluation": _command("task=eval", checkpoint, *roots),
        "report": _command("task=report", *roots),
        "audit": _command("task=audit", run, *roots),
        "folder": folder,
        "places": {_variable(key): key for key in keys if _is_place(key)},
    }


def _run(overrides: Sequence[str]) -> tuple[Config, dict[str, Any]]:
    cfg = composed(overrides)
    conf = typed(cfg)
    given = {key_of(item): item.partition("=")[2] for item in overrides}
    if f"task={conf.task.name}" != overrides[0]:
        raise ConfigError(
            f"task={conf.task.name}: an overlay chooses the task; leave out experiment= and name "
            "its axes"
        )
    axes = [axis for axis in AXES if axis in given or hasattr(conf, axis)]
    options = {axis: given.get(axis) or getattr(conf, axis).name for axis in axes}
    command = _command(*map(_word, overrides))
    return conf, {"command": command, "options": options, "config_hash": config_hash(resolved(cfg))}


def _command(*words: str) -> str:
    return " ".join([*shell.PROGRAM, *words])


def _word(override: str) -> str:
    key = key_of(override)
    return shell.variable(key, _variable(key)) if _is_place(key) else shell.word(override)


def _is_place(key: str) -> bool:
    return key in place_keys() or _is_root(key)


def _is_root(key: str) -> bool:
    return key.startswith("runtime.") and key.endswith("_root")


def _variable(key: str) -> str:
    return key.removeprefix("runtime.").replace(".", "_").upper()
