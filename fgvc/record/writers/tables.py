"""Predictions -> predictions.parquet, per_class.csv, and the confusion matrix as table and plot."""

from __future__ import annotations

from fgvc.record import prediction_tables
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
    from fgvc.record.confusion_plot import confusion_plot

    backbone, dataset = record.conf.backbone, record.dataset
    matrix, names = record.confusion, dataset.labelmap.names
    record.run.write_text("confusion.csv", prediction_tables.confusion_csv(matrix, names))
    model = f"{backbone.name} {backbone.size}"
    plot = confusion_plot(matrix, names, model, dataset.name, dataset.partial)
    record.run.write_text("confusion.svg", plot)


PREDICTIONS = WriterSpec("predictions", ("predictions.parquet", "per_class.csv"), write_predictions)
CONFUSION = WriterSpec("confusion matrix", ("confusion.csv", "confusion.svg"), write_confusion)
