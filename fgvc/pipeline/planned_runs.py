"""Overrides of task=plan -> the commands of its plan, and the hashes of the runs they start.

A command of a plan runs on any machine: a path is a shell variable, named after its config key.
"""

from __future__ import annotations

from collections.abc import Sequence

from fgvc.config.compose import composed, config_hash, resolved, typed
from fgvc.config.errors import ConfigError
from fgvc.config.overrides import AXES
from fgvc.config.schema import Config
from fgvc.config.schema_keys import place_keys
from fgvc.pipeline.job import Job
from fgvc.report.plan import PlannedRun, PlannedRuns
from fgvc.untrusted import shell

OMITTED = ("task.output", "runtime.run_id")  # overrides that a plan does not repeat


def planned_runs(job: Job) -> tuple[Config, PlannedRuns]:
    """The config of the experiment that `task.plans` names, and the commands of its plan.

    Raises:
        ConfigError: the experiment or its baseline is invalid.
    """
    repeated = [item for item in job.overrides if _key(item) not in OMITTED]
    kept = [item for item in repeated if _key(item).split(".")[0] != "task"]
    overrides = [f"task={job.conf.task.plans}", *kept, *job.conf.task.overrides]
    conf, experiment = _run(overrides)
    _, baseline = _run(_baseline(overrides, conf))
    keys = [_key(item) for item in overrides]
    roots = [_word(item) for item in overrides if _is_root(_key(item))]
    dataset = [_word(item) for item in overrides if _key(item).split(".")[0] == "dataset"]
    beyond = f"/RUN_ID/{experiment.config_hash[:16]}/CHECKPOINT_ID"
    if "runtime.output_root" in keys:
        folder = f'"$OUTPUT_ROOT"{beyond}'
        checkpoint, run = (
            shell.variable(key, "OUTPUT_ROOT", beyond) for key in ("checkpoint", "run")
        )
    else:
        folder = f"outputs{beyond}"
        checkpoint, run = (shell.setting(key, folder) for key in ("checkpoint", "run"))
    return conf, PlannedRuns(
        experiment=experiment,
        baseline=baseline,
        plan=_command(*map(_word, repeated)),
        doctor=_command("task=doctor", *dataset, *roots),
        evaluation=_command("task=eval", checkpoint, *roots),
        report=_command("task=report", *roots),
        audit=_command("task=audit", run, *roots),
        folder=folder,
        places={_variable(key): key for key in keys if _is_place(key)},
    )


def _baseline(overrides: Sequence[str], conf: Config) -> list[str]:
    """The linear probe of the same backbone, fitted on the images that the experiment trains on."""
    dropped = ("task", "head", "recipe", "final_fit")
    kept = [
        item
        for item in overrides
        if _key(item) not in dropped and not _key(item).startswith(("task.", "head."))
    ]
    fitted = [f"final_fit={conf.final_fit}"] if conf.final_fit != "trainval" else []
    return ["task=probe", "head=linear", *kept, *fitted]


def _run(overrides: Sequence[str]) -> tuple[Config, PlannedRun]:
    cfg = composed(overrides)
    conf = typed(cfg)
    given = {_key(item): item.partition("=")[2] for item in overrides}
    if f"task={conf.task.name}" != overrides[0]:
        raise ConfigError(
            f"task={conf.task.name}: an overlay chooses the task; leave out experiment= and name "
            "its axes"
        )
    axes = [axis for axis in AXES if axis in given or hasattr(conf, axis)]
    options = {axis: given.get(axis) or getattr(conf, axis).name for axis in axes}
    return conf, PlannedRun(_command(*map(_word, overrides)), options, config_hash(resolved(cfg)))


def _command(*words: str) -> str:
    return " ".join([*shell.PROGRAM, *words])


def _word(override: str) -> str:
    key = _key(override)
    return shell.variable(key, _variable(key)) if _is_place(key) else shell.word(override)


def _is_place(key: str) -> bool:
    return key in place_keys() or _is_root(key)


def _is_root(key: str) -> bool:
    return key.startswith("runtime.") and key.endswith("_root")


def _variable(key: str) -> str:
    return key.removeprefix("runtime.").replace(".", "_").upper()


def _key(override: str) -> str:
    return override.partition("=")[0]
