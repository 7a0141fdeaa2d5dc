"""Predictions -> predictions.parquet, per_class.csv, and the confusion matrix as table and plot."""

from __future__ import annotations

from fgvc.record import confusion_plot, prediction_tables
from fgvc.record.writers.run_record import RunRecord, WriterSpec


def write_predictions(record: RunRecord) -> None:
    """Write one row per image, and one row per class."""
    dataset = record.dataset
    table = prediction_tables.predictions_table(dataset.manifest, record.predictions)
    record.run.write_bytes("predictions.parquet", prediction_tables.parquet_bytes(table))
    per_class = prediction_tables.per_class_csv(record.test, dataset.labelmap)
    record.run.write_text("per_class.csv", per_class)


def write_confusion(record: RunRecord) -> None:
    """Write the confusion matrix of the test split."""
    backbone, dataset = record.conf.backbone, record.dataset
    names = dataset.labelmap.names
    record.run.write_text("confusion.csv", prediction_tables.confusion_csv(record.confusion, names))
    title = confusion_plot.confusion_title(
        backbone.name, backbone.size, dataset.name, dataset.partial
    )
    record.run.write_bytes(
        "confusion.png", confusion_plot.confusion_png(record.confusion, names, title)
    )


PREDICTIONS = WriterSpec("predictions", ("predictions.parquet", "per_class.csv"), write_predictions)
CONFUSION = WriterSpec("confusion matrix", ("confusion.csv", "confusion.png"), write_confusion)
