"""What a run leaves: events, views, tables, label map, stamp, checkpoint; and for how long."""

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


def tensorboard(about: PlanInputs) -> str:
    keys = TRAINING if about.task == "train" else KEYS
    return (
        f"`{about.folder}/tb/`: {', '.join(f'`{key}`' for key in keys)}, hyperparameters, the "
        "command and the confusion matrix."
    )


def fiftyone(about: PlanInputs) -> str:
    return (
        f"`{about.folder}/fiftyone/`, a FiftyOneDataset with ground truth, prediction and "
        "confidence of each test image; it names run_id, config_hash and checkpoint_id, and "
        "`task=view run=…` opens it."
    )


def table(about: PlanInputs) -> str:
    return (
        f"`outputs/baselines.csv` and `.json`: {TABLE}. Numbers per class stand in `per_class.csv` "
        "of each run; a finetune's row carries its paired difference from its linear probe."
    )


def labels(about: PlanInputs) -> str:
    return (
        f"`{about.folder}/labelmap.json` maps index to class name and the dataset's own id, with "
        "its checksum. It is built once from the dataset's own class file over all splits, held "
        "against the official number of classes by every load and by `task=doctor`, and compared "
        "again when a checkpoint is evaluated."
    )


def stamp(about: PlanInputs) -> str:
    required = stamps.schema()["required"]
    assert isinstance(required, list)
    if about.stamp["git_commit"] is None:
        why = about.stamp["git_error"] or "the program does not run from a commit"
        raise Unanswered(markdown(why), "run from a git checkout that Git can read")
    excerpt = {key: about.stamp[key] for key in EXCERPT} | {
        "config_hash": about.experiment.config_hash
    }
    return (
        f"`{about.folder}/env_stamp.json`, validated before it is written against "
        f"`fgvc/record/env_stamp.schema.json`, which asks for {len(required)} fields: "
        f"{', '.join(required)}. What is absent (a GPU, ml_collections) is null. A pull request "
        "cites its path with an excerpt, which `task=audit` prints; of this environment:\n\n"
        f"{fenced(json.dumps(excerpt, indent=2, sort_keys=True), 'json')}"
    )


def retention(about: PlanInputs) -> str:
    return (
        "Run folders (TensorBoard, FiftyOne, numbers) and baseline tables are kept at least 90 "
        "days. Evidence: `retention.json` beside each, with its expiry and a checksum of its own; "
        "the pull-request block quotes it, and `task=prune` removes nothing before."
    )


def contents(about: PlanInputs) -> str:
    return (
        "`per_class.csv` (accuracy, precision, recall and F1 of each class), `confusion.csv` and "
        "`.png` with the worst pairs in `metrics.json`, top-1 and top-5, and the misclassified "
        "images (`predictions.parquet`, a saved view in `fiftyone/`)."
    )


def sanity(about: PlanInputs) -> str:
    return (
        "`python -m pytest -m smoke` evaluates a single batch end to end before anything long is "
        "started, and `dataset.subset=tiny` does so on this dataset. Tests are written before "
        "what they test; `make check test` is green before a merge."
    )


def checkpoints(about: PlanInputs) -> str:
    return (
        f"`{about.folder}/ckpt.bin`, in a folder that git ignores; a test refuses tracked weights. "
        "Its SHA256 is the checkpoint_id by which it is cited, and is verified on every load."
    )
