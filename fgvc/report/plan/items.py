"""The items of a plan: one line per item, and who answers it.

`plan`: the document itself, from the config and the records. `audit:ID`: the check with that id, on
the finished run. `sign-off: ROLE`: a named person in that role, before the run is cited.
"""

from __future__ import annotations

from dataclasses import dataclass

PLAN = "plan"
SUMMARY = "Summary"
CONTEXT = "Technical context"
CHECK = "Constitution check"
STRUCTURE = "Project structure"
NOTES = "Research, data model, quickstart, contracts"
COMPLEXITY = "Complexity tracking"
SECTIONS = (SUMMARY, CONTEXT, CHECK, STRUCTURE, NOTES, COMPLEXITY)


@dataclass(frozen=True)
class Item:
    """id: stable, for tests and reviews. asks: the question or condition in one line."""

    id: str
    section: str
    asks: str
    answered_by: str = PLAN


ITEMS = (
    Item("question", SUMMARY, "Question and approach"),
    Item("language", CONTEXT, "Language and version"),
    Item("dependencies", CONTEXT, "Primary dependencies"),
    Item("storage", CONTEXT, "Storage"),
    Item("testing", CONTEXT, "Testing"),
    Item("platform", CONTEXT, "Target platform"),
    Item("project-type", CONTEXT, "Project type"),
    Item("performance", CONTEXT, "Performance goals"),
    Item("constraints", CONTEXT, "Constraints"),
    Item("scale", CONTEXT, "Scale and scope"),
    Item("commands", CHECK, "Exact commands: baseline, experiment, evaluation, report, audit"),
    Item("configs", CHECK, "Config files and hashes"),
    Item("seeds", CHECK, "Seeds"),
    Item("outputs", CHECK, "Where a run is written"),
    Item("source", CHECK, "Source of the data"),
    Item("licence", CHECK, "Licence of the data"),
    Item("approval", CHECK, "Approval of the data"),
    Item("filtering", CHECK, "Filtering of the data"),
    Item("counts", CHECK, "Classes and images"),
    Item("smoke", CHECK, "Smoke test on a tiny subset"),
    Item("evaluation", CHECK, "Split, resolution and metrics, tied to a checkpoint"),
    Item("devices", CHECK, "Devices, processes, and paths as parameters"),
    Item("axes", CHECK, "Axes of variation, and what keeps them comparable"),
    Item("backbone", CHECK, "Pretrained weights: licence and training data"),
    Item("normalization", CHECK, "Normalization, and where it is recorded"),
    Item("stack", CHECK, "The recording stack, validated"),
    Item("baseline", CHECK, "Linear-probe baseline beside the experiment"),
    Item("environment", CHECK, "Environment, and how to create it"),
    Item("tensorboard", CHECK, "TensorBoard: place and keys"),
    Item("fiftyone", CHECK, "FiftyOne: place, and links to config and checkpoint"),
    Item("table", CHECK, "Baseline table: fields, numbers per class, joins"),
    Item("labels", CHECK, "Label map: order, validation, checksum"),
    Item("stamp", CHECK, "Environment stamp: fields, schema, place, excerpt"),
    Item("retention", CHECK, "How long artefacts are kept, and the evidence"),
    Item("contents", CHECK, "Minimum contents of a record"),
    Item("sanity", CHECK, "Single-batch sanity check, and tests first"),
    Item("checkpoints", CHECK, "Checkpoints: never committed, named by their digest"),
    Item("audit-hashes", CHECK, "Every file is unchanged since it was written", "audit:hashes"),
    Item("audit-stamp", CHECK, "The stamp satisfies its schema", "audit:stamp"),
    Item("audit-labelmap", CHECK, "The label map is the dataset's own", "audit:labelmap"),
    Item("audit-splits", CHECK, "Splits are disjoint and match their digests", "audit:splits"),
    Item("audit-counts", CHECK, "Numbers of classes and images are as stated", "audit:counts"),
    Item("audit-contents", CHECK, "The minimum contents are complete", "audit:minimum-contents"),
    Item("audit-metrics", CHECK, "Numbers follow from predictions", "audit:metrics-follow"),
    Item("audit-retention", CHECK, "Kept at least 90 days, as recorded", "audit:retention"),
    Item("audit-checkpoint", CHECK, "No checkpoint is tracked", "audit:checkpoint-ignored"),
    Item("audit-command", CHECK, "The exact command is recorded", "audit:command-recorded"),
    Item("signed-licence", CHECK, "The licence permits this use", "sign-off: licence reviewer"),
    Item("signed-approval", CHECK, "This data may be used here", "sign-off: data approver"),
    Item("documents", STRUCTURE, "Documents of this question"),
    Item("source-tree", STRUCTURE, "Source tree"),
    Item("decision", STRUCTURE, "Reason for this layout"),
    Item("research", NOTES, "Research"),
    Item("data-model", NOTES, "Data model"),
    Item("quickstart", NOTES, "Quickstart"),
    Item("contracts", NOTES, "Contracts"),
    Item("complexity", COMPLEXITY, "Deviations that must be justified"),
)
