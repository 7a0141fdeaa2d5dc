"""A plan answers every requirement of the project, and names the items that it cannot answer."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import pytest

from fgvc.config.compose import composed, typed
from fgvc.config.schema import chosen_checkpoint
from fgvc.report.audit import CHECKS
from fgvc.report.audit.check import check_id
from fgvc.report.plan import planning_stamp, render_plan

AUDIT = {check_id(check) for check in CHECKS}
SECTIONS = [
    "Summary",
    "Technical context",
    "Constitution check",
    "Project structure",
    "Research, data model, quickstart, contracts",
    "Complexity tracking",
]
HEADING = re.compile(r"^\*\*(.+)\*\* \(`([\w-]+)`\)$", re.MULTILINE)
AFTER_RUN = re.compile(r"^\| `([\w-]+)` \| (.+) \| (.+) \| \|$", re.MULTILINE)
CARD = ("source", "license", "approval", "filtering")
NO_CARD = [f"dataset.card.{field}=unknown" for field in CARD]
PARTIAL = ["dataset=cub", "dataset.partial=true"]
COUNTS = {"train": {"found": 12, "official": 5994}, "classes": {"found": 2, "official": 200}}
# requirement of a plan -> the items that answer it
REQUIRED = {
    "a summary of question and approach": ["question"],
    "language, dependencies, storage": ["language", "dependencies", "storage"],
    "testing by pytest with markers": ["testing"],
    "target platform, macOS arm64 among them": ["platform"],
    "project type": ["project-type"],
    "performance, constraints, scale": ["performance", "constraints", "scale"],
    "training and evaluation commands, recorded": ["commands", "audit-command"],
    "config path, seeds, output folder": ["configs", "seeds", "outputs"],
    "data: source, licence, filtering": ["source", "licence", "filtering", "signed-licence"],
    "smoke on a tiny subset, half precision and processes too, through pytest": ["smoke"],
    "where that subset lies, its time, coverage and checksum": ["smoke"],
    "split, resolution and metrics tied to the checkpoint": ["evaluation", "audit-metrics"],
    "device count, launch shape, parameterised paths, no CUDA assumed": ["devices"],
    "axes, and how comparability is kept": ["axes"],
    "a modern backbone on a validated stack only": ["stack", "environment"],
    "a linear-probe baseline beside each finetune": ["baseline"],
    "the conda environment and how runs use it": ["environment"],
    "TensorBoard: where and which keys": ["tensorboard"],
    "FiftyOne: where, and its links": ["fiftyone"],
    "a stable schema of output paths": ["outputs"],
    "a normalization identifier, logged": ["normalization"],
    "fields of the baseline table and its joins": ["table"],
    "label order checked against the definition": ["labels", "audit-labelmap"],
    "metadata of system and environment": ["stamp", "audit-stamp"],
    "environment hash, requirements checksum, config hash, excerpt": ["stamp", "environment"],
    "time to live of artefacts, with evidence": ["retention", "audit-retention"],
    "minimum contents": ["contents", "audit-contents"],
    "a single-batch evaluation, and tests first": ["sanity"],
    "approval of new or synthetic data": ["approval", "signed-approval", "signed-licence"],
    "numbers per class in the baselines": ["table", "contents"],
    "label map: path and checksum": ["labels"],
    "checkpoints outside git, named by sha256": ["checkpoints", "audit-checkpoint"],
    "at least 90 days for tables too": ["retention"],
    "the stamp's schema, place and fields": ["stamp"],
    "files as they were written, splits apart": ["audit-hashes", "audit-splits", "audit-counts"],
    "documents and source tree, and why": ["documents", "source-tree", "decision"],
    "research, data model, quickstart, contracts": [
        "research",
        "data-model",
        "quickstart",
        "contracts",
    ],
    "deviations, justified": ["complexity"],
    "pretrained weights and their training data": ["backbone"],
    "how many classes and images": ["counts"],
}


def plan_inputs(
    *overrides: str, stamp: dict[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """Inputs of a complete plan of random weights on synthetic birds, with changes."""
    conf = typed(composed(["backbone=vit", "backbone.pretrained=false", *overrides]))
    options = {"task": "probe", "dataset": conf.dataset.name, "head": "linear"}
    command = "python -m fgvc.run task=probe"
    run = {"command": command, "options": options, "config_hash": "a" * 64}
    runs = {key: f"python -m fgvc.run {key}" for key in ("plan", "doctor", "evaluation")}
    runs |= {key: f"python -m fgvc.run {key}" for key in ("report", "audit")}
    known = {"git_commit": "0" * 40, "git_error": None, "requirements_checksum": "1" * 64}
    inputs = {
        "task": "probe",
        "title": "Is it so?",
        "runs": {
            "experiment": run,
            "baseline": run,
            **runs,
            "folder": "outputs/RUN_ID",
            "places": {},
        },
        "conf": asdict(conf),
        "row": asdict(chosen_checkpoint(conf.backbone)),
        "groups": {group: ["x", "y"] for group in options},
        "smoke": {
            "train": 1,
            "val": 1,
            "test": 1,
            "classes": 1,
            "checksum": "2",
            "expected_seconds": 3,
        },
        "stamp": planning_stamp() | known | (stamp or {}),
        "needs_stack": False,
        "stack": None,
        "examination": None,
    }
    return inputs | changes


def items_of(text: str) -> list[str]:
    """Ids of a plan in their order: the items that it answers, and those after the run."""
    return [id for _, id in HEADING.findall(text)] + [row[0] for row in AFTER_RUN.findall(text)]


STACK = {
    **dict.fromkeys(("platform", "python_version", "torch_version", "checked", "env_hash"), "x"),
    "steps": {"app": {"result": "passed", "says": "served"}},
}
EVERYTHING_OPEN = plan_inputs(
    *PARTIAL,
    *NO_CARD,
    stamp={"git_commit": None, "requirements_checksum": None},
    needs_stack=True,
)
PLANS = {
    "complete": plan_inputs(),
    "everything-open": EVERYTHING_OPEN,
    "train": plan_inputs(task="train"),
    "zero-shot": plan_inputs(task="zero_shot", stack=STACK, needs_stack=True),
    "published-weights": plan_inputs("backbone.pretrained=true"),
    "local-weights": plan_inputs("backbone.pretrained=true", f"backbone.weights_sha256={'f' * 64}"),
    "counted": plan_inputs(*PARTIAL, examination={"verdict": "partial", "counts": COUNTS}),
    "official": plan_inputs("dataset=cub", "dataset.on_bad_image=skip", "dataset.box_crop=true"),
    "processes": plan_inputs("runtime.nproc=2", "runtime.stack_check=false", needs_stack=True),
}


@pytest.mark.parametrize("inputs", PLANS.values(), ids=PLANS)
def test_every_requirement_is_covered_by_an_item_that_occurs_once(inputs):
    text, _ = render_plan(inputs)
    items = items_of(text)
    assert len(items) == len(set(items))
    assert set(items) == {item for items in REQUIRED.values() for item in items}
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert "\n\n\n" not in text
    assert "None" not in text.replace("None.", "")


def test_items_after_the_run_are_answered_by_the_audit_or_a_person():
    text, _ = render_plan(PLANS["complete"])
    answered_by = {item: by for item, _, by in AFTER_RUN.findall(text)}
    audited = [by.removeprefix("audit:") for by in answered_by.values() if by.startswith("audit:")]
    roles = [by for by in answered_by.values() if by.startswith("sign-off: ")]
    assert (len(set(audited)), len(set(roles))) == (10, 2)
    assert len(answered_by) == 12
    assert set(audited) < AUDIT


def test_every_item_that_may_be_open_is_listed_and_marked_in_the_order_of_the_plan():
    text, unanswered = render_plan(EVERYTHING_OPEN)
    card = ["source", "licence", "approval", "filtering"]
    assert list(unanswered) == [*card, "counts", "stack", "environment", "stamp"]
    assert list(unanswered) == [item for item in items_of(text) if item in unanswered]
    assert "**8 NOT ANSWERED**" in text
    for heading, item in HEADING.findall(text):
        marked = f"(`{item}`)\n\n**NOT ANSWERED**: {heading.lower()}, because "
        assert (marked in text) == (item in unanswered), item
        listed = f"\n- `{item}`, {unanswered.get(item)}\n"
        assert (listed in text) == (item in unanswered), item


@pytest.mark.parametrize(
    ("inputs", "item", "reason"),
    [
        (plan_inputs(NO_CARD[0]), "source", "source open; set dataset.card.source="),
        (plan_inputs(NO_CARD[1]), "licence", "license open; set dataset.card.license="),
        (plan_inputs(NO_CARD[2]), "approval", "approval open; set dataset.card.approval="),
        (plan_inputs(NO_CARD[3]), "filtering", "filtering open; set dataset.card.filtering="),
        (plan_inputs(*PARTIAL), "counts", "partial copy and was not counted; run `python -m"),
        (plan_inputs(examination={"verdict": "wrong", "counts": COUNTS}), "counts", "copy wrong"),
        (plan_inputs(needs_stack=True), "stack", "run python -m fgvc.run task=check"),
        (plan_inputs(stamp={"requirements_checksum": None}), "environment", "a checkout"),
        (plan_inputs(stamp={"git_commit": None}), "stamp", "does not run from a commit; run from"),
        (plan_inputs(stamp={"git_commit": None, "git_error": "<b>"}), "stamp", "because &lt;b&gt;"),
    ],
)
def test_an_item_is_open_for_one_reason(inputs, item, reason):
    text, unanswered = render_plan(inputs)
    assert list(unanswered) == [item]
    assert reason in unanswered[item]
    assert "**1 NOT ANSWERED**" in text


def test_numbers_of_task_doctor_take_precedence():
    text, _ = render_plan(PLANS["counted"])
    assert (
        "\n2 of 200 classes, 12 of 5,994 train, counted by task=doctor; verdict: partial.\n" in text
    )
    assert "on 2 classes" in text


def test_deviations_are_listed():
    text, _ = render_plan(PLANS["published-weights"])
    assert text.endswith("(`complexity`)\n\nNone.\n")
    deviations = {
        "counted": ["a partial copy of the dataset", "random weights"],
        "processes": ["random weights", "runtime.stack_check=false"],
    }
    for name, expected in deviations.items():
        text, _ = render_plan(PLANS[name])
        rows = text.partition("(`complexity`)")[2].splitlines()[4:]
        assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == expected
