"""The results of a run -> its entries in TensorBoard, beside the curves of its training.

N images.
"""

from __future__ import annotations

from operator import attrgetter

import numpy as np

from fgvc import metrics, untrusted
from fgvc.config.schema import Config, TrainTask
from fgvc.html.class_names import display_names
from fgvc.metrics import precision_recall
from fgvc.metrics.predictions import THRESHOLDS
from fgvc.record.tensorboard import projector
from fgvc.record.tensorboard.hparams import CHOICES, TRAINING_CHOICES
from fgvc.record.tensorboard.image_sheet import MAX_IMAGES
from fgvc.record.writers.run_record import RunRecord, WriterSpec
from fgvc.untrusted.escape import fenced, markdown

WORST = 10  # classes with a curve; all 200 classes of CUB would take 610 KiB per run
TEXTS = (
    ("run/command", "command.txt", "sh"),
    ("run/config", "config.yaml", "yaml"),
    ("run/stamp", "env_stamp.json", "json"),
)


def write(record: RunRecord) -> None:
    """Write the run's tb/ and close it; the files of TEXTS must exist."""
    from fgvc.html.confusion import confusion_image

    board, numbers = record.board, {split: record.numbers[split] for split in record.predictions}
    for split, values in numbers.items():
        board.evaluation(split, values, record.steps)
    parts = record.numbers.get("parts", {}).get(record.conf.part_attention.name, {})
    for key, mean in parts.items():
        if mean["value"] is not None:
            board.scalar(f"parts/{key}", mean["value"], record.steps)
    board.hparams(choices(record.conf))
    names = dict.fromkeys(name for values in numbers.values() for name in values)
    rows = [["", *numbers], ["---"] * (len(numbers) + 1)]
    rows += [[name, *(_cell(values.get(name)) for values in numbers.values())] for name in names]
    board.text("run/numbers", "\n".join(f"| {' | '.join(row)} |" for row in rows))
    for tag, name, language in TEXTS:
        board.text(tag, fenced(untrusted.read_text(record.run.path / name), language))
    board.image("view/confusion", confusion_image(record.confusion))
    _write_mistakes(record)
    _write_curves(record)
    if record.features is not None and len(record.features.row_N):
        data = record.dataset
        points = projector.pca_points(record.features, record.test, data.manifest, data.labelmap)
        board.embedding(*points)
    board.close()


def choices(conf: Config) -> dict[str, str | float | int]:
    """The axes of a run and the options of a finetune, for the hparams tab."""
    return {
        name: attrgetter(place)(conf)
        for name, place in CHOICES.items()
        if name not in TRAINING_CHOICES or isinstance(conf.task, TrainTask)
    }


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_cell, value))}]"
    return f"{value:.4f}" if isinstance(value, float) else markdown("–" if value is None else value)


def _write_mistakes(record: RunRecord) -> None:
    """Write a sheet of the most confident mistakes, most confident first."""
    test, names = record.test, display_names(record.dataset.labelmap.names)
    pred_N = test.pred_N
    wrong_N = np.flatnonzero((pred_N != test.label_N) & (pred_N != metrics.UNREADABLE))
    confidence_N = test.score_NK[wrong_N, 0]
    top_N = np.argsort(-confidence_N, kind="stable")[:MAX_IMAGES]
    captions = {}
    for index, confidence in zip(wrong_N[top_N], confidence_N[top_N], strict=True):
        pred = f"{names[pred_N[index]]}, {100 * confidence:.0f} %"
        captions[int(test.row_N[index])] = f"true: {names[test.label_N[index]]}\npredicted: {pred}"
    for batch in record.images.network_views(np.array(list(captions), np.int64)):
        sheet = [captions[row] for row in batch.row_B.tolist()]
        record.board.images("view/mistakes", batch.pixels_BCHW, sheet)


def _write_curves(record: RunRecord) -> None:
    """Write precision-recall curves: of all classes together, and of those with the lowest F1."""
    test, board = record.test, record.board
    names = display_names(record.dataset.labelmap.names)
    counts = test.curves
    if counts is None:
        assert test.logits_NC is not None
        counts = precision_recall.count_by_threshold(test.logits_NC, test.label_N, THRESHOLDS)
    board.curve("all/macro", precision_recall.macro(counts))
    board.curve("all/micro", precision_recall.micro(counts))
    rows = metrics.class_rows(record.confusion, names)
    rows = sorted((row for row in rows if row["support"]), key=lambda row: row["f1"])
    for row in rows[:WORST]:
        board.curve(f"worst/{row['name']}", precision_recall.of_class(counts, row["index"]))


WRITER = WriterSpec(("tb/",), write)
