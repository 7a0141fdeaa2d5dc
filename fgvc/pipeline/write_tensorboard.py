"""A finished run -> what TensorBoard shows of it beside the curves that were drawn on the way.

N images.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fgvc import metrics, untrusted
from fgvc.config.schema import Config, TrainTask
from fgvc.data import loader
from fgvc.metrics import precision_recall
from fgvc.pipeline.experiment import Experiment, Results
from fgvc.record.tensorboard import projector
from fgvc.record.tensorboard.image_sheet import MAX_IMAGES
from fgvc.types import Predictions
from fgvc.untrusted.escape import fenced, markdown

THRESHOLDS = 127  # as TensorBoard's own summaries have
WORST = 10  # classes with a curve: all 200 of CUB would be 610 KiB a run


def write(
    experiment: Experiment, results: Results, numbers: Mapping[str, Mapping[str, object]]
) -> None:
    """Fill the run's tb/ and close it; confusion.png and the texts of the run lie there already.

    Args:
        numbers: by split, as in metrics.json.
    """
    for split, values in numbers.items():
        experiment.board.evaluation(split, values, results.steps)
    experiment.board.hparams(choices(experiment.conf))
    _texts(experiment, numbers)
    experiment.board.image(
        "confusion/test",
        untrusted.read_bytes(experiment.run.path / "confusion.png", untrusted.PICTURE),
    )
    test = results.predictions["test"]
    _mistakes(experiment, test)
    _curves(experiment, test)
    if results.features is not None and len(results.features.row_N):
        dataset = experiment.dataset
        experiment.board.embedding(
            projector.pca_points(results.features, test, dataset.manifest, dataset.labelmap)
        )
    experiment.board.close()


def choices(conf: Config) -> dict[str, str | float | int]:
    """The axes of a run, as a person names them, and what a finetune was set to."""
    axes = {
        "task": conf.task.name,
        "dataset": conf.dataset.name,
        "backbone": conf.backbone.name,
        "size": conf.backbone.size,
        "resolution": conf.resolution.side,
        "head": conf.head.name,
        "part_attention": conf.part_attention.name,
        "preprocess": conf.preprocess,
        "precision": conf.precision,
        "final_fit": conf.final_fit,
        "seed": conf.seed,
    }
    if not isinstance(conf.task, TrainTask):
        return axes
    names = ("epochs", "batch_size", "optimiser", "learning_rate", "layer_decay", "weight_decay")
    return axes | {name: getattr(conf.task, name) for name in names}


def _texts(experiment: Experiment, numbers: Mapping[str, Mapping[str, object]]) -> None:
    experiment.board.text("run/numbers", _table(numbers))
    for tag, name, language in (
        ("run/command", "command.txt", "sh"),
        ("run/config", "config.yaml", "yaml"),
        ("run/stamp", "env_stamp.json", "json"),
    ):
        text = untrusted.read_text(experiment.run.path / name)
        experiment.board.text(tag, fenced(text, language))


def _table(numbers: Mapping[str, Mapping[str, object]]) -> str:
    """The numbers as a Markdown table, a column a split."""
    names = list(dict.fromkeys(name for values in numbers.values() for name in values))
    rows = [["", *numbers], ["---"] * (len(numbers) + 1)]
    rows += [[name, *(_cell(values.get(name)) for values in numbers.values())] for name in names]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_cell, value))}]"
    return f"{value:.4f}" if isinstance(value, float) else markdown("–" if value is None else value)


def _mistakes(experiment: Experiment, test: Predictions) -> None:
    """The mistakes it was surest of, the surest first; only these pictures are decoded anew."""
    pred_N = metrics.topk(test.logits_NC, 1)[:, 0]
    wrong_N = np.flatnonzero((pred_N != test.label_N) & (pred_N != metrics.UNREADABLE))
    confidence_N = np.exp(metrics.log_probabilities(test.logits_NC[wrong_N]).max(axis=1))
    surest_N = np.argsort(-confidence_N, kind="stable")[:MAX_IMAGES]
    names, captions = experiment.dataset.labelmap.names, {}
    for place, confidence in zip(wrong_N[surest_N], confidence_N[surest_N], strict=True):
        said = f"{names[pred_N[place]]}, {100 * confidence:.0f} %"
        captions[int(test.row_N[place])] = f"true: {names[test.label_N[place]]}\nsaid: {said}"
    rows = np.array(list(captions), np.int64)
    manifest, preprocess = experiment.dataset.manifest, experiment.extractor.preprocess
    for batch in loader.batches(manifest, rows, preprocess, MAX_IMAGES, num_workers=0):
        shown = [captions[row] for row in batch.row_B.tolist()]
        experiment.board.pictures("mistakes/test", batch.pixels_BCHW, shown)


def _curves(experiment: Experiment, test: Predictions) -> None:
    """Precision and recall: over all classes, and of those with the lowest F1 score."""
    names = experiment.dataset.labelmap.names
    found = precision_recall.count_by_threshold(test.logits_NC, test.label_N, THRESHOLDS)
    experiment.board.curve("all/macro", precision_recall.macro(found))
    experiment.board.curve("all/micro", precision_recall.micro(found))
    rows = metrics.per_class(test.logits_NC, test.label_N, names)
    held = sorted((row for row in rows if row["support"]), key=lambda row: row["f1"])
    for row in held[:WORST]:
        experiment.board.curve(
            f"worst/{row['name']}", precision_recall.of_class(found, row["index"])
        )
