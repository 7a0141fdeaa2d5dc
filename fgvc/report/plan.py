"""Config, dataset card, machine and records of an experiment -> its plan as Markdown.

The text is plan.md.j2, with the stable id of every item. Here are the values that need code, and
the items that these values can leave open. The items after the run are answered by `audit:ID`, the
check with that id, or by `sign-off: ROLE`, a person who is named before the run is cited.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc.record import env_stamp, stack_check
from fgvc.record.run_dir import now, read_json
from fgvc.record.stack_check import published
from fgvc.record.tensorboard import KEYS, TRAINING
from fgvc.report import markdown_template
from fgvc.types import UserError
from fgvc.untrusted.escape import code, markdown

Plain = Mapping[str, Any]
CARD = {  # item -> field of the dataset's card
    "source": "source",
    "licence": "license",
    "approval": "approval",
    "filtering": "filtering",
}
NOT_FILLED_IN = ("", "unknown", "none recorded", "not recorded")  # values of such a field
EXCERPT = ("python_version", "torch_version", "env_hash", "requirements_checksum")


@dataclass(frozen=True)
class PlannedRun:
    """A run that the plan contains. options: option file per axis. config_hash: of the composed
    config."""

    command: str
    options: Mapping[str, str]
    config_hash: str


@dataclass(frozen=True)
class PlannedRuns:
    """Commands of a plan, for a shell, with variables for paths.

    baseline: the linear probe that the experiment is compared with. plan: writes the plan. doctor:
    examines the dataset. evaluation, audit: of the future run folder. folder: its path; capitals
    stand for the unknown parts. places: shell variable -> its config key.
    """

    experiment: PlannedRun
    baseline: PlannedRun
    plan: str
    doctor: str
    evaluation: str
    report: str
    audit: str
    folder: str
    places: Mapping[str, str]


@dataclass(frozen=True)
class PlanInputs:
    """The facts on an experiment before it runs.

    task: of the experiment. conf: its whole config. row: the chosen checkpoint of its backbone.
    groups: config group -> options. smoke: definition of the tiny subset. stamp: of this
    environment. needs_stack: whether the backbone requires a passed task=check; stack: its record.
    examination: of the dataset, by task=doctor.
    """

    task: str
    title: str
    runs: PlannedRuns
    conf: Plain
    row: Plain
    groups: Mapping[str, Sequence[str]]
    smoke: Plain
    stamp: Plain
    needs_stack: bool
    stack: Plain | None
    examination: Plain | None


def render_plan(inputs: PlanInputs) -> tuple[str, dict[str, str]]:
    """The plan as Markdown, the same for the same experiment except for the stamp.

    Returns:
        The text, and the reason why an item is open, as Markdown, by id of the item.
    """
    stamp, open_items = inputs.stamp, _unanswered(inputs)
    excerpt = {key: stamp[key] for key in EXCERPT} | {
        "config_hash": inputs.runs.experiment.config_hash
    }
    values = {
        "unanswered": open_items,
        "counted": _counts(inputs.examination["counts"]) if inputs.examination else None,
        "scalars": TRAINING if inputs.task == "train" else KEYS,
        "stamp_fields": env_stamp.schema()["required"],
        "stamp_excerpt": json.dumps(excerpt, indent=2, sort_keys=True),
        "rooms": _rooms(),
    }
    return markdown_template.render("plan.md.j2", vars(inputs) | values), open_items


def _unanswered(inputs: PlanInputs) -> dict[str, str]:
    """Item -> what is missing and what to do about it, as Markdown, in the order of the plan."""
    dataset, stamp, examination = inputs.conf["dataset"], inputs.stamp, inputs.examination
    name = f"dataset={markdown(dataset['name'])}"
    reasons: dict[str, tuple[str, str]] = {}
    for item, field in CARD.items():
        if str(dataset["card"][field]).split(":")[0].strip() in NOT_FILLED_IN:
            reasons[item] = (
                f"the card of {name} leaves {field} open",
                f"set dataset.card.{field}=… once it is known",
            )
    if examination is not None:
        if examination["verdict"] == "wrong":
            reasons["counts"] = (
                "task=doctor finds this copy wrong",
                "fix what it reports, then run it again",
            )
    elif dataset["generator"] is None and (
        dataset["partial"] or not dataset["official"]["classes"]
    ):
        kind = "a partial copy" if dataset["partial"] else "no published dataset"
        reasons["counts"] = (
            f"{name} is {kind} and was not counted",
            f"run {code(inputs.runs.doctor)} first",
        )
    if inputs.needs_stack and inputs.stack is None:
        reasons["stack"] = (
            f"backbone={markdown(inputs.conf['backbone']['name'])} needs a validated stack, and "
            "this environment has not passed the check",
            f"run {stack_check.COMMAND} (about a minute)",
        )
    if stamp["requirements_checksum"] is None:
        reasons["environment"] = (
            "the program has no requirements.txt beside it",
            "run from a checkout",
        )
    if stamp["git_commit"] is None:
        why = stamp["git_error"] or "the program does not run from a commit"
        reasons["stamp"] = (markdown(why), "run from a git checkout that Git can read")
    return {item: f"because {because}; {do}" for item, (because, do) in reasons.items()}


def planning_stamp() -> dict[str, Any]:
    """Date, commit and environment in which the plan is written."""
    git = env_stamp.git_state()
    return {
        "date": f"{now():%Y-%m-%d}",
        "git_commit": git.commit,
        "git_dirty": git.dirty,
        "git_error": git.error,
        **env_stamp.installed(),
        "GPUs": len(env_stamp.gpu_names()),
        "MPS": platform.system() == "Darwin" and platform.machine() == "arm64",
        "CPU cores": env_stamp.usable_cores(),
        "requirements_checksum": env_stamp.requirements_checksum(),
        **env_stamp.environment_hash(),
    }


def stack_record(cache_root: Path) -> dict[str, Any] | None:
    """The record of a passed check of this environment: made here, or published."""
    here = stack_check.passed_check(cache_root)
    if here is not None:
        return here
    env_hash = env_stamp.environment_hash()["env_hash"]
    records = published.read_records(env_stamp.CODE)
    return next((item for item in records if item["env_hash"] == env_hash and item["passed"]), None)


def last_examination(output_root: Path, dataset: str) -> dict[str, Any] | None:
    """The verdict and counts of the last task=doctor; None if it has not run.

    Raises:
        UserError: its file is damaged.
    """
    folder = output_root / "doctor"
    name = re.sub(r"[^\w.-]", "_", dataset) + ".json"
    if not (folder / name).is_file():
        return None
    try:
        record = read_json(folder, name)
        return {key: record[key] for key in ("verdict", "counts")}
    except (ValueError, KeyError) as error:
        raise UserError(f"{folder / name}: damaged; examine again with task=doctor") from error


def _counts(counts: Mapping[str, Mapping[str, int | None]]) -> str:
    """Classes, train and test first, then other counts."""
    keys = dict.fromkeys([*(key for key in ("classes", "train", "test") if key in counts), *counts])
    texts = []
    for key in keys:
        official = counts[key]["official"]
        of_official = f" of {official:,}" if official else ""
        texts.append(f"{counts[key]['found']:,}{of_official} {key}")
    return ", ".join(texts)


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
