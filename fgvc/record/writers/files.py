"""The results of a run -> its JSON files, tables, checkpoint, overlays and page."""

from __future__ import annotations

from pathlib import Path

from fgvc import metrics
from fgvc.record import checkpoint, env_stamp, prediction_tables
from fgvc.record.run_dir import OVERLAY_FACTS, OVERLAYS_FOLDER, UNREADABLE_FILE
from fgvc.record.writers.run_record import RunRecord, WriterSpec
from fgvc.store import atomic, hashing


def write_checkpoint(record: RunRecord) -> None:
    """Write ckpt.bin, or copy the checkpoint that was evaluated, and note its id in the folder."""
    folder = record.run.path
    if isinstance(record.checkpoint, Path):
        record.run.checkpoint_id = checkpoint.copy(record.checkpoint, folder)
    else:
        record.run.checkpoint_id = checkpoint.write(folder, *record.checkpoint)


def write_stamp(record: RunRecord) -> None:
    """Write env_stamp.json; ValueError if it violates its schema."""
    record.run.write_json(
        "env_stamp.json", dict(env_stamp.validate({**record.stamp, **record.end}))
    )


def write_label_map(record: RunRecord) -> None:
    """Write index, id and name of each class, and the tree above the classes if there is one."""
    labelmap, hierarchy = record.dataset.labelmap, record.dataset.hierarchy
    classes = [
        {"index": index, "id": key, "name": name}
        for index, (key, name) in enumerate(zip(labelmap.ids, labelmap.names, strict=True))
    ]
    entries: dict[str, object] = {"classes": classes, "checksum": labelmap.digest}
    if hierarchy is not None:  # determines the distances of mistakes
        entries["parents"] = [list(chain) for chain in hierarchy.chain]
        entries["nodes"] = dict(hierarchy.names)
    record.run.write_json("labelmap.json", entries)


def write_splits(record: RunRecord) -> None:
    """Write the paths of each split, and digests of these files."""
    dataset = record.dataset
    digests: dict[str, object] = {}
    for split in ("train", "val", "test"):
        rows = getattr(dataset.split, f"{split}_N").tolist()
        text = "".join(f"{dataset.manifest.path[row]}\n" for row in rows)
        record.run.write_text(f"splits/{split}.txt", text)
        digests[split] = {"sha256": hashing.sha256_bytes(text.encode()), "images": len(rows)}
    digests["split_digest"] = dataset.split_digest
    record.run.write_json("splits/digests.json", digests)


def write_metrics(record: RunRecord) -> None:
    record.run.write_json("metrics.json", record.timed_numbers)


def write_unreadable(record: RunRecord) -> None:
    """List the images that cannot be read, if there are any."""
    if record.unreadable:
        record.run.write_json(UNREADABLE_FILE, record.unreadable)


def write_predictions(record: RunRecord) -> None:
    """Write one row per image, and one row per class."""
    dataset = record.dataset
    with atomic.open_atomic(record.run.path / "predictions.parquet") as file:
        prediction_tables.write_predictions(file, dataset.manifest, record.predictions)
    rows = metrics.class_rows(record.confusion, dataset.labelmap.names)
    record.run.write_text("per_class.csv", prediction_tables.class_rows_csv(rows, dataset.labelmap))


def write_confusion(record: RunRecord) -> None:
    """Write the confusion matrix of the test split as a table and as a plot."""
    backbone, dataset = record.conf.backbone, record.dataset
    counts, names = record.confusion, dataset.labelmap.names
    record.run.write_text("confusion.csv", prediction_tables.confusion_csv(counts, names))
    model, about = f"{backbone.name} {backbone.size}", (dataset.name, dataset.partial)
    plot = prediction_tables.confusion_plot(counts, names, dataset.hierarchy, model, *about)
    record.run.write_text("confusion.svg", plot)


def write_overlays(record: RunRecord) -> None:
    """Write the attention maps of some test images, also to TensorBoard, and which they are."""
    drawn = {}
    for name, facts, png in record.images.overlays():
        record.run.write_bytes(f"{OVERLAYS_FOLDER}/{name}.png", png)
        record.board.image(f"view/overlays/{name}", png)
        drawn[f"{name}.png"] = facts
    if drawn:
        record.run.write_json(f"{OVERLAYS_FOLDER}/{OVERLAY_FACTS}", drawn)


def write_page(record: RunRecord) -> None:
    """Write the page of a run whose other files are complete."""
    from fgvc.record import run_page
    from fgvc.record.run_page.gallery import Album

    run, album = record.run, Album(record.images.pixels)
    assert run.checkpoint_id is not None, "the checkpoint comes first"
    text = run_page.derive(
        run.path, record.conf, record.name, run.checkpoint_id, record.board.history, album
    )
    run.write_text("report.html", text)


CHECKPOINT = WriterSpec((checkpoint.FILE,), write_checkpoint)
STAMP = WriterSpec(("env_stamp.json",), write_stamp)
LABEL_MAP = WriterSpec(("labelmap.json",), write_label_map)
SPLITS = WriterSpec(("splits/",), write_splits)
METRICS = WriterSpec(("metrics.json",), write_metrics)
UNREADABLE = WriterSpec((UNREADABLE_FILE,), write_unreadable)
PREDICTIONS = WriterSpec(("predictions.parquet", "per_class.csv"), write_predictions)
CONFUSION = WriterSpec(("confusion.csv", "confusion.svg"), write_confusion)
OVERLAYS = WriterSpec((f"{OVERLAYS_FOLDER}/",), write_overlays)
PAGE = WriterSpec(("report.html",), write_page)
