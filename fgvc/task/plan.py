"""task=plan: the axes of an experiment -> its plan document, and an exit code.

An operation. It takes seconds: it reads no images and imports nothing heavy.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fgvc.config.compose import (
    composed,
    conf_dir,
    config_hash,
    place_keys,
    resolved,
    typed,
)
from fgvc.config.errors import ConfigError
from fgvc.config.overrides import AXES, options
from fgvc.config.schema import Config, chosen_checkpoint
from fgvc.data import subset
from fgvc.exit_codes import DONE, FAILED
from fgvc.pipeline.job import Job
from fgvc.record import console, env_stamp, stack_check
from fgvc.record.run_dir import now, read_json
from fgvc.record.stack_check import published
from fgvc.report.plan import PlanInputs, PlannedRun, render_plan
from fgvc.store import atomic
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
    about = _about(job)
    file = _file(job, about)
    plan = render_plan(about)
    atomic.write_text(file, plan.text)
    for key, reason in plan.unanswered.items():
        console.say(f"NOT ANSWERED: {key}, {reason}")
    console.say(f"plan: {file}")
    return FAILED if plan.unanswered else DONE


def _about(job: Job) -> PlanInputs:
    task = job.conf.task
    chosen = _experiment(job)
    roots = [
        _word(item) for item in chosen if _is_place(_key(item)) and item.startswith("runtime.")
    ]
    data = [item for item in chosen if _key(item).split(".")[0] == "dataset"]
    conf, experiment = _asked(chosen)
    _, baseline = _asked(_probe_of(chosen, conf))
    return PlanInputs(
        task=task.plans,
        title=task.title or _title(conf),
        experiment=experiment,
        baseline=baseline,
        plan_command=_command(item for item in job.overrides if _key(item) not in OMITTED),
        doctor=_command(["task=doctor", *data], roots),
        roots="".join(f" {word}" for word in roots),
        conf=asdict(conf),
        row=asdict(chosen_checkpoint(conf.backbone)),
        places={_variable(key): key for key in map(_key, chosen) if _is_place(key)},
        stamp=_stamp(),
        stack=_stack_record(conf),
        needs_stack=conf.backbone.name in stack_check.MODERN,
        examination=_examination(conf),
        smoke=_smoke(conf),
        groups={group: options(group) for group in AXES},
        rooms=_rooms(),
    )


# --- the planned runs ---


def _experiment(job: Job) -> list[str]:
    """Overrides of the experiment: those of the command, without the plan's own."""
    kept = [
        item
        for item in job.overrides
        if _key(item).split(".")[0] != "task" and _key(item) not in OMITTED
    ]
    return [f"task={job.conf.task.plans}", *kept, *job.conf.task.overrides]


def _probe_of(chosen: Sequence[str], conf: Config) -> list[str]:
    """The linear probe of the same backbone, fitted on the images that the experiment trains on."""
    dropped = ("task", "head", "recipe", "final_fit")
    kept = [
        item
        for item in chosen
        if _key(item) not in dropped and not _key(item).startswith(("task.", "head."))
    ]
    fitted = [f"final_fit={conf.final_fit}"] if conf.final_fit != "trainval" else []
    return ["task=probe", "head=linear", *kept, *fitted]


def _asked(overrides: Sequence[str]) -> tuple[Config, PlannedRun]:
    cfg = composed(overrides)
    conf = typed(cfg)
    if conf.task.name != _value(overrides[0]):
        raise ConfigError(
            f"task={conf.task.name}: an overlay chooses the task; leave out experiment= and name "
            "its axes"
        )
    return conf, PlannedRun(
        _command(overrides), _options(conf, overrides), config_hash(resolved(cfg))
    )


def _options(conf: Config, overrides: Sequence[str]) -> dict[str, str]:
    """The option of each axis: as given in the command, or the name in the config."""
    given = {_key(item): _value(item) for item in overrides}
    chosen = [axis for axis in AXES if axis in given or hasattr(conf, axis)]
    return {axis: given.get(axis) or getattr(conf, axis).name for axis in chosen}


def _command(overrides: Iterable[str], words: Iterable[str] = ()) -> str:
    return " ".join([*shell.PROGRAM, *map(_word, overrides), *words])


def _word(override: str) -> str:
    """An override as a shell word; a path becomes a variable, as it differs between machines."""
    key = _key(override)
    return shell.variable(key, _variable(key)) if _is_place(key) else shell.word(override)


def _is_place(key: str) -> bool:
    return key in place_keys() or (key.startswith("runtime.") and key.endswith("_root"))


def _variable(key: str) -> str:
    return key.removeprefix("runtime.").replace(".", "_").upper()


def _key(override: str) -> str:
    return override.partition("=")[0]


def _value(override: str) -> str:
    return override.partition("=")[2]


# --- facts about them ---


def _title(conf: Config) -> str:
    names = {"probe": "Probe", "zero_shot": "Zero-shot", "train": "Finetune"}
    part = conf.part_attention.name
    return (
        f"{names[conf.task.name]} of {conf.backbone.name} {conf.backbone.size}, head "
        f"{conf.head.name}, on {conf.dataset.name} at {conf.resolution.side} px"
        + ("" if part == "off" else f" with part attention {part}")
    )


def _stamp() -> dict[str, Any]:
    code = env_stamp.git_state()
    return {
        "date": f"{now():%Y-%m-%d}",
        "git_commit": code.commit,
        "git_dirty": code.dirty,
        "git_error": code.error,
        "os_version": platform.platform(),
        "machine": platform.machine(),
        "python_version": platform.python_version(),
        **{key: env_stamp.version(name) for key, name in env_stamp.PACKAGES.items()},
        "GPUs": len(env_stamp.gpu_names()),
        "MPS": platform.system() == "Darwin" and platform.machine() == "arm64",
        "CPU cores": env_stamp.usable_cores(),
        "requirements_checksum": env_stamp.requirements_checksum(),
        **env_stamp.environment_hash(),
    }


def _stack_record(conf: Config) -> dict[str, Any] | None:
    """The record of a passed check of this environment: made here, or published."""
    here = stack_check.passed_check(Path(conf.runtime.cache_root))
    if here is not None:
        return here
    env_hash = env_stamp.environment_hash()["env_hash"]
    records = published.read_records(env_stamp.CODE)
    return next((item for item in records if item["env_hash"] == env_hash and item["passed"]), None)


def _examination(conf: Config) -> dict[str, Any] | None:
    """The verdict and counts of the last task=doctor; None if it has not run."""
    folder = Path(conf.runtime.output_root).expanduser() / "doctor"
    name = re.sub(r"[^\w.-]", "_", conf.dataset.name) + ".json"
    if not (folder / name).is_file():
        return None
    try:
        record = read_json(folder, name)
        return {key: record[key] for key in ("verdict", "counts")}
    except (ValueError, KeyError) as error:
        raise UserError(f"{folder / name}: damaged; examine again with task=doctor") from error


def _smoke(conf: Config) -> dict[str, Any]:
    classes, val = subset.MAX_CLASSES, bool(conf.dataset.val_fraction)
    numbers = {
        "classes": classes,
        "train": classes * subset.TRAIN_PER_CLASS,
        "val": classes * val,
        "test": classes * subset.TEST_PER_CLASS,
    }
    generator = conf.dataset.generator
    return {
        **numbers,
        "expected_seconds": subset.EXPECTED_SECONDS,
        "definition": {
            "subset": "tiny",
            "dataset": conf.dataset.name,
            "split_seed": conf.dataset.split_seed,
            "generator": None if generator is None else asdict(generator),
            **numbers,
        },
    }


def _rooms() -> dict[str, list[str]]:
    """The rooms of the package, each with its modules."""
    package = Path(__file__).resolve().parents[1]
    return {
        room.name: sorted(
            item.stem
            for item in room.iterdir()
            if (item.suffix == ".py" or (item / "__init__.py").is_file())
            and item.stem != "__init__"
        )
        for room in sorted(package.iterdir())
        if (room / "__init__.py").is_file()
    }


# --- the output file ---


def _file(job: Job, about: PlanInputs) -> Path:
    """task.output, or a new numbered folder under specs/ of the checkout."""
    if job.conf.task.output is not None:
        return output_file(job.conf.task.output, FILE, (".md",))
    root = conf_dir().parent
    if not (root / "pyproject.toml").is_file():
        raise UserError("task=plan: needs task.output=PATH outside a checkout of fgvc")
    backbone, dataset, resolution = (
        about.conf[axis]["name"] for axis in ("backbone", "dataset", "resolution")
    )
    words = [about.task, backbone, about.backbone["size"], dataset, resolution]
    return next_folder(root / "specs", "-".join(words)) / FILE


def next_folder(specs: Path, name: str) -> Path:
    """specs/NNN-name with the next free number."""
    numbers = [int(folder.name[:3]) for folder in specs.glob("[0-9][0-9][0-9]-*")]
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return specs / f"{max(numbers, default=0) + 1:03d}-{slug}"
