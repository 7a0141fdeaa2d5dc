"""task=plan: the axes of an experiment -> its plan document, and an exit code.

An operation. It takes seconds: it reads no images and imports nothing heavy. A command of a plan
runs on any machine: a path is a shell variable, named after its config key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fgvc.config.compose import composed, conf_dir, config_hash, resolved, typed
from fgvc.config.errors import ConfigError
from fgvc.config.override_grammar import key_of
from fgvc.config.overrides import AXES, options
from fgvc.config.schema import Config, chosen_checkpoint
from fgvc.config.schema_keys import place_keys
from fgvc.data import subset
from fgvc.exit_codes import DONE, FAILED
from fgvc.pipeline.job import Job
from fgvc.record import console, stack_check
from fgvc.report import plan
from fgvc.store import atomic, hashing
from fgvc.store.output_path import output_file
from fgvc.types import UserError
from fgvc.untrusted import shell

FILE = "plan.md"
OMITTED = ("task.output", "runtime.run_id")  # overrides that a plan does not repeat


def run(job: Job) -> int:
    """Write the plan of the experiment that `task.plans` names, under the axes of the command.

    Returns:
        The exit code: FAILED if the plan has unanswered items; the document lists them.

    Raises:
        ConfigError: the experiment is invalid.
        UserError: no task.output, outside a checkout.
        OSError: the document cannot be written.
    """
    task = job.conf.task
    conf, runs = _planned_runs(job)
    kind = {"probe": "Probe", "zero_shot": "Zero-shot", "train": "Finetune"}[conf.task.name]
    part = conf.part_attention.name
    title = (
        f"{kind} of {conf.backbone.name} {conf.backbone.size}, head {conf.head.name}, on "
        f"{conf.dataset.name} at {conf.resolution.side} px"
        f"{'' if part == 'off' else f' with part attention {part}'}"
    )
    facts = {
        "task": task.plans,
        "title": task.title or title,
        "runs": runs,
        "conf": asdict(conf),
        "row": asdict(chosen_checkpoint(conf.backbone)),
        "groups": {group: options(group) for group in AXES},
        "smoke": _smoke(conf),
        "stamp": plan.planning_stamp(),
        "needs_stack": conf.backbone.name in stack_check.MODERN,
        "stack": plan.stack_record(Path(conf.runtime.cache_root)),
        "examination": plan.last_examination(
            Path(conf.runtime.output_root).expanduser(), conf.dataset.name
        ),
    }
    file = _file(task.output, conf)
    text, unanswered = plan.render_plan(facts)
    atomic.write_text(file, text)
    for item, reason in unanswered.items():
        console.say(f"NOT ANSWERED: {item}, {reason}")
    console.say(f"plan: {file}")
    return FAILED if unanswered else DONE


def _planned_runs(job: Job) -> tuple[Config, dict[str, Any]]:
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
    conf, experiment = _planned_run(overrides)
    # the linear probe of the same backbone, fitted on the images that the experiment trains on
    dropped = ("task", "head", "recipe", "final_fit")
    axes = [item for item in overrides if key_of(item).split(".")[0] not in dropped]
    fitted = [f"final_fit={conf.final_fit}"] if conf.final_fit != "trainval" else []
    _, baseline = _planned_run(["task=probe", "head=linear", *axes, *fitted])
    keys = [key_of(item) for item in overrides]
    roots = [_word(item) for item in overrides if _is_root(key_of(item))]
    dataset = [_word(item) for item in overrides if key_of(item).split(".")[0] == "dataset"]
    beyond = f"/RUN_ID/{experiment['config_hash'][:16]}/CHECKPOINT_ID"
    if "runtime.output_root" in keys:
        folder = f'"$OUTPUT_ROOT"{beyond}'
        checkpoint = shell.variable("checkpoint", "OUTPUT_ROOT", beyond)
        run = shell.variable("run", "OUTPUT_ROOT", beyond)
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


def _planned_run(overrides: Sequence[str]) -> tuple[Config, dict[str, Any]]:
    cfg = composed(overrides)
    conf = typed(cfg)
    given = {key_of(item): item.partition("=")[2] for item in overrides}
    if f"task={conf.task.name}" != overrides[0]:
        raise ConfigError(
            f"task={conf.task.name}: an overlay chooses the task; leave out experiment= and name "
            "its axes"
        )
    axes = [axis for axis in AXES if axis in given or hasattr(conf, axis)]
    return conf, {
        "command": _command(*map(_word, overrides)),
        "options": {axis: given.get(axis) or getattr(conf, axis).name for axis in axes},
        "config_hash": config_hash(resolved(cfg)),
    }


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


def _smoke(conf: Config) -> dict[str, Any]:
    """Sizes of dataset.subset=tiny, its expected seconds, and the checksum of its definition."""
    classes, val = subset.MAX_CLASSES, bool(conf.dataset.val_fraction)
    sizes = {
        "classes": classes,
        "train": classes * subset.TRAIN_PER_CLASS,
        "val": classes * val,
        "test": classes * subset.TEST_PER_CLASS,
    }
    generator = conf.dataset.generator
    definition = {
        "subset": "tiny",
        "dataset": conf.dataset.name,
        "split_seed": conf.dataset.split_seed,
        "generator": None if generator is None else asdict(generator),
        **sizes,
    }
    checksum = hashing.sha256_json(definition)
    return {**sizes, "expected_seconds": subset.EXPECTED_SECONDS, "checksum": checksum}


def _file(output: str | None, conf: Config) -> Path:
    """task.output, or a new numbered folder under specs/ of the checkout."""
    if output is not None:
        return output_file(output, FILE, (".md",))
    root = conf_dir().parent
    if not (root / "pyproject.toml").is_file():
        raise UserError("task=plan: needs task.output=PATH outside a checkout of fgvc")
    axes = (conf.task, conf.backbone, conf.backbone.size, conf.dataset, conf.resolution)
    words = [axis if isinstance(axis, str) else axis.name for axis in axes]
    return next_folder(root / "specs", "-".join(words)) / FILE


def next_folder(specs: Path, name: str) -> Path:
    """specs/NNN-name with the next free number."""
    numbers = [int(folder.name[:3]) for folder in specs.glob("[0-9][0-9][0-9]-*")]
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return specs / f"{max(numbers, default=0) + 1:03d}-{slug}"
