"""Config, dataset card, machine and records of an experiment -> its plan as Markdown.

The text is plan.md.j2, with the stable id of every item. Here are the values that need code, and
the items that these values can leave open. The items after the run are answered by `audit:ID`, the
check with that id, or by `sign-off: ROLE`, a person who is named before the run is cited.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
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
# item -> field of the dataset's card
CARD = {"source": "source", "licence": "license", "approval": "approval", "filtering": "filtering"}
NOT_FILLED_IN = ("", "unknown", "none recorded", "not recorded")  # values of such a field
FIRST_COUNTS = ("classes", "train", "test")
EXCERPT = ("python_version", "torch_version", "env_hash", "requirements_checksum")


def render_plan(facts: Plain) -> tuple[str, dict[str, str]]:
    """The plan as Markdown, the same for the same experiment except for the stamp.

    Args:
        facts: task and title; runs: from task=plan; conf: the whole config; row: the chosen
            checkpoint of the backbone; groups: options of each config group; smoke: definition of
            the tiny subset; stamp: of this environment; needs_stack: whether the backbone requires
            a passed task=check; stack: its record; examination: of the dataset, by task=doctor.

    Returns:
        The text, and the reason why an item is open, as Markdown, by id of the item.
    """
    open_items, counted = _unanswered(facts), None
    if facts["examination"] is not None:
        counts, texts = facts["examination"]["counts"], []
        for key in dict.fromkeys((*(key for key in FIRST_COUNTS if key in counts), *counts)):
            official = counts[key]["official"]
            of_official = f" of {official:,}" if official else ""
            texts.append(f"{counts[key]['found']:,}{of_official} {key}")
        counted = ", ".join(texts)
    excerpt = {key: facts["stamp"][key] for key in EXCERPT}
    excerpt["config_hash"] = facts["runs"]["experiment"]["config_hash"]
    values = {
        "unanswered": open_items,
        "counted": counted,
        "scalars": TRAINING if facts["task"] == "train" else KEYS,
        "stamp_fields": env_stamp.schema()["required"],
        "stamp_excerpt": json.dumps(excerpt, indent=2, sort_keys=True),
        "rooms": _rooms(),
    }
    return markdown_template.render("plan.md.j2", {**facts, **values}), open_items


def _unanswered(facts: Plain) -> dict[str, str]:
    """Item -> the missing information and the fix, as Markdown, in the order of the plan."""
    dataset, stamp, examination = facts["conf"]["dataset"], facts["stamp"], facts["examination"]
    name, reasons = f"dataset={markdown(dataset['name'])}", {}
    for item, field in CARD.items():
        if str(dataset["card"][field]).split(":")[0].strip() in NOT_FILLED_IN:
            do = f"set dataset.card.{field}=… once it is known"
            reasons[item] = f"the card of {name} leaves {field} open; {do}"
    if examination is not None and examination["verdict"] == "wrong":
        do = "fix what it reports, then run it again"
        reasons["counts"] = f"task=doctor finds this copy wrong; {do}"
    published = dataset["official"]["classes"] and not dataset["partial"]
    if examination is None and dataset["generator"] is None and not published:
        kind = "a partial copy" if dataset["partial"] else "no published dataset"
        do = f"run {code(facts['runs']['doctor'])} first"
        reasons["counts"] = f"{name} is {kind} and was not counted; {do}"
    if facts["needs_stack"] and facts["stack"] is None:
        reasons["stack"] = (
            f"backbone={markdown(facts['conf']['backbone']['name'])} needs a validated stack, and "
            f"this environment has not passed the check; run {stack_check.COMMAND} (about a minute)"
        )
    if stamp["requirements_checksum"] is None:
        why = "the program has no requirements.txt beside it"
        reasons["environment"] = f"{why}; run from a checkout"
    if stamp["git_commit"] is None:
        why = markdown(stamp["git_error"] or "the program does not run from a commit")
        reasons["stamp"] = f"{why}; run from a git checkout that Git can read"
    return {item: f"because {reason}" for item, reason in reasons.items()}


def planning_stamp() -> dict[str, Any]:
    """Date, commit and environment in which the plan is written."""
    git = env_stamp.git_state()
    return {
        "date": f"{now():%Y-%m-%d}",
        "git_commit": git.commit,
        "git_dirty": git.dirty,
        "git_error": git.error,
        **env_stamp.installed(),
        "GPUs": len(env_stamp.query_gpus("name")),
        "MPS": platform.system() == "Darwin" and platform.machine() == "arm64",
        "CPU cores": env_stamp.usable_cores(),
        "requirements_checksum": env_stamp.requirements_checksum(),
        **env_stamp.environment_hash(),
    }


def stack_record(cache_root: Path) -> dict[str, Any] | None:
    """The record of a passed check of this environment: made here, or published."""
    if (here := stack_check.passed_check(cache_root)) is not None:
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


def _rooms() -> dict[str, list[str]]:
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
