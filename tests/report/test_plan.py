"""The list of what a plan must tell: complete against the project's own requirements."""

from __future__ import annotations

from fgvc.report.audit import CHECKS
from fgvc.report.audit.check import check_id
from fgvc.report.plan import ITEMS
from fgvc.report.plan.items import PLAN, SECTIONS
from fgvc.report.plan.sections import ANSWERS

AUDIT = {check_id(check) for check in CHECKS}
# what every plan of this project owes its reader, in our words -> the items that answer it
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
    "label order held against the definition": ["labels", "audit-labelmap"],
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
    "what the pretrained weights are and have seen": ["backbone"],
    "how many classes and images": ["counts"],
}


def test_every_item_is_named_once_and_answered_by_someone():
    ids = [item.id for item in ITEMS]
    assert len(ids) == len(set(ids))
    assert {item.section for item in ITEMS} == set(SECTIONS)
    assert {item.id for item in ITEMS if item.answered_by == PLAN} == set(ANSWERS)
    others = [item.answered_by for item in ITEMS if item.answered_by != PLAN]
    audited = {one.removeprefix("audit:") for one in others if one.startswith("audit:")}
    assert len(audited) == 10
    assert audited < AUDIT
    roles = [one for one in others if not one.startswith("audit:")]
    assert all(one.startswith("sign-off: ") for one in roles)
    assert len(roles) == 2


def test_every_requirement_is_covered_and_every_item_is_required():
    ids = {item.id for item in ITEMS}
    named = {name for names in REQUIRED.values() for name in names}
    assert named == ids
