"""Texts on the record of a run: events, views, tables, label map, stamp, checkpoint, retention."""

from __future__ import annotations

import json

from fgvc.record import env_stamp as stamps
from fgvc.record.tensorboard import KEYS, TRAINING
from fgvc.report.plan.inputs import PlanInputs, Unanswered
from fgvc.untrusted.escape import fenced, markdown

TABLE = (
    "backbone, config name (`task`, `head`, `resolution`, `part_attention`), `normalization`, "
    "resolution, token grid, head size, seed, config and checkpoint hash, top-1 with interval, "
    "top-5, mean per class, macro-F1, loss, calibration error, cost, comparability key, "
    "contamination and licence"
)
EXCERPT = ("python_version", "torch_version", "env_hash", "requirements_checksum")


def tensorboard(inputs: PlanInputs) -> str:
    keys = TRAINING if inputs.task == "train" else KEYS
    return (
        f"`{inputs.folder}/tb/`: {', '.join(f'`{key}`' for key in keys)}, hyperparameters, the "
        "command and the confusion matrix."
    )


def fiftyone(inputs: PlanInputs) -> str:
    return (
        f"`{inputs.folder}/fiftyone/`, a FiftyOneDataset with ground truth, prediction and "
        "confidence of each test image; it names run_id, config_hash and checkpoint_id, and "
        "`task=view run=…` opens it."
    )


def table(inputs: PlanInputs) -> str:
    return (
        f"`outputs/baselines.csv` and `.json`: {TABLE}. `per_class.csv` of each run has the "
        "numbers per class; the row of a finetune has its paired difference from its linear probe."
    )


def labels(inputs: PlanInputs) -> str:
    return (
        f"`{inputs.folder}/labelmap.json` maps index to class name and the dataset's own id, with "
        "its checksum. It is built from the class file of the dataset over all splits. Every "
        "load and `task=doctor` check it against the official number of classes, and an evaluation "
        "checks it against the checkpoint."
    )


def stamp(inputs: PlanInputs) -> str:
    required = stamps.schema()["required"]
    assert isinstance(required, list)
    if inputs.stamp["git_commit"] is None:
        why = inputs.stamp["git_error"] or "the program does not run from a commit"
        raise Unanswered(markdown(why), "run from a git checkout that Git can read")
    excerpt = {key: inputs.stamp[key] for key in EXCERPT} | {
        "config_hash": inputs.experiment.config_hash
    }
    return (
        f"`{inputs.folder}/env_stamp.json`, validated before it is written against "
        f"`fgvc/record/env_stamp.schema.json`, which requires {len(required)} fields: "
        f"{', '.join(required)}. Absent values (GPU, ml_collections) are null. A pull request "
        "cites the path and an excerpt, which `task=audit` prints; from this environment:\n\n"
        f"{fenced(json.dumps(excerpt, indent=2, sort_keys=True), 'json')}"
    )


def retention(inputs: PlanInputs) -> str:
    return (
        "Run folders (TensorBoard, FiftyOne, numbers) and baseline tables are kept at least 90 "
        "days. Evidence: the `retention.json` of each has its expiry and a checksum; "
        "the pull-request block quotes it, and `task=prune` removes nothing before the expiry."
    )


def contents(inputs: PlanInputs) -> str:
    return (
        "`per_class.csv` (accuracy, precision, recall and F1 of each class), `confusion.csv` and "
        "`.png` with the worst pairs in `metrics.json`, top-1 and top-5, and the misclassified "
        "images (`predictions.parquet`, a saved view in `fiftyone/`)."
    )


def sanity(inputs: PlanInputs) -> str:
    return (
        "`python -m pytest -m smoke` evaluates a single batch end to end before a long run is "
        "started, and `dataset.subset=tiny` does the same on this dataset. Tests are written "
        "before the code; `make check test` must pass before a merge."
    )


def checkpoints(inputs: PlanInputs) -> str:
    return (
        f"`{inputs.folder}/ckpt.bin`, which git ignores; a test refuses tracked weights. "
        "Its SHA256 is the checkpoint_id by which it is cited, and every load verifies it."
    )
