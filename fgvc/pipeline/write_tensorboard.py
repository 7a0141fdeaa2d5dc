"""A finished run -> its entries in TensorBoard, beside the curves that were logged during it.

N images.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fgvc import metrics, untrusted
from fgvc.config.schema import Config, TrainTask
from fgvc.data import loader
from fgvc.html.confusion import confusion_image
from fgvc.metrics import precision_recall
from fgvc.pipeline.experiment import Experiment, Results
from fgvc.record.tensorboard import projector
from fgvc.record.tensorboard.image_sheet import MAX_IMAGES
from fgvc.types import Predictions
from fgvc.untrusted.escape import fenced, markdown

THRESHOLDS = 127  # as in TensorBoard's own summaries
WORST = 10  # classes with a curve; all 200 classes of CUB would take 610 KiB per run


def write(
    experiment: Experiment, results: Results, numbers: Mapping[str, Mapping[str, object]]
) -> None:
    """Write the run's tb/ and close it; the texts of the run must exist.

    Args:
        numbers: by split, as in metrics.json.
    """
    for split, values in numbers.items():
        experiment.board.evaluation(split, values, results.steps)
    experiment.board.hparams(choices(experiment.conf))
    _texts(experiment, numbers)
    test = results.predictions["test"]
    matrix = metrics.confusion(test.logits_NC, test.label_N, experiment.num_classes)
    experiment.board.image("confusion/test", confusion_image(matrix))
    _mistakes(experiment, test)
    _curves(experiment, test)
    if results.features is not None and len(results.features.row_N):
        dataset = experiment.dataset
        experiment.board.embedding(
            projector.pca_points(results.features, test, dataset.manifest, dataset.labelmap)
        )
    experiment.board.close()


def choices(conf: Config) -> dict[str, str | float | int]:
    """The axes of a run and the options of a finetune, for the hparams tab."""
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
    """The numbers as a Markdown table, one column per split."""
    names = list(dict.fromkeys(name for values in numbers.values() for name in values))
    rows = [["", *numbers], ["---"] * (len(numbers) + 1)]
    rows += [[name, *(_cell(values.get(name)) for values in numbers.values())] for name in names]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_cell, value))}]"
    return f"{value:.4f}" if isinstance(value, float) else markdown("–" if value is None else value)


def _mistakes(experiment: Experiment, test: Predictions) -> None:
    """The most confident mistakes, most confident first; only these images are decoded again."""
    pred_N = metrics.topk(test.logits_NC, 1)[:, 0]
    wrong_N = np.flatnonzero((pred_N != test.label_N) & (pred_N != metrics.UNREADABLE))
    confidence_N = np.exp(metrics.log_probabilities(test.logits_NC[wrong_N]).max(axis=1))
    top_N = np.argsort(-confidence_N, kind="stable")[:MAX_IMAGES]
    names, captions = experiment.dataset.labelmap.names, {}
    for index, confidence in zip(wrong_N[top_N], confidence_N[top_N], strict=True):
        pred = f"{names[pred_N[index]]}, {100 * confidence:.0f} %"
        captions[int(test.row_N[index])] = f"true: {names[test.label_N[index]]}\nsaid: {pred}"
    rows = np.array(list(captions), np.int64)
    manifest, preprocess = experiment.dataset.manifest, experiment.extractor.preprocess
    for batch in loader.batches(manifest, rows, preprocess, MAX_IMAGES, num_workers=0):
        batch_captions = [captions[row] for row in batch.row_B.tolist()]
        experiment.board.images("mistakes/test", batch.pixels_BCHW, batch_captions)


def _curves(experiment: Experiment, test: Predictions) -> None:
    """Precision-recall curves: of all classes together, and of those with the lowest F1 score."""
    names = experiment.dataset.labelmap.names
    counts = precision_recall.count_by_threshold(test.logits_NC, test.label_N, THRESHOLDS)
    experiment.board.curve("all/macro", precision_recall.macro(counts))
    experiment.board.curve("all/micro", precision_recall.micro(counts))
    rows = metrics.per_class(test.logits_NC, test.label_N, names)
    rows = sorted((row for row in rows if row["support"]), key=lambda row: row["f1"])
    for row in rows[:WORST]:
        experiment.board.curve(
            f"worst/{row['name']}", precision_recall.of_class(counts, row["index"])
        )
