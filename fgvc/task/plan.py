"""task=plan: the axes of an experiment -> its plan document, and an exit code.

An operation. It takes seconds: it reads no images and imports nothing heavy.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fgvc.config.compose import conf_dir
from fgvc.config.overrides import AXES, options
from fgvc.config.schema import Config, chosen_checkpoint
from fgvc.data import subset
from fgvc.exit_codes import DONE, FAILED
from fgvc.pipeline.job import Job
from fgvc.pipeline.planned_runs import planned_runs
from fgvc.record import console, stack_check
from fgvc.report import plan
from fgvc.store import atomic, hashing
from fgvc.store.output_path import output_file
from fgvc.types import UserError

FILE = "plan.md"


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
    conf, runs = planned_runs(job)
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
    checksum = hashing.sha256_bytes(hashing.canonical_json(definition))
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
